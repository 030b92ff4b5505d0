"""The namespace as a Linux mount, by one of two engines that serve the same calls.

`native` (`engine/`, a crate) is the default: requests of the kernel never enter Python. `pyfuse3` (`pyfuse3_engine/`) is libfuse with handlers in
Python; what it cannot do is in its docstring.
"""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from element_store import Invalid, Refused, Store, _core
from element_store.files import ROOT
from protocols.fuse import kernel


class Engine(enum.StrEnum):
    NATIVE = "native"
    PYFUSE3 = "pyfuse3"


@dataclass(frozen=True, slots=True)
class Options:
    """None: as root usually wants it, or any other user who may not ask for it."""

    engine: Engine = Engine.NATIVE
    view: str | None = None
    """The bucket that is the mount's root; all of them are below it without."""
    read_only: bool = False
    strict: bool = False
    """Changes are durable when they return."""
    allow_other: bool | None = None
    """Other users than the one who mounts. Permissions are checked by the kernel always."""
    set_id: bool | None = None
    """Honour set-user-id and set-group-id bits. Only root may ask."""
    devices: bool | None = None
    """Open character and block devices. Only root may ask."""
    shared_locks: bool = False
    """Locks are those of all faces of the store. Without, and with pyfuse3 always, the kernel keeps them among its own processes, which is quicker."""


class _Session(Protocol):
    def end(self) -> Awaitable[None]: ...


class Mount:
    """Mounted on a directory. To be ended before the store is closed."""

    __slots__ = ("_mounted", "_session", "options", "path")

    def __init__(self, session: _Session, path: Path, options: Options) -> None:
        """For `start` only."""
        self._session = session
        self._mounted = kernel.mounted(path)
        self.path = path
        self.options = options

    @property
    def is_mounted(self) -> bool:
        """Not any more if somebody else unmounted it; it is to be ended all the same."""
        return self._mounted is not None and kernel.mounted(self.path) == self._mounted

    @classmethod
    async def start(cls, store: Store, path: Path, options: Options | None = None) -> Mount:
        """Returns when it can be used. Raises Refused; NotFound for a view that there is not."""
        options = options or Options()
        root = ROOT if options.view is None else (await store.view(options.view)).id
        start = _native if options.engine is Engine.NATIVE else _pyfuse3
        session = await start(store, path, root, options)
        return cls(session, await asyncio.to_thread(path.resolve), options)

    async def lend(self, volume: int) -> None:
        """From now on this mount alone may change the volume, for the kernel's block target. Raises NotFound; Invalid without the native engine."""
        if not isinstance(self._session, _core.FuseMount):
            raise Invalid("only the native engine can serve volumes to the kernel")
        await self._session.lend(volume)

    def take_back(self, volume: int) -> None:
        if isinstance(self._session, _core.FuseMount):
            self._session.take_back(volume)

    def abort(self) -> None:
        """Whatever waits for the mount fails at once. Only `end` is left to be called. Raises OSError."""
        if self._mounted is not None:
            minor = self._mounted.device.partition(":")[2]
            Path(f"/sys/fs/fuse/connections/{minor}/abort").write_text("1")

    async def end(self) -> None:
        """Unmounts, also what is in use. Raises Refused if requests are stuck in the store; Invalid the second time."""
        await self._session.end()


async def _native(store: Store, path: Path, root: int, options: Options) -> _Session:
    rights = (options.allow_other, options.set_id, options.devices)
    return await _core.FuseMount.start(store._core, path, root, options.read_only, options.strict, rights, options.shared_locks)


async def _pyfuse3(store: Store, path: Path, root: int, options: Options) -> _Session:
    # Loaded by those who ask for it alone: it may not be installed, and brings trio with it.
    try:
        from protocols.fuse.pyfuse3_engine import session
    except ImportError as error:
        raise Refused(_missing(error)) from None
    is_root = os.geteuid() == 0
    allow_other, set_id, devices = (is_root if wish is None else wish for wish in (options.allow_other, options.set_id, options.devices))
    wanted = session.Options(root, options.read_only, allow_other, set_id, devices)
    return _Aside(await asyncio.to_thread(session.Session, store.files(strict=options.strict), path, wanted))


def _missing(error: ImportError) -> str:
    if "libfuse3" in str(error):
        return f"the engine pyfuse3 cannot be used: it needs the library libfuse3 (Debian: libfuse3-3): {error}"
    if error.name == "pyfuse3":
        return "the engine pyfuse3 cannot be used: its package is not installed; see docs/OPERATIONS.md, or use the engine native"
    return f"the engine pyfuse3 cannot be used: {error}"


class _Blocking(Protocol):
    def end(self) -> None: ...


class _Aside:
    """A session whose calls block, for an event loop."""

    def __init__(self, session: _Blocking) -> None:
        self._session = session

    async def end(self) -> None:
        await asyncio.to_thread(self._session.end)
