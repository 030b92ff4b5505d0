"""Volumes as operators handle them. Blocks are served natively (`protocols.block`); they never enter Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from element_store.types import Attributes, Volume

if TYPE_CHECKING:
    from element_store import _core

BLOCK_SIZES = (512, 4096)
BLOCK_SIZE_DEFAULT = 512
"""What ESXi takes, and nothing else."""
VOLUMES_MAX = 1024


class Volumes:
    """What is changed is durable when a call returns. `attached` in a Conflict: hosts hold handles, and `force` was not given."""

    __slots__ = ("_core",)

    def __init__(self, core: _core.Volumes) -> None:
        """For `Store.volumes` only."""
        self._core = core

    async def create(self, path: str, size: int, *, block_size: int = BLOCK_SIZE_DEFAULT, attributes: Attributes | None = None) -> Volume:
        """Thin, at VIEW/KEY. Raises Invalid, NotFound("view"), PreconditionFailed where there is something, LimitExceeded."""
        return await self._core.create(path, attributes or Attributes(mode=0o600), size, block_size)

    async def from_file(self, path: str, *, block_size: int = BLOCK_SIZE_DEFAULT) -> Volume:
        """Makes the file or object at VIEW/KEY a volume; its content stays where it is. Raises NotFound, Invalid, Conflict, LimitExceeded."""
        return await self._core.from_file(path, block_size)

    async def show(self, path: str, snapshot: str) -> Volume:
        """What a snapshot has of the volume at VIEW/KEY, as a volume that only reads, until the snapshot goes. Raises NotFound, Invalid."""
        return await self._core.show(path, snapshot)

    async def to_file(self, volume: int, *, force: bool = False) -> None:
        """It is a plain file from now on. Raises NotFound, Conflict."""
        await self._core.to_file(volume, force)

    async def resize(self, volume: int, size: int, *, shrink: bool = False) -> Volume:
        """Raises NotFound, Invalid, Conflict("smaller") without `shrink`: what is past the new end would be lost."""
        return await self._core.resize(volume, size, shrink)

    async def unlock(self, volume: int) -> None:
        """Lets other faces change it although hosts hold it. Raises NotFound, Conflict("detached")."""
        await self._core.unlock(volume)

    async def delete(self, volume: int, *, force: bool = False) -> None:
        """With its name and what is in it; a snapshot's is only not shown to hosts any more. Raises NotFound, Conflict."""
        await self._core.delete(volume, force)

    async def list(self) -> Sequence[Volume]:
        return await self._core.list()
