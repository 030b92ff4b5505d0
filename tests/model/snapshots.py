"""Snapshots as names only: what tests of commands, routes and schedules need. What they show is tested on the real store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from element_store.snapshots import Job
from element_store.types import Conflict, Invalid, NotFound, Snapshot, SnapshotSpace


def spelled(path: bytes) -> bytes:
    return b"/" + b"/".join(part for part in path.split(b"/") if part)


class ModelSnapshots:
    def __init__(self, exists: Callable[[bytes], bool], clock: Callable[[], int]) -> None:
        self._exists = exists
        self._clock = clock
        self._epoch = 0
        self._taken: dict[tuple[bytes, str], Snapshot] = {}
        self._clones: dict[bytes, tuple[bytes, str | None]] = {}

    def _find(self, path: bytes, name: str) -> Snapshot:
        try:
            return self._taken[spelled(path), name]
        except KeyError:
            raise NotFound("snapshot") from None

    async def create(self, path: bytes, name: str, *, protected_until_ns: int = 0) -> Snapshot:
        return self._take(path, name, protected_until_ns, automatic=False)

    def _take(self, path: bytes, name: str, protected_until_ns: int, *, automatic: bool) -> Snapshot:
        if not self._exists(spelled(path)) and spelled(path) not in self._clones:
            raise NotFound("path")
        if (spelled(path), name) in self._taken:
            raise Conflict("snapshot")
        self._epoch += 1
        taken = Snapshot(name, spelled(path), self._epoch, self._clock(), protected_until_ns, automatic)
        self._taken[spelled(path), name] = taken
        return taken

    async def list(self, path: bytes | None = None) -> Sequence[Snapshot]:
        return [
            replace(taken, clones=[target for target, origin in self._clones.items() if origin == at])
            for at, taken in sorted(self._taken.items())
            if path is None or at[0] == spelled(path)
        ]

    async def space(self, path: bytes, name: str, *, older: bool = False) -> SnapshotSpace:
        self._find(path, name)
        return SnapshotSpace(2, 4096, 1024)

    async def delete(self, path: bytes, name: str) -> int:
        if self._find(path, name).protected_until_ns > self._clock():
            raise Conflict("the snapshot is protected")
        del self._taken[spelled(path), name]
        return sum(origin == (spelled(path), name) for origin in self._clones.values())

    async def protect(self, path: bytes, name: str, until_ns: int) -> Snapshot:
        found = self._find(path, name)
        kept = self._taken[spelled(path), name] = replace(found, protected_until_ns=max(found.protected_until_ns, until_ns))
        return kept

    async def clone(self, source: bytes, target: bytes, *, snapshot: str | None = None) -> int:
        if snapshot is not None:
            self._find(source, snapshot)
        elif not self._exists(spelled(source)):
            raise NotFound("path")
        if self._exists(spelled(target)) or spelled(target) in self._clones:
            raise Conflict("path")
        self._clones[spelled(target)] = (spelled(source), snapshot)
        return 1 << 42

    async def restore(self, path: bytes, name: str, *, undo: str) -> Snapshot:
        self._find(path, name)
        return self._take(path, undo, 0, automatic=True)

    async def split(self, path: bytes) -> None:
        if spelled(path) not in self._clones:
            raise Invalid("what is split is a clone that shares something with a snapshot")
        self._clones[spelled(path)] = (b"", None)

    async def backlog(self) -> Sequence[Job]:
        return []
