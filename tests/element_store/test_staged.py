"""Content on its way in: any sizes of writes, digests, and how it ends."""

from __future__ import annotations

import asyncio
import random

import pytest

from element_store import Store
from element_store.types import Attributes, Condition, Invalid, NotFound, PreconditionFailed
from tests.element_store.conftest import VIEW
from tests.model.digests import digest

NAMES = ("md5", "sha1", "sha256", "crc32", "crc32c", "crc64nvme")
MIB = 1024 * 1024


async def content(store: Store, key: bytes) -> bytes:
    async with await store.open(VIEW, key) as pinned:
        return b"".join([piece async for piece in pinned.chunks(0, pinned.element.size)])


@pytest.mark.parametrize("seed", range(4))
async def test_writes_of_all_sizes_and_types_in_order(store: Store, seed: int) -> None:
    chance = random.Random(seed)
    staged = store.stage(digests=NAMES, size_hint=10)
    data = bytearray()
    while len(data) < 12 * MIB:
        piece = chance.randbytes(chance.choice([0, 1, 100, 65_535, 65_536, MIB, chance.randrange(3 * MIB)]))
        await staged.write(chance.choice([bytes, bytearray, memoryview])(piece))
        data += piece
        assert staged.size == len(data)
    digests = await staged.finish()
    assert dict(digests) == {name: digest(name, bytes(data)) for name in NAMES}
    element = await store.publish(VIEW, b"key", staged, Attributes(), digests=digests)
    assert (element.size, element.etag) == (len(data), digests["md5"].hex())
    assert await content(store, b"key") == data


async def test_a_buffer_may_change_after_the_write(store: Store) -> None:
    staged = store.stage()
    buffer = bytearray(b"a" * 100_000)
    await staged.write(buffer)
    buffer[:] = b"b" * 100_000
    buffer.clear()
    assert await staged.finish() == {"md5": digest("md5", b"a" * 100_000)}
    await staged.discard()


async def test_a_writer_waits_when_too_much_is_under_way(store: Store) -> None:
    staged = store.stage()
    for _ in range(4):
        staged._core.write(bytes(MIB))
    waiting = staged._core.write(bytes(16 * MIB))
    assert waiting is not None
    await waiting
    assert staged._core.write(b"x") is None
    await staged.finish()
    await staged.discard()


async def test_nothing_follows_the_end(store: Store) -> None:
    staged = store.stage()
    await staged.write(b"abc")
    with pytest.raises(Invalid):
        await store.publish(VIEW, b"key", staged, Attributes(), digests={"md5": digest("md5", b"abc")})
    digests = await staged.finish()
    for call in (staged.write(b"more"), staged.finish()):
        with pytest.raises(Invalid):
            await call
    await store.publish(VIEW, b"key", staged, Attributes(), digests=digests)
    with pytest.raises(Invalid):
        await store.publish(VIEW, b"again", staged, Attributes(), digests=digests)
    await staged.discard()
    assert await content(store, b"key") == b"abc"


async def test_a_failed_publication_takes_the_content(store: Store) -> None:
    await store.put(VIEW, b"key", b"old", Attributes())
    staged = store.stage()
    await staged.write(b"new")
    digests = await staged.finish()
    with pytest.raises(PreconditionFailed):
        await store.publish(VIEW, b"key", staged, Attributes(), digests=digests, condition=Condition(if_none_match=("*",)))
    await staged.discard()
    assert await content(store, b"key") == b"old"


async def test_discarded_at_any_time(store: Store) -> None:
    for pieces in range(8):
        staged = store.stage()
        for _ in range(pieces):
            await staged.write(bytes(MIB))
        await staged.discard()
        await staged.discard()
        with pytest.raises(Invalid):
            await staged.finish()
        forgotten = store.stage()
        await forgotten.write(bytes(pieces * MIB))
        del forgotten
    with pytest.raises(NotFound):
        await store.lookup(VIEW, b"key")


async def test_discarding_wakes_whoever_waits(store: Store) -> None:
    for _ in range(20):
        staged = store.stage()
        await staged.write(bytes(3 * MIB))
        writing = asyncio.ensure_future(staged.write(bytes(3 * MIB)))
        finishing = asyncio.ensure_future(staged.finish())
        await asyncio.sleep(0)
        await staged.discard()
        for result in await asyncio.gather(writing, finishing, return_exceptions=True):
            assert not isinstance(result, BaseException) or isinstance(result, Invalid)


async def test_many_writers_at_once(store: Store) -> None:
    async def one(number: int) -> None:
        data = random.Random(number).randbytes(3 * MIB + number)
        staged = store.stage(digests=("md5", "crc64nvme"))
        for at in range(0, len(data), 300_000):
            await staged.write(data[at : at + 300_000])
        await store.publish(VIEW, b"%d" % number, staged, Attributes(), digests=await staged.finish())
        assert await content(store, b"%d" % number) == data

    await asyncio.gather(*(one(number) for number in range(24)))


async def test_digests_are_named_right(store: Store) -> None:
    with pytest.raises(Invalid):
        store.stage(digests=("md5", "md4"))
    with pytest.raises(Invalid):
        await store.put(VIEW, b"key", b"", Attributes(), digests=("md4",))
    staged = store.stage()
    await staged.finish()
    with pytest.raises(Invalid):
        await store.publish(VIEW, b"key", staged, Attributes(), digests={"crc32": bytes(4)})
