"""The namespace as a Linux mount. The engine is native (`engine/`, a crate): requests of the kernel never enter Python."""

from __future__ import annotations

from pathlib import Path

from element_store import Store, _core


class Mount:
    """All view roots of a store, mounted on a directory. To be ended before the store is closed."""

    __slots__ = ("_core", "path")

    def __init__(self, core: _core.FuseMount, path: Path) -> None:
        """For `start` only."""
        self._core = core
        self.path = path

    @classmethod
    async def start(cls, store: Store, path: Path, *, read_only: bool = False, strict: bool = False, shared_locks: bool = False) -> Mount:
        """Returns when it can be used. Mounted by root it is for all users. Raises Refused.

        `strict`: changes are durable when they return. `shared_locks`: locks are those of all faces of the store; without, the kernel keeps them
        among its own processes, which is quicker.
        """
        return cls(await _core.FuseMount.start(store._core, path, read_only, strict, shared_locks), path)

    async def end(self) -> None:
        """Unmounts, also what is in use. Raises Refused if requests are stuck in the store; Invalid the second time."""
        await self._core.end()
