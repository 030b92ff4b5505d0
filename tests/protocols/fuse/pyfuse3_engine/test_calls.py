from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from protocols.fuse.pyfuse3_engine.calls import CALLS_ASIDE, LONG_SECONDS, Calls


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2, thread_name_prefix="aside") as pool:
        yield pool


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


def where(seconds: float = 0.0) -> str:
    CLOCK.now += seconds
    return "aside" if threading.current_thread().name.startswith("aside") else "here"


def elsewhere() -> str:
    return where()


async def test_short_calls_run_here_and_long_ones_aside(pool: ThreadPoolExecutor):
    calls = Calls(pool, CLOCK)
    assert [await calls.run(where) for _ in range(3)] == ["here"] * 3
    assert await calls.run(where, 10 * LONG_SECONDS) == "here"
    assert [await calls.run(where) for _ in range(CALLS_ASIDE + 1)] == ["aside"] * CALLS_ASIDE + ["here"]
    assert await calls.run(elsewhere) == "here"
    assert await calls.aside(elsewhere) == "aside"


async def test_it_stays_aside_for_as_long_as_it_takes_long(pool: ThreadPoolExecutor):
    calls = Calls(pool, CLOCK)
    await calls.run(where, seconds=10 * LONG_SECONDS)
    for _ in range(3):
        for _ in range(CALLS_ASIDE - 1):
            assert await calls.run(where) == "aside"
        assert await calls.run(where, 10 * LONG_SECONDS) == "aside"


async def test_a_failure_that_took_long_counts_too(pool: ThreadPoolExecutor):
    def fails() -> str:
        raise OSError(5, where(10 * LONG_SECONDS))

    calls = Calls(pool, CLOCK)
    for expected in ("here", "aside"):
        with pytest.raises(OSError, match=expected):
            await calls.run(fails)
