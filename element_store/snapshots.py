"""Snapshots and clones: instants of paths, taken, read, cloned and restored in one transaction each, whatever they hold.

Paths are those of files: `/bucket`, `/bucket/directory`, `/bucket/directory/file`. What a snapshot shows is read by files in `.snapshot/<name>` of every
directory, and by keys in the read-only bucket `<bucket>--at--<name>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from element_store import _core
from element_store.types import Snapshot, SnapshotSpace

ALIAS = "--at--"
"""Between the names of a bucket and of a snapshot of it."""
NAME_BYTES_MAX = 128


class Job(NamedTuple):
    """What deleted snapshots and clones left to be freed in the background, or a clone that is being split."""

    kind: str
    """`free`: what a deleted snapshot alone held; `drop`: a removed clone, or what a restore replaced; `split`."""
    path: bytes
    """Of what it is about, empty if nothing leads there."""
    rows_left: int
    bytes_left: int
    """Of content, as its elements had it."""
    rows: int
    """In all; at most a hundred thousand are counted ahead."""


class Snapshots:
    """`Store.snapshots`. Every call may raise Closed."""

    __slots__ = ("_core",)

    def __init__(self, core: _core.Snapshots) -> None:
        self._core = core

    async def create(self, path: bytes, name: str, *, protected_until_ns: int = 0) -> Snapshot:
        """Everything that was acknowledged before, by any face, is in it. Raises NotFound ("path"), Conflict, Invalid."""
        return await self._core.create(path, name, protected_until_ns)

    async def list(self, path: bytes | None = None) -> Sequence[Snapshot]:
        """Those in which what lies at the path is seen, by name; all that were taken, without a path. Raises NotFound ("path")."""
        return await self._core.list(path)

    async def space(self, path: bytes, name: str, *, older: bool = False) -> SnapshotSpace:
        """What goes with it, or with it and all older ones. Looks at every row that died since. Raises NotFound ("snapshot")."""
        return await self._core.space(path, name, older)

    async def delete(self, path: bytes, name: str) -> int:
        """Gone at once, its space freed in the background. Returns how many clones keep what they share with it.

        Raises NotFound ("snapshot"), Conflict while it is protected.
        """
        return await self._core.delete(path, name)

    async def protect(self, path: bytes, name: str, until_ns: int) -> Snapshot:
        """Nobody deletes it before; the later of two promises counts. Raises NotFound ("snapshot")."""
        return await self._core.protect(path, name, until_ns)

    async def clone(self, source: bytes, target: bytes, *, snapshot: str | None = None) -> int:
        """A view, directory or file of a snapshot, or as it is now, under a new path, writable at once. Returns its element.

        Raises NotFound ("path", "snapshot"), Conflict if the target exists, Invalid.
        """
        return await self._core.clone_path(source, snapshot, target)

    async def restore(self, path: bytes, name: str, *, undo: str) -> Snapshot:
        """What lies at the path is what it was; what it is now is kept as the snapshot `undo`, which is returned. Raises NotFound, Conflict, Invalid."""
        return await self._core.restore(path, name, undo)

    async def split(self, path: bytes) -> None:
        """The clone is to share no row with its snapshot, so that this frees all that it holds; done in the background. Raises NotFound, Invalid."""
        await self._core.split(path)

    async def backlog(self) -> Sequence[Job]:
        """All that is under way or waits."""
        return [Job(*fields) for fields in await self._core.backlog()]
