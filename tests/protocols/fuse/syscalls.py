"""System calls that Python's `os` does not have, with errors as OSError."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_COLLAPSE_RANGE, FALLOC_ZERO_RANGE = 1, 2, 8, 16

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def renameat2(source: Path, target: Path, flags: int) -> None:
    _checked(_libc.renameat2(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), flags))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """Not `os.posix_fallocate`, which writes zeros where it is not served."""
    _checked(_libc.fallocate(fd, mode, offset, length))


def birth_is_told(path: Path) -> bool:
    told = subprocess.run(["stat", "--format=%W", path], capture_output=True, text=True, check=True).stdout
    return int(told) > 0
