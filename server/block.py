"""Volumes and the hosts that attach them: what operators ask for, and the target that serves it.

The target runs while there is a volume: at the start if there is one, else from the first one on, until the daemon ends. Changes come one after
another, and the target's rules follow each of them, before a number can become another volume's. What a person got wrong is one sentence.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import shlex
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from element_store import Attributes, Conflict, Invalid, NotFound, PreconditionFailed, Refused, Store, Volume
from protocols.auth import Authenticator
from protocols.auth.accounts import ROOT_ID
from protocols.auth.identity import Identity
from protocols.block import BlockTarget, Host, Hosts, Session, new_key, subsystem_nqn
from protocols.block.nvmet import Nvmet
from protocols.s3.context import OWNER
from server import kernel_block
from server.config import BlockSection, IdentitySection, address_parts
from server.errors import Exit, UserError
from server.kernel_block import Kernel

log = logging.getLogger("trefoil.block")

VIEW_DEFAULT = "volumes"
"""Where a volume goes whose name has no slash."""
SNAPSHOT = "@"
"""Between a volume's name and a snapshot's."""
NEW_KEY = "new"
VOLUME_MODE = 0o600


class Serves(Protocol):
    """A target: ours, or the kernel's."""

    @property
    def addresses(self) -> Sequence[str]: ...

    async def apply(self, hosts: Sequence[Host], volumes: Sequence[Volume]) -> None:
        """From now on."""

    def sessions(self) -> Sequence[Session]: ...

    def metrics(self) -> Mapping[str, float]: ...

    async def stop(self) -> None: ...


class Embedded:
    """`protocols.block` under the rules of the configuration."""

    def __init__(self, target: BlockTarget, settings: BlockSection) -> None:
        self._target, self._settings = target, settings

    @property
    def addresses(self) -> Sequence[str]:
        return self._target.addresses

    async def apply(self, hosts: Sequence[Host], volumes: Sequence[Volume]) -> None:
        self._target.set_access(hosts, volumes, any_host=self._settings.allow_any_host)

    def sessions(self) -> Sequence[Session]:
        return self._target.sessions()

    def metrics(self) -> Mapping[str, float]:
        return self._target.metrics()

    async def stop(self) -> None:
        await self._target.stop()


