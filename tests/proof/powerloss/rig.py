"""Recorded devices: one `qemu-storage-daemon` that exports a file per device over FUSE and logs what reaches each.

The exported path is handed to the subject as its device. `cut()` freezes the storage daemon, so that the positions of all logs belong to
one moment: what was answered before it is in the logs, what was asked after it is in none. Host flushes are off below the log
(`no-flush`), because what the host really syncs does not matter here; the log still records every flush that the subject asked for.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.proof.powerloss import blklog, preload

START_SECONDS_MAX = 10.0
FREEZE_SECONDS_MAX = 10.0
END_SECONDS_MAX = 5.0
"""Then it is killed: the logs are complete by then, and qemu now and then does not end by itself."""
CUT_ATTEMPTS_MAX = 40
CUT_PAUSE_SECONDS = 0.002
LOG_BYTES_MAX = 64 << 30
"""Apparent size of the sparse log file; blklogwrites does not grow it."""


class RigError(Exception):
    """The instrument cannot run; one sentence that says what is missing."""


@dataclass(frozen=True, slots=True)
class Cut:
    """One moment: log positions of all devices, and the clock around it (`time.monotonic_ns`).

    Whatever was acknowledged before `before_ns` must be there; whatever began after `after_ns` cannot be.
    """

    before_ns: int
    after_ns: int
    positions: tuple[int, ...]


def missing_tools() -> str | None:
    """What keeps the rig from running here, in one sentence; None if nothing does."""
    if shutil.which("qemu-storage-daemon") is None:
        return "qemu-storage-daemon is not installed; run: apt-get install qemu-utils qemu-system-common"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be opened; run as root or load the fuse module"
    return None


class Drives:
    """N recorded devices of equal size in one directory. A context manager; the recordings stay after it ends."""

    def __init__(self, directory: Path, count: int, size: int) -> None:
        self.directory = directory
        self.count = count
        self.size = size
        self.paths: Sequence[Path] = [directory / f"device-{index}" for index in range(count)]
        self.logs: Sequence[Path] = [directory / f"log-{index}" for index in range(count)]
        self._process: subprocess.Popen[bytes] | None = None
        self._log_fds: list[int] = []
        self._ends: list[int] = []
        self._heads: list[int] = []
        self._unflushed: list[bool] = []

    def __enter__(self) -> Self:
        problem = missing_tools()
        if problem:
            raise RigError(problem)
        self.directory.mkdir(parents=True, exist_ok=True)
        for index in range(self.count):
            _sparse(self.directory / f"image-{index}", self.size)
            _sparse(self.logs[index], LOG_BYTES_MAX)
            self.paths[index].touch()
        with (self.directory / "qemu.log").open("wb") as output:
            environment = {**os.environ, "LD_PRELOAD": str(preload.build("fuse_export", self.directory))}
            self._process = subprocess.Popen(self._command(), env=environment, stdout=output, stderr=subprocess.STDOUT)
        self._wait_for_exports()
        self._log_fds = [os.open(log, os.O_RDONLY) for log in self.logs]
        self._ends = [blklog.first_entry()] * self.count
        self._heads = [blklog.first_entry()] * self.count
        self._unflushed = [False] * self.count
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for fd in self._log_fds:
            os.close(fd)
        self._log_fds = []
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(timeout=END_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for path in self.paths:
            if _is_mounted(path):
                subprocess.run(["umount", "-l", str(path)], check=False)

    def cut(self) -> Cut:
        """Freeze the devices, read all positions, let them go on."""
        assert self._process is not None
        before = time.monotonic_ns()
        self._process.send_signal(signal.SIGSTOP)
        try:
            _wait_until_stopped(self._process.pid)
            self._ends = [blklog.written_end(fd, end) for fd, end in zip(self._log_fds, self._ends, strict=True)]
            return Cut(before, time.monotonic_ns(), tuple(self._ends))
        finally:
            self._process.send_signal(signal.SIGCONT)

    def cut_between_flushes(self) -> Cut:
        """A cut at which some device holds writes that no flush covers, if one is met soon: idle moments prove little."""
        cut = self.cut()
        for _ in range(CUT_ATTEMPTS_MAX):
            if any(self._is_unflushed(index, end) for index, end in enumerate(cut.positions)):
                break
            time.sleep(CUT_PAUSE_SECONDS)
            cut = self.cut()
        return cut

    def _is_unflushed(self, index: int, end: int) -> bool:
        """Follows the log from where it was left; reads what was complete at the cut, so it may go on meanwhile."""
        try:
            for entry in blklog.entries(self._log_fds[index], self._heads[index], end):
                self._heads[index], self._unflushed[index] = entry.end, not entry.flush
        except blklog.BadLog:
            # An entry that is reserved and not written yet: under way at the cut.
            return True
        return self._unflushed[index]

    def recorded_bytes(self) -> int:
        return sum(os.stat(log).st_blocks * 512 for log in self.logs)

    def _command(self) -> list[str]:
        command = ["qemu-storage-daemon"]
        for index in range(self.count):
            image, log = self.directory / f"image-{index}", self.logs[index]
            command += ["--blockdev", f"driver=file,node-name=image{index},filename={image},cache.no-flush=on"]
            command += ["--blockdev", f"driver=file,node-name=log{index},filename={log},cache.no-flush=on"]
            command += ["--blockdev", f"driver=blklogwrites,node-name=drive{index},file=image{index},log=log{index},log-sector-size=4096"]
            command += ["--export", f"type=fuse,id=export{index},node-name=drive{index},mountpoint={self.paths[index]},writable=on"]
        return command

    def _wait_for_exports(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS_MAX
        while not all(_is_mounted(path) for path in self.paths):
            if self._process.poll() is not None or time.monotonic() > deadline:
                output = (self.directory / "qemu.log").read_text(errors="replace").strip()
                self.__exit__(None, None, None)
                raise RigError(f"qemu-storage-daemon did not export the devices: {output}")
            time.sleep(0.02)


def _sparse(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _is_mounted(path: Path) -> bool:
    try:
        return os.stat(path).st_dev != os.stat(path.parent).st_dev
    except OSError as error:
        # A mount whose server was killed.
        if error.errno != errno.ENOTCONN:
            raise
        return True


def _wait_until_stopped(pid: int) -> None:
    """SIGSTOP takes effect thread by thread; a thread inside a write finishes it first."""
    deadline = time.monotonic() + FREEZE_SECONDS_MAX
    while not all(_is_stopped(task) for task in Path(f"/proc/{pid}/task").iterdir()):
        if time.monotonic() > deadline:
            raise RigError("qemu-storage-daemon did not stop for a sample")
        time.sleep(0.0005)


def _is_stopped(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rsplit(")", 1)[1].split()[0] in "TtZX"
    except FileNotFoundError:
        return True
