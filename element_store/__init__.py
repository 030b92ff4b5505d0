"""The element store. This is the one way in: nothing else imports the compiled module.

`Store` behaves as `element_store.interface.ElementStore` says; values and errors are those of `element_store.types`. A store belongs to the
event loop that opened it. Its calls hand their work to threads at once; cancelling a call gives up its result, not what it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol, overload

from element_store import _core, interface
from element_store.files import FileSystem
from element_store.interface import NAMING, SMALL_BYTES_MAX, Buffer, ElementStore
from element_store.snapshots import Snapshots
from element_store.types import (
    Attributes,
    Closed,
    Condition,
    Conflict,
    Damaged,
    Deletion,
    DeviceStatus,
    DigestMismatch,
    Element,
    Findings,
    Invalid,
    Kind,
    LimitExceeded,
    Naming,
    NotFound,
    OutOfSpace,
    Page,
    Part,
    PoolStatus,
    PreconditionFailed,
    ReadOnly,
    Refused,
    Snapshot,
    SnapshotSpace,
    StoredPart,
    StoreError,
    UploadInfo,
    Version,
    Versioning,
    VersionPage,
    View,
    Volume,
)
from element_store.volumes import Volumes

__all__ = [
    "SMALL_BYTES_MAX",
    "Attributes",
    "Buffer",
    "Closed",
    "Condition",
    "Conflict",
    "Content",
    "Damaged",
    "Deletion",
    "DeviceStatus",
    "DigestMismatch",
    "Element",
    "ElementStore",
    "FileSystem",
    "Findings",
    "Invalid",
    "Kind",
    "LimitExceeded",
    "Naming",
    "NotFound",
    "OutOfSpace",
    "Page",
    "Part",
    "PoolStatus",
    "PreconditionFailed",
    "ReadOnly",
    "Refused",
    "Snapshot",
    "SnapshotSpace",
    "Snapshots",
    "Staged",
    "Store",
    "StoreError",
    "UploadInfo",
    "Version",
    "VersionPage",
    "Versioning",
    "View",
    "Volume",
    "Volumes",
]


class Content:
    """An element's bytes, pinned until `async with` ends or nothing refers to it any more."""

    __slots__ = ("__weakref__", "_core", "element")

    def __init__(self, core: _core.Content) -> None:
        self._core = core
        self.element: Element = core.element

    def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Bytes [start, stop) in pieces of at most 1 MiB, up to 4 MiB read ahead.

        Raises Damaged before handing out a wrong byte; Invalid for bytes that the content does not have, and once it was released.
        """
        return self._core.chunks(start, stop)

    async def __aenter__(self) -> Content:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._core.release()


class Staged:
    """Content on its way in; at most 4 MiB of it wait in memory. Discarded when nothing refers to it any more.

    A failure in the background is raised by the next `write` or `finish`. Publishing takes the content, also if publishing fails.
    """

    __slots__ = ("__weakref__", "_core")

    def __init__(self, core: _core.Staged) -> None:
        self._core = core

    async def write(self, data: Buffer) -> None:
        """Raises OutOfSpace. `data` may be changed afterwards."""
        room = self._core.write(data)
        if room is not None:
            await room

    async def finish(self) -> Mapping[str, bytes]:
        """Everything written is durable; returns the digests asked for. Raises Invalid the second time, and after `discard`."""
        return await self._core.finish()

    async def discard(self) -> None:
        """Does nothing to content that was published. Space is given back in the background."""
        self._core.discard()

    @property
    def size(self) -> int:
        return self._core.size


COLD_SECONDS = 30 * 24 * 3600
INDEX_BYTES = 256 << 20


class OpensStore(Protocol):
    """What `Store.open` is."""

    async def __call__(
        self,
        devices: Sequence[str],
        *,
        state: Path,
        code: tuple[int, int] | None = None,
        format_block_devices: bool = False,
        allow_degraded: bool = False,
        reduction: str = "balanced",
        cold_seconds: int | None = COLD_SECONDS,
        index_bytes: int = INDEX_BYTES,
    ) -> Store: ...


class OpensContent(Protocol):
    """What `store.open` is."""

    async def __call__(self, view: str, key: bytes, *, version: int | None = None) -> Content: ...


class _Open:
    """`Store.open(devices, ...)` opens a store; `store.open(view, key)` opens content, as the interface has it."""

    @overload
    def __get__(self, store: None, owner: type[Store]) -> OpensStore: ...

    @overload
    def __get__(self, store: Store, owner: type[Store]) -> OpensContent: ...

    def __get__(self, store: Store | None, owner: type[Store]) -> OpensStore | OpensContent:
        return owner._open_store if store is None else store._open_content


class Store:
    """The pool and everything in it; see `ElementStore` for what the calls promise.

    At most 16 calls wait for devices at once. Of those beyond, 16,384 wait for their turn; the next one raises LimitExceeded.
    """

    __slots__ = ("__weakref__", "_closing", "_core")

    def __init__(self, core: _core.Store) -> None:
        """For `open` only."""
        self._core = core
        self._closing: asyncio.Future[None] | None = None

    open = _Open()

    @classmethod
    async def _open_store(
        cls,
        devices: Sequence[str],
        *,
        state: Path,
        code: tuple[int, int] | None = None,
        format_block_devices: bool = False,
        allow_degraded: bool = False,
        reduction: str = "balanced",
        cold_seconds: int | None = COLD_SECONDS,
        index_bytes: int = INDEX_BYTES,
    ) -> Store:
        """Opens the pool on directories, files or block devices; formats them if all are empty.

        `state`: a directory for the metadata tree, a cache that is rebuilt when lost. `code`: k and m of a new pool, by default chosen by
        the number of devices. Block devices are formatted only if `format_block_devices`. `allow_degraded`: start although more devices
        are missing than the code makes up for, which writes them off. `reduction`: off, fast, balanced or deep. `cold_seconds`: what was
        written so long ago is encoded deeper while nobody works; None: never. `index_bytes`: of the reducer's index in memory, at most.
        Raises Refused.
        """
        settings = (reduction, cold_seconds, index_bytes)
        return cls(await _core.Store.open(tuple(devices), state, code, format_block_devices, allow_degraded, settings))

    def files(self, *, strict: bool = False) -> FileSystem:
        """The same namespace as files; usable from any thread until the store is closed. `strict`: changes are durable when they return."""
        return self._core.files(strict)

    @property
    def snapshots(self) -> Snapshots:
        return Snapshots(self._core.snapshots())

    # Views
    async def create_view(self, name: str, attributes: Attributes) -> View:
        return await self._core.create_view(name, attributes)

    async def delete_view(self, name: str) -> None:
        await self._core.delete_view(name)

    async def view(self, name: str) -> View:
        return await self._core.view(name)

    async def views(self) -> Sequence[View]:
        return await self._core.views()

    async def set_view_attributes(self, name: str, attributes: Attributes) -> View:
        return await self._core.set_view_attributes(name, attributes)

    # Elements by key
    async def lookup(self, view: str, key: bytes, *, version: int | None = None) -> Element:
        return await self._core.lookup(view, key, version)

    async def version(self, view: str, key: bytes, *, version: int | None = None) -> Version:
        return await self._core.version(view, key, version)

    async def put(
        self,
        view: str,
        key: bytes,
        data: Buffer,
        attributes: Attributes,
        *,
        digests: Collection[str] = ("md5",),
        expected: Mapping[str, bytes] | None = None,
        condition: Condition | None = None,
        versioning: Versioning = Versioning.OFF,
        naming: Naming = NAMING,
    ) -> Element:
        return await self._core.put(view, key, data, attributes, digests, expected, condition, versioning, naming)

    def stage(self, *, digests: Collection[str] = ("md5",), size_hint: int | None = None) -> Staged:
        return Staged(self._core.stage(digests))

    async def publish(
        self,
        view: str,
        key: bytes,
        staged: interface.Staged,
        attributes: Attributes,
        *,
        digests: Mapping[str, bytes],
        condition: Condition | None = None,
        versioning: Versioning = Versioning.OFF,
        naming: Naming = NAMING,
    ) -> Element:
        return await self._core.publish(view, key, _staged(staged), attributes, digests, condition, versioning, naming)

    async def _open_content(self, view: str, key: bytes, *, version: int | None = None) -> Content:
        return Content(await self._core.open_content(view, key, version))

    async def delete(
        self,
        view: str,
        key: bytes,
        *,
        version: int | None = None,
        condition: Condition | None = None,
        versioning: Versioning = Versioning.OFF,
    ) -> Deletion:
        return await self._core.delete(view, key, version, condition, versioning)

    async def delete_many(
        self,
        view: str,
        keys: Sequence[bytes],
        conditions: Sequence[Condition | None],
        *,
        versions: Sequence[int | None] | None = None,
        versioning: Versioning = Versioning.OFF,
    ) -> Sequence[Deletion | Exception]:
        return await self._core.delete_many(view, keys, versions or [None] * len(keys), conditions, versioning)

    async def copy(
        self,
        source: interface.Content,
        view: str,
        key: bytes,
        attributes: Attributes,
        *,
        digests: Mapping[str, bytes],
        condition: Condition | None = None,
        versioning: Versioning = Versioning.OFF,
        naming: Naming = NAMING,
    ) -> Element:
        return await self._core.copy(_content(source), view, key, attributes, digests, condition, versioning, naming)

    async def digest(self, source: interface.Content, start: int, stop: int, digests: Collection[str]) -> Mapping[str, bytes]:
        return await self._core.digest(_content(source), start, stop, digests)

    async def set_attributes(
        self, view: str, key: bytes, attributes: Attributes, *, version: int | None = None, condition: Condition | None = None
    ) -> Element:
        return await self._core.set_attributes(view, key, version, attributes, condition)

    async def list(self, view: str, *, prefix: bytes = b"", delimiter: bytes = b"", start_after: bytes = b"", limit: int = 1000) -> Page:
        return await self._core.list(view, prefix, delimiter, start_after, limit)

    async def list_versions(
        self,
        view: str,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after_key: bytes = b"",
        after_version: int | None = None,
        limit: int = 1000,
    ) -> VersionPage:
        return await self._core.list_versions(view, prefix, delimiter, after_key, after_version, limit)

    # Multipart uploads
    async def create_upload(self, view: str, key: bytes, attributes: Attributes, extra: Mapping[str, bytes]) -> UploadInfo:
        return await self._core.create_upload(view, key, attributes, extra)

    async def upload(self, view: str, key: bytes, upload_id: str) -> UploadInfo:
        return await self._core.upload(view, key, upload_id)

    async def put_part(
        self, view: str, key: bytes, upload_id: str, number: int, staged: interface.Staged, *, digests: Mapping[str, bytes]
    ) -> Part:
        return await self._core.put_part(view, key, upload_id, number, _staged(staged), digests)

    async def copy_part(
        self,
        view: str,
        key: bytes,
        upload_id: str,
        number: int,
        source: interface.Content,
        start: int,
        stop: int,
        *,
        digests: Mapping[str, bytes],
    ) -> Part:
        return await self._core.copy_part(view, key, upload_id, number, _content(source), start, stop, digests)

    async def list_parts(self, view: str, key: bytes, upload_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[Part]:
        return await self._core.list_parts(view, key, upload_id, after, limit)

    async def list_uploads(
        self, view: str, *, prefix: bytes = b"", after_key: bytes = b"", after_id: str = "", limit: int = 1000
    ) -> Sequence[UploadInfo]:
        return await self._core.list_uploads(view, prefix, after_key, after_id, limit)

    async def complete_upload(
        self,
        view: str,
        key: bytes,
        upload_id: str,
        parts: Sequence[tuple[int, str]],
        *,
        etag_digest: bytes,
        digests: Mapping[str, bytes],
        composite: bool,
        condition: Condition | None = None,
        versioning: Versioning = Versioning.OFF,
        naming: Naming = NAMING,
    ) -> Element:
        return await self._core.complete_upload(view, key, upload_id, parts, etag_digest, digests, composite, condition, versioning, naming)

    async def abort_upload(self, view: str, key: bytes, upload_id: str) -> None:
        await self._core.abort_upload(view, key, upload_id)

    # Records
    async def get_record(self, kind: str, name: str) -> bytes | None:
        return await self._core.get_record(kind, name)

    async def put_record(self, kind: str, name: str, value: bytes, *, must_be_new: bool = False) -> None:
        await self._core.put_record(kind, name, value, must_be_new)

    async def delete_record(self, kind: str, name: str) -> bool:
        return await self._core.delete_record(kind, name)

    async def list_records(self, kind: str) -> Sequence[tuple[str, bytes]]:
        return await self._core.list_records(kind)

    # Volumes
    @property
    def volumes(self) -> Volumes:
        return Volumes(self._core.volumes())

    # The store itself
    async def status(self) -> PoolStatus:
        return await self._core.status()

    def metrics(self) -> Mapping[str, float]:
        return self._core.metrics()

    async def check(self) -> Findings:
        return Findings(*await self._core.check())

    async def scrub(self) -> Mapping[str, int]:
        return await self._core.scrub()

    async def reduction(self, view: str | None = None, prefix: bytes = b"") -> Mapping[str, int]:
        return await self._core.reduction(view, prefix)

    async def reduction_mode(self, path: bytes | None = None) -> str:
        return await self._core.modes().get(path)

    async def set_reduction_mode(self, path: bytes, mode: str | None) -> None:
        await self._core.modes().set(path, mode)

    async def why(self, view: str, key: bytes) -> Sequence[StoredPart]:
        found = await self._core.why(view, key)
        return [
            StoredPart(offset, length, extent, kind, chunk, plain, stored, bases, references, *place)
            for (offset, length, extent, kind), (chunk, plain, stored, bases, references), place in found
        ]

    async def close(self) -> None:
        """Goes on also if whoever awaits it is cancelled, so that a store is never left half closed."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            await self._core.close()
        finally:
            self._core.detach()


def _content(content: interface.Content) -> _core.Content:
    if not isinstance(content, Content):
        raise TypeError("content of another store")
    return content._core


def _staged(staged: interface.Staged) -> _core.Staged:
    if not isinstance(staged, Staged):
        raise TypeError("staged content of another store")
    return staged._core


_: type[ElementStore] = Store
__: type[FileSystem] = _core.Files
