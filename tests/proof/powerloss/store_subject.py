"""The element store through its Python API, in the process of the load: many more crash states per minute than whole daemons.

Blocking calls for the load's threads over one event loop in a thread of its own. State is an empty directory at each crash state.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from element_store.interface import SMALL_BYTES_MAX, ElementStore
from element_store.types import Attributes, NotFound
from tests.proof.load import Client

VIEW = "proof"
CALL_SECONDS_MAX = 120.0
WRITE_BYTES = 1 << 20
SCRUB_LOSS = "unrecoverable"
"""What scrub may not find. Rows that a crash left half written are named by nothing, and no loss."""
DAMAGE_METRICS = ("segment_checksum_errors_total", "journal_repaired_total")
"""What reading may not find: power loss alone makes no referenced payload wrong, and recovery leaves no mirror of the journal behind."""
WORK_METRICS = ("metadata_checkpoints_total", "reducer_extents_moved_total", "segments_freed_total")
T = TypeVar("T")
S = TypeVar("S", bound="StoreSession")


@dataclass(frozen=True)
class StoreSubject:
    scrub: bool = True
    """Also hold the store to undamaged payloads, those that no read touched too. Off where devices are known to have lost something."""

    def start(self, devices: Sequence[Path], state: Path, *, first: bool) -> StoreSession:
        return opened(StoreSession(self.scrub), devices, state, first=first)


def opened(session: S, devices: Sequence[Path], state: Path, *, first: bool) -> S:
    """Nothing of it is left if it does not open."""
    try:
        session.open(devices, state, first)
    except BaseException:
        session.stop()
        raise
    return session


async def open_store(devices: Sequence[Path], state: Path) -> ElementStore:
    """The one place that knows how the product's store is opened (it formats empty devices)."""
    from element_store import Store

    store: ElementStore = await Store.open([str(device) for device in devices], state=state)
    return store


class StoreSession:
    def __init__(self, scrub: bool) -> None:
        self._scrub = scrub
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="store-loop")
        self._thread.start()
        self.store: ElementStore | None = None

    def open(self, devices: Sequence[Path], state: Path, first: bool) -> None:
        self.store = self.call(open_store(devices, state))
        if first:
            self.call(self.store.create_view(VIEW, Attributes(mode=0o755)))

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS_MAX)

    def client(self) -> Client:
        return StoreClient(self)

    def damage(self) -> Sequence[str]:
        if not self._scrub or self.store is None:
            return []
        metrics = self.store.metrics()
        found = [f"reading: {metrics[name]:.0f} {name}" for name in DAMAGE_METRICS if metrics[name]]
        if lost := self.call(self.store.scrub())[SCRUB_LOSS]:
            found.append(f"scrub: {lost} {SCRUB_LOSS}")
        return found

    def work(self) -> Mapping[str, float]:
        assert self.store is not None
        metrics = self.store.metrics()
        return {name: metrics[name] for name in WORK_METRICS}

    def freeze(self) -> None:
        raise NotImplementedError("this subject lives in the process of the load and keeps no state directory of interest")

    def thaw(self) -> None:
        return

    def stop(self) -> None:
        try:
            if self.store is not None:
                self.call(self.store.close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CALL_SECONDS_MAX)
            self._loop.close()


class StoreClient:
    def __init__(self, session: StoreSession) -> None:
        assert session.store is not None
        self._session = session
        self._store = session.store

    def put(self, key: str, data: bytes) -> None:
        self._session.call(self._put(key.encode(), data))

    async def _put(self, key: bytes, data: bytes) -> None:
        if len(data) <= SMALL_BYTES_MAX:
            await self._store.put(VIEW, key, data, Attributes())
            return
        staged = await self._stage(data)
        await self._store.publish(VIEW, key, staged, Attributes(), digests={"md5": hashlib.md5(data).digest()})

    async def _stage(self, data: bytes) -> Any:
        staged = self._store.stage(size_hint=len(data))
        for at in range(0, len(data), WRITE_BYTES):
            await staged.write(data[at : at + WRITE_BYTES])
        await staged.finish()
        return staged

    def get(self, key: str) -> bytes | None:
        return self._session.call(self._get(key.encode()))

    async def _get(self, key: bytes) -> bytes | None:
        try:
            async with await self._store.open(VIEW, key) as content:
                return b"".join([piece async for piece in content.chunks(0, content.element.size)])
        except NotFound:
            return None

    def delete(self, key: str) -> None:
        self._session.call(self._store.delete(VIEW, key.encode()))

    def copy(self, source: str, key: str) -> None:
        self._session.call(self._copy(source.encode(), key.encode()))

    async def _copy(self, source: bytes, key: bytes) -> None:
        async with await self._store.open(VIEW, source) as content:
            whole = hashlib.md5()
            async for piece in content.chunks(0, content.element.size):
                whole.update(piece)
            # The copy is one whole object, also where the source came in parts and has no MD5 of its own.
            await self._store.copy(content, VIEW, key, content.element.attributes, digests={"md5": whole.digest()})

    def multipart(self, key: str, parts: Sequence[bytes], *, complete: bool) -> None:
        self._session.call(self._multipart(key.encode(), parts, complete))

    async def _multipart(self, key: bytes, parts: Sequence[bytes], complete: bool) -> None:
        upload = await self._store.create_upload(VIEW, key, Attributes(), {})
        named: list[tuple[int, str]] = []
        sums: list[bytes] = []
        for number, data in enumerate(parts, 1):
            sums.append(hashlib.md5(data).digest())
            part = await self._store.put_part(VIEW, key, upload.id, number, await self._stage(data), digests={"md5": sums[-1]})
            named.append((number, part.etag))
        if not complete:
            await self._store.abort_upload(VIEW, key, upload.id)
            return
        etag = hashlib.md5(b"".join(sums)).digest()
        await self._store.complete_upload(VIEW, key, upload.id, named, etag_digest=etag, digests={}, composite=False)

    def list(self) -> Sequence[tuple[str, int]]:
        return self._session.call(self._list())

    async def _list(self) -> Sequence[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        after: bytes | None = b""
        while after is not None:
            page = await self._store.list(VIEW, start_after=after)
            found += [(element.key.decode(), element.size) for element in page.elements]
            after = page.next_after
        return found

    def close(self) -> None:
        return
