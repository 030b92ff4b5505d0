"""The mounts of a daemon: the one that its configuration asks for, and those that are asked for while it serves.

All of them end with the daemon, and none survives a restart but the configured one. What a person may have got wrong is one sentence. The
mountpoint is on the daemon's own machine, in the daemon's own mount namespace.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from element_store import Conflict, Invalid, LimitExceeded, NotFound, Refused, Store, StoreError
from element_store.interface import ElementStore
from protocols.fuse import Engine, Mount, Options, kernel
from server.config import FileSection
from server.errors import Exit, UserError

log = logging.getLogger("trefoil.mount")

MOUNTS_MAX = 64
"""Each has threads of its own."""
SWITCHES: Mapping[str, Mapping[str, Any]] = {
    "ro": {"read_only": True},
    "rw": {"read_only": False},
    "sync": {"strict": True},
    "async": {"strict": False},
    "allow_other": {"allow_other": True},
    "suid": {"set_id": True},
    "nosuid": {"set_id": False},
    "dev": {"devices": True},
    "nodev": {"devices": False},
}
"""What mount(8) calls them."""


class Mounts:
    """Changes come one after another."""

    def __init__(self, store: ElementStore, settings: FileSection, *, shared_locks: bool = False) -> None:
        self._store = store
        self._shared_locks = shared_locks
        self._settings = settings
        self._mounts: dict[Path, Mount] = {}
        self._change = asyncio.Lock()

    def options(self, view: str | None = None, engine: str | None = None, read_only: bool = False, words: Sequence[str] = ()) -> Options:
        """Raises Invalid for an engine or a word that there is not."""
        options = Options(
            engine=Engine(self._settings.engine),
            view=view,
            read_only=read_only,
            strict=self._settings.strict,
            shared_locks=self._shared_locks,
        )
        if engine is not None:
            if engine not in list(Engine):
                raise Invalid(f"there is no engine {engine}: {' or '.join(Engine)}")
            options = replace(options, engine=Engine(engine))
        for word in words:
            if word not in SWITCHES:
                raise Invalid(f"{word!r} is no mount option: {', '.join(SWITCHES)}")
            options = replace(options, **SWITCHES[word])
        return options

    async def mount(self, path: Path, options: Options) -> Mount:
        """Raises Invalid, Conflict, NotFound, LimitExceeded or Refused, each with a sentence for who asked."""
        async with self._change:
            await self._forget_gone()
            if len(self._mounts) >= MOUNTS_MAX:
                raise LimitExceeded(f"this daemon has {MOUNTS_MAX} mounts already")
            path = await asyncio.to_thread(_point, path)
            if not isinstance(self._store, Store):
                raise Refused("this daemon's store cannot be mounted")
            try:
                mount = await Mount.start(self._store, path, options)
            except NotFound:
                raise NotFound(f"there is no bucket {options.view}") from None
            self._mounts[mount.path] = mount
        log.info("mounted", extra={"path": str(mount.path), "view": options.view, "engine": str(options.engine)})
        return mount

    async def unmount(self, path: Path) -> None:
        """Raises NotFound for what is no mount of this daemon; Refused where requests are stuck in it."""
        async with self._change:
            await self._forget_gone()
            mount = self._mounts.pop(path, None) or self._mounts.pop(await asyncio.to_thread(_resolved, path), None)
            if mount is None:
                raise NotFound(f"{path} is no mount of this daemon; `trefoil mount` lists them")
            await mount.end()
        log.info("unmounted", extra={"path": str(path)})

    async def list(self) -> Sequence[Mount]:
        async with self._change:
            await self._forget_gone()
            return [self._mounts[path] for path in sorted(self._mounts)]

    async def end(self) -> None:
        """What cannot be ended is logged."""
        async with self._change:
            for path in list(self._mounts):
                await self._end(self._mounts.pop(path))

    async def _forget_gone(self) -> None:
        """Anybody with the right to may unmount without asking us."""
        for path, mount in list(self._mounts.items()):
            if not mount.is_mounted:
                del self._mounts[path]
                await self._end(mount)

    async def _end(self, mount: Mount) -> None:
        try:
            await mount.end()
        except Refused as error:
            log.error("%s", error)


@asynccontextmanager
async def mounted(mounts: Mounts, settings: FileSection) -> AsyncIterator[None]:
    """With the configured mount, if there is one; at the end there is none. Raises UserError where it cannot be mounted."""
    try:
        if settings.mount is not None:
            await mounts.mount(settings.mount.absolute(), mounts.options(read_only=settings.read_only))
    except StoreError as error:
        raise UserError(str(error), exit_code=Exit.REFUSED, kind="refused") from None
    try:
        yield
    finally:
        await mounts.end()


def _resolved(path: Path) -> Path:
    """A dead mount cannot be looked at, but its directory can."""
    try:
        return path.parent.resolve() / path.name
    except (OSError, RuntimeError, ValueError):
        return path


def _point(path: Path) -> Path:
    """Where to mount, without links. Raises Invalid or Conflict."""
    if not path.is_absolute() or "\0" in str(path):
        raise Invalid(f"{path} is no absolute path")
    kernel.clear_dead(path)
    try:
        found = path.resolve(strict=True)
        entries = os.scandir(found)
    except FileNotFoundError:
        raise Invalid(f"there is no directory {path}") from None
    except NotADirectoryError:
        raise Invalid(f"{path} is not a directory") from None
    except (OSError, RuntimeError) as error:
        raise Invalid(f"{path} cannot be mounted on: {getattr(error, 'strerror', None) or error}") from None
    with entries:
        is_empty = next(entries, None) is None
    if kernel.mounted(found) is not None:
        raise Conflict(f"{path} has something mounted on it already")
    if not is_empty:
        raise Conflict(f"{path} is not empty; mount on an empty directory")
    return found
