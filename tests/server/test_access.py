from __future__ import annotations

import pytest

from server.access import TokenGate


async def status_of(gate: TokenGate, path: str, *authorization: bytes) -> int:
    sent: list = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.request"}

    await gate({"type": "http", "path": path, "headers": [(b"authorization", value) for value in authorization]}, receive, send)
    return sent[0]["status"]


async def let_in(scope, receive, send):
    await send({"type": "http.response.start", "status": 200})


@pytest.mark.parametrize(
    ("path", "authorization", "status"),
    [
        ("/api/v1/status", [b"Bearer right"], 200),
        ("/api/v1/status", [b"Bearer wrong"], 401),
        ("/api/v1/status", [b"Bearer right "], 401),
        ("/api/v1/status", [b"right"], 401),
        ("/api/v1/status", [b"Bearer wrong", b"Bearer right"], 401),
        ("/api/v1/status", [], 401),
        ("/healthz", [], 200),
        ("/healthz/../api/v1/status", [], 401),
        ("/metrics", [], 401),
    ],
)
async def test_only_the_token_opens(path, authorization, status):
    assert await status_of(TokenGate(let_in, "right"), path, *authorization) == status


async def test_metrics_may_be_open():
    assert await status_of(TokenGate(let_in, "right", {"/metrics"}), "/metrics") == 200
