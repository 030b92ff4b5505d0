"""Where the store's calls run: on the loop while they are short, in threads while they wait.

A thread costs more than most calls (docs/decisions/0005-pyfuse3-engine.md has what was measured), but a call that waits for a device on the loop holds
up every other request. Nobody knows beforehand what finds its bytes in memory; so a call that took long sends the next ones of its kind to threads,
for as long as they go on to take long. The worst that a slow device does to the loop is one call of a kind now and then.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, ParamSpec, TypeVar

LONG_SECONDS = 0.0005
"""About ten times what a trip through a thread costs."""
CALLS_ASIDE = 32
"""So many of a kind, after one that took long."""

P = ParamSpec("P")
T = TypeVar("T")


class Calls:
    """Used on the loop; the threads only say what took long."""

    def __init__(self, pool: Executor, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock`: seconds."""
        self._pool = pool
        self._clock = clock
        self.under_way = 0
        """In threads."""
        self._aside: dict[Callable[..., Any], int] = {}

    async def run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Where calls like this one have lately been well served."""
        left = self._aside.get(call, 0)
        if not left:
            return self._timed(call, *args, **kwargs)
        self._aside[call] = left - 1
        return await self.aside(self._timed, call, *args, **kwargs)

    async def aside(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """In a thread: for what waits by its nature."""
        work = functools.partial(call, *args, **kwargs)
        self.under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self.under_way -= 1

    def _timed(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        began = self._clock()
        try:
            return call(*args, **kwargs)
        finally:
            if self._clock() - began > LONG_SECONDS:
                self._aside[call] = CALLS_ASIDE
