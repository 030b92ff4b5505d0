"""The NFS server that the configuration asks for, for as long as the daemon serves."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from element_store import Refused, Store
from element_store.interface import ElementStore
from protocols.nfs import Export, NfsServer
from server.config import ExportSection, NfsSection, address_parts
from server.errors import Exit, UserError
from server.state import StateDirectory

log = logging.getLogger("trefoil.nfs")


@asynccontextmanager
async def exported(store: ElementStore, settings: NfsSection, state: StateDirectory) -> AsyncIterator[NfsServer | None]:
    """None without an export. Raises UserError where it cannot listen."""
    if not settings.export:
        yield None
        return
    if not isinstance(store, Store):
        raise TypeError("only the real store can be exported")
    try:
        server = await NfsServer.start(
            store,
            _resolved(settings.listen),
            [_export(section) for section in settings.export],
            lock_hosts=state.lock_hosts_file if settings.locks else None,
            portmapper=_resolved(settings.portmapper) if settings.portmapper else None,
            connections_max=settings.connections_max,
        )
    except Refused as error:
        raise UserError(str(error), exit_code=Exit.REFUSED, kind="refused") from None
    log.info("exported", extra={"address": server.address, "paths": sorted({section.path for section in settings.export})})
    try:
        yield server
    finally:
        await server.stop()


def _export(section: ExportSection) -> Export:
    return Export(
        path=section.path,
        networks=section.clients,
        read_only=section.access == "ro",
        squash=section.squash,
        anonymous_uid=section.anonymous_uid,
        anonymous_gid=section.anonymous_gid,
        privileged_ports=section.privileged_ports,
    )


def _resolved(address: str) -> str:
    """IP:PORT of HOST:PORT."""
    host, port = address_parts(address)
    try:
        where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][4]
    except OSError as error:
        raise UserError(f"NFS: cannot listen on {address}: {error.strerror}", exit_code=Exit.REFUSED, kind="refused") from None
    return f"[{where[0]}]:{port}" if ":" in str(where[0]) else f"{where[0]}:{port}"
