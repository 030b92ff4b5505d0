"""Pinned content: pieces, ranges, and when it is let go."""

from __future__ import annotations

import asyncio
import gc

import pytest

from element_store import Content, Store
from element_store.types import Attributes, Invalid, NotFound
from tests.element_store.conftest import VIEW
from tests.model.digests import digest

MIB = 1024 * 1024
DATA = bytes(range(256)) * 4096 * 7 + b"tail"
"""Seven pieces and a bit; each byte tells where in its 256 it belongs, each piece is alike."""


async def publish(store: Store, key: bytes, data: bytes) -> None:
    staged = store.stage()
    await staged.write(data)
    await store.publish(VIEW, key, staged, Attributes(), digests=await staged.finish())


@pytest.fixture
async def content(store: Store) -> Content:
    data = bytearray(DATA)
    for at in range(0, len(data), 4096):
        data[at : at + 4] = (at // 4096).to_bytes(4, "big")
    await publish(store, b"key", bytes(data))
    return await store.open(VIEW, b"key")


async def all_of(content: Content, start: int, stop: int) -> list[bytes]:
    return [piece async for piece in content.chunks(start, stop)]


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, len(DATA)), (0, 0), (5, 5), (MIB - 1, MIB + 1), (17, 3 * MIB + 18), (2 * MIB, 3 * MIB), (7 * MIB + 3, 7 * MIB + 4)],
)
async def test_ranges_in_pieces(content: Content, start: int, stop: int) -> None:
    whole = b"".join(await all_of(content, 0, content.element.size))
    assert digest("md5", whole).hex() == content.element.etag
    pieces = await all_of(content, start, stop)
    assert b"".join(pieces) == whole[start:stop]
    assert all(type(piece) is bytes and 0 < len(piece) <= MIB for piece in pieces)


@pytest.mark.parametrize(("start", "stop"), [(1, 0), (0, len(DATA) + 1), (len(DATA) + 1, len(DATA) + 1)])
async def test_ranges_that_are_not_there(content: Content, start: int, stop: int) -> None:
    with pytest.raises(Invalid):
        content.chunks(start, stop)


async def test_small_content_comes_without_a_trip_through_the_loop(store: Store) -> None:
    await store.put(VIEW, b"small", b"abc", Attributes())
    async with await store.open(VIEW, b"small") as content:
        step = content.chunks(1, 3).__anext__().__await__()
        with pytest.raises(StopIteration) as first:
            next(step)
        assert first.value.value == b"bc"


async def test_a_pin_outlives_overwriting_and_deletion(store: Store, content: Content) -> None:
    await store.put(VIEW, b"key", b"new", Attributes())
    await store.delete(VIEW, b"key")
    with pytest.raises(NotFound):
        await store.open(VIEW, b"key")
    whole = b"".join(await all_of(content, 0, content.element.size))
    assert digest("md5", whole).hex() == content.element.etag


async def test_released_content_is_not_read(content: Content) -> None:
    async with content:
        chunks = content.chunks(0, len(DATA))
        await anext(chunks)
    with pytest.raises(Invalid):
        await anext(chunks)
    with pytest.raises(Invalid):
        content.chunks(0, 1)


async def test_several_readers_of_one_pin(content: Content) -> None:
    sizes = await asyncio.gather(*(all_of(content, start, len(DATA)) for start in range(0, 5 * MIB, 999_999)))
    assert [sum(map(len, pieces)) for pieces in sizes] == [len(DATA) - start for start in range(0, 5 * MIB, 999_999)]


async def test_a_stream_left_early_or_cancelled_harms_nobody(content: Content) -> None:
    for _ in range(20):
        chunks = content.chunks(0, len(DATA))
        await anext(chunks)
        del chunks
    for _ in range(20):
        task = asyncio.ensure_future(all_of(content, 0, len(DATA)))
        await asyncio.sleep(0)
        task.cancel()
        # Fast threads may have read all of it before the loop's turn came.
        await asyncio.wait([task])
    gc.collect()
    assert sum(map(len, await all_of(content, 0, len(DATA)))) == len(DATA)
