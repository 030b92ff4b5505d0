"""What stands in for trio: workers that fail are replaced, and nothing waits for a request that was withdrawn."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from protocols.fuse.pyfuse3_engine import loop
from protocols.fuse.pyfuse3_engine.loop import ClosedResourceError, Trio


async def test_a_worker_that_fails_is_started_again(caplog, request):
    request.applymarker(pytest.mark.expects_warnings)
    turns: list[int] = []

    async def worker(last: int) -> None:
        turns.append(len(turns))
        if len(turns) == 1:
            raise OSError(errno.EAGAIN, "withdrawn")
        if len(turns) < last:
            raise ValueError("a defect")

    async with Trio().open_nursery() as nursery:
        nursery.start_soon(worker, 4, name="one")
    assert turns == [0, 1, 2, 3]
    assert [record.message for record in caplog.records] == ["a request failed outside its handler and is not answered"] * 2


async def test_a_defect_that_stays_ends_the_session(caplog, monkeypatch, request):
    request.applymarker(pytest.mark.expects_warnings)
    monkeypatch.setattr(loop, "FAILURES_MAX", 5)
    turns = 0

    async def worker() -> None:
        nonlocal turns
        turns += 1
        raise OSError(errno.EIO, "broken for good")

    async with Trio().open_nursery() as nursery:
        nursery.start_soon(worker)
    assert turns == 5
    assert caplog.records[-1].message == "5 requests failed outside their handlers: the mount is given up"


async def test_it_waits_for_a_request_and_lets_others_have_their_turn():
    reading, writing = os.pipe()
    trio = Trio()
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    waiting = asyncio.create_task(trio.wait_readable(reading))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    os.write(writing, b"request")
    await waiting
    task = asyncio.create_task(other())
    for _ in range(3 * loop.TURNS_MAX):
        await trio.wait_readable(reading)
    assert others >= 2
    task.cancel()
    assert not os.get_blocking(reading)
    os.close(reading)
    os.close(writing)


async def test_who_waits_is_told_of_the_end():
    reading, writing = os.pipe()
    trio = Trio()
    waiting = asyncio.create_task(trio.wait_readable(reading))
    await asyncio.sleep(0.01)
    trio.notify_closing(reading)
    with pytest.raises(ClosedResourceError):
        await waiting
    os.close(reading)
    os.close(writing)
