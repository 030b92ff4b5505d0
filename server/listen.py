"""Sockets, TLS and HTTP servers: uvicorn inside the daemon's own event loop.

Invariants: a server's socket is bound before anything is served, so a taken port is one sentence at start; signals are the daemon's, never uvicorn's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.config import TlsSection, address_parts
from server.errors import Exit, UserError
from server.telemetry.requests import Asgi

log = logging.getLogger("trefoil.listen")
BACKLOG = 2048
_UCRED = struct.Struct("3i")
"""`struct ucred` of unix(7): pid, uid, gid."""


class Server(uvicorn.Server):
    """One listening socket. `run` returns once `stop` was called and requests in progress are done or cut off."""

    def __init__(self, name: str, config: uvicorn.Config, listener: socket.socket) -> None:
        super().__init__(config)
        self.name = name
        self._listener = listener
        self.listening = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def run_until_stopped(self) -> None:
        await self.serve(sockets=[self._listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    def stop(self) -> None:
        self.should_exit = True

    def cut_off(self) -> None:
        self.should_exit = True
        self.force_exit = True

    def reload_certificate(self) -> None:
        """New connections get the new certificate; a bad file leaves the old one in use."""
        config = self.config
        if config.ssl is None or config.ssl_certfile is None:
            return
        try:
            config.ssl.load_cert_chain(config.ssl_certfile, config.ssl_keyfile)
            log.info("certificate reread", extra={"endpoint": self.name})
        except OSError as error:  # ssl.SSLError is one
            log.error("certificate not reread, the old one stays in use", extra={"endpoint": self.name, "reason": str(error)})


class SameUserProtocol(HttpToolsProtocol):
    """Closes connections from anybody but root and the daemon's own user, whatever the socket file's mode became."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        peer = transport.get_extra_info("socket")
        _, uid, _ = _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        if uid not in (0, os.geteuid()):
            log.warning("admin socket: refused a user", extra={"uid": uid})
            transport.abort()
            return
        super().connection_made(transport)


def bind_tcp(address: str) -> socket.socket:
    """Raises UserError naming the address."""
    host, port = address_parts(address)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
        with closed_on_error(listener):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(where)
    except OSError as error:
        raise UserError(f"cannot listen on {address}: {error.strerror}", exit_code=Exit.REFUSED, kind="refused") from None
    return listener


@contextlib.contextmanager
def closed_on_error(listener: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        listener.close()
        raise


def bind_unix(path: Path) -> socket.socket:
    """The caller holds the state directory's lock: a socket file that is there is a dead daemon's."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with closed_on_error(listener):
            listener.bind(str(path))
    finally:
        os.umask(before)
    return listener


def make_server(
    name: str,
    app: Asgi,
    listener: socket.socket,
    *,
    tls: TlsSection | None,
    drain_seconds: int,
    idle_seconds: int,
    connections_max: int | None = None,
    http: type[HttpToolsProtocol] = HttpToolsProtocol,
) -> Server:
    """Raises UserError where the certificate cannot be used."""
    options: dict[str, Any] = {}
    if tls and tls.certificate:
        options = {"ssl_certfile": str(tls.certificate), "ssl_keyfile": str(tls.private_key)}
    config = uvicorn.Config(
        app,
        http=SameUserProtocol if listener.family == socket.AF_UNIX else http,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        limit_concurrency=connections_max,
        timeout_keep_alive=idle_seconds,
        timeout_graceful_shutdown=drain_seconds,
        **options,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise UserError(f"{name}: cannot use the certificate {tls and tls.certificate}: {error.strerror or error}") from None
    return Server(name, config, listener)
