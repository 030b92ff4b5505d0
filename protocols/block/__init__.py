"""Volumes by NVMe over TCP. The target is native (`engine/`, a crate): commands of hosts never enter Python.

Owns who may connect, as records of the pool: they outlive the state directory, and with them the secrets that hosts prove to know. What is
said of volumes there goes by their uuid, so that no host is shown another volume that got an old one's number.
"""

from __future__ import annotations

import base64
import json
import secrets
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from element_store import Invalid, Store, Volume, _core

KIND_HOST = "block-host"
NQN_BYTES_MAX = 223
"""NVM Express base specification, section 4.5."""
SECRET_BYTES = 32
HOSTS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Host:
    """One that may connect."""

    nqn: str
    volumes: Sequence[str] | None = None
    """By uuid; None: all, also those that are made later."""
    key: str | None = None
    """What it must prove to know, on every connection (`DHHC-1:...:`, as `nvme gen-dhchap-key` prints it)."""
    controller_key: str | None = None
    """What the target proves to know if the host asks."""

    def __post_init__(self) -> None:
        """Raises Invalid."""
        if not self.nqn.startswith("nqn.") or not self.nqn.isascii() or not self.nqn.isprintable() or len(self.nqn) > NQN_BYTES_MAX:
            raise Invalid(f"{self.nqn!r} is no NQN: it begins with nqn. and has at most {NQN_BYTES_MAX} printable characters")
        for key in (self.key, self.controller_key):
            if key is not None:
                _core.check_host_secret(key)
        if self.controller_key and not self.key:
            raise Invalid("a key of the controller's goes with one of the host's: only a host that proves itself can ask for it")

    def sees(self, volume: Volume) -> bool:
        return self.volumes is None or volume.uuid in self.volumes


@dataclass(frozen=True, slots=True)
class Session:
    """A host that is connected."""

    nqn: str
    address: str
    controller: int
    is_discovery: bool
    connections: int
    volumes: Sequence[str]
    """Paths."""


def new_key() -> str:
    """As `nvme gen-dhchap-key` makes them: not transformed, with its CRC-32."""
    key = secrets.token_bytes(SECRET_BYTES)
    return f"DHHC-1:00:{base64.b64encode(key + zlib.crc32(key).to_bytes(4, 'little')).decode()}:"


def subsystem_nqn(pool: str) -> str:
    """Of a pool's UUID."""
    return f"nqn.2014-08.org.nvmexpress:uuid:{pool}"


class Hosts:
    """Who may connect, in the pool."""

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list(self) -> Sequence[Host]:
        return [_decoded(nqn, value) for nqn, value in await self._store.list_records(KIND_HOST)]

    async def get(self, nqn: str) -> Host | None:
        value = await self._store.get_record(KIND_HOST, nqn)
        return None if value is None else _decoded(nqn, value)

    async def put(self, host: Host) -> None:
        value = {"volumes": None if host.volumes is None else list(host.volumes), "key": host.key, "controller_key": host.controller_key}
        await self._store.put_record(KIND_HOST, host.nqn, json.dumps(value).encode())

    async def delete(self, nqn: str) -> bool:
        return await self._store.delete_record(KIND_HOST, nqn)


def _decoded(nqn: str, value: bytes) -> Host:
    fields: dict[str, Any] = json.loads(value)
    return Host(nqn, fields["volumes"], fields["key"], fields["controller_key"])


class BlockTarget:
    """Serves a store's volumes until `stop`. To be stopped before the store is closed."""

    __slots__ = ("_core",)

    def __init__(self, core: _core.BlockTarget) -> None:
        """For `start` only."""
        self._core = core

    @classmethod
    async def start(
        cls,
        store: Store,
        listen: Sequence[str],
        nqn: str,
        *,
        advertise: Sequence[str] = (),
        any_host: bool = False,
        hosts: Sequence[Host] = (),
        connections_max: int = 256,
    ) -> BlockTarget:
        """At `listen` (IP:PORT). `advertise`: addresses that discovery tells; by default the one at which it is asked. Raises Refused, Invalid."""
        rules = _rules(hosts, await store.volumes.list())
        serial = (await store.status()).uuid.replace("-", "")[:20]
        target = _core.BlockTarget.start(store._core, list(listen), list(advertise), nqn, serial, any_host, rules, connections_max)
        return cls(await target)

    @property
    def addresses(self) -> Sequence[str]:
        return self._core.addresses

    def set_access(self, hosts: Sequence[Host], volumes: Sequence[Volume], *, any_host: bool) -> None:
        """From now on. Who may not connect any more is cut off."""
        self._core.set_access(any_host, _rules(hosts, volumes))

    def sessions(self) -> Sequence[Session]:
        return [Session(*session) for session in self._core.sessions()]

    def metrics(self) -> Mapping[str, float]:
        """Named like the store's own, without `trefoil_`."""
        return self._core.metrics()

    async def stop(self) -> None:
        """Answers what was begun. Hosts go on when a target is there again. Raises Invalid the second time."""
        await self._core.stop()


def _rules(hosts: Sequence[Host], volumes: Sequence[Volume]) -> list[tuple[str, set[int] | None, str | None, str | None]]:
    def ids(host: Host) -> set[int] | None:
        return None if host.volumes is None else {volume.id for volume in volumes if host.sees(volume)}

    return [(host.nqn, ids(host), host.key, host.controller_key) for host in hosts]
