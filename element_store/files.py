"""What faces that are written in Python rely on to show the namespace as files: the core's trait `FileSystem`, call by call.

Calls block, for microseconds where they find what they need in memory and for as long as a device takes where they do not; any number of threads
may call. Inodes are element ids: they never change and never return. Names are bytes; a name of more than 255 is ENAMETOOLONG.

Errors are OSError with the errno that POSIX gives (`element_store/core/src/filesystem/mod.rs` lists them): ESTALE for an inode that is not there
any more, ENOENT for a name, EIO for a store that is closed. No call checks a permission. A change is seen at once and durable with the next `sync`,
or within a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

ROOT: Final = 1
"""The directory that holds every view root."""
NAME_BYTES_MAX: Final = 255
TRANSFER_BYTES_MAX: Final = 1 << 20
"""Of one `read`, `write` or `append`."""
NOW: Final = "now"
Time: TypeAlias = int | Literal["now"]
"""To be set: nanoseconds since 1970, or NOW."""


class Node(NamedTuple):
    """What `stat` shows. Times are nanoseconds since 1970."""

    inode: int
    mode: int
    """`st_mode`: what it is, and the 12 bits of permissions."""
    device: int
    """`st_rdev` of a character or block device, as Linux encodes a `dev_t`."""
    links: int
    uid: int
    gid: int
    size: int
    allocated: int
    """Bytes that are not holes."""
    accessed_ns: int
    modified_ns: int
    changed_ns: int
    created_ns: int
    version: int
    """Rises with every change of content; of a directory, with every change of its entries."""


Entry: TypeAlias = tuple[bytes, int, Node]
"""Name, cookie (where a listing goes on after it), node."""


News: TypeAlias = tuple[Literal["content", "attributes", "entry"], int, bytes]
"""Bytes of a file changed, or what `stat` shows, or a name in a directory (its third part) leads elsewhere."""


class FileSystem(Protocol):
    def lookup(self, directory: int, name: bytes, /) -> Node: ...

    def parent(self, directory: int, /) -> Node:
        """What `..` names; of ROOT itself."""
        ...

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
    ) -> Node:
        """All or nothing; None stays as it is. `strip_privileges` takes the set-id bits of anything but a directory away."""
        ...

    def create(self, directory: int, name: bytes, mode: int, device: int, uid: int, gid: int, /) -> Node:
        """Whatever `mode` says but a symlink, as mknod(2); a directory too. In ROOT only directories: EPERM."""
        ...

    def symlink(self, directory: int, name: bytes, target: bytes, uid: int, gid: int, /) -> Node: ...

    def create_unnamed(self, directory: int, mode: int, uid: int, gid: int, /) -> Node:
        """O_TMPFILE: opened once, gone with its last `close` unless it was linked."""
        ...

    def link(self, inode: int, directory: int, name: bytes, /) -> Node: ...

    def unlink(self, directory: int, name: bytes, /) -> None: ...

    def remove_directory(self, directory: int, name: bytes, /) -> None: ...

    def rename(self, from_directory: int, from_name: bytes, to_directory: int, to_name: bytes, flags: int, /) -> None:
        """`flags` as renameat2(2): 0, RENAME_NOREPLACE or RENAME_EXCHANGE."""
        ...

    def read_link(self, inode: int, /) -> bytes: ...

    def open(self, inode: int, /) -> Node:
        """Keeps content until `close`, whatever happens to its names. Counts."""
        ...

    def close(self, inode: int, /) -> None: ...

    def read(self, inode: int, offset: int, length: int, /) -> bytes:
        """Fewer only at the end of the file; holes are zeros."""
        ...

    def write(self, inode: int, offset: int, data: bytes, strip_privileges: bool, /) -> Node:
        """All of it; returns the node afterwards."""
        ...

    def append(self, inode: int, data: bytes, strip_privileges: bool, /) -> Node:
        """Atomically at the end."""
        ...

    def sync(self) -> None:
        """Everything that was acknowledged before is durable."""
        ...

    def allocate(self, inode: int, mode: int, offset: int, length: int, /) -> Node:
        """`mode` as fallocate(2); EOPNOTSUPP for what is not served."""
        ...

    def seek(self, inode: int, offset: int, whence: int, /) -> int:
        """`os.SEEK_DATA` or `os.SEEK_HOLE`. ENXIO at or beyond the end."""
        ...

    def copy(self, from_inode: int, from_offset: int, to_inode: int, to_offset: int, length: int, /) -> int:
        """Shares content instead of copying it; returns bytes."""
        ...

    def list(self, directory: int, cookie: int, limit: int, /) -> Sequence[Entry]:
        """After `cookie` (0: from the start); an empty answer is the end. What is there all the while is seen exactly once."""
        ...

    def xattr(self, inode: int, name: bytes, /) -> bytes:
        """ENODATA"""
        ...

    def set_xattr(self, inode: int, name: bytes, value: bytes, flags: int, /) -> None:
        """`flags` as setxattr(2)."""
        ...

    def xattrs(self, inode: int, /) -> Sequence[bytes]: ...

    def remove_xattr(self, inode: int, name: bytes, /) -> None: ...

    def listen(self) -> bool:
        """Once: from now on `hear` tells what others than this object change. False if the store has no news."""
        ...

    def hear(self, seconds: float, /) -> tuple[Sequence[News], bool] | None:
        """Waits for news at most so long; whether some were left out, so that everything may have changed. None at the end."""
        ...

    def stop_listening(self) -> None:
        """`hear` returns and has no more to tell."""
        ...

    def statistics(self) -> tuple[int, int, int]:
        """Bytes for content in all (parity left out), of them free, and elements."""
        ...
