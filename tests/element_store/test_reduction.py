"""Reduction as callers see it: what equal and similar content takes, and that the account is exact."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

import pytest

from element_store import Store
from element_store.types import Attributes, Invalid, NotFound
from tests.element_store.conftest import VIEW

GAINS = ("zero_bytes", "dedupe_gain_bytes", "similarity_gain_bytes", "compression_gain_bytes")


async def publish(store: Store, key: bytes, data: bytes) -> None:
    staged = store.stage()
    await staged.write(data)
    await store.publish(VIEW, key, staged, Attributes(), digests=await staged.finish())


async def reduced(store: Store) -> Mapping[str, int]:
    while True:
        found = await store.reduction()
        if not found["landed_bytes"]:
            return found
        await asyncio.sleep(0.02)


async def test_versions_and_copies_take_little_and_the_account_is_exact(store: Store) -> None:
    old = random.Random(1).randbytes(2_000_000)
    new = bytearray(old)
    new[700_000:700_000] = b"inserted"
    new[5_000::9_000] = bytes(len(new[5_000::9_000]))
    await publish(store, b"versions/old", old)
    first = await reduced(store)
    await publish(store, b"versions/new", bytes(new))
    await publish(store, b"copy", old)
    found = await reduced(store)
    assert first["stored_bytes"] >= len(old)
    assert found["stored_bytes"] < 1.1 * len(old)
    assert found["similarity_gain_bytes"] > 1_800_000
    assert found["dedupe_gain_bytes"] >= len(old)
    assert found["logical_bytes"] - sum(found[gain] for gain in GAINS) == found["stored_bytes"]
    part = await store.reduction(VIEW, b"versions/")
    assert part["logical_bytes"] == len(old) + len(new)
    parts = await store.why(VIEW, b"versions/new")
    assert sum(part.length for part in parts) == len(new)
    assert any(part.kind == "delta" and part.bases for part in parts)
    content = await store.open(VIEW, b"versions/new")
    assert b"".join([bytes(piece) async for piece in content.chunks(0, len(new))]) == bytes(new)


async def test_what_is_not_there_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.why(VIEW, b"none")
    with pytest.raises(NotFound):
        await store.reduction("none")


async def test_a_views_mode_is_its_own(store: Store) -> None:
    assert await store.reduction_mode() == await store.reduction_mode(b"/" + VIEW.encode()) == "balanced"
    await store.set_reduction_mode(b"/" + VIEW.encode(), "off")
    await publish(store, b"text", bytes(500_000) + b"to be or not to be " * 20_000)
    assert await store.reduction_mode(b"/" + VIEW.encode() + b"/text") == "off"
    while (found := await store.reduction(VIEW, b"text"))["landed_bytes"] not in (0, found["logical_bytes"]):
        await asyncio.sleep(0.02)
    assert found["compression_gain_bytes"] == 0
    await store.set_reduction_mode(b"/" + VIEW.encode(), None)
    assert await store.reduction_mode(b"/" + VIEW.encode() + b"/text") == "balanced"
    with pytest.raises(NotFound):
        await store.set_reduction_mode(b"/none", "fast")
    with pytest.raises(Invalid):
        await store.set_reduction_mode(b"/" + VIEW.encode(), "best")
