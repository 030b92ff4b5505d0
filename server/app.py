"""The composition root: opens the store, makes sure that root can sign, serves S3 and admin in one event loop, and drains.

Order is the point of this module. Start: lock, sockets, store, root credentials, mount, NFS, volumes, servers, ready. Stop: not ready, S3 stops
accepting, requests in progress finish or are cut off after `limits.drain_seconds`, admin stops, volumes are let go, NFS stops, the mounts end, the
store closes, the lock is released. A second signal cuts off at once.
Nothing else in the package knows all the parts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

from prometheus_client import CollectorRegistry, ProcessCollector

from element_store import Store
from element_store.interface import ElementStore
from protocols.auth import AccountError, Authenticator
from protocols.auth.accounts import ROOT_ID
from protocols.s3 import S3Config, S3Gateway
from protocols.s3.http import S3HttpProtocol
from server.access import PROBES, TokenGate
from server.admin import create_admin
from server.block import Blocks, volumes_served
from server.config import Settings
from server.daemon import Daemon, Phase
from server.errors import UserError
from server.hooks import HookRunner
from server.kernel_block import become_io_flusher
from server.listen import Server, bind_tcp, bind_unix, make_server
from server.mount import Mounts, mounted
from server.nfs import exported
from server.snapshots import Schedules
from server.state import Credentials, StateDirectory, new_credentials
from server.store import open_store
from server.telemetry.collector import ServerCollector, StoreCollector
from server.telemetry.requests import Asgi, S3Metrics, S3Telemetry

log = logging.getLogger("trefoil.app")
ADMIN_DRAIN_SECONDS = 5
"""Admin requests are short; a scrape that hangs must not hold the daemon."""
ROOT_KEYS = ("TREFOIL_ROOT_ACCESS_KEY", "TREFOIL_ROOT_SECRET_KEY")


@dataclass(slots=True)
class Servers:
    s3: Server
    admin: list[Server]

    def all(self) -> list[Server]:
        return [self.s3, *self.admin]


async def serve(
    settings: Settings,
    *,
    format_devices: bool = False,
    on_ready: Callable[[Daemon, Credentials], None] | None = None,
) -> None:
    """Runs until SIGTERM or SIGINT. Raises UserError when it cannot start; returns after a clean stop."""
    state = StateDirectory(settings.state)
    if settings.block.target == "nvmet":
        become_io_flusher()
    with ExitStack() as held:
        held.enter_context(state.locked())
        s3_listener = held.enter_context(bind_tcp(settings.s3.listen))
        admin_listener = held.enter_context(bind_tcp(settings.admin.listen))
        unix_listener = held.enter_context(bind_unix(state.socket))
        held.callback(state.forget_endpoints)
        store = await open_store(settings, state, format_devices=format_devices)
        try:
            daemon = _daemon(settings, state, store)
            credentials = await ensure_root(daemon)
            servers = _servers(daemon, s3_listener, admin_listener, unix_listener)
            async with _signals(servers, daemon), _faces(daemon):
                await _run(daemon, servers, lambda: on_ready and on_ready(daemon, credentials))
        finally:
            log.info("closing the store")
            await store.close()
    log.info("stopped")


async def ensure_root(daemon: Daemon) -> Credentials:
    """The environment's keys, else the state directory's, else new ones; kept in the pool and in a 0600 file. Raises UserError."""
    given = [os.environ.get(name, "") for name in ROOT_KEYS]
    if any(given) and not all(given):
        raise UserError(f"{ROOT_KEYS[0]} and {ROOT_KEYS[1]} go together")
    wanted = Credentials(*given) if all(given) else daemon.state.root_credentials()
    if wanted is None:
        # The file may be lost while the pool still has the key.
        held = await daemon.accounts.list_keys(ROOT_ID)
        wanted = Credentials(held[0].access_key, held[0].secret_key) if held else new_credentials()
    try:
        key = await daemon.accounts.ensure_root(wanted.access_key, wanted.secret_key)
    except AccountError as error:
        raise UserError(f"root credentials: {error}") from None
    credentials = Credentials(key.access_key, key.secret_key)
    daemon.state.keep_root_credentials(credentials)
    return credentials


def _daemon(settings: Settings, state: StateDirectory, store: ElementStore) -> Daemon:
    registry = CollectorRegistry()
    collector = StoreCollector(store)
    registry.register(collector)
    # Only where there is another face to share them with: mounts are quicker with locks of their own.
    mounts = Mounts(store, settings.file, shared_locks=settings.nfs.shares_locks)
    ProcessCollector(namespace="trefoil", registry=registry)
    accounts = Authenticator(store)
    blocks = Blocks(store, accounts, settings.block, settings.identity, state.kernel_mount) if isinstance(store, Store) else None
    hooks = HookRunner(settings.snapshot.hooks, registry)
    return Daemon(settings, state, store, accounts, registry, collector, mounts, hooks, blocks=blocks)


def _servers(daemon: Daemon, s3_listener: socket.socket, admin_listener: socket.socket, unix_listener: socket.socket) -> Servers:
    settings = daemon.settings
    config = S3Config(
        region=settings.s3.region, domains=tuple(settings.s3.domains), key_policy=settings.s3.key_policy, identity=settings.identity.map()
    )
    gateway = S3Gateway(daemon.store, daemon.accounts, config)
    s3_app = S3Telemetry(gateway, S3Metrics(daemon.registry), access_log=settings.log.access)
    admin_app = cast(Asgi, create_admin(daemon))
    gated_app = TokenGate(admin_app, daemon.state.token(), PROBES | {"/metrics"} if settings.admin.metrics_open else PROBES)
    idle = settings.limits.idle_seconds
    admin_options: dict[str, Any] = {"drain_seconds": ADMIN_DRAIN_SECONDS, "idle_seconds": idle}
    return Servers(
        s3=make_server(
            "s3",
            s3_app,
            s3_listener,
            tls=settings.s3,
            drain_seconds=settings.limits.drain_seconds,
            idle_seconds=idle,
            http=S3HttpProtocol,
            connections_max=settings.s3.connections_max,
        ),
        admin=[
            make_server("admin", gated_app, admin_listener, tls=settings.admin, **admin_options),
            make_server("admin-socket", admin_app, unix_listener, tls=None, **admin_options),
        ],
    )


@asynccontextmanager
async def _schedules(daemon: Daemon) -> AsyncIterator[None]:
    """Snapshots by the clock."""
    task = asyncio.create_task(Schedules(daemon.store, daemon.hooks).run(), name="snapshot-schedules")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def _faces(daemon: Daemon) -> AsyncIterator[None]:
    """The file faces and the block face."""
    settings = daemon.settings
    async with (
        _schedules(daemon),
        mounted(daemon.mounts, settings.file),
        exported(daemon.store, settings.nfs, daemon.state) as nfs,
        volumes_served(daemon.blocks),
    ):
        if nfs:
            daemon.nfs = nfs
            daemon.registry.register(ServerCollector(nfs.metrics))
        if daemon.blocks:
            daemon.registry.register(ServerCollector(daemon.blocks.metrics))
        yield


@asynccontextmanager
async def _signals(servers: Servers, daemon: Daemon) -> AsyncIterator[None]:
    """First SIGTERM or SIGINT drains, the second cuts off, SIGHUP rereads certificates."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if daemon.phase is Phase.DRAINING:
            log.info("second signal: cutting off requests in progress")
            servers.s3.cut_off()
            return
        daemon.phase = Phase.DRAINING
        log.info("draining", extra={"drain_seconds": daemon.settings.limits.drain_seconds})
        servers.s3.stop()

    def reread() -> None:
        for server in servers.all():
            server.reload_certificate()

    loop.add_signal_handler(signal.SIGTERM, stop)
    loop.add_signal_handler(signal.SIGINT, stop)
    loop.add_signal_handler(signal.SIGHUP, reread)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)


async def _run(daemon: Daemon, servers: Servers, on_ready: Callable[[], object]) -> None:
    """Until S3 has stopped; admin outlives it, so that a drain can be watched."""
    tasks = {server: asyncio.create_task(server.run_until_stopped(), name=server.name) for server in servers.all()}
    try:
        await asyncio.gather(*(_started(server, task) for server, task in tasks.items()))
        if daemon.phase is Phase.STARTING:
            daemon.phase = Phase.READY
        daemon.state.keep_endpoints({**daemon.endpoints, "region": daemon.settings.s3.region})
        log.info("ready", extra=daemon.endpoints)
        on_ready()
        await tasks[servers.s3]
    finally:
        for server in servers.all():
            server.stop()
        await asyncio.gather(*tasks.values())


async def _started(server: Server, task: asyncio.Task[None]) -> None:
    """Raises what the server's task raised, if it ended instead of starting."""
    waiting = asyncio.create_task(server.listening.wait())
    await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    if task.done() and not server.listening.is_set():
        waiting.cancel()
        task.result()
        raise RuntimeError(f"the {server.name} server ended at once")
