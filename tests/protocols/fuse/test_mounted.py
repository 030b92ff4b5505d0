"""What programs see on a mount, by system calls: the same for both engines, but for what `limits` names."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import random
import select
import shutil
import socket
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.protocols.fuse.conftest import NOBODY, Rig, user
from tests.protocols.fuse.limits import LIMITS, Limit
from tests.protocols.fuse.server import VIEW
from tests.protocols.fuse.syscalls import (
    FALLOC_COLLAPSE_RANGE,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    fallocate,
    renameat2,
)

CACHED_SECONDS = 1.2
"""What another face changed shows after that."""
LONG = "n" * 256


def error_of(work: Callable[[], object]) -> str:
    """The name of its errno (EOPNOTSUPP is ENOTSUP on Linux); empty if there is none."""
    try:
        work()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def opened(path: Path, flags: int = os.O_RDWR | os.O_CREAT) -> int:
    return os.open(path, flags, 0o644)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.name)
def test_limits_are_exactly_those_that_are_named(shared_rig: Rig, tmp_path: Path, limit: Limit):
    place = shared_rig.mountpoint / limit.name
    place.mkdir()
    assert limit.probe(shared_rig, place) == limit.expected(shared_rig.engine)


# Names
def test_what_is_made_has_its_mode_and_owner(place: Path):
    (place / "file").write_bytes(b"hello")
    (place / "directory").mkdir()
    (place / "link").symlink_to("file")
    (place / "file").chmod(0o4711)
    os.chown(place / "directory", 12, 34)
    file, directory = (place / "file").stat(), (place / "directory").stat()
    assert (file.st_mode, file.st_size, file.st_nlink, file.st_uid) == (0o104711, 5, 1, 0)
    assert (directory.st_uid, directory.st_gid, directory.st_nlink) == (12, 34, 2)
    assert os.readlink(place / "link") == "file"
    assert (place / "link").lstat().st_size == 4
    assert (place / "link").read_bytes() == b"hello"
    assert place.stat().st_nlink == 3


def test_a_set_group_id_directory_gives_its_group(place: Path):
    os.chown(place, 0, 77)
    place.chmod(0o2777)
    with user():
        (place / "d").mkdir(0o755)
        os.close(opened(place / "f"))
    assert ((place / "d").stat().st_gid, stat.S_IMODE((place / "d").stat().st_mode)) == (77, 0o2755)
    assert ((place / "f").stat().st_uid, (place / "f").stat().st_gid) == (NOBODY, 77)


def test_the_root_of_the_mount_is_the_bucket(shared_rig: Rig):
    root = shared_rig.mountpoint.stat()
    assert root.st_ino == 1
    assert stat.S_IMODE(root.st_mode) == 0o755
    assert f"/{VIEW}" not in str(os.listdir(shared_rig.mountpoint))


def test_special_files_keep_their_numbers(place: Path):
    number = os.makedev(4095, 1048575)
    for name, kind, device in (("c", stat.S_IFCHR, number), ("b", stat.S_IFBLK, number), ("p", stat.S_IFIFO, 0), ("s", stat.S_IFSOCK, 0)):
        os.mknod(place / name, kind | 0o640, device)
        found = (place / name).lstat()
        assert (stat.S_IFMT(found.st_mode), found.st_rdev, stat.S_IMODE(found.st_mode)) == (kind, device, 0o640)
    os.mknod(place / "f", 0o600 | stat.S_IFREG)
    assert (place / "f").stat().st_size == 0
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        # A socket's address is shorter than a path may be.
        listener.bind(f"/proc/self/fd/{(directory := os.open(place, os.O_PATH))}/bound")
        listener.listen()
        client.connect(f"/proc/self/fd/{directory}/bound")
        os.close(directory)


def test_a_pipe_works(place: Path):
    os.mkfifo(place / "p")
    writer = threading.Thread(target=lambda: (place / "p").write_bytes(b"through"))
    writer.start()
    assert (place / "p").read_bytes() == b"through"
    writer.join()


def test_rename_replaces_refuses_or_exchanges(place: Path):
    a, b, d = place / "a", place / "b", place / "d"
    a.write_bytes(b"a")
    b.write_bytes(b"b")
    d.mkdir()
    assert error_of(lambda: renameat2(a, b, RENAME_NOREPLACE)) == "EEXIST"
    assert error_of(lambda: renameat2(a, b, RENAME_WHITEOUT)) == "EINVAL"
    assert error_of(lambda: renameat2(a, place / "none", RENAME_EXCHANGE)) == "ENOENT"
    renameat2(a, b, RENAME_EXCHANGE)
    assert (a.read_bytes(), b.read_bytes()) == (b"b", b"a")
    renameat2(a, d, RENAME_EXCHANGE)
    assert a.is_dir()
    assert d.is_file()
    d.rename(b)
    assert b.read_bytes() == b"b"
    assert not d.exists()
    renameat2(b, place / "new", RENAME_NOREPLACE)
    assert (place / "new").read_bytes() == b"b"


def test_a_moved_directory_takes_everything_along(place: Path):
    (place / "a/b/c").mkdir(parents=True)
    (place / "a/b/c/f").write_bytes(b"deep")
    (place / "other").mkdir()
    (place / "a/b").rename(place / "other/moved")
    assert (place / "other/moved/c/f").read_bytes() == b"deep"
    assert ((place / "a").stat().st_nlink, (place / "other").stat().st_nlink) == (2, 3)
    assert os.path.samefile(place / "other/moved/..", place / "other")


def test_links_share_one_inode(place: Path):
    a, b = place / "a", place / "b"
    a.write_bytes(b"one")
    b.hardlink_to(a)
    b.write_bytes(b"two")
    assert a.stat().st_ino == b.stat().st_ino
    assert (a.stat().st_nlink, a.read_bytes()) == (2, b"two")
    a.rename(b)
    assert a.exists(), "two names of one file: nothing happens"
    a.unlink()
    assert b.stat().st_nlink == 1


def test_errors_of_names(place: Path):
    file, directory, full = place / "f", place / "d", place / "full"
    file.write_bytes(b"")
    directory.mkdir()
    (full / "below").mkdir(parents=True)
    (place / "loop").symlink_to("loop")
    cases: dict[str, tuple[str, Callable[[], object]]] = {
        "open what is not there": ("ENOENT", lambda: os.open(place / "none", os.O_RDONLY)),
        "open below a file": ("ENOTDIR", lambda: os.open(file / "x", os.O_RDONLY)),
        "create exclusively": ("EEXIST", lambda: opened(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
        "write to a directory": ("EISDIR", lambda: os.open(directory, os.O_WRONLY)),
        "open a file as a directory": ("ENOTDIR", lambda: os.open(file, os.O_DIRECTORY)),
        "open a loop": ("ELOOP", lambda: os.open(place / "loop", os.O_RDONLY)),
        "open a link that is not followed": ("ELOOP", lambda: os.open(place / "loop", os.O_NOFOLLOW)),
        "mkdir over a file": ("EEXIST", lambda: file.mkdir()),
        "mkdir below nothing": ("ENOENT", lambda: (place / "none/x").mkdir()),
        "rmdir of a file": ("ENOTDIR", lambda: os.rmdir(file)),
        "rmdir of what is full": ("ENOTEMPTY", lambda: os.rmdir(full)),
        "rmdir of nothing": ("ENOENT", lambda: os.rmdir(place / "none")),
        "rmdir of a dot": ("EINVAL", lambda: os.rmdir(f"{directory}/.")),
        "unlink of a directory": ("EISDIR", lambda: os.unlink(directory)),
        "unlink of nothing": ("ENOENT", lambda: os.unlink(place / "none")),
        "link of a directory": ("EPERM", lambda: os.link(directory, place / "x")),
        "link over a file": ("EEXIST", lambda: os.link(file, full)),
        "symlink over a file": ("EEXIST", lambda: os.symlink("x", file)),
        "mknod over a file": ("EEXIST", lambda: os.mkfifo(file)),
        "readlink of a file": ("EINVAL", lambda: os.readlink(file)),
        "rename of nothing": ("ENOENT", lambda: os.rename(place / "none", place / "x")),
        "rename of a file over a directory": ("EISDIR", lambda: os.rename(file, directory)),
        "rename of a directory over a file": ("ENOTDIR", lambda: os.rename(directory, file)),
        "rename over what is full": ("ENOTEMPTY", lambda: os.rename(directory, full)),
        "rename into itself": ("EINVAL", lambda: os.rename(full, full / "below/x")),
        "truncate a directory": ("EISDIR", lambda: os.truncate(directory, 0)),
        "truncate to too much": ("EFBIG", lambda: os.truncate(file, 1 << 61)),
        "read a directory": ("EISDIR", lambda: os.read(os.open(directory, os.O_RDONLY), 1)),
    }
    assert {what: error_of(work) for what, (_, work) in cases.items()} == {what: expected for what, (expected, _) in cases.items()}


def test_a_name_has_255_bytes_and_no_more(place: Path):
    fits, long = place / LONG[1:], place / LONG
    fits.write_bytes(b"")
    works: list[Callable[[], object]] = [
        lambda: opened(long),
        lambda: long.stat(),
        lambda: long.mkdir(),
        lambda: long.symlink_to("x"),
        lambda: os.mkfifo(long),
        lambda: fits.rename(long),
        lambda: long.rename(place / "short"),
        lambda: long.hardlink_to(fits),
        lambda: long.unlink(),
        lambda: long.rmdir(),
    ]
    assert [error_of(work) for work in works] == ["ENAMETOOLONG"] * len(works)
    assert os.listdir(place) == [LONG[1:]]


def test_names_are_bytes(place: Path):
    for name in (b"\xff\xfe", b" ", b"a\nb", "ünï".encode(), b"..."):
        path = os.fsencode(place) + b"/" + name
        os.close(os.open(path, os.O_CREAT))
        assert name in os.listdir(os.fsencode(place))
        os.unlink(path)
    assert os.listdir(place) == []


# Permissions
def test_the_kernel_checks_permissions(place: Path):
    (place / "secret").write_bytes(b"x")
    (place / "secret").chmod(0o600)
    (place / "open").write_bytes(b"x")
    place.chmod(0o1777)
    with user():
        assert error_of(lambda: os.open(place / "secret", os.O_RDONLY)) == "EACCES"
        assert error_of(lambda: os.open(place / "open", os.O_WRONLY)) == "EACCES"
        assert error_of(lambda: (place / "open").unlink()) == "EPERM", "sticky"
        assert error_of(lambda: (place / "open").chmod(0o777)) == "EPERM"
        assert error_of(lambda: os.chown(place / "open", NOBODY, NOBODY)) == "EPERM"
        (place / "mine").write_bytes(b"x")
        (place / "mine").chmod(0o640)
    mine = (place / "mine").stat()
    assert (mine.st_uid, mine.st_gid, stat.S_IMODE(mine.st_mode)) == (NOBODY, NOBODY, 0o640)


def test_a_write_by_others_takes_set_id_bits_away(place: Path):
    path = place / "f"

    def after(work: Callable[[], object], uid: int = NOBODY) -> int:
        path.write_bytes(b"content")
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o6777)
        with user(uid):
            work()
        return stat.S_IMODE(path.stat().st_mode)

    def write() -> None:
        fd = os.open(path, os.O_WRONLY)
        os.write(fd, b"x")
        os.close(fd)

    assert after(write) == 0o777
    assert after(lambda: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))) == 0o777
    assert after(lambda: os.truncate(path, 1)) == 0o777
    assert after(lambda: os.chown(path, NOBODY, NOBODY)) == 0o777
    assert after(lambda: path.read_bytes()) == 0o6777
    path.write_bytes(b"by root")
    assert stat.S_IMODE(path.stat().st_mode) == 0o6777, "root may"


# Attributes
def test_times_are_kept_to_the_nanosecond_before_1970_too(place: Path):
    path = place / "f"
    path.touch()
    os.utime(path, ns=(-1_500_000_000, 4_294_967_297_000_000_001))
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (-1_500_000_000, 4_294_967_297_000_000_001)
    before = time.time_ns()
    os.utime(path)
    assert abs(path.stat().st_mtime_ns - before) < 5 * 10**9
    changed = path.stat().st_ctime_ns
    path.chmod(0o600)
    assert path.stat().st_ctime_ns > changed


def test_times_follow_changes(place: Path):
    path = place / "f"
    path.write_bytes(b"1")
    os.utime(place, ns=(0, 0))
    os.utime(path, ns=(0, 0))
    with path.open("ab") as file:
        file.write(b"2")
    assert path.stat().st_mtime_ns > 0
    (place / "g").touch()
    assert place.stat().st_mtime_ns > 0
    os.utime(place, ns=(0, 0))
    (place / "g").unlink()
    assert place.stat().st_mtime_ns > 0


def test_statfs_tells_the_truth(shared_rig: Rig, place: Path):
    before = os.statvfs(place)
    assert (before.f_namemax, before.f_frsize, before.f_bavail) == (255, 4096, before.f_bfree)
    total, free, _ = shared_rig.call("statistics")
    assert before.f_blocks == total // 4096
    assert abs(before.f_bfree - free // 4096) <= 1024
    (place / "f").write_bytes(os.urandom(16 << 20))
    # What is still in the journal counts too, but not byte by byte.
    assert before.f_bfree - os.statvfs(place).f_bfree >= (8 << 20) // 4096


def test_attributes_are_set_listed_and_removed(place: Path):
    path = place / "f"
    path.touch()
    os.setxattr(path, "user.a", b"one", os.XATTR_CREATE)
    assert error_of(lambda: os.setxattr(path, "user.a", b"two", os.XATTR_CREATE)) == "EEXIST"
    assert error_of(lambda: os.setxattr(path, "user.b", b"two", os.XATTR_REPLACE)) == "ENODATA"
    os.setxattr(path, "user.a", b"\0\xff", os.XATTR_REPLACE)
    os.setxattr(path, "trusted.t", b"")
    os.setxattr(path, "security.s", b"s" * 10_000)
    assert os.getxattr(path, "user.a") == b"\0\xff"
    assert len(os.getxattr(path, "security.s")) == 10_000
    assert sorted(os.listxattr(path)) == ["security.s", "trusted.t", "user.a"]
    with user():
        assert sorted(os.listxattr(path)) == ["security.s", "user.a"]
    os.removexattr(path, "user.a")
    assert error_of(lambda: os.removexattr(path, "user.a")) == "ENODATA"
    assert error_of(lambda: os.getxattr(path, "user.a")) == "ENODATA"
    assert error_of(lambda: os.setxattr(path, "user.large", b"x" * 60_000)) == "ENOSPC"
    os.setxattr(place, "user.directory", b"too")
    assert os.listxattr(place) == ["user.directory"]


def test_access_lists_give_and_take(place: Path):
    path = place / "f"
    path.write_bytes(b"x")
    path.chmod(0o600)
    anybody = 0xFFFFFFFF
    entries = ((1, 6, anybody), (2, 4, NOBODY), (4, 0, anybody), (16, 4, anybody), (32, 0, anybody))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    os.setxattr(path, "system.posix_acl_access", acl)
    assert os.getxattr(path, "system.posix_acl_access") == acl
    assert stat.S_IMODE(path.stat().st_mode) == 0o640, "the group bits are the list's mask"
    with user():
        assert path.read_bytes() == b"x"
        assert error_of(lambda: os.open(path, os.O_WRONLY)) == "EACCES"
    with user(NOBODY - 1):
        assert error_of(lambda: os.open(path, os.O_RDONLY)) == "EACCES"
    os.removexattr(path, "system.posix_acl_access")
    with user():
        assert error_of(lambda: os.open(path, os.O_RDONLY)) == "EACCES"


@pytest.mark.parametrize("name", ["system.other", "user.", "nonsense"])
def test_other_namespaces_are_not_served(place: Path, name: str):
    (place / "f").touch()
    assert error_of(lambda: os.setxattr(place / "f", name, b"")) in ("ENOTSUP", "EINVAL")
    assert error_of(lambda: os.getxattr(place / "f", name)) in ("ENOTSUP", "EINVAL")


# Content
def test_large_content_comes_back_whole(place: Path):
    content = random.Random(1).randbytes(5 << 20)
    (place / "f").write_bytes(content)
    assert (place / "f").read_bytes() == content
    fd = os.open(place / "f", os.O_RDONLY)
    assert os.pread(fd, 70_000, 1_234_567) == content[1_234_567:1_304_567]
    assert os.pread(fd, 10, 5 << 20) == b""
    os.close(fd)


def test_pieces_land_where_they_belong(place: Path):
    dice, content = random.Random(2), bytearray(300_000)
    fd = opened(place / "f")
    for _ in range(200):
        offset = dice.randrange(290_000)
        piece = dice.randbytes(dice.randrange(1, 10_000))
        os.pwrite(fd, piece, offset)
        content[offset : offset + len(piece)] = piece
    size = os.fstat(fd).st_size
    os.close(fd)
    assert (place / "f").read_bytes() == bytes(content[:size])


def test_holes_are_zeros_and_take_no_space(place: Path):
    fd = opened(place / "f")
    os.pwrite(fd, b"data", 1 << 30)
    os.ftruncate(fd, 1 << 40)
    found = os.fstat(fd)
    assert (found.st_size, os.pread(fd, 4, 1 << 30), os.pread(fd, 4, 1 << 29)) == (1 << 40, b"data", b"\0" * 4)
    assert found.st_blocks * 512 < 1 << 20
    os.close(fd)


def test_truncation_cuts_and_extends(place: Path):
    path = place / "f"
    path.write_bytes(b"x" * 10_000)
    os.truncate(path, 5000)
    os.truncate(path, 20_000)
    assert path.read_bytes() == b"x" * 5000 + b"\0" * 15_000
    fd = opened(path)
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    assert os.fstat(fd).st_size == 0
    assert os.read(fd, 10) == b""
    os.close(fd)


def test_appenders_never_overwrite_each_other(place: Path):
    path = place / "f"

    def append(letter: bytes) -> None:
        with path.open("ab", buffering=0) as file:
            for _ in range(50):
                file.write(letter * 10)

    threads = [threading.Thread(target=append, args=(letter,)) for letter in (b"a", b"b", b"c", b"d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = path.read_bytes()
    assert len(content) == 2000
    assert all(len(set(content[at : at + 10])) == 1 for at in range(0, 2000, 10))


def test_a_file_without_names_lives_until_its_last_close(shared_rig: Rig, place: Path):
    fd = opened(place / "f")
    os.write(fd, b"still here")
    other = os.open(place / "f", os.O_RDONLY)
    inode = os.fstat(fd).st_ino
    os.unlink(place / "f")
    os.close(fd)
    assert (os.pread(other, 100, 0), os.fstat(other).st_nlink) == (b"still here", 0)
    os.close(other)
    until = time.monotonic() + 10
    while error_of(lambda: shared_rig.call("stat", inode)) != "ESTALE":
        assert time.monotonic() < until, "its content is never given back"
        time.sleep(0.01)


def test_a_removed_directory_that_is_open_can_be_asked_for(place: Path):
    (place / "d").mkdir()
    fd = os.open(place / "d", os.O_RDONLY)
    os.rmdir(place / "d")
    assert os.fstat(fd).st_nlink == 0
    assert error_of(lambda: os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=fd)) == "ENOENT"
    os.close(fd)


def test_copies_within_the_mount(place: Path):
    content = random.Random(3).randbytes(100_000)
    (place / "from").write_bytes(content)
    (place / "to").write_bytes(b"before")
    source, target = os.open(place / "from", os.O_RDONLY), os.open(place / "to", os.O_RDWR)
    copied = 0
    while step := os.copy_file_range(source, target, 1 << 20, 10 + copied, 3 + copied):
        copied += step
    assert copied == 99_990
    os.close(source)
    os.close(target)
    assert (place / "to").read_bytes() == b"bef" + content[10:]


def test_what_fallocate_has_not_is_said(place: Path):
    fd = opened(place / "f")
    assert error_of(lambda: fallocate(fd, FALLOC_COLLAPSE_RANGE, 0, 4096)) == "ENOTSUP"
    os.close(fd)


def test_direct_and_cached_access_agree(place: Path):
    content = random.Random(4).randbytes(256 << 10)
    (place / "f").write_bytes(content)
    assert (place / "f").read_bytes() == content
    fd = os.open(place / "f", os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, 8192) as block:
        assert os.preadv(fd, [block], 4096) == 8192
        assert block[:] == content[4096:12288]
        block[:] = b"9" * 8192
        assert os.pwritev(fd, [block], 8192) == 8192
    os.close(fd)
    assert (place / "f").read_bytes() == content[:8192] + b"9" * 8192 + content[16384:]


def test_mapped_pages_are_the_file(shared_rig: Rig, place: Path):
    fd = opened(place / "f")
    os.write(fd, b"x" * 8192)
    with mmap.mmap(fd, 8192) as pages:
        assert pages[:] == b"x" * 8192
        pages[5000:5004] = b"mmap"
        pages.flush()
    assert shared_rig.call("read", os.fstat(fd).st_ino, 5000, 4) == "mmap"
    os.close(fd)


def test_what_is_synced_is_answered(place: Path):
    for flags in (0, os.O_SYNC, os.O_DSYNC):
        fd = opened(place / f"f{flags}", os.O_CREAT | os.O_RDWR | flags)
        assert os.write(fd, b"content") == 7
        os.fsync(fd)
        os.fdatasync(fd)
        assert os.pread(fd, 10, 0) == b"content"
        os.close(fd)
    directory = os.open(place, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def test_locks_hold_among_programs(place: Path):
    first, second = opened(place / "f"), opened(place / "f")
    fcntl.flock(first, fcntl.LOCK_EX)
    assert error_of(lambda: fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)) == "EAGAIN"
    fcntl.flock(first, fcntl.LOCK_UN)
    fcntl.flock(second, fcntl.LOCK_SH | fcntl.LOCK_NB)
    fcntl.lockf(first, fcntl.LOCK_EX, 10, 5)
    script = f"import fcntl, os; fcntl.lockf(os.open({str(place / 'f')!r}, os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB, %d, 0)"
    tried = [subprocess.run(["python3", "-c", script % length], stderr=subprocess.DEVNULL).returncode for length in (5, 6)]
    assert tried == [0, 1]
    os.close(first)
    os.close(second)


def test_open_files_can_be_polled(place: Path):
    fd = opened(place / "f")
    poll = select.poll()
    poll.register(fd)
    assert poll.poll(0)[0][1] & (select.POLLIN | select.POLLOUT) == select.POLLIN | select.POLLOUT
    os.close(fd)


# Listings
def test_every_entry_is_listed_once_with_its_inode_and_type(place: Path):
    for number in range(1500):
        os.mknod(place / f"{number:0{number % 200 + 4}}", stat.S_IFREG | 0o600)
    (place / "directory").mkdir()
    entries = list(os.scandir(place))
    assert len(entries) == len({entry.name for entry in entries}) == 1501
    assert all(entry.inode() == entry.stat().st_ino for entry in entries)
    assert [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)] == ["directory"]


def test_what_stays_is_seen_once_while_all_else_changes(place: Path):
    for number in range(400):
        for kind in ("stays", "goes"):
            (place / f"{kind}-{number}").touch()
    seen: list[str] = []
    with os.scandir(place) as entries:
        for count, entry in enumerate(entries):
            if entry.name.startswith("stays"):
                seen.append(entry.name)
            if count < 400:
                (place / f"goes-{count}").unlink()
                (place / f"new-{count}").touch()
    assert len(seen) == len(set(seen)) == 400


def test_a_listing_is_new_after_a_change(place: Path):
    assert os.listdir(place) == []
    (place / "f").touch()
    assert os.listdir(place) == ["f"]
    (place / "f").unlink()
    assert os.listdir(place) == []


# Other faces
def test_what_others_change_shows_within_the_timeout(shared_rig: Rig, place: Path):
    path = place / "f"
    path.write_bytes(b"ours")
    inode = path.stat().st_ino
    assert path.read_bytes() == b"ours"
    shared_rig.call("write", inode, 0, b"theirs", False)
    shared_rig.call("create", place.stat().st_ino, b"made", stat.S_IFREG | 0o644, 0, 5, 6)
    assert (place / "made").stat().st_uid == 5
    time.sleep(CACHED_SECONDS)
    assert path.stat().st_size == 6
    assert path.read_bytes() == b"theirs"
    shared_rig.call("unlink", place.stat().st_ino, b"f")
    time.sleep(CACHED_SECONDS)
    assert not path.exists()


def test_an_open_file_shows_what_others_wrote(shared_rig: Rig, place: Path):
    fd = opened(place / "f")
    os.write(fd, b"a" * 8192)
    assert os.pread(fd, 8192, 0) == b"a" * 8192
    shared_rig.call("write", os.fstat(fd).st_ino, 0, b"b" * 8192, False)
    until = time.monotonic() + 10
    while os.pread(fd, 8192, 0) != b"b" * 8192:
        assert time.monotonic() < until, "the page cache never learns it"
        time.sleep(0.1)
        os.stat(place / "f")
    os.close(fd)


def test_every_directory_has_its_snapshots(shared_rig: Rig, place: Path):
    (place / "a/b").mkdir(parents=True)
    (place / "a/b/file").write_bytes(b"old")
    (place / "a/link").symlink_to("b/file")
    path = f"/{VIEW}/{place.relative_to(shared_rig.mountpoint)}"
    assert not (place / ".snapshot/one").exists()
    shared_rig.do("snapshot", path=path, name="one")
    (place / "a/b/file").write_bytes(b"newer")
    (place / "a/link").unlink()
    shown = place / ".snapshot/one/a"
    assert os.listdir(place) == ["a"] and os.listdir(place / ".snapshot") == ["one"]
    assert sorted(os.listdir(shown)) == ["b", "link"] and (shown / "link").readlink() == Path("b/file")
    assert (shown / "b/file").read_bytes() == (place / "a/b/.snapshot/one/file").read_bytes() == b"old"
    assert (shown / "b/file").stat().st_ino == (place / "a/b/.snapshot/one/file").stat().st_ino != (place / "a/b/file").stat().st_ino
    for change in (
        lambda: (shown / "b/file").write_bytes(b"x"),
        lambda: (shown / "b/file").unlink(),
        lambda: (shown / "new").mkdir(),
        lambda: (place / ".snapshot/two").mkdir(),
        lambda: os.rename(shown / "b", shown / "c"),
        lambda: os.chmod(shown, 0o700),
    ):
        with pytest.raises(OSError) as refused:
            change()
        assert refused.value.errno == errno.EROFS
    shutil.copyfile(shown / "b/file", place / "back")
    assert (place / "back").read_bytes() == b"old"
    shared_rig.do("delete_snapshot", path=path, name="one")
    limit = time.monotonic() + 30 * CACHED_SECONDS
    while (place / ".snapshot/one").exists():
        assert time.monotonic() < limit, "the kernel's cache never lets go of it"


def test_many_threads_at_once(place: Path):
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            mine = place / f"t{number}"
            mine.mkdir()
            for turn in range(20):
                (mine / f"{turn}").write_bytes(b"%d" % turn * 1000)
                (mine / f"{turn}").rename(mine / f"r{turn}")
                assert (mine / f"r{turn}").read_bytes() == b"%d" % turn * 1000
            assert len(os.listdir(mine)) == 20
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
