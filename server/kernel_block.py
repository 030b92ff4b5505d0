"""Volumes served by the kernel: a private mount of the namespace, the kernel's NVMe target over its files, and the order in which both come and go.

Each volume is a subsystem of its own, named by its uuid, as the kernel lets a host see all of a subsystem or nothing. Hosts write through the
mount, to which each volume is lent: no other face may change it. At the end hosts lose their connection before the files go, and whatever hangs in
the kernel is made to fail by cutting the mount's connection, never waited for.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from element_store import Refused, Store, Volume
from protocols.block import Host, Session, nvmet
from protocols.block.nvmet import Configuration, Nvmet, NvmetError
from protocols.fuse import Engine, Mount, Options
from server.config import BlockSection, address_parts

log = logging.getLogger("trefoil.nvmet")

CONFIGFS_SECONDS_MAX = 20
"""The kernel answers in milliseconds, or hangs until the file that it waits for fails."""
SIZE_SECONDS_MAX, SIZE_PAUSE_SECONDS = 5.0, 0.02
"""Attributes are asked for again after a second at most."""
PR_SET_IO_FLUSHER = 57
NQN_PREFIX = "nqn.2014-08.org.nvmexpress:uuid:"


def become_io_flusher() -> None:
    """Before any thread starts: the kernel must not make this process wait for pages that only it can write (it serves the files of its own block
    devices). Needs CAP_SYS_RESOURCE."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0:
        log.warning("not an I/O flusher: a host on this same machine may hang", extra={"reason": os.strerror(ctypes.get_errno())})


def subsystem_nqn(volume: Volume) -> str:
    return f"{NQN_PREFIX}{volume.uuid}"


class Kernel:
    """A target as `server.block.Serves` says."""

    def __init__(self, mount: Mount, settings: BlockSection, addresses: Sequence[str], target: Nvmet) -> None:
        self._mount, self._settings, self._target = mount, settings, target
        self._lent: dict[str, Volume] = {}
        self.addresses = addresses

    @classmethod
    async def start(cls, store: Store, settings: BlockSection, addresses: Sequence[str], directory: Path, target: Nvmet) -> Kernel:
        """`directory`: for the mount, and nobody else's. What a crashed daemon left there and in the kernel goes first. Raises Refused."""
        if os.geteuid() != 0:
            raise Refused("only root may drive the kernel's NVMe target; serve volumes by the daemon itself: block.target = embedded")
        try:
            target.check()
            await asyncio.to_thread(target.clear, directory)
        except NvmetError as error:
            raise Refused(str(error)) from None
        directory.mkdir(mode=0o700, exist_ok=True)
        mount = await Mount.start(store, directory, Options(engine=Engine.NATIVE, allow_other=False))
        return cls(mount, settings, addresses, target)

    async def apply(self, hosts: Sequence[Host], volumes: Sequence[Volume]) -> None:
        """Raises Refused."""
        # What snapshots have of volumes is served by our own target only.
        volumes = [volume for volume in volumes if not volume.read_only]
        for volume in volumes:
            if volume.uuid not in self._lent:
                await self._mount.lend(volume.id)
        resized = [volume for volume in volumes if volume.uuid in self._lent and self._lent[volume.uuid].size != volume.size]
        gone = [volume for uuid, volume in self._lent.items() if uuid not in {volume.uuid for volume in volumes}]
        self._lent = {volume.uuid: volume for volume in volumes}
        try:
            await self._patiently(lambda: self._set(self._wanted(hosts, volumes), resized))
        except NvmetError as error:
            raise Refused(str(error)) from None
        finally:
            for volume in gone:
                self._mount.take_back(volume.id)

    def sessions(self) -> Sequence[Session]:
        """The kernel does not say."""
        return ()

    def metrics(self) -> Mapping[str, float]:
        return {}

    async def stop(self) -> None:
        try:
            await self._patiently(lambda: self._target.clear(self._mount.path))
        except NvmetError as error:
            log.error("the kernel's target was not cleared", extra={"reason": str(error)})
        await self._mount.end()

    def _set(self, wanted: Configuration, resized: Sequence[Volume]) -> None:
        self._target.apply(wanted, self._mount.path)
        for volume in resized:
            self._await_size(volume)
            self._target.resized(subsystem_nqn(volume))

    def _await_size(self, volume: Volume) -> None:
        """The kernel's target takes the size that the mount's inode has in its memory, and asks nobody."""
        deadline = time.monotonic() + SIZE_SECONDS_MAX
        while (self._mount.path / volume.path).stat().st_size != volume.size:
            if time.monotonic() > deadline:
                log.error("the mount shows an old size of a volume", extra={"volume": volume.path})
                return
            time.sleep(SIZE_PAUSE_SECONDS)

    def _wanted(self, hosts: Sequence[Host], volumes: Sequence[Volume]) -> Configuration:
        any_host = self._settings.allow_any_host and not hosts
        subsystems = [
            nvmet.Subsystem(
                subsystem_nqn(volume),
                volume.uuid.replace("-", "")[:20],
                [nvmet.Namespace(str(self._mount.path / volume.path), volume.uuid)],
                [host.nqn for host in hosts if host.sees(volume)],
                any_host,
            )
            for volume in volumes
        ]
        places = [address_parts(address) for address in self.addresses]
        nqns = [subsystem.nqn for subsystem in subsystems]
        return Configuration(
            subsystems,
            [nvmet.Port(host, port, nqns) for host, port in places],
            [nvmet.Host(host.nqn, host.key, host.controller_key) for host in hosts],
        )

    async def _patiently(self, work: Callable[[], None]) -> None:
        """In a thread, as it may hang; then what it waits for is made to fail."""
        task = asyncio.create_task(asyncio.to_thread(work))
        done, _ = await asyncio.wait({task}, timeout=CONFIGFS_SECONDS_MAX)
        if not done:
            log.error("the kernel's target hangs; cutting the mount's connection")
            await asyncio.to_thread(self._mount.abort)
        await task
