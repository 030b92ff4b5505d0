"""One request to the gateway without a server: for fuzzing and for exact control of what the client does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from protocols.auth import Authenticator
from protocols.auth.sigv4 import Verified
from protocols.s3 import S3Config, S3Gateway
from tests.model.store import ModelStore


class TrustingAuthenticator(Authenticator):
    """Every request comes from root: what is tested lies behind the signature."""

    async def authenticate(self, request: Any) -> Verified | None:
        credential = await self.credential("ROOTROOTROOT")
        assert credential is not None
        form = request.headers.get(b"x-amz-content-sha256", b"UNSIGNED-PAYLOAD").decode("latin-1")
        return Verified(credential, form, None)


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    body_was_asked_for: bool = False


@dataclass
class Caller:
    gateway: S3Gateway

    async def call(
        self,
        method: str,
        path: bytes,
        query: bytes = b"",
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: bytes = b"",
        disconnect: bool = False,
        into: list[Answer] | None = None,
    ) -> Answer:
        answer = Answer()
        if into is not None:
            into.append(answer)
        messages: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": disconnect}]

        async def receive() -> dict[str, Any]:
            answer.body_was_asked_for = True
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in message["headers"]}
            else:
                answer.body += message.get("body", b"")
                answer.complete = not message.get("more_body", False)

        all_headers = [(b"host", b"localhost"), *headers]
        if not any(name in (b"content-length", b"transfer-encoding") for name, _ in headers):
            all_headers.append((b"content-length", str(len(body)).encode()))
        scope = {"type": "http", "method": method, "raw_path": path, "query_string": query, "headers": all_headers}
        await self.gateway(scope, receive, send)
        return answer


@dataclass
class Local(Caller):
    store: ModelStore


def local(config: S3Config | None = None) -> Local:
    store = ModelStore()
    auth = TrustingAuthenticator(store)
    asyncio.run(auth.ensure_root("ROOTROOTROOT", "rootrootroot"))
    return Local(S3Gateway(store, auth, config or S3Config()), store)
