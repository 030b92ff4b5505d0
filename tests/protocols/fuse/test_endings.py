"""How mounts begin and end: refusals in one sentence, ends although they are used, dead mounts, and what is left open in the store."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.protocols.fuse.conftest import Refused, Rig


def is_mounted(path: Path) -> bool:
    return any(line.split(" ")[1] == str(path) for line in Path("/proc/self/mounts").read_text().splitlines())


def test_an_ended_mount_is_gone_and_can_come_again(rig: Rig):
    rig.mount()
    (rig.mountpoint / "f").write_bytes(b"content")
    inode = (rig.mountpoint / "f").stat().st_ino
    rig.end()
    assert not is_mounted(rig.mountpoint)
    assert os.listdir(rig.mountpoint) == []
    rig.mount()
    assert (rig.mountpoint / "f").read_bytes() == b"content"
    assert (rig.mountpoint / "f").stat().st_ino == inode


def test_it_ends_although_it_is_used_and_loses_no_mapped_page(rig: Rig):
    rig.mount()
    fd = os.open(rig.mountpoint / "f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"x" * 4096)
    inode = os.fstat(fd).st_ino
    with mmap.mmap(fd, 4096) as pages, subprocess.Popen(["sleep", "60"], cwd=rig.mountpoint) as program:
        pages[0:6] = b"mapped"
        rig.end()
        program.kill()
    assert not is_mounted(rig.mountpoint)
    with pytest.raises(OSError) as refusal:
        os.fstat(fd)
    assert refusal.value.errno == errno.ENOTCONN
    with contextlib.suppress(OSError):
        os.close(fd)
    assert rig.call("read", inode, 0, 8) == "mappedxx"


def test_what_was_open_at_the_end_is_closed_in_the_store(rig: Rig):
    rig.mount()
    fd = os.open(rig.mountpoint / "f", os.O_CREAT | os.O_RDWR)
    inode = os.fstat(fd).st_ino
    os.unlink(rig.mountpoint / "f")
    assert rig.call("stat", inode)[0] == inode
    rig.end()
    with contextlib.suppress(OSError):
        os.close(fd)
    with pytest.raises(OSError) as gone:
        for _ in range(1000):
            rig.call("stat", inode)
            time.sleep(0.01)
    assert gone.value.errno == errno.ESTALE


def test_what_others_unmounted_ends_quietly_and_touches_nothing_else(rig: Rig):
    rig.mount()
    subprocess.run(["umount", rig.mountpoint], check=True)
    assert not rig.do("is_mounted", path=str(rig.mountpoint))
    subprocess.run(["mount", "-t", "tmpfs", "other", rig.mountpoint], check=True)
    rig.end()
    assert is_mounted(rig.mountpoint), "the other mount is left alone"
    subprocess.run(["umount", rig.mountpoint], check=True)
    rig.mount()
    assert rig.do("is_mounted", path=str(rig.mountpoint))


def test_a_mount_whose_server_died_is_replaced(rig: Rig, tmp_path: Path):
    rig.mount()
    (rig.mountpoint / "f").write_bytes(b"content")
    rig.kill()
    with pytest.raises(OSError) as dead:
        os.listdir(rig.mountpoint)
    assert dead.value.errno == errno.ENOTCONN
    (tmp_path / "next").mkdir()
    following = Rig(tmp_path / "next", rig.engine)
    try:
        following.mount(rig.mountpoint)
        assert os.listdir(rig.mountpoint) == [], "another store"
        following.do("end", path=str(rig.mountpoint))
    finally:
        following.close()


def test_nothing_is_changed_on_a_mount_for_reading(rig: Rig):
    rig.mount()
    (rig.mountpoint / "f").write_bytes(b"content")
    rig.end()
    rig.mount(read_only=True)
    assert (rig.mountpoint / "f").read_bytes() == b"content"
    with pytest.raises(OSError) as refusal:
        (rig.mountpoint / "g").touch()
    assert refusal.value.errno == errno.EROFS


def test_all_buckets_are_directories_of_a_mount_without_a_view(rig: Rig):
    rig.mount(view=None)
    assert os.listdir(rig.mountpoint) == ["view"]
    (rig.mountpoint / "made").mkdir()
    assert sorted(os.listdir(rig.mountpoint)) == ["made", "view"]
    with pytest.raises(PermissionError):
        (rig.mountpoint / "file").touch()
    (rig.mountpoint / "view/f").touch()
    with pytest.raises(OSError) as refusal:
        (rig.mountpoint / "view/f").rename(rig.mountpoint / "made/f")
    assert refusal.value.errno == errno.EXDEV
    assert (rig.mountpoint / "view/..").stat().st_ino == rig.mountpoint.stat().st_ino
    (rig.mountpoint / "made").rmdir()


def test_strict_changes_are_answered(rig: Rig):
    rig.mount(strict=True)
    (rig.mountpoint / "d").mkdir()
    (rig.mountpoint / "d/f").write_bytes(b"content" * 1000)
    (rig.mountpoint / "d/f").rename(rig.mountpoint / "g")
    assert (rig.mountpoint / "g").read_bytes() == b"content" * 1000


def test_refusals_are_one_sentence(rig: Rig, tmp_path: Path):
    (tmp_path / "file").touch()
    for path, said in ((tmp_path / "none", "No such file"), (tmp_path / "file", "Not a directory")):
        with pytest.raises(Refused, match=said) as refusal:
            rig.mount(path)
        assert str(path) in str(refusal.value)
    with pytest.raises(Refused):
        rig.mount(view="nothing")


def test_pyfuse3_has_one_mount_in_a_process_and_native_many(rig: Rig, tmp_path: Path):
    rig.mount()
    (tmp_path / "second").mkdir()
    if rig.engine == "native":
        rig.mount(tmp_path / "second")
        (tmp_path / "second/f").touch()
        assert (rig.mountpoint / "f").exists()
        return
    with pytest.raises(Refused, match=f"one mount in a process, and that is {rig.mountpoint}"):
        rig.mount(tmp_path / "second")
    assert not is_mounted(tmp_path / "second")
    assert os.listdir(rig.mountpoint) == []
