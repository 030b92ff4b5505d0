"""Who may use the admin API over TCP: whoever has the token. Probes and, if configured so, metrics are open.

The unix socket needs no token: `listen.SameUserProtocol` lets in root and the daemon's own user only.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Collection

from server.telemetry.requests import Asgi, Receive, Scope, Send

PROBES = frozenset({"/healthz", "/readyz"})


class TokenGate:
    def __init__(self, app: Asgi, token: str, open_paths: Collection[str] = PROBES) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._open_paths or self._is_let_in(scope):
            await self._app(scope, receive, send)
            return
        body = json.dumps({"error": "the admin API needs its token: Authorization: Bearer <admin-token>", "kind": "unauthorized"}).encode()
        headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 401, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _is_let_in(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)
