"""Content of the model store: read from, and on its way in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping

from element_store.interface import Buffer
from element_store.types import Damaged, Element
from tests.model.digests import digest

CHUNK_BYTES_MAX = 1024 * 1024


class ModelContent:
    """Bytes and element as they were at `open`."""

    def __init__(self, element: Element, data: bytes, damaged_from: int | None = None) -> None:
        self.element = element
        self.data = data
        self.damaged_from = damaged_from
        self.entered = 0

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        assert 0 <= start <= stop <= len(self.data)
        for at in range(start, stop, CHUNK_BYTES_MAX):
            if self.damaged_from is not None and at >= self.damaged_from:
                raise Damaged("content")
            yield self.data[at : min(at + CHUNK_BYTES_MAX, stop)]

    async def __aenter__(self) -> ModelContent:
        self.entered += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.entered -= 1


class ModelStaged:
    def __init__(self, digests: Collection[str], still_open: set[int]) -> None:
        self._still_open = still_open
        self._names = tuple(digests)
        self.data = bytearray()
        self.digests: dict[str, bytes] = {}
        self.finished = False
        still_open.add(id(self))

    async def write(self, data: Buffer) -> None:
        assert not self.finished
        self.data += data

    async def finish(self) -> Mapping[str, bytes]:
        self.finished = True
        self.digests = {name: digest(name, bytes(self.data)) for name in self._names}
        return self.digests

    async def discard(self) -> None:
        self._still_open.discard(id(self))

    @property
    def size(self) -> int:
        return len(self.data)
