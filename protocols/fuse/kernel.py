"""Mounts as the kernel knows them: which is where, taking one away, and what it reads ahead. As root by system calls, otherwise by `fusermount3`.

The native engine has its own of these, in Rust. pyfuse3's own way to unmount closes the device first, so that pages that programs changed through
`mmap` are lost; here the mount goes while it is still served.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

BUSY_SECONDS_MAX = 0.5
"""How long a busy mount may become idle before its connection is cut."""
BUSY_STEP_SECONDS = 0.025
WRITE_BACK_SECONDS_MAX = 5.0
"""How long pages that programs changed through `mmap` may take to be written back before that."""
HELPER_SECONDS_MAX = 10.0
READ_AHEAD_KIB = 1024
MNT_FORCE, MNT_DETACH, UMOUNT_NOFOLLOW = 1, 2, 8
_libc = ctypes.CDLL(None, use_errno=True)


class Mounted(NamedTuple):
    """A line of `mountinfo`. The kernel gives each of the two numbers to another mount later, hardly both to one of the same kind."""

    number: int
    device: str
    """Of `st_dev`: MAJOR:MINOR."""
    kind: str


def mounted(path: Path) -> Mounted | None:
    """What is mounted there last; nobody is asked."""
    found = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:  # noqa: PTH123
        for line in lines:
            fields = line.split(" ")
            if _unescaped(fields[4]) == str(path):
                found = Mounted(int(fields[0]), fields[2], fields[fields.index("-") + 1])
    return found


def clear_dead(path: Path) -> None:
    """A mount whose server died answers ENOTCONN for ever; it is taken away. Others are left alone."""
    try:
        # stat(2) may answer from attributes that the kernel still has.
        os.statvfs(path)
    except OSError as error:
        if error.errno == errno.ENOTCONN and _umount(path, MNT_DETACH) != 0:
            _fusermount("-u", "-z", "-q", path=path)


def unmount(path: Path, ours: Mounted, settle: Callable[[], None]) -> None:
    """Takes the mount away whether or not somebody uses it. What else may be mounted there by now is not touched.

    `settle`: returns when what the kernel has asked was answered. It asks for pages to be written, but does not wait until they are.
    """
    until = time.monotonic() + BUSY_SECONDS_MAX
    while mounted(path) == ours:
        failed = _umount(path, UMOUNT_NOFOLLOW)
        if failed == errno.EPERM and _fusermount("-u", "-q", path=path):
            return
        if failed not in (errno.EBUSY, errno.EPERM):
            return
        if failed == errno.EPERM or time.monotonic() > until:
            break
        time.sleep(BUSY_STEP_SECONDS)
    if mounted(path) != ours:
        return
    _write_back(path)
    settle()
    # FORCE cuts the connection and then finds the mount as busy as before; DETACH takes it out of the tree.
    _umount(path, MNT_FORCE | UMOUNT_NOFOLLOW)
    if _umount(path, MNT_DETACH | UMOUNT_NOFOLLOW) != 0 and mounted(path) == ours:
        _fusermount("-u", "-z", "-q", path=path)


def read_ahead(ours: Mounted) -> None:
    """128 KiB at most unless it is told here, which root may; a matter of speed alone."""
    with contextlib.suppress(OSError):
        Path(f"/sys/class/bdi/{ours.device}/read_ahead_kb").write_text(str(READ_AHEAD_KIB))


def _umount(path: Path, flags: int) -> int:
    """The errno, or 0."""
    if _libc.umount2(os.fsencode(path), flags) == 0:
        return 0
    return ctypes.get_errno()


def _fusermount(*arguments: str, path: Path) -> bool:
    try:
        helper = subprocess.run(
            ["fusermount3", *arguments, "--", str(path)],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=HELPER_SECONDS_MAX,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return helper.returncode == 0


def _write_back(path: Path) -> None:
    """In a thread of its own: a store that does not answer must not keep the mount."""

    def write_back() -> None:
        with contextlib.suppress(OSError):
            root = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                _libc.syncfs(root)
            finally:
                os.close(root)

    thread = threading.Thread(target=write_back, name="fuse-write-back", daemon=True)
    thread.start()
    thread.join(WRITE_BACK_SECONDS_MAX)


def _unescaped(field: str) -> str:
    for octal in ("\\040", "\\011", "\\012", "\\134"):
        field = field.replace(octal, chr(int(octal[1:], 8)))
    return field
