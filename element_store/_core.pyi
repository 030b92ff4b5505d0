"""The compiled module (`element_store/binding`). Arguments are positional; what a call means is said in `element_store.interface`.

Calls return a future of the event loop that opened the store, or raise at once what is wrong with their arguments. They raise Closed after
`detach`, RuntimeError on another loop.
"""

from asyncio import Future
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import final

from element_store.files import Node, Time
from element_store.interface import Buffer
from element_store.types import (
    Attributes,
    Condition,
    Deletion,
    Element,
    Naming,
    Page,
    Part,
    PoolStatus,
    UploadInfo,
    Version,
    VersionPage,
    View,
)

@final
class Chunks:
    """An iterator over pinned content. A piece that has been read already is in a future that is done."""

    def __aiter__(self) -> Chunks: ...
    def __anext__(self) -> Future[bytes]: ...

@final
class Content:
    @property
    def element(self) -> Element: ...
    def chunks(self, start: int, stop: int, /) -> Chunks:
        """Raises Invalid for bytes that the content does not have, and after `release`."""

    def release(self) -> None:
        """Unpins, now or when the last read under way is done. Idempotent."""

@final
class Staged:
    @property
    def size(self) -> int: ...
    def write(self, data: Buffer, /) -> Future[None] | None:
        """A future where too much waits: await it before the next write."""

    def finish(self) -> Future[dict[str, bytes]]: ...
    def discard(self) -> None: ...

@final
class MemoryDevices:
    def __new__(cls, count: int, length: int, /) -> MemoryDevices: ...
    def script(self, index: int, text: str, /) -> None: ...
    def lose(self, index: int, /) -> None: ...
    def restore(self, index: int, /) -> None: ...
    def wipe(self, index: int, /) -> None: ...
    def flip(self, index: int, offset: int, bit: int, /) -> None: ...
    def cut_power(self, after: int, /) -> None: ...
    def restore_power(self, seed: int, /) -> None: ...

@final
class Files:
    """What each call means is said in `element_store.files`. Calls run on the calling thread, without the interpreter's lock."""

    def lookup(self, directory: int, name: bytes, /) -> Node: ...
    def parent(self, directory: int, /) -> Node: ...
    def stat(self, inode: int, /) -> Node: ...
    def change(
        self,
        inode: int,
        /,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        accessed: Time | None = None,
        modified: Time | None = None,
        strip_privileges: bool = False,
    ) -> Node: ...
    def create(self, directory: int, name: bytes, mode: int, device: int, uid: int, gid: int, /) -> Node: ...
    def symlink(self, directory: int, name: bytes, target: bytes, uid: int, gid: int, /) -> Node: ...
    def create_unnamed(self, directory: int, mode: int, uid: int, gid: int, /) -> Node: ...
    def link(self, inode: int, directory: int, name: bytes, /) -> Node: ...
    def unlink(self, directory: int, name: bytes, /) -> None: ...
    def remove_directory(self, directory: int, name: bytes, /) -> None: ...
    def rename(self, from_directory: int, from_name: bytes, to_directory: int, to_name: bytes, flags: int, /) -> None: ...
    def read_link(self, inode: int, /) -> bytes: ...
    def open(self, inode: int, /) -> Node: ...
    def close(self, inode: int, /) -> None: ...
    def read(self, inode: int, offset: int, length: int, /) -> bytes: ...
    def write(self, inode: int, offset: int, data: bytes, strip_privileges: bool, /) -> Node: ...
    def append(self, inode: int, data: bytes, strip_privileges: bool, /) -> Node: ...
    def sync(self) -> None: ...
    def allocate(self, inode: int, mode: int, offset: int, length: int, /) -> Node: ...
    def seek(self, inode: int, offset: int, whence: int, /) -> int: ...
    def copy(self, from_inode: int, from_offset: int, to_inode: int, to_offset: int, length: int, /) -> int: ...
    def list(self, directory: int, cookie: int, limit: int, /) -> Sequence[tuple[bytes, int, Node]]: ...
    def xattr(self, inode: int, name: bytes, /) -> bytes: ...
    def set_xattr(self, inode: int, name: bytes, value: bytes, flags: int, /) -> None: ...
    def xattrs(self, inode: int, /) -> Sequence[bytes]: ...
    def remove_xattr(self, inode: int, name: bytes, /) -> None: ...
    def statistics(self) -> tuple[int, int, int]: ...

@final
class FuseMount:
    @staticmethod
    def start(
        store: Store,
        directory: Path,
        root: int,
        read_only: bool,
        strict: bool,
        allow_other: bool | None,
        set_id: bool | None,
        devices: bool | None,
        shared_locks: bool,
        /,
    ) -> Future[FuseMount]: ...
    def end(self) -> Future[None]: ...

@final
class NfsServer:
    @staticmethod
    def start(
        store: Store,
        listen: str,
        exports: Sequence[tuple[str, list[str], bool, str, int, int, bool]],
        fsid: int,
        key: bytes,
        lock_hosts: Path | None,
        portmapper: str | None,
        connections_max: int,
        /,
    ) -> Future[NfsServer]:
        """An export: path, networks, read only, squash, anonymous uid and gid, privileged ports only."""

    @property
    def address(self) -> str: ...
    def metrics(self) -> dict[str, float]: ...
    def stop(self) -> Future[None]: ...

