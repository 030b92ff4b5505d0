"""A store that fails in every way it can: each is an errno, and the mount goes on. Needs root and /dev/fuse.

The mount is served by a thread of this process: system calls of Python's `os` let go of the interpreter, so that the two do not wait for each other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from element_store import Store
from element_store.files import ROOT, FileSystem
from element_store.testing import MemoryDevices
from element_store.types import Attributes
from protocols.fuse.pyfuse3_engine import session as session_module
from protocols.fuse.pyfuse3_engine.session import Options, Session


class Panic(BaseException):
    """As the core's, which is no Exception either."""


class Faulty:
    """The store's files, of which calls can be made to fail."""

    def __init__(self, files: FileSystem) -> None:
        self._files = files
        self.faults: dict[str, Callable[[], Any]] = {}

    def __getattr__(self, name: str) -> Any:
        """The same object each time, as methods are equal to themselves."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if name in self.faults:
                self.faults[name]()
            return getattr(self._files, name)(*args, **kwargs)

        return self.__dict__.setdefault(name, call)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await MemoryDevices(2).open(state=tmp_path / "state")
    await store.create_view("view", Attributes(mode=0o755))
    yield store
    await store.close()


@pytest.fixture
async def faulty(store: Store, tmp_path: Path) -> AsyncIterator[tuple[Faulty, Session]]:
    files = Faulty(store.files())
    (tmp_path / "mount").mkdir()
    root = (await store.view("view")).id
    session = Session(files, tmp_path / "mount", Options(root))
    yield files, session
    files.faults.clear()
    if session.is_alive:
        session.end()


def failing(error: BaseException) -> Callable[[], Any]:
    def fail() -> None:
        raise error

    return fail


def error_of(work: Callable[[], object]) -> int:
    with pytest.raises(OSError) as failure:
        work()
    return failure.value.errno or 0


FAILURES = (
    ("lookup", lambda path: os.stat(path / "absent")),
    ("create", lambda path: os.mkdir(path / "new")),
    ("create", lambda path: os.close(os.open(path / "new", os.O_CREAT | os.O_WRONLY))),
    ("symlink", lambda path: os.symlink("x", path / "new")),
    ("link", lambda path: os.link(path / "f", path / "new")),
    ("unlink", lambda path: os.unlink(path / "f")),
    ("remove_directory", lambda path: os.rmdir(path / "d")),
    ("rename", lambda path: os.rename(path / "f", path / "new")),
    ("read_link", lambda path: os.readlink(path / "l")),
    ("change", lambda path: os.chmod(path / "f", 0o600)),
    ("open", lambda path: os.close(os.open(path / "f", os.O_RDONLY))),
    ("open", lambda path: os.listdir(path / "d")),
    ("list", lambda path: os.listdir(path / "d")),
    ("read", lambda path: (path / "f").read_bytes()),
    ("write", lambda path: (path / "f").write_bytes(b"x")),
    ("sync", lambda path: os.fsync(os.open(path / "f", os.O_RDONLY))),
    ("set_xattr", lambda path: os.setxattr(path / "f", "user.a", b"")),
    ("xattr", lambda path: os.getxattr(path / "f", "user.a")),
    ("xattrs", lambda path: os.listxattr(path / "f")),
    ("remove_xattr", lambda path: os.removexattr(path / "f", "user.a")),
    ("statistics", lambda path: os.statvfs(path)),
)


@pytest.mark.expects_warnings
def test_every_failure_is_answered_and_the_mount_goes_on(faulty: tuple[Faulty, Session]):
    files, session = faulty
    path = session.path
    (path / "d").mkdir()
    (path / "l").symlink_to("f")
    wrong = []
    for error, expected in (
        (ValueError("a defect"), errno.EIO),
        (Panic("inside"), errno.EIO),
        (OSError(errno.ENOSPC, "full"), errno.ENOSPC),
    ):
        for name, work in FAILURES:
            (path / "f").write_bytes(b"content")
            files.faults = {name: failing(error)}
            answered = error_of(lambda work=work: work(path))  # type: ignore[misc]
            files.faults = {}
            if answered != expected:
                wrong.append((name, error, answered))
    assert wrong == []
    assert (path / "f").read_bytes() == b"content"
    assert session.is_alive


@pytest.mark.expects_warnings
def test_a_hundred_failures_in_a_row_do_not_end_it(faulty: tuple[Faulty, Session]):
    """pyfuse3's own asyncio mode lost one of its 99 workers by each."""
    files, session = faulty
    files.faults = {"lookup": failing(RuntimeError("again"))}
    for number in range(250):
        assert error_of(lambda number=number: os.stat(session.path / str(number))) == errno.EIO  # type: ignore[misc]
    files.faults = {}
    (session.path / "f").touch()


def test_what_waits_does_not_hold_up_what_does_not(faulty: tuple[Faulty, Session]):
    files, session = faulty
    path = session.path
    files.faults = {"write": lambda: time.sleep(0.01)}
    (path / "f").write_bytes(b"content")
    go_on = threading.Event()
    files.faults = {"write": lambda: go_on.wait(60)}
    writers = [threading.Thread(target=lambda number=number: (path / f"w{number}").write_bytes(b"x")) for number in range(4)]
    for writer in writers:
        writer.start()
    assert (path / "f").read_bytes() == b"content"
    assert "f" in os.listdir(path)
    assert all(writer.is_alive() for writer in writers)
    go_on.set()
    for writer in writers:
        writer.join()
    assert (path / "w3").read_bytes() == b"x"


def test_an_end_does_not_wait_for_ever(faulty: tuple[Faulty, Session], monkeypatch: pytest.MonkeyPatch):
    files, session = faulty
    monkeypatch.setattr(session_module, "END_SECONDS_MAX", 0.2)
    go_on = threading.Event()
    files.faults = {"sync": lambda: go_on.wait(60)}
    fd = os.open(session.path / "f", os.O_CREAT | os.O_WRONLY)

    def synced() -> None:
        with pytest.raises(OSError):
            os.fsync(fd)

    writer = threading.Thread(target=synced)
    writer.start()
    with pytest.raises(Exception, match="requests were still in the store"):
        session.end()
    go_on.set()
    writer.join(10)
    assert not writer.is_alive()
    with contextlib.suppress(OSError):
        os.close(fd)
    session.end()
    assert not session.is_alive


async def test_what_other_faces_change_is_told_to_the_kernel(faulty: tuple[Faulty, Session], store: Store, monkeypatch: pytest.MonkeyPatch):
    _, session = faulty
    path, real = session.path, store.files()
    monkeypatch.setattr("protocols.fuse.pyfuse3_engine.shape.TIMEOUT_SECONDS", 3600.0)
    fd = os.open(path / "f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"a" * 4096)
    inode = os.fstat(fd).st_ino
    real.write(inode, 0, b"b" * 8192, False)
    assert _soon(lambda: os.pread(fd, 8192, 0) == b"b" * 8192)
    real.change(inode, mode=0o600)
    assert _soon(lambda: os.stat(path / "f").st_mode == 0o100600)
    root = real.lookup(ROOT, b"view").inode
    real.rename(root, b"f", root, b"elsewhere", 0)
    assert _soon(lambda: not (path / "f").exists())
    assert os.listdir(path) == ["elsewhere"]
    os.close(fd)


def _soon(holds: Callable[[], bool]) -> bool:
    pause = threading.Event()
    return any(holds() or pause.wait(0.01) for _ in range(1000))
