"""How the store lives with its event loop: wake-ups, cancellation, other loops, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from element_store import Content, Store
from element_store.interface import ElementStore
from element_store.types import Attributes, Findings, NotFound, Refused
from tests.element_store.conftest import VIEW, OpenStore, devices


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def call_threads() -> int:
    """Threads that carry the binding's names."""
    names = [Path(f"/proc/self/task/{task}/comm").read_text().strip() for task in os.listdir("/proc/self/task")]
    return sum(name.startswith("store-") for name in names)


async def test_the_store_is_what_gateways_expect(store: Store) -> None:
    gateway: ElementStore = store
    await gateway.put(VIEW, b"key", b"", Attributes())
    assert type(await gateway.open(VIEW, b"key")) is Content


async def test_status_metrics_scrub(store: Store) -> None:
    status = await store.status()
    assert (status.code[0] >= 1, len(status.devices) >= 1, status.devices[0].state) == (True, True, "live")
    assert {type(value) for value in store.metrics().values()} == {float}
    assert await store.check() == Findings(0, [])
    found = await store.scrub()
    assert {type(count) for count in found.values()} == {int}


async def test_calls_at_once_and_each_gets_its_own_answer(store: Store) -> None:
    elements = await asyncio.gather(*(store.put(VIEW, b"%d" % number, b"%d" % number, Attributes(uid=number)) for number in range(2000)))
    assert [(element.key, element.attributes.uid) for element in elements] == [(b"%d" % number, number) for number in range(2000)]
    found = await asyncio.gather(*(store.lookup(VIEW, b"%d" % number) for number in range(2000)))
    assert list(found) == list(elements)


async def test_a_cancelled_call_is_dropped_silently(store: Store) -> None:
    await store.put(VIEW, b"key", b"abc", Attributes())
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    for make in (
        lambda: store.open(VIEW, b"key"),
        lambda: store.put(VIEW, b"other", b"abc", Attributes()),
        lambda: store.lookup(VIEW, b"none"),
        lambda: store.scrub(),
    ):
        task = asyncio.ensure_future(make())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await store.views()
    gc.collect()
    assert complaints == []


async def test_nothing_is_left_after_close(open_store: OpenStore) -> None:
    await (await open_store()).close()
    gc.collect()
    before = descriptors(), call_threads()
    for _ in range(3):
        store = await open_store()
        staged = store.stage()
        await staged.write(b"abc")
        await asyncio.gather(store.close(), store.close())
        del store, staged
    gc.collect()
    assert (descriptors(), call_threads()) == before


async def test_close_goes_on_when_its_caller_is_cancelled(open_store: OpenStore) -> None:
    store = await open_store()
    task = asyncio.ensure_future(store.close())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.close()
    await (await open_store()).close()


async def test_a_refused_pool_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    gc.collect()
    before = descriptors(), call_threads()
    with pytest.raises(Refused) as raised:
        await Store.open([str(tmp_path / "none" / "device")], state=tmp_path / "state")
    assert str(raised.value)
    del raised
    for _ in range(3):
        # The queue's end is taken from the loop in one of its next turns; the pool's threads end by themselves.
        gc.collect()
        await asyncio.sleep(0.01)
    assert descriptors() <= before[0]


async def test_only_the_loop_that_opened_it(store: Store) -> None:
    raised: list[BaseException] = []

    def elsewhere() -> None:
        try:
            asyncio.run(store.views())
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.get_running_loop().run_in_executor(None, thread.join)
    assert [str(error) for error in raised] == ["a store is used from the event loop that opened it"]


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_on_either_kind_of_loop(factory: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path) -> None:
    async def work() -> None:
        store = await Store.open(devices(tmp_path), state=tmp_path / "state")
        await store.create_view(VIEW, Attributes())
        await asyncio.gather(*(store.put(VIEW, b"%d" % number, b"", Attributes()) for number in range(100)))
        with pytest.raises(NotFound):
            await store.open(VIEW, b"none")
        await store.close()

    (tmp_path / "state").mkdir()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(work())


FORGETS = """
import asyncio, sys
from pathlib import Path
from element_store import Attributes, Store

async def main():
    store = await Store.open(sys.argv[2:], state=Path(sys.argv[1]))
    await store.create_view("view", Attributes())
    pending = asyncio.ensure_future(store.scrub())
    await asyncio.sleep(0)

asyncio.run(main())
"""


def test_a_process_that_forgets_to_close_ends(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    command = [sys.executable, "-X", "dev", "-c", FORGETS, str(tmp_path / "state"), *devices(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


async def test_a_refusal_always_arrives(tmp_path: Path) -> None:
    """The failing opening once let go of the completion queue before it told of the failure; one in a hundred waited for ever."""
    for _ in range(50):
        with pytest.raises(Refused):
            await asyncio.wait_for(Store.open([str(tmp_path / "none" / "device")], state=tmp_path / "state"), 10)
