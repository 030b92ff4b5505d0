"""What gateways rely on. `element_store.Store` is the real one; `tests/model/store.py` is a dictionary that behaves the same.

Every call is atomic, and durable on m+1 devices when it returns, unless it says otherwise. Every call may raise Closed.
Reads see the newest committed state. Digests are computed off the event loop.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Protocol, TypeAlias

from element_store.types import (
    Attributes,
    Condition,
    Deletion,
    Element,
    Findings,
    Naming,
    Page,
    Part,
    PoolStatus,
    Snapshot,
    SnapshotSpace,
    StoredPart,
    UploadInfo,
    Version,
    Versioning,
    VersionPage,
    View,
)

Buffer: TypeAlias = bytes | bytearray | memoryview
NAMING = Naming()


class Content(Protocol):
    """An element's bytes, pinned: unaffected by whatever happens to its key meanwhile. Use as `async with`."""

    element: Element

    def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Bytes [start, stop) in pieces of at most 1 MiB, read ahead. Raises Damaged before handing out a wrong byte."""
        ...

    async def __aenter__(self) -> Content: ...

    async def __aexit__(self, *exc: object) -> None: ...


class Staged(Protocol):
    """Content on its way in: written to the pool, named by nothing, gone after a restart unless published.

    One writer at a time. `write` may buffer; memory is bounded by a few rows. Must end in a publish call of the store or in `discard`.
    """

    async def write(self, data: Buffer) -> None:
        """Raises OutOfSpace."""
        ...

    async def finish(self) -> Mapping[str, bytes]:
        """Everything written is durable; returns the digests asked for. No more writes after this."""
        ...

    async def discard(self) -> None: ...

    @property
    def size(self) -> int: ...


class Snapshots(Protocol):
    """`element_store.snapshots.Snapshots` is the real one, and says what the calls promise. Paths are those of files."""

    async def create(self, path: bytes, name: str, *, protected_until_ns: int = 0) -> Snapshot: ...

    async def list(self, path: bytes | None = None) -> Sequence[Snapshot]: ...

    async def space(self, path: bytes, name: str, *, older: bool = False) -> SnapshotSpace: ...

    async def delete(self, path: bytes, name: str) -> int: ...

    async def protect(self, path: bytes, name: str, until_ns: int) -> Snapshot: ...

    async def clone(self, source: bytes, target: bytes, *, snapshot: str | None = None) -> int: ...

    async def restore(self, path: bytes, name: str, *, undo: str) -> Snapshot: ...

    async def split(self, path: bytes) -> None: ...

    async def backlog(self) -> Sequence[tuple[str, bytes, int, int, int]]: ...


class ElementStore(Protocol):
    @property
    def snapshots(self) -> Snapshots: ...

    # Views
    async def create_view(self, name: str, attributes: Attributes) -> View:
        """Raises Conflict if it exists."""
        ...

    async def delete_view(self, name: str) -> None:
        """Raises NotFound; Conflict while it holds a version of a key (uploads in progress are aborted)."""
        ...

    async def view(self, name: str) -> View:
        """Raises NotFound."""
        ...

    async def views(self) -> Sequence[View]:
        """In byte order of names."""
        ...

    async def set_view_attributes(self, name: str, attributes: Attributes) -> View: ...

    # Elements by key
    async def lookup(self, view: str, key: bytes, *, version: int | None = None) -> Element:
        """What the key names, or one of its versions.

        Raises NotFound for the view (`args[0] == "view"`), the key (`"key"`, also where its newest version is a delete marker), the version
        (`"version"`) or the content of a version that is a delete marker (`"marker"`), here and below.
        """
        ...

    async def version(self, view: str, key: bytes, *, version: int | None = None) -> Version:
        """The newest version, or the one of that id, also if it is a delete marker. The element has no parts. Raises NotFound ("version")."""
        ...

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
        """Store small content (at most `SMALL_BYTES_MAX`) in one step. Computes and keeps `digests`; `expected` is compared first (DigestMismatch)."""
        ...

    def stage(self, *, digests: Collection[str] = ("md5",), size_hint: int | None = None) -> Staged: ...

    async def publish(
        self,
        view: str,
        key: bytes,
        staged: Staged,
        attributes: Attributes,
        *,
        digests: Mapping[str, bytes],
        condition: Condition | None = None,
        versioning: Versioning = Versioning.OFF,
        naming: Naming = NAMING,
    ) -> Element:
        """Give finished content a name. `digests`: what to keep with it (must hold `md5`)."""
        ...

    async def open(self, view: str, key: bytes, *, version: int | None = None) -> Content:
        """Pin the element that the key names now, or one of its versions."""
        ...

    async def delete(
        self,
        view: str,
        key: bytes,
        *,
        version: int | None = None,
        condition: Condition | None = None,
        versioning: Versioning = Versioning.OFF,
    ) -> Deletion:
        """With versioning a delete marker hides what was there; without, or of one version, the content is given up.

        When the newest version is given up, the key names the one before. That there was nothing is no error without a condition.
        """
        ...

    async def delete_many(
        self,
        view: str,
        keys: Sequence[bytes],
        conditions: Sequence[Condition | None],
        *,
        versions: Sequence[int | None] | None = None,
        versioning: Versioning = Versioning.OFF,
    ) -> Sequence[Deletion | Exception]:
        """At most 1,000; each key (of the version beside it) for itself, one result per key."""
        ...

    async def copy(
        self,
        source: Content,
        view: str,
        key: bytes,
        attributes: Attributes,
        *,
        digests: Mapping[str, bytes],
        condition: Condition | None = None,
        versioning: Versioning = Versioning.OFF,
        naming: Naming = NAMING,
    ) -> Element:
        """Share the source's content under another key; no bytes are copied."""
        ...

    async def digest(self, source: Content, start: int, stop: int, digests: Collection[str]) -> Mapping[str, bytes]:
        """Digests of bytes [start, stop) of pinned content, for copies whose digests are not the source's."""
        ...

    async def set_attributes(
        self, view: str, key: bytes, attributes: Attributes, *, version: int | None = None, condition: Condition | None = None
    ) -> Element:
        """Replace all attributes; content, ETag and modification time stay."""
        ...

    async def list(self, view: str, *, prefix: bytes = b"", delimiter: bytes = b"", start_after: bytes = b"", limit: int = 1000) -> Page:
        """Keys in byte order. Any delimiter works; `/` costs one seek per common prefix. `limit` counts elements and prefixes; 0 gives an empty page."""
        ...

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
        """All versions of all keys, delete markers too, from after that version of that key, else after all of that key's. Else as `list`."""
        ...

    # Multipart uploads
    async def create_upload(self, view: str, key: bytes, attributes: Attributes, extra: Mapping[str, bytes]) -> UploadInfo: ...

    async def upload(self, view: str, key: bytes, upload_id: str) -> UploadInfo:
        """Raises NotFound (`args[0] == "upload"`), here and below."""
        ...

    async def put_part(self, view: str, key: bytes, upload_id: str, number: int, staged: Staged, *, digests: Mapping[str, bytes]) -> Part:
        """Replaces an earlier part of that number."""
        ...

    async def copy_part(
        self, view: str, key: bytes, upload_id: str, number: int, source: Content, start: int, stop: int, *, digests: Mapping[str, bytes]
    ) -> Part:
        """A part that shares bytes [start, stop) of the source."""
        ...

    async def list_parts(self, view: str, key: bytes, upload_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[Part]: ...

    async def list_uploads(
        self, view: str, *, prefix: bytes = b"", after_key: bytes = b"", after_id: str = "", limit: int = 1000
    ) -> Sequence[UploadInfo]:
        """By key, then by id (ids of one key sort by creation)."""
        ...

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
        """Concatenate the parts (number, etag) by reference and publish. Raises Invalid naming a part that is absent or has another ETag.

        `etag_digest`: MD5 of the parts' MD5s; the ETag becomes `<hex>-<parts>`. `digests`: other digests to keep.
        """
        ...

    async def abort_upload(self, view: str, key: bytes, upload_id: str) -> None: ...

    # Small records of the daemon: users, access keys, settings. Names are byte-ordered text, values at most 64 KiB.
    async def get_record(self, kind: str, name: str) -> bytes | None: ...

    async def put_record(self, kind: str, name: str, value: bytes, *, must_be_new: bool = False) -> None:
        """Raises Conflict."""
        ...

    async def delete_record(self, kind: str, name: str) -> bool: ...

    async def list_records(self, kind: str) -> Sequence[tuple[str, bytes]]: ...

    # The store itself
    async def status(self) -> PoolStatus: ...

    def metrics(self) -> Mapping[str, float]:
        """Counters and gauges by the name they have in Prometheus without the `trefoil_` prefix, labels in braces: `device_flushes_total{device="0"}`."""
        ...

    async def check(self) -> Findings:
        """Recount all metadata, as of one moment: references, links, sizes, space. Changes nothing."""
        ...

    async def scrub(self) -> Mapping[str, int]:
        """Verify every stored payload; repairs and counts what it finds."""
        ...

    async def reduction(self, view: str | None = None, prefix: bytes = b"") -> Mapping[str, int]:
        """What reduction gained, by name, in bytes and counts: of what a view's keys with this prefix name, or of the pool with its space.

        Exact: `logical_bytes` less `zero_bytes` and the three gains is `stored_bytes`. What is shared with others counts as a whole.
        Reads every row in question. Raises NotFound.
        """
        ...

    async def reduction_mode(self, path: bytes | None = None) -> str:
        """How what lies at a path is reduced: by its own mode, or that of the nearest directory above it that has one; else the pool's. Raises NotFound."""
        ...

    async def set_reduction_mode(self, path: bytes, mode: str | None) -> None:
        """Of a view, directory, file or volume: `off`, `fast`, `balanced`, `deep`, or None for what holds above it.

        A view's holds for all in it that is reduced from now on; a directory's below that for what is made in it from now on. Raises NotFound, Invalid.
        """
        ...

    async def why(self, view: str, key: bytes) -> Sequence[StoredPart]:
        """Where a key's bytes are and what they take, in order. Raises NotFound."""
        ...

    async def close(self) -> None:
        """Drains, checkpoints, closes devices. Idempotent."""
        ...


SMALL_BYTES_MAX = 128 * 1024
"""Content up to this size lands in the journal as one record; larger content is staged."""
