from __future__ import annotations

import contextvars
import json
import logging

from server.telemetry.logs import FIELD_CHARS_MAX, JsonFormatter, TextFormatter, request_id


def record(message: str, **extra) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "trefoil.test", "msg": message, "levelno": logging.INFO, "levelname": "INFO"})
    vars(made).update(extra)
    return made


def in_request(identity: str, function):
    def call():
        request_id.set(identity)
        return function()

    return contextvars.copy_context().run(call)


def test_json_is_one_line_with_fields_and_request_id():
    text = in_request("ID1", lambda: JsonFormatter().format(record("two\nlines", bucket='a"b')))
    assert "\n" not in text
    line = json.loads(text)
    assert (line["message"], line["bucket"], line["request_id"], line["level"]) == ("two\nlines", 'a"b', "ID1", "info")
    assert line["time"].endswith("Z")


def test_text_cannot_be_forged_by_a_newline():
    text = TextFormatter().format(record("request", path="/a\nforged"))
    assert "\n" not in text


def test_fields_are_bounded():
    assert len(json.loads(JsonFormatter().format(record("m", key="x" * 100_000)))["key"]) == FIELD_CHARS_MAX


def test_exceptions_are_kept():
    try:
        raise ValueError("story")
    except ValueError as error:
        made = record("failed", exc_info=(ValueError, error, error.__traceback__))
    assert "ValueError: story" in json.loads(JsonFormatter().format(made))["exception"]
