"""What pyfuse3 has no way to serve: each limit is a probe that answers what a program sees, and the answer of each engine.

The list is exact: a limit that is gone fails its test as well as one that is new.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.protocols.fuse.conftest import Rig
from tests.protocols.fuse.syscalls import FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, birth_is_told, fallocate

PAGE = 4096


@dataclass(frozen=True)
class Limit:
    name: str
    probe: Callable[[Rig, Path], object]
    native: object
    pyfuse3: object

    def expected(self, engine: str) -> object:
        return self.native if engine == "native" else self.pyfuse3


def outcome(work: Callable[[], object]) -> object:
    try:
        return work()
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def _sparse(place: Path) -> int:
    """Four pages of which the third is data."""
    fd = os.open(place / "sparse", os.O_CREAT | os.O_RDWR, 0o644)
    os.pwrite(fd, b"x" * PAGE, 2 * PAGE)
    os.ftruncate(fd, 4 * PAGE)
    return fd


def _fallocate(mode: int) -> Callable[[Rig, Path], object]:
    def probe(_: Rig, place: Path) -> object:
        fd = _sparse(place)
        try:
            return outcome(lambda: fallocate(fd, mode, 0, PAGE))
        finally:
            os.close(fd)

    return probe


def _seek(whence: int) -> Callable[[Rig, Path], object]:
    def probe(_: Rig, place: Path) -> object:
        fd = _sparse(place)
        try:
            return os.lseek(fd, 2 * PAGE if whence == os.SEEK_HOLE else 0, whence)
        finally:
            os.close(fd)

    return probe


def _tmpfile(_: Rig, place: Path) -> object:
    return outcome(lambda: os.close(os.open(place, os.O_TMPFILE | os.O_RDWR, 0o600)))


def _copy_shares(_: Rig, place: Path) -> object:
    """What is shared has the same holes; the kernel's own copy writes zeros."""
    source, target = _sparse(place), os.open(place / "target", os.O_CREAT | os.O_RDWR, 0o644)
    copied = 0
    while step := os.copy_file_range(source, target, 4 * PAGE, copied, copied):
        copied += step
    found = os.fstat(target)
    assert (found.st_size, os.pread(target, PAGE, 2 * PAGE)) == (4 * PAGE, b"x" * PAGE)
    os.close(source)
    os.close(target)
    return found.st_blocks * 512 == PAGE


def _birth(_: Rig, place: Path) -> object:
    (place / "f").touch()
    return birth_is_told(place / "f")


def _umask_beside_default_acl(_: Rig, place: Path) -> object:
    """The mode of a file made with umask 077 where a default ACL gives its group rwx: the list replaces the umask."""
    entries = ((1, 7), (4, 7), (32, 5))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, rights, 0xFFFFFFFF) for tag, rights in entries)
    os.setxattr(place, "system.posix_acl_default", acl)
    before = os.umask(0o077)
    try:
        os.close(os.open(place / "f", os.O_CREAT | os.O_WRONLY, 0o666))
    finally:
        os.umask(before)
    return oct((place / "f").stat().st_mode & 0o777)


def _xattr_flags_together(_: Rig, place: Path) -> object:
    """XATTR_CREATE and XATTR_REPLACE at once."""
    (place / "f").touch()
    return outcome(lambda: os.setxattr(place / "f", "user.a", b"", os.XATTR_CREATE | os.XATTR_REPLACE))


LIMITS = (
    Limit("fallocate reserves", _fallocate(FALLOC_KEEP_SIZE), None, "ENOTSUP"),
    Limit("fallocate punches", _fallocate(FALLOC_KEEP_SIZE | FALLOC_PUNCH_HOLE), None, "ENOTSUP"),
    Limit("fallocate zeroes", _fallocate(FALLOC_ZERO_RANGE), None, "ENOTSUP"),
    Limit("SEEK_DATA finds data", _seek(os.SEEK_DATA), 2 * PAGE, 0),
    Limit("SEEK_HOLE finds a hole", _seek(os.SEEK_HOLE), 3 * PAGE, 4 * PAGE),
    Limit("O_TMPFILE", _tmpfile, None, "ENOTSUP"),
    Limit("copy_file_range shares content", _copy_shares, True, False),
    Limit("the time of birth is told", _birth, True, False),
    Limit("a default ACL replaces the umask", _umask_beside_default_acl, "0o664", "0o600"),
    Limit("XATTR_CREATE with XATTR_REPLACE is refused", _xattr_flags_together, "EINVAL", None),
)
