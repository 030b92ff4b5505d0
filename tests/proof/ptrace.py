"""Stops single threads of a process that this one started, as a scheduler that never picks them would: a signal stops all of them.

Linux only. The thread that stops others must also be the one that waits for them when they are gone.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_PTRACE_SEIZE, _PTRACE_INTERRUPT = 0x4206, 0x4207
_WALL = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def thread_named(pid: int, name: str) -> int:
    """Its id. Raises LookupError."""
    found = {(task / "comm").read_text().strip(): int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()}
    if name not in found:
        raise LookupError(f"process {pid} has no thread {name}, only {', '.join(sorted(found))}")
    return found[name]


def stop(thread: int) -> None:
    """It goes no further until it is killed. Raises OSError."""
    for request in (_PTRACE_SEIZE, _PTRACE_INTERRUPT):
        if _libc.ptrace(request, thread, None, None) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"thread {thread} cannot be stopped: {os.strerror(error)}")
    os.waitpid(thread, _WALL)


def reap(thread: int) -> None:
    """After a kill: a stopped thread must be waited for, or its process never ends."""
    os.waitpid(thread, _WALL)