@final
class Store:
    @staticmethod
    def open(
        devices: Sequence[str], state: Path, code: tuple[int, int] | None, format_block_devices: bool, allow_degraded: bool, /
    ) -> Future[Store]:
        """Attaches to the running event loop."""

    @staticmethod
    def open_memory(devices: MemoryDevices, state: Path, code: tuple[int, int] | None, allow_degraded: bool, /) -> Future[Store]:
        """Attaches to the running event loop."""

    def close(self) -> Future[None]:
        """Closes the store and ends its threads. To be followed by `detach`."""

    def detach(self) -> None:
        """Settles the last futures and takes the completion queue from the event loop. Idempotent."""

    def files(self, strict: bool, /) -> Files: ...
    def create_view(self, name: str, attributes: Attributes, /) -> Future[View]: ...
    def set_view_attributes(self, name: str, attributes: Attributes, /) -> Future[View]: ...
    def delete_view(self, name: str, /) -> Future[None]: ...
    def view(self, name: str, /) -> Future[View]: ...
    def views(self) -> Future[list[View]]: ...
    def lookup(self, view: str, key: bytes, version: int | None, /) -> Future[Element]: ...
    def version(self, view: str, key: bytes, version: int | None, /) -> Future[Version]: ...
    def put(
        self,
        view: str,
        key: bytes,
        data: Buffer,
        attributes: Attributes,
        digests: Collection[str],
        expected: Mapping[str, bytes] | None,
        condition: Condition | None,
        versioning: str,
        naming: Naming,
        /,
    ) -> Future[Element]: ...
    def stage(self, digests: Collection[str], /) -> Staged: ...
    def publish(
        self,
        view: str,
        key: bytes,
        staged: Staged,
        attributes: Attributes,
        digests: Mapping[str, bytes],
        condition: Condition | None,
        versioning: str,
        naming: Naming,
        /,
    ) -> Future[Element]: ...
    def open_content(self, view: str, key: bytes, version: int | None, /) -> Future[Content]: ...
    def delete(self, view: str, key: bytes, version: int | None, condition: Condition | None, versioning: str, /) -> Future[Deletion]: ...
    def delete_many(
        self,
        view: str,
        keys: Sequence[bytes],
        versions: Sequence[int | None],
        conditions: Sequence[Condition | None],
        versioning: str,
        /,
    ) -> Future[list[Deletion | Exception]]: ...
    def copy(
        self,
        source: Content,
        view: str,
        key: bytes,
        attributes: Attributes,
        digests: Mapping[str, bytes],
        condition: Condition | None,
        versioning: str,
        naming: Naming,
        /,
    ) -> Future[Element]: ...
    def digest(self, source: Content, start: int, stop: int, digests: Collection[str], /) -> Future[dict[str, bytes]]: ...
    def set_attributes(
        self, view: str, key: bytes, version: int | None, attributes: Attributes, condition: Condition | None, /
    ) -> Future[Element]: ...
    def list(self, view: str, prefix: bytes, delimiter: bytes, start_after: bytes, limit: int, /) -> Future[Page]: ...
    def list_versions(
        self, view: str, prefix: bytes, delimiter: bytes, after_key: bytes, after_version: int | None, limit: int, /
    ) -> Future[VersionPage]: ...
    def create_upload(self, view: str, key: bytes, attributes: Attributes, extra: Mapping[str, bytes], /) -> Future[UploadInfo]: ...
    def upload(self, view: str, key: bytes, upload_id: str, /) -> Future[UploadInfo]: ...
    def put_part(
        self, view: str, key: bytes, upload_id: str, number: int, staged: Staged, digests: Mapping[str, bytes], /
    ) -> Future[Part]: ...
    def copy_part(
        self,
        view: str,
        key: bytes,
        upload_id: str,
        number: int,
        source: Content,
        start: int,
        stop: int,
        digests: Mapping[str, bytes],
        /,
    ) -> Future[Part]: ...
    def list_parts(self, view: str, key: bytes, upload_id: str, after: int, limit: int, /) -> Future[Sequence[Part]]: ...
    def list_uploads(self, view: str, prefix: bytes, after_key: bytes, after_id: str, limit: int, /) -> Future[Sequence[UploadInfo]]: ...
    def complete_upload(
        self,
        view: str,
        key: bytes,
        upload_id: str,
        parts: Sequence[tuple[int, str]],
        etag_digest: bytes,
        digests: Mapping[str, bytes],
        composite: bool,
        condition: Condition | None,
        versioning: str,
        naming: Naming,
        /,
    ) -> Future[Element]: ...
    def abort_upload(self, view: str, key: bytes, upload_id: str, /) -> Future[None]: ...
    def get_record(self, kind: str, name: str, /) -> Future[bytes | None]: ...
    def put_record(self, kind: str, name: str, value: bytes, must_be_new: bool, /) -> Future[None]: ...
    def delete_record(self, kind: str, name: str, /) -> Future[bool]: ...
    def list_records(self, kind: str, /) -> Future[Sequence[tuple[str, bytes]]]: ...
    def status(self) -> Future[PoolStatus]: ...
    def metrics(self) -> dict[str, float]: ...
    def check(self) -> Future[tuple[int, Sequence[str]]]: ...
    def scrub(self) -> Future[dict[str, int]]: ...
