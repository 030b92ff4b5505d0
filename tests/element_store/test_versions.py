"""Versions: what calls do in model and store alike, and any sequence of changes in both at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from element_store import Store
from element_store.interface import ElementStore
from element_store.types import (
    Attributes,
    Condition,
    Conflict,
    Deletion,
    Element,
    NotFound,
    PreconditionFailed,
    StoreError,
    Version,
    Versioning,
    VersionPage,
)
from tests.element_store.conftest import VIEW, devices
from tests.model.store import ModelStore

ENABLED, SUSPENDED, OFF = Versioning.ENABLED, Versioning.SUSPENDED, Versioning.OFF


async def put(store: ElementStore, key: bytes, data: bytes, versioning: Versioning = ENABLED, view: str = VIEW) -> Element:
    return await store.put(view, key, data, Attributes(), versioning=versioning)


async def read(store: ElementStore, key: bytes, version: int | None = None, view: str = VIEW) -> bytes:
    async with await store.open(view, key, version=version) as content:
        return b"".join([piece async for piece in content.chunks(0, content.element.size)])


async def ids(store: ElementStore, view: str = VIEW) -> list[tuple[bytes, int, bool, bool]]:
    page = await store.list_versions(view)
    return [(version.key, version.version_id, version.is_latest, version.element is None) for version in page.versions]


async def test_versions_are_kept_and_named(either: ElementStore) -> None:
    old = await put(either, b"a/b", b"old", OFF)
    one, two = await put(either, b"a/b", b"one"), await put(either, b"a/b", b"two")
    assert old.version_id == 0 < one.version_id < two.version_id
    assert [await read(either, b"a/b", version) for version in (None, 0, one.version_id, two.version_id)] == [
        b"two",
        b"old",
        b"one",
        b"two",
    ]
    assert await either.lookup(VIEW, b"a/b", version=one.version_id) == one
    listed = [(b"a/b", two.version_id, True, False), (b"a/b", one.version_id, False, False), (b"a/b", 0, False, False)]
    assert await ids(either) == listed
    with pytest.raises(NotFound) as raised:
        await either.lookup(VIEW, b"a/b", version=two.version_id + 1000)
    assert raised.value.args == ("version",)


async def test_a_delete_marker_hides_and_its_removal_shows(either: ElementStore) -> None:
    element = await put(either, b"a/b", b"data")
    deletion = await either.delete(VIEW, b"a/b", versioning=ENABLED)
    assert (deletion.existed, deletion.marker) == (True, True)
    assert deletion.version_id > element.version_id
    for version, what in ((None, "key"), (deletion.version_id, "marker")):
        with pytest.raises(NotFound) as raised:
            await either.open(VIEW, b"a/b", version=version)
        assert raised.value.args == (what,)
    marker = await either.version(VIEW, b"a/b")
    assert (marker.version_id, marker.is_latest, marker.element) == (deletion.version_id, True, None)
    assert not (await either.list(VIEW)).elements
    with pytest.raises(Conflict):
        await either.delete_view(VIEW)
    assert await either.delete(VIEW, b"a/b", version=deletion.version_id) == Deletion(True, True, deletion.version_id)
    assert await read(either, b"a/b") == b"data"
    assert await either.delete(VIEW, b"a/b", version=element.version_id) == Deletion(True, False, element.version_id)
    assert await either.delete(VIEW, b"a/b", version=element.version_id) == Deletion(False, False, element.version_id)
    assert await ids(either) == []
    await either.delete_view(VIEW)


async def test_suspended_there_is_one_null_version(either: ElementStore) -> None:
    kept = await put(either, b"key", b"kept")
    for data in (b"first", b"second"):
        assert (await put(either, b"key", data, SUSPENDED)).version_id == 0
    assert await ids(either) == [(b"key", 0, True, False), (b"key", kept.version_id, False, False)]
    assert await either.delete(VIEW, b"key", versioning=SUSPENDED) == Deletion(True, True, 0)
    assert await ids(either) == [(b"key", 0, True, True), (b"key", kept.version_id, False, False)]
    again = await put(either, b"key", b"again")
    assert [entry[1:] for entry in await ids(either)] == [
        (again.version_id, True, False),
        (0, False, True),
        (kept.version_id, False, False),
    ]
    assert (await put(either, b"key", b"third", SUSPENDED)).version_id == 0
    assert [entry[1] for entry in await ids(either)] == [0, again.version_id, kept.version_id]


async def test_conditions_meet_the_version_that_is_meant(either: ElementStore) -> None:
    one = await put(either, b"key", b"one")
    two = await put(either, b"key", b"two")
    with pytest.raises(PreconditionFailed):
        await either.delete(VIEW, b"key", version=one.version_id, condition=Condition(if_match=(two.etag,)))
    await either.delete(VIEW, b"key", versioning=ENABLED, condition=Condition(if_match=(two.etag,)))
    with pytest.raises(NotFound):
        await either.put(VIEW, b"key", b"", Attributes(), condition=Condition(if_match=("*",)), versioning=ENABLED)
    await either.put(VIEW, b"key", b"", Attributes(), condition=Condition(if_none_match=("*",)), versioning=ENABLED)
    changed = await either.set_attributes(VIEW, b"key", Attributes(uid=5), version=one.version_id)
    assert changed.version_id == one.version_id
    assert (await either.lookup(VIEW, b"key", version=one.version_id)).attributes.uid == 5
    assert (await either.lookup(VIEW, b"key")).attributes.uid == 0


async def test_a_version_copied_onto_its_key(either: ElementStore) -> None:
    data = bytes(300_000)
    staged = either.stage()
    await staged.write(data)
    old = await either.publish(VIEW, b"key", staged, Attributes(), digests=await staged.finish(), versioning=ENABLED)
    await put(either, b"key", b"new")
    async with await either.open(VIEW, b"key", version=old.version_id) as source:
        copy = await either.copy(source, VIEW, b"key", Attributes(), digests=old.digests, versioning=ENABLED)
        assert await either.delete(VIEW, b"key", version=old.version_id) == Deletion(True, False, old.version_id)
        assert b"".join([piece async for piece in source.chunks(0, len(data))]) == data
    assert await read(either, b"key", copy.version_id) == data


async def test_paged_deletion_of_versions_meets_them_all(either: ElementStore) -> None:
    """Each page's markers name versions that are gone by the time the next page is asked for."""
    await put(either, b"a", b"", OFF)
    for _ in range(3):
        await put(either, b"a", b"")
    await either.delete(VIEW, b"a", versioning=ENABLED)
    await put(either, b"b", b"")
    seen, after = 0, (b"", None)
    while True:
        page = await either.list_versions(VIEW, after_key=after[0], after_version=after[1], limit=2)
        keys, versions = [found.key for found in page.versions], [found.version_id for found in page.versions]
        await either.delete_many(VIEW, keys, [None] * len(keys), versions=versions, versioning=ENABLED)
        seen += len(keys)
        if page.next_key is None:
            break
        after = (page.next_key, page.next_version)  # type: ignore[assignment]
    assert seen == 6
    await either.delete_view(VIEW)


