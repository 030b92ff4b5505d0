"""The five things that pyfuse3 asks of trio, on asyncio.

pyfuse3 has its own asyncio mode, which does not serve: a worker whose request failed is gone (99 failures end the mount), a request that was
withdrawn between the wait and the read blocks the process with the interpreter's lock held, and each request costs two registrations of its
file descriptor. Here a worker that fails is started again, the device never blocks, and it is asked whether there is more before anybody waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import select
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

log = logging.getLogger("trefoil.fuse")

TURNS_MAX = 16
"""Requests that one worker takes in a row while others wait for their turn on the loop."""
FAILURES_MAX = 1000
"""Of workers, after which the session is given up: by then they fail for a reason that stays."""

Worker = Callable[..., Awaitable[None]]


class ClosedResourceError(Exception):
    """The session ends; pyfuse3 catches this by its name in trio."""


class Trio:
    """Stands in for the module `trio`, in one session on one event loop."""

    Lock = asyncio.Lock
    ClosedResourceError = ClosedResourceError

    def __init__(self) -> None:
        self.lowlevel = self
        self._poll = select.poll()
        self._watched: int | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._closing = False
        self._turns = 0

    @property
    def is_idle(self) -> bool:
        """Somebody waits for a request, and there is none."""
        return self._waiting is not None and not self._poll.poll(0)

    def current_trio_token(self) -> str:
        return "asyncio"

    def current_task(self) -> SimpleNamespace:
        task = asyncio.current_task()
        return SimpleNamespace(name=task.get_name() if task else "")

    def open_nursery(self) -> Nursery:
        return Nursery()

    async def wait_readable(self, fd: int) -> None:
        """One worker at a time comes here. When it returns there is a request, unless the kernel has just withdrawn it."""
        if self._watched is None:
            # A read of nothing must fail (EAGAIN): pyfuse3 reads with the interpreter's lock held.
            os.set_blocking(fd, False)
            self._poll.register(fd, select.POLLIN)
            self._watched = fd
        while not self._closing:
            if self._turns < TURNS_MAX and self._poll.poll(0):
                self._turns += 1
                return
            self._turns = 0
            await self._wait(fd)
        raise ClosedResourceError

    async def _wait(self, fd: int) -> None:
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        loop.add_reader(fd, self._wake)
        try:
            await self._waiting
        finally:
            loop.remove_reader(fd)
            self._waiting = None

    def notify_closing(self, fd: int) -> None:
        self._closing = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting and not self._waiting.done():
            self._waiting.set_result(None)


class Nursery:
    """Workers, started again when they fail."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures = 0

    def start_soon(self, worker: Worker, *args: object, name: str | None = None) -> None:
        task = asyncio.get_running_loop().create_task(self._keep(worker, args), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, worker: Worker, args: tuple[object, ...]) -> None:
        """pyfuse3 counts a worker until it returns: whoever replaces one that failed is counted already."""
        while self._failures < FAILURES_MAX:
            try:
                await worker(*args)
                return
            except OSError as error:
                # Nobody's fault: the caller was killed before its request was read.
                if error.errno not in (errno.EAGAIN, errno.EINTR, errno.ENOENT):
                    self._failed()
            except Exception:
                self._failed()
        log.error("%d requests failed outside their handlers: the mount is given up", self._failures)

    def _failed(self) -> None:
        self._failures += 1
        log.exception("a request failed outside its handler and is not answered")

    async def __aenter__(self) -> Nursery:
        return self

    async def __aexit__(self, *exc: object) -> None:
        while self._tasks:
            with contextlib.suppress(ValueError):
                await asyncio.wait(self._tasks)
