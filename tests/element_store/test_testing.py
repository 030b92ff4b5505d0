"""The drives in memory do to a store what real ones would: it loses nothing that it acknowledged, and says what is wrong."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from element_store import Closed, Damaged, Invalid, NotFound, Refused, Store, StoreError
from element_store.testing import MemoryDevices
from element_store.types import Attributes

VIEW = "view"
ATTRIBUTES = Attributes(mode=0o644)


async def content(store: Store, key: bytes) -> bytes:
    async with await store.open(VIEW, key) as opened:
        return b"".join([piece async for piece in opened.chunks(0, opened.element.size)])


async def filled(devices: MemoryDevices, state: Path, code: tuple[int, int]) -> Store:
    store = await devices.open(state=state, code=code)
    await store.create_view(VIEW, Attributes(mode=0o755))
    return store


async def end(store: Store) -> None:
    """Of a store whose drives are off."""
    with pytest.raises(Closed):
        await store.close()


@pytest.mark.parametrize("seed", range(8))
async def test_power_goes_and_nothing_acknowledged_is_lost(tmp_path, seed):
    drawn = random.Random(seed)
    devices = MemoryDevices(4)
    store = await filled(devices, tmp_path, (2, 2))
    devices.cut_power(after=drawn.randrange(200))
    acknowledged: dict[bytes, bytes] = {}
    pending = (b"", b"")
    try:
        while True:
            pending = (b"key-%d" % drawn.randrange(9), drawn.randbytes(drawn.randrange(30_000)))
            await store.put(VIEW, *pending, ATTRIBUTES)
            acknowledged[pending[0]] = pending[1]
    except Closed:
        await end(store)
    devices.restore_power(seed=seed)
    store = await devices.open(state=tmp_path)
    try:
        for key, value in acknowledged.items():
            assert await content(store, key) in (value, pending[1] if pending[0] == key else value)
    finally:
        await store.close()


async def test_lying_drives_are_found_out(tmp_path):
    """The control: with flushes that do nothing on every drive, the test above would fail."""
    lost = 0
    for seed in range(8):
        devices = MemoryDevices(4)
        store = await filled(devices, tmp_path / str(seed), (2, 2))
        for index in range(4):
            devices.script(index, "flush * lie")
        for number in range(20):
            await store.put(VIEW, b"key", b"%d" % number, ATTRIBUTES)
        devices.cut_power()
        await end(store)
        devices.restore_power(seed=seed)
        try:
            store = await devices.open(state=tmp_path / str(seed))
        except StoreError:
            lost += 1
            continue
        try:
            lost += await content(store, b"key") != b"19"
        except (NotFound, Damaged):
            lost += 1
        finally:
            await store.close()
    assert lost > 0


async def test_as_many_drives_as_the_code_makes_up_for_may_go(tmp_path):
    devices = MemoryDevices(6)
    store = await filled(devices, tmp_path, (4, 2))
    try:
        await store.put(VIEW, b"before", b"1" * 50_000, ATTRIBUTES)
        devices.lose(1)
        devices.script(4, "write 1 fail")
        await store.put(VIEW, b"after", b"2" * 50_000, ATTRIBUTES)
        assert (await content(store, b"before"), await content(store, b"after")) == (b"1" * 50_000, b"2" * 50_000)
    finally:
        await store.close()


async def test_a_script_or_a_drive_that_there_is_not_is_refused(tmp_path):
    devices = MemoryDevices(2)
    for wrong in (lambda: devices.script(0, "write 1 explode"), lambda: devices.lose(2), lambda: devices.flip(0, 1 << 60, 0)):
        with pytest.raises(Invalid):
            wrong()


async def test_wiped_drives_are_not_taken_for_new_ones(tmp_path):
    devices = MemoryDevices(3)
    await (await filled(devices, tmp_path, (2, 1))).close()
    devices.wipe(0)
    devices.wipe(1)
    with pytest.raises(Refused):
        await devices.open(state=tmp_path)