KEYS = (b"a", b"a/", b"a/b", b"a/b/c", b"a-b", b"b")
Change: TypeAlias = tuple[str, bytes, int]
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "large", "copy", "delete", "delete version", "delete version", "attributes", "enable", "suspend"]),
        st.sampled_from(KEYS),
        st.integers(0, 12),
    ),
    min_size=12,
    max_size=40,
)


class Both:
    """The real store and the model, given the same changes; version ids are told by when they were made."""

    def __init__(self, store: ElementStore, view: str) -> None:
        self.view = view
        self.stores = (store, ModelStore())
        self.made: tuple[list[int], list[int]] = ([0], [0])
        self.keys: list[bytes] = [b""]
        """Of the versions made, in the same order; the null version is any key's."""
        self.versioning = OFF

    def name(self, which: int, version: int) -> int:
        return self.made[which].index(version)

    async def change(self, which: int, change: Change) -> object:
        kind, key, number = change
        store, made = self.stores[which], self.made[which]
        # Counted from the newest, which most changes are about.
        at = len(made) - 1 - number % len(made)
        version, version_key = made[at], self.keys[at] or key
        try:
            match kind:
                case "put":
                    return self._noted(which, await put(store, key, bytes([number]) * number, self.versioning, self.view))
                case "large":
                    staged = store.stage()
                    await staged.write(bytes([number]) * 200_000)
                    digests = await staged.finish()
                    element = await store.publish(self.view, key, staged, Attributes(), digests=digests, versioning=self.versioning)
                    return self._noted(which, element)
                case "copy":
                    async with await store.open(self.view, version_key, version=version) as source:
                        digests = source.element.digests
                        element = await store.copy(source, self.view, key, Attributes(), digests=digests, versioning=self.versioning)
                    return self._noted(which, element)
                case "attributes":
                    element = await store.set_attributes(self.view, version_key, Attributes(uid=number), version=version)
                    return self._shown(which, element)
                case "delete":
                    deletion = await store.delete(self.view, key, versioning=self.versioning)
                    self._note(which, key, deletion.version_id)
                case _:
                    deletion = await store.delete(self.view, version_key, version=version)
            return (deletion.existed, deletion.marker, self.name(which, deletion.version_id))
        except StoreError as error:
            return (type(error), error.args)

    def _noted(self, which: int, element: Element) -> object:
        self._note(which, element.key, element.version_id)
        return self._shown(which, element)

    def _note(self, which: int, key: bytes, version: int) -> None:
        if version not in self.made[which]:
            self.made[which].append(version)
            if len(self.keys) < len(self.made[which]):
                self.keys.append(key)

    def _shown(self, which: int, element: Element | None) -> object:
        if element is None:
            return None
        return (element.key, element.size, element.etag, element.attributes.uid, self.name(which, element.version_id))

    def shown(self, which: int, version: Version) -> object:
        return (version.key, self.name(which, version.version_id), version.is_latest, self._shown(which, version.element))

    async def apply(self, change: Change) -> None:
        if change[0] in ("enable", "suspend"):
            if self.versioning is not OFF or change[0] == "enable":
                self.versioning = ENABLED if change[0] == "enable" else SUSPENDED
            return
        assert await self.change(0, change) == await self.change(1, change)
        assert await self.state(0) == await self.state(1)

    async def state(self, which: int) -> object:
        store = self.stores[which]
        live = [self._shown(which, element) for element in (await store.list(self.view)).elements]
        versions = (await store.list_versions(self.view)).versions
        contents = [await read(store, found.key, found.version_id, self.view) for found in versions if found.element]
        return live, [self.shown(which, found) for found in versions], contents

    async def pages(self, which: int, prefix: bytes, delimiter: bytes, limit: int) -> list[object]:
        found: list[object] = []
        after_key, after_version = b"", None
        while True:
            page: VersionPage = await self.stores[which].list_versions(
                self.view, prefix=prefix, delimiter=delimiter, after_key=after_key, after_version=after_version, limit=limit
            )
            found.append(([self.shown(which, version) for version in page.versions], list(page.prefixes), page.next_key))
            if page.next_key is None:
                return found
            after_key, after_version = page.next_key, page.next_version


@pytest.fixture(scope="module")
def loop_and_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, Store]]:
    path: Path = tmp_path_factory.mktemp("versions")
    (path / "state").mkdir()

    async def opened() -> Store:
        return await Store.open(devices(path), state=path / "state")

    with asyncio.Runner() as runner:
        store = runner.run(opened())
        yield runner, store
        runner.run(store.close())


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, prefix=st.sampled_from([b"", b"a", b"a/"]), delimiter=st.sampled_from([b"", b"/", b"b"]), limit=st.integers(1, 5))
def test_any_changes_are_those_of_the_model(
    loop_and_store: tuple[asyncio.Runner, Store], changes: list[Change], prefix: bytes, delimiter: bytes, limit: int
) -> None:
    runner, store = loop_and_store

    async def run() -> None:
        view = f"view-{len(await store.views())}"
        both = Both(store, view)
        for each in both.stores:
            await each.create_view(view, Attributes())
        for change in changes:
            await both.apply(change)
        pages = await both.pages(0, prefix, delimiter, limit)
        assert pages == await both.pages(1, prefix, delimiter, limit)

    runner.run(run())
