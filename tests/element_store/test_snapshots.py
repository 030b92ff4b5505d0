"""Snapshots through the Python API of the real store: what keys and files see of them."""

from __future__ import annotations

import pytest

from element_store import Conflict, Invalid, NotFound, ReadOnly, Store
from element_store.snapshots import ALIAS
from element_store.types import Attributes


async def read(store: Store, view: str, key: bytes) -> bytes:
    async with await store.open(view, key) as content:
        return b"".join([piece async for piece in content.chunks(0, content.element.size)])


async def test_a_snapshot_shows_what_was(store: Store):
    await store.create_view("v", Attributes(mode=0o755))
    await store.put("v", b"a/b", b"old", Attributes(mode=0o644))
    taken = await store.snapshots.create(b"/v", "one")
    assert (taken.name, taken.path, taken.automatic, len(taken.clones)) == ("one", b"/v", False, 0)
    await store.put("v", b"a/b", b"new", Attributes(mode=0o644))
    assert await read(store, f"v{ALIAS}one", b"a/b") == b"old"
    assert await read(store, "v", b"a/b") == b"new"
    files = store.files()
    at = files.lookup(1, b"v").inode
    for name in (b".snapshot", b"one", b"a", b"b"):
        at = files.lookup(at, name).inode
    assert files.read(at, 0, 100) == b"old"
    with pytest.raises(ReadOnly):
        await store.put(f"v{ALIAS}one", b"x", b"y", Attributes())
    with pytest.raises(ReadOnly):
        await store.delete_view(f"v{ALIAS}one")
    with pytest.raises(Conflict):
        await store.snapshots.create(b"/v", "one")
    with pytest.raises(Invalid):
        await store.snapshots.create(b"/v", "a/b")
    with pytest.raises(NotFound):
        await store.snapshots.create(b"/w", "one")


async def test_clones_restores_and_deletions(store: Store):
    snapshots = store.snapshots
    await store.create_view("v", Attributes(mode=0o755))
    await store.put("v", b"k", b"old", Attributes(mode=0o644))
    await snapshots.create(b"/v", "one")
    await store.put("v", b"k", b"newer", Attributes(mode=0o644))
    await snapshots.clone(b"/v", b"/w", snapshot="one")
    assert await read(store, "w", b"k") == b"old"
    kept = await snapshots.restore(b"/v", "one", undo="before")
    assert kept.automatic and await read(store, "v", b"k") == b"old"
    listed = [(one.name, sorted(one.clones)) for one in await snapshots.list(b"/v")]
    assert listed == [("before", []), ("one", [b"/v", b"/w"])]
    assert (await snapshots.space(b"/v", "before")).content_bytes == 5
    await snapshots.protect(b"/v", "before", 2**62)
    with pytest.raises(Conflict):
        await snapshots.delete(b"/v", "before")
    assert await snapshots.delete(b"/v", "one") == 2
    assert await read(store, "w", b"k") == b"old" and await read(store, "v", b"k") == b"old"
    with pytest.raises(NotFound):
        await snapshots.delete(b"/v", "one")
    assert (await store.check()).count == 0


async def test_a_part_is_restored_and_a_clone_split(store: Store):
    snapshots = store.snapshots
    await store.create_view("v", Attributes(mode=0o755))
    for key in (b"a/b", b"c"):
        await store.put("v", key, b"old", Attributes(mode=0o644))
    await snapshots.create(b"/v", "one")
    for key in (b"a/b", b"a/later", b"c"):
        await store.put("v", key, b"newer", Attributes(mode=0o644))
    kept = await snapshots.restore(b"/v/a", "one", undo="before")
    assert (kept.path, kept.automatic) == (b"/v/a", True)
    assert [await read(store, "v", key) for key in (b"a/b", b"c")] == [b"old", b"newer"]
    with pytest.raises(NotFound):
        await read(store, "v", b"a/later")
    await snapshots.restore(b"/v/a", "before", undo="after")
    await snapshots.restore(b"/v/c", "one", undo="before-c")
    assert [await read(store, "v", key) for key in (b"a/later", b"c")] == [b"newer", b"old"]
    await snapshots.clone(b"/v/a", b"/w", snapshot="one")
    await snapshots.split(b"/w")
    with pytest.raises(Invalid):
        await snapshots.split(b"/v")
    while await snapshots.backlog():
        pass
    assert await snapshots.delete(b"/v", "one") == 1, "the restored file keeps what it shares with it"
    assert await read(store, "w", b"b") == b"old"
    assert (await store.check()).count == 0