class Blocks:
    """Of one daemon on a real store."""

    def __init__(
        self, store: Store, accounts: Authenticator, settings: BlockSection, identity: IdentitySection, kernel_mount: Path
    ) -> None:
        """`kernel_mount`: a directory for the mount that the kernel's target needs, if it is to serve."""
        self._store = store
        self._accounts = accounts
        self._settings = settings
        self._identity = identity
        self._kernel_mount = kernel_mount
        self._change = asyncio.Lock()
        self.hosts = Hosts(store)
        self.target: Serves | None = None
        self.seen: Sequence[Volume] = ()
        """As they were listed last: for metrics, which cannot wait."""

    # Volumes
    async def list(self) -> Sequence[Volume]:
        self.seen = await self._store.volumes.list()
        return self.seen

    async def volume(self, name: str) -> Volume:
        """By its path, or its uuid. Raises NotFound."""
        path = volume_path(name)
        found = next((volume for volume in await self.list() if name == volume.uuid or path == volume.path), None)
        if found is None:
            how = f"; `trefoil volume connect {name}` shows it to hosts" if SNAPSHOT in name else ""
            raise NotFound(f"there is no volume {path}{how}; `trefoil volume list` lists them")
        return found

    async def create(self, name: str, size: int, block_size: int) -> Volume:
        path = volume_path(name)
        attributes = await self._attributes()
        async with self._change:
            await self._apply()
            if path.startswith(f"{VIEW_DEFAULT}/"):
                await self._make_view()
            try:
                made = await self._store.volumes.create(path, size, block_size=block_size, attributes=attributes)
            except PreconditionFailed:
                raise Conflict(f"{path} exists already; `trefoil volume from-file` makes a file a volume") from None
            except NotFound:
                raise NotFound(f"there is no bucket {path.partition('/')[0]}") from None
            await self._serve()
        return made

    async def from_file(self, name: str, block_size: int) -> Volume:
        path = volume_path(name)
        async with self._change:
            await self._apply()
            try:
                made = await self._store.volumes.from_file(path, block_size=block_size)
            except NotFound:
                raise NotFound(f"there is no file {path}") from None
            except Conflict as error:
                raise Conflict(f"{path}: {error}") from None
            except Invalid as error:
                raise Invalid(f"{path}: {error}; lengthen it with truncate(1) on a mount") from None
            await self._serve()
        return made

    async def show(self, name: str) -> Volume:
        """NAME@SNAPSHOT: hosts see what a snapshot has of a volume, read-only. A volume of just that name comes first."""
        known = {volume.path: volume for volume in await self.list()}
        found = known.get(volume_path(name))
        if found:
            return found
        if self._settings.target == "nvmet":
            raise Invalid("the kernel's target does not serve snapshots: clone it (trefoil clone), or set block.target = embedded")
        of, snapshot = split_snapshot(name)
        async with self._change:
            try:
                shown = await self._store.volumes.show(volume_path(of), snapshot)
            except NotFound as error:
                what = f"{volume_path(of)} has no snapshot {snapshot}" if str(error) == "snapshot" else f"there is no {volume_path(of)}"
                raise NotFound(what) from None
            await self._serve()
        return shown

    async def to_file(self, name: str, *, force: bool) -> Volume:
        async with self._change:
            volume = await self.volume(name)
            with _refused(volume, "make it a file"):
                await self._store.volumes.to_file(volume.id, force=force)
            await self._apply()
        return volume

    async def delete(self, name: str, *, force: bool) -> Volume:
        async with self._change:
            volume = await self.volume(name)
            with _refused(volume, "delete it"):
                await self._store.volumes.delete(volume.id, force=force)
            await self._apply()
        return volume

    async def resize(self, name: str, size: int, *, shrink: bool) -> Volume:
        async with self._change:
            volume = await self.volume(name)
            try:
                resized = await self._store.volumes.resize(volume.id, size, shrink=shrink)
            except Conflict:
                raise Conflict(f"{volume.path} has {volume.size} bytes: what is past {size} would be lost; if it may be, --force") from None
            await self._apply()
        return resized

    async def unlock(self, name: str) -> Volume:
        volume = await self.volume(name)
        try:
            await self._store.volumes.unlock(volume.id)
        except Conflict:
            raise Conflict(f"no host has {volume.path} attached: it is not locked") from None
        return volume

    # Hosts
    async def allow(self, nqn: str, names: Sequence[str], key: str | None, controller_key: str | None) -> Host:
        """More volumes than before, or all if none is named; keys stay unless they are given, and `new` makes one."""
        async with self._change:
            known = await self.hosts.get(nqn)
            volumes = None
            if names:
                if known and known.volumes is None:
                    raise Conflict(f"{nqn} may attach every volume already; to narrow that, deny it first")
                uuids = [(await self.volume(name)).uuid for name in names]
                volumes = list(dict.fromkeys([*(known.volumes or () if known else ()), *uuids]))
            try:
                host = Host(
                    nqn,
                    volumes,
                    _key(key) or (known.key if known else None),
                    _key(controller_key) or (known.controller_key if known else None),
                )
            except Invalid as error:
                raise Invalid(str(error)) from None
            await self.hosts.put(host)
            await self._apply()
        return host

    async def deny(self, nqn: str, names: Sequence[str]) -> None:
        """Of these volumes, or of all and the host is forgotten. Who may not attach any more is cut off."""
        async with self._change:
            known = await self.hosts.get(nqn)
            if known is None:
                raise NotFound(f"{nqn} is no host that may attach anything; `trefoil host list` lists them")
            if names:
                if known.volumes is None:
                    raise Conflict(f"{nqn} may attach every volume; deny it first, then allow the volumes that it is to have")
                gone = [(await self.volume(name)).uuid for name in names]
                await self.hosts.put(dataclasses.replace(known, volumes=[uuid for uuid in known.volumes if uuid not in gone]))
            else:
                await self.hosts.delete(nqn)
            await self._apply()

    # The target
    async def start(self) -> None:
        """Raises UserError where it cannot listen."""
        async with self._change:
            if await self.list():
                try:
                    await self._serve()
                except Refused as error:
                    raise UserError(str(error), exit_code=Exit.REFUSED, kind="refused") from None

    async def stop(self) -> None:
        async with self._change:
            target, self.target = self.target, None
            if target:
                await target.stop()

    def sessions(self) -> Sequence[Session]:
        return self.target.sessions() if self.target else ()

    @property
    def addresses(self) -> Sequence[str]:
        return self.target.addresses if self.target else ()

    async def nqn(self, volume: Volume | None = None) -> str:
        """Of the subsystem that a host connects to for a volume."""
        if volume and self._settings.target == "nvmet":
            return kernel_block.subsystem_nqn(volume)
        return subsystem_nqn((await self._store.status()).uuid)

    def metrics(self) -> Mapping[str, float]:
        samples = dict(self.target.metrics()) if self.target else {}
        for volume in self.seen:
            path = volume.path.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
            label = f'{{volume="{path}"}}'
            samples |= {
                f"volume_size_bytes{label}": float(volume.size),
                f"volume_allocated_bytes{label}": float(volume.allocated),
                f"volume_attached{label}": float(volume.handles > 0),
            }
        return samples

    async def _serve(self) -> None:
        if self.target is None:
            self.target = await self._started()
            log.info("serving volumes", extra={"addresses": list(self.target.addresses), "target": self._settings.target})
        await self._apply()

    async def _started(self) -> Serves:
        """Raises Refused."""
        settings, addresses = self._settings, resolved(self._settings.listen)
        if settings.target == "nvmet":
            return await Kernel.start(self._store, settings, addresses, self._kernel_mount, Nvmet())
        target = await BlockTarget.start(
            self._store,
            addresses,
            await self.nqn(),
            advertise=resolved(settings.advertise),
            any_host=settings.allow_any_host,
            hosts=await self.hosts.list(),
            connections_max=settings.connections_max,
        )
        return Embedded(target, settings)

    async def _apply(self) -> None:
        volumes = await self.list()
        if self.target:
            await self.target.apply(await self.hosts.list(), volumes)

    async def _attributes(self) -> Attributes:
        identity = await self._root()
        return Attributes(uid=identity.uid, gid=identity.gid, mode=VOLUME_MODE)

    async def _make_view(self) -> None:
        identity = await self._root()
        attributes = Attributes(uid=identity.uid, gid=identity.gid, mode=identity.directory_mode, xattrs={OWNER: ROOT_ID.encode()})
        with suppress(Conflict):
            await self._store.create_view(VIEW_DEFAULT, attributes)
            log.info("made the bucket of volumes", extra={"bucket": VIEW_DEFAULT})

    async def _root(self) -> Identity:
        return self._identity.map().of(await self._accounts.user(ROOT_ID))


