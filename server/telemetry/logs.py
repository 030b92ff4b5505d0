"""Structured logs on standard error: one JSON object a line, or text for people.

Every record made while a request is served carries its id, the same as the answer's `x-amz-request-id`. Never logs a header, a query or a key of a signature.
"""

from __future__ import annotations

import contextvars
import json
import logging
import sys
import time
from typing import Any

from server.config import LogSection

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
FIELD_CHARS_MAX = 4096
"""A key may be long and a header longer; a log line stays a line that tools accept."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:FIELD_CHARS_MAX],
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={value!s}" for name, value in _fields(record).items())
        text = f"{_timestamp(record)} {record.levelname:<7} {record.getMessage()} {fields}".rstrip().replace("\n", "\\n")
        return text + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


def configure(settings: LogSection) -> None:
    """Send all logging, uvicorn's included, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=settings.level.upper(), force=True)
    # Start, stop and address are ours to log; a library's second account of them is noise.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.captureWarnings(True)


def _timestamp(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was passed as `extra`, and the request id."""
    fields = {name: _bounded(value) for name, value in vars(record).items() if name not in _STANDARD}
    current = request_id.get()
    return {"request_id": current, **fields} if current else fields


def _bounded(value: Any) -> Any:
    return value[:FIELD_CHARS_MAX] if isinstance(value, str) else value
