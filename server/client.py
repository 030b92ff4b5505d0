"""The CLI's way to a daemon: its admin REST over the state directory's unix socket, or HTTP(S) with a token.

Every failure is a UserError: exit 3 where no daemon lets us in, exit 1 where it answered no. Answers are bounded.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from server.errors import Exit, UserError

ANSWER_BYTES_MAX = 64 << 20
TIMEOUT_SECONDS = 60.0
"""`doctor` measures flushes; everything else answers in milliseconds."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class AdminClient:
    """`url` and `token` for a daemon elsewhere; without them the socket at `socket_path`."""

    def __init__(self, socket_path: Path, url: str | None = None, token: str | None = None) -> None:
        self._socket_path = socket_path
        self._url = url
        self._token = token

    def get(self, path: str, /, **query: str | None) -> Any:
        given = {name: value for name, value in query.items() if value is not None}
        return self._request("GET", f"{path}?{urlencode(given)}" if given else path)

    def post(self, path: str, body: Mapping[str, Any], *, patient: bool = False) -> Any:
        """`patient`: the answer may take hours."""
        return self._request("POST", path, body, None if patient else TIMEOUT_SECONDS)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._request("PATCH", path, body)

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._request("PUT", path, body)

    def delete(self, path: str, /, **query: str | None) -> Any:
        given = {name: value for name, value in query.items() if value is not None}
        return self._request("DELETE", f"{path}?{urlencode(given)}" if given else path)

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None = None, timeout: float | None = TIMEOUT_SECONDS) -> Any:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        connection = self._connection(timeout)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            content = response.read(ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        finally:
            connection.close()
        return _result(response.status, content)

    def _connection(self, timeout: float | None) -> http.client.HTTPConnection:
        if self._url is None:
            return _UnixConnection(self._socket_path, timeout)
        parts = urlsplit(self._url)
        try:
            where = parts.hostname or "", parts.port or 9001
        except ValueError:
            where = "", 0
        if parts.scheme not in ("http", "https") or not where[0]:
            raise UserError(f"{self._url!r} is not an admin URL such as https://host:9001")
        if parts.scheme == "https":
            return http.client.HTTPSConnection(*where, timeout=timeout, context=ssl.create_default_context())
        return http.client.HTTPConnection(*where, timeout=timeout)

    def _unreachable(self, error: Exception) -> UserError:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        where = self._url or str(self._socket_path)
        hint = "" if self._url else "; is it running, and is this its state directory (--state)?"
        if isinstance(error, PermissionError):
            hint = "; only root and the daemon's own user may use it"
        return UserError(f"no daemon answers at {where}: {reason}{hint}", exit_code=Exit.UNREACHABLE, kind="unreachable")


def _result(status: int, content: bytes) -> Any:
    try:
        answer = json.loads(content) if content else None
    except ValueError:
        raise UserError("what answers there is no trefoil daemon", exit_code=Exit.UNREACHABLE, kind="unreachable") from None
    if status < 400:
        return answer
    fields = answer if isinstance(answer, dict) else {}
    sentence = str(fields.get("error", f"the daemon answered {status}"))
    kind = str(fields.get("kind", "invalid"))
    raise UserError(sentence, exit_code=Exit.UNREACHABLE if status == 401 else Exit.FAILED, kind=kind)


def connect(state: Path, url: str | None) -> AdminClient:
    """TREFOIL_ADMIN_URL and TREFOIL_ADMIN_TOKEN stand in for what is not given."""
    return AdminClient(state / "admin.sock", url or os.environ.get("TREFOIL_ADMIN_URL"), os.environ.get("TREFOIL_ADMIN_TOKEN"))


def quoted(name: str) -> str:
    """One segment of a path, whatever a person typed."""
    return quote(name, safe="")