@asynccontextmanager
async def volumes_served(blocks: Blocks | None) -> AsyncIterator[None]:
    """None: the store has no volumes. Raises UserError where the target cannot listen."""
    if blocks is None:
        yield
        return
    await blocks.start()
    try:
        yield
    finally:
        await blocks.stop()


def volume_path(name: str) -> str:
    """VIEW/KEY of what a person calls a volume. Raises Invalid."""
    path = name.strip("/") if "/" in name.strip("/") else f"{VIEW_DEFAULT}/{name.strip('/')}"
    if path.endswith("/") or "\0" in path or path == f"{VIEW_DEFAULT}/":
        raise Invalid(f"{name!r} is no name of a volume: NAME, which is {VIEW_DEFAULT}/NAME, or BUCKET/PATH")
    return path


def split_snapshot(name: str) -> tuple[str, str]:
    """Of NAME@SNAPSHOT; snapshots' names have no @. Raises Invalid."""
    of, _, snapshot = name.rpartition(SNAPSHOT)
    if not of or not snapshot:
        raise Invalid(f"{name!r} is no snapshot of a volume: NAME{SNAPSHOT}SNAPSHOT")
    return of, snapshot


def connect_lines(
    nqn: str, address: str, volume: Volume, *, host: str | None, key: str | None, controller_key: str | None
) -> Mapping[str, str]:
    """What is typed on a host. `address`: IP:PORT as it is reached from there."""
    where, port = address_parts(address)
    words = ["nvme", "connect", "-t", "tcp", "-a", where, "-s", str(port), "-n", nqn]
    words += ["--hostnqn", host] if host else []
    words += ["--dhchap-secret", key] if key else []
    words += ["--dhchap-ctrl-secret", controller_key] if controller_key else []
    return {
        "connect": shlex.join(words),
        "discover": shlex.join(["nvme", "discover", "-t", "tcp", "-a", where, "-s", str(port)]),
        "device": f"/dev/disk/by-id/nvme-uuid.{volume.uuid}",
    }


def resolved(addresses: Sequence[str]) -> Sequence[str]:
    """IP:PORT of each HOST:PORT. Raises Refused."""
    return [_resolved(address) for address in addresses]


def _resolved(address: str) -> str:
    host, port = address_parts(address)
    try:
        where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][4]
    except OSError as error:
        raise Refused(f"NVMe/TCP: cannot listen on {address}: {error.strerror}") from None
    return f"[{where[0]}]:{port}" if ":" in str(where[0]) else f"{where[0]}:{port}"


def _key(given: str | None) -> str | None:
    return new_key() if given == NEW_KEY else given


@contextmanager
def _refused(volume: Volume, what: str) -> Iterator[None]:
    try:
        yield
    except Conflict:
        raise Conflict(f"hosts have {volume.path} attached; disconnect them first, or {what} all the same with --force") from None
