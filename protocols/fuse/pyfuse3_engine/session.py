"""One mount by pyfuse3: a thread with an event loop, from its mounting to its end.

pyfuse3 keeps its session in globals, so that a process has one at a time; `Session` guards them. Whatever calls into pyfuse3's session (the loop's
thread, the thread that tells news) has ended before the session is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyfuse3

from element_store.files import FileSystem
from element_store.types import Refused
from protocols.fuse import kernel
from protocols.fuse.pyfuse3_engine.loop import Trio
from protocols.fuse.pyfuse3_engine.operations import Operations

log = logging.getLogger("trefoil.fuse")

THREADS_MAX = 16
"""Calls that wait for devices at once."""
WORKERS_MAX = 64
"""Requests under way at once; the kernel keeps the others."""
START_SECONDS_MAX = 30.0
SETTLE_SECONDS_MAX = 5.0
SETTLE_STEP_SECONDS = 0.005
END_SECONDS_MAX = 10.0
"""How long requests that are in the store may take when the mount ends."""


@dataclass(frozen=True, slots=True)
class Options:
    root: int
    """The directory that is mounted: an inode of the store."""
    read_only: bool = False
    allow_other: bool = False
    """Other users than the one who mounts."""
    set_id: bool = False
    """Honour set-user-id and set-group-id bits. Only root may ask, as for `devices`."""
    devices: bool = False

    def words(self) -> set[str]:
        wanted = {"ro": self.read_only, "allow_other": self.allow_other, "suid": self.set_id, "dev": self.devices}
        return {"fsname=trefoil", "subtype=trefoil", "default_permissions"} | {word for word, is_wanted in wanted.items() if is_wanted}


class _Quiet(logging.Filter):
    """pyfuse3 logs every answer that nobody waits for any more, because its caller was killed, as an error."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().endswith(_GONE)


class Session:
    """Calls block: not for an event loop."""

    _one: Session | None = None
    _guard = threading.Lock()

    def __init__(self, files: FileSystem, path: Path, options: Options) -> None:
        """Mounts; returns when it can be used. Raises Refused."""
        self.path = _point(files, path, options)
        self._options = options
        self._files = files
        self._started = threading.Event()
        self._failure: str | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._mounted: kernel.Mounted | None = None
        self._operations: Operations | None = None
        self._is_closed = False
        self._trio = Trio()
        with Session._guard:
            if Session._one is not None:
                raise Refused(f"{path} cannot be mounted: pyfuse3 serves one mount in a process, and that is {Session._one.path}")
            Session._one = self
        self._thread = threading.Thread(target=self._run, name="fuse-pyfuse3", daemon=True)
        self._thread.start()
        self._wait_for_start()

    def _wait_for_start(self) -> None:
        self._started.wait(START_SECONDS_MAX)
        if self._failure is None and self._started.is_set():
            # Answered by the loop: it serves.
            os.stat(self.path)  # noqa: PTH116
            return
        raise Refused(self._failure or f"{self.path} cannot be mounted: no answer within {START_SECONDS_MAX:.0f} seconds")

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def operations(self) -> Operations:
        assert self._operations is not None
        return self._operations

    def end(self) -> None:
        """Unmounts; what programs still have open there fails with ENOTCONN from now on. Raises Refused if requests are stuck in the store."""
        if self._mounted is not None and self.is_alive:
            kernel.unmount(self.path, self._mounted, self._settle)
        if self._loop is not None and self.is_alive:
            # RuntimeError: it has just ended by itself.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._terminate)
        self._thread.join(END_SECONDS_MAX)
        if self.is_alive:
            raise Refused(f"{self.path} is unmounted, but requests were still in the store {END_SECONDS_MAX:.0f} seconds later")

    def _settle(self) -> None:
        """A last wait for the pages that the kernel wants written."""

        async def settled() -> None:
            while not self._trio.is_idle or self.operations.calls.under_way:  # noqa: ASYNC110
                await asyncio.sleep(SETTLE_STEP_SECONDS)

        if self._loop is not None:
            with contextlib.suppress(RuntimeError, TimeoutError, CancelledError):
                asyncio.run_coroutine_threadsafe(settled(), self._loop).result(SETTLE_SECONDS_MAX)

    def _terminate(self) -> None:
        """On the loop, which runs a last time after the session was closed."""
        if not self._is_closed:
            pyfuse3.terminate()

    def _run(self) -> None:
        """The thread: mounts, serves until the mount ends, and leaves nothing open."""
        pool = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="fuse-store")
        try:
            operations = self._mount(pool)
            if operations is not None:
                self._serve(operations)
        except Exception as error:
            log.exception("the mount failed")
            self._failure = self._failure or f"{self.path} cannot be mounted: {error}"
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            with Session._guard:
                Session._one = None
            self._started.set()

    def _mount(self, pool: ThreadPoolExecutor) -> Operations | None:
        operations = Operations(self._files, self._options.root, pool)
        # What `pyfuse3.asyncio.enable()` does, with another loop's five things.
        pyfuse3.trio = self._trio  # type: ignore[attr-defined]
        logging.getLogger("pyfuse3").addFilter(_QUIET)
        try:
            pyfuse3.init(operations, str(self.path), self._options.words())
        except RuntimeError as error:
            if "mount" in str(error):
                pyfuse3.close(unmount=False)
            operations.invalidations.close(END_SECONDS_MAX)
            self._failure = f"{self.path} cannot be mounted: libfuse refuses ({error}); its own sentence is on standard error"
            return None
        self._operations = operations
        self._mounted = kernel.mounted(self.path)
        if self._mounted is not None:
            kernel.read_ahead(self._mounted)
        return operations

    def _serve(self, operations: Operations) -> None:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            self._loop = runner.get_loop()
            self._loop.call_soon(self._started.set)
            try:
                runner.run(pyfuse3.main(max_tasks=WORKERS_MAX))
            finally:
                self._is_closed = True
                if operations.invalidations.close(END_SECONDS_MAX):
                    pyfuse3.close(unmount=False)
                for inode, opens in operations.known.open():
                    for _ in range(opens):
                        self._files.close(inode)


_QUIET = _Quiet()
_GONE = tuple(os.strerror(number) for number in (errno.ENOENT, errno.ENODEV, errno.ENOTCONN))


def _point(files: FileSystem, path: Path, options: Options) -> Path:
    """Where to mount, without links. Raises Refused for what libfuse would say less clearly."""
    try:
        files.list(options.root, 0, 1)
    except OSError as error:
        raise Refused(f"{options.root} is no directory of the store: {error.strerror}") from None
    kernel.clear_dead(path)
    try:
        found = path.resolve(strict=True)
        if not found.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if os.geteuid() == 0:
            # For others fusermount3 opens it.
            os.close(os.open("/dev/fuse", os.O_RDWR))
        return found
    except OSError as error:
        what = "/dev/fuse cannot be opened" if error.filename == "/dev/fuse" else f"{path} is not a directory that can be mounted on"
        raise Refused(f"{what}: {error.strerror}") from None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop where it is installed: a third less CPU for each request."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
