"""A gateway over the model store behind uvicorn in a thread, for tests that need real HTTP."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
import uvicorn
from botocore.config import Config
from botocore.exceptions import ClientError

from protocols.auth import Authenticator
from protocols.s3 import S3Config, S3Gateway
from protocols.s3.http import S3HttpProtocol
from tests.model.store import ModelStore

ALICE = ("ALICEALICEALICEALICE", "alice-secret-alice-secret-alice-secret-1")
BOB = ("BOBBOBBOBBOBBOBBOBBO", "bob-secret-bob-secret-bob-secret-bob-sec")
ROOT = ("ROOTROOTROOTROOTROOT", "root-secret-root-secret-root-secret-root")
START_SECONDS_MAX = 20


@dataclass
class Server:
    port: int
    store: ModelStore
    auth: Authenticator
    gateway: S3Gateway
    _server: uvicorn.Server
    _thread: threading.Thread

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, credentials: tuple[str, str] = ALICE, **config: Any) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=credentials[0],
            aws_secret_access_key=credentials[1],
            config=Config(retries={"max_attempts": 0, "mode": "standard"}, **config),
        )

    def connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(START_SECONDS_MAX)


def code_of(call: Callable[..., Any], **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


async def make_accounts(auth: Authenticator) -> None:
    await auth.ensure_root(*ROOT)
    for name, credentials in (("alice", ALICE), ("bob", BOB)):
        await auth.create_user(name, display_name=name.title(), email=f"{name}@example.com")
        await auth.create_key(name, *credentials)


def start(config: S3Config | None = None) -> Server:
    store = ModelStore()
    auth = Authenticator(store)
    asyncio.run(make_accounts(auth))
    gateway = S3Gateway(store, auth, config or S3Config())
    listener = socket.create_server(("127.0.0.1", 0))
    settings = uvicorn.Config(
        gateway,
        loop="uvloop",
        http=S3HttpProtocol,
        log_level="warning",
        lifespan="off",
        access_log=False,
        server_header=False,
        # As the daemon: what closes sooner may close just when a client that does not repeat itself sends the next request.
        timeout_keep_alive=75,
    )
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    return Server(listener.getsockname()[1], store, auth, gateway, server, thread)
