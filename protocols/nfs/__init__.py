"""The namespace by NFS version 3. The engine is native (`engine/`, a crate): calls of clients never enter Python.

Owns what makes handles good after a restart: the key that signs them is a record of the pool, so it outlives the state directory and is as old as
the pool's first server. Nobody who has it needs permission for anything exported: it is never shown.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from element_store import Conflict, Store, _core

ANONYMOUS = 65534
"""Linux's nobody and nogroup."""
LOOPBACK = ("127.0.0.0/8", "::1/128")
KIND_SECRET = "nfs"
HANDLE_KEY = "handle-key"
HANDLE_KEY_BYTES = 32

Squash = Literal["root", "all", "none"]


@dataclass(frozen=True, slots=True)
class Export:
    """A directory and who may do what with it. Of several exports of one path, the first that has the client's address counts."""

    path: str
    """`/`: all buckets; `/bucket`; `/bucket/a/b`. It need not be there yet."""
    networks: Sequence[str] = LOOPBACK
    """Addresses and networks (`10.1.0.0/16`, `fd00::/8`) whose word about users is taken."""
    read_only: bool = False
    squash: Squash = "root"
    """Who acts as the anonymous user: uid and gid 0, all, or nobody."""
    anonymous_uid: int = ANONYMOUS
    anonymous_gid: int = ANONYMOUS
    privileged_ports: bool = False
    """Only calls from ports below 1024 count."""


class NfsServer:
    """Serves a store until `stop`. To be stopped before the store is closed."""

    __slots__ = ("_core",)

    def __init__(self, core: _core.NfsServer) -> None:
        """For `start` only."""
        self._core = core

    @classmethod
    async def start(
        cls,
        store: Store,
        listen: str,
        exports: Sequence[Export],
        *,
        lock_hosts: Path | None = None,
        portmapper: str | None = None,
        connections_max: int = 256,
    ) -> NfsServer:
        """NFS, MOUNT and a port mapper at `listen` (IP:PORT), the port mapper also at `portmapper`.

        `lock_hosts`: a file that remembers who holds locks, to tell them of a restart; without it no locks are served. Raises Refused where it
        cannot listen or the file is damaged, Invalid for what is no address or network.
        """
        rules = [
            (
                export.path,
                list(export.networks),
                export.read_only,
                export.squash,
                export.anonymous_uid,
                export.anonymous_gid,
                export.privileged_ports,
            )
            for export in exports
        ]
        key = await _handle_key(store)
        fsid = uuid.UUID((await store.status()).uuid).int >> 64
        return cls(await _core.NfsServer.start(store._core, listen, rules, fsid, key, lock_hosts, portmapper, connections_max))

    @property
    def address(self) -> str:
        return self._core.address

    def metrics(self) -> Mapping[str, float]:
        """Named like the store's own, without `trefoil_`."""
        return self._core.metrics()

    async def stop(self) -> None:
        """Answers what was begun. Clients go on when a server is there again. Raises Invalid the second time."""
        await self._core.stop()


async def _handle_key(store: Store) -> bytes:
    """The pool's own; made by its first server."""
    held = await store.get_record(KIND_SECRET, HANDLE_KEY)
    if held is not None:
        return held
    made = secrets.token_bytes(HANDLE_KEY_BYTES)
    try:
        await store.put_record(KIND_SECRET, HANDLE_KEY, made, must_be_new=True)
    except Conflict:
        return await _handle_key(store)
    return made
