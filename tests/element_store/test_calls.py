"""What the calls do and raise, in the model and in the store alike."""

from __future__ import annotations

import hashlib
from types import MappingProxyType

import pytest

from element_store.interface import SMALL_BYTES_MAX, ElementStore
from element_store.types import (
    Attributes,
    Closed,
    Condition,
    Conflict,
    Deletion,
    DigestMismatch,
    Element,
    Invalid,
    Kind,
    LimitExceeded,
    NotFound,
    PreconditionFailed,
)
from tests.element_store.conftest import VIEW
from tests.model.digests import digest

NAMES = ("md5", "sha1", "sha256", "crc32", "crc32c", "crc64nvme")
ANY = Condition(if_match=("*",))
NEW = Condition(if_none_match=("*",))


def md5(data: bytes) -> dict[str, bytes]:
    return {"md5": hashlib.md5(data).digest()}


async def read(store: ElementStore, key: bytes) -> bytes:
    async with await store.open(VIEW, key) as content:
        return b"".join([piece async for piece in content.chunks(0, content.element.size)])


async def stage(store: ElementStore, data: bytes) -> object:
    staged = store.stage()
    await staged.write(data)
    await staged.finish()
    return staged


async def test_an_element_carries_what_was_given(either: ElementStore) -> None:
    attributes = Attributes(uid=7, gid=8, mode=0o600, xattrs=MappingProxyType({"user.a": b"1", "user.é": b""}))
    put = await either.put(VIEW, b"a/\xff", b"hello", attributes, digests=NAMES)
    assert put == await either.lookup(VIEW, b"a/\xff")
    assert isinstance(put, Element)
    assert (put.kind, put.key, put.size, put.etag) == (Kind.FILE, b"a/\xff", 5, hashlib.md5(b"hello").hexdigest())
    assert put.attributes == attributes
    assert dict(put.digests) == {name: digest(name, b"hello") for name in NAMES}
    assert (put.composite, tuple(put.part_sizes), tuple(put.part_digests)) == (False, (), ())
    assert await read(either, b"a/\xff") == b"hello"


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, 16 * 1024 + 1, SMALL_BYTES_MAX])
@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
async def test_small_content_of_any_size_and_type(either: ElementStore, size: int, make: type) -> None:
    data = bytes(at % 251 for at in range(size))
    element = await either.put(VIEW, b"key", make(data), Attributes(), digests=("crc32",))
    assert dict(element.digests) == {"md5": digest("md5", data), "crc32": digest("crc32", data)}
    assert await read(either, b"key") == data


async def test_small_content_is_small(either: ElementStore) -> None:
    with pytest.raises(LimitExceeded):
        await either.put(VIEW, b"key", bytes(SMALL_BYTES_MAX + 1), Attributes())


@pytest.mark.parametrize("size", [5, 100_000])
async def test_announced_digests_are_compared_before_anything_is_stored(either: ElementStore, size: int) -> None:
    data = b"x" * size
    right = {name: digest(name, data) for name in NAMES}
    for name in NAMES:
        with pytest.raises(DigestMismatch) as raised:
            await either.put(VIEW, b"key", data, Attributes(), expected=right | {name: b"wrong"})
        assert raised.value.args == (name,)
    with pytest.raises(NotFound):
        await either.lookup(VIEW, b"key")
    element = await either.put(VIEW, b"key", data, Attributes(), expected=right)
    assert set(element.digests) == {"md5"}


@pytest.mark.parametrize("key", [b"", b"k" * 1025, b"a\0b"])
async def test_keys_that_cannot_be(either: ElementStore, key: bytes) -> None:
    with pytest.raises(Invalid):
        await either.put(VIEW, key, b"", Attributes())
    with pytest.raises(Invalid):
        await either.create_upload(VIEW, key, Attributes(), {})


async def test_attributes_have_a_bound(either: ElementStore) -> None:
    fits = Attributes(xattrs={"n" * 10: bytes(32 * 1024 - 10)})
    await either.put(VIEW, b"key", b"", fits)
    for call in (
        either.put(VIEW, b"key", b"", Attributes(xattrs={"n" * 11: bytes(32 * 1024 - 10)})),
        either.set_attributes(VIEW, b"key", Attributes(xattrs={"é": bytes(32 * 1024 - 1)})),
        either.create_view("other", Attributes(xattrs={"n": bytes(32 * 1024)})),
    ):
        with pytest.raises(LimitExceeded):
            await call


async def test_conditions(either: ElementStore) -> None:
    with pytest.raises(NotFound) as absent:
        await either.put(VIEW, b"key", b"1", Attributes(), condition=ANY)
    assert absent.value.args == ("key",)
    first = await either.put(VIEW, b"key", b"1", Attributes(), condition=NEW)
    with pytest.raises(PreconditionFailed):
        await either.put(VIEW, b"key", b"2", Attributes(), condition=NEW)
    second = await either.put(VIEW, b"key", b"2", Attributes(), condition=Condition(if_match=(first.etag, "other")))
    assert second.etag == hashlib.md5(b"2").hexdigest()
    with pytest.raises(PreconditionFailed):
        await either.delete(VIEW, b"key", condition=Condition(if_match=(first.etag,)))
    assert await either.delete(VIEW, b"key") == Deletion(True)
    assert await either.delete(VIEW, b"key") == Deletion(False)


async def test_what_is_not_there_says_what(either: ElementStore) -> None:
    for what, call in (
        ("view", either.lookup("none", b"key")),
        ("view", either.put("none", b"key", b"", Attributes())),
        ("view", either.delete("none", b"key")),
        ("view", either.view("none")),
        ("key", either.lookup(VIEW, b"key")),
        ("key", either.open(VIEW, b"key")),
        ("key", either.set_attributes(VIEW, b"key", Attributes())),
        ("upload", either.upload(VIEW, b"key", "none")),
        ("upload", either.abort_upload(VIEW, b"key", "none")),
        ("upload", either.list_parts(VIEW, b"key", "none")),
    ):
        with pytest.raises(NotFound) as raised:
            await call
        assert raised.value.args[0] == what


async def test_views(either: ElementStore) -> None:
    with pytest.raises(Conflict):
        await either.create_view(VIEW, Attributes())
    await either.create_view("another", Attributes(uid=3))
    assert [view.name for view in await either.views()] == ["another", VIEW]
    changed = await either.set_view_attributes("another", Attributes(uid=4, xattrs={"a": b"b"}))
    assert changed == await either.view("another")
    assert changed.attributes == Attributes(uid=4, xattrs={"a": b"b"})
    await either.put("another", b"key", b"", Attributes())
    with pytest.raises(Conflict):
        await either.delete_view("another")
    await either.delete("another", b"key")
    await either.delete_view("another")
    assert [view.name for view in await either.views()] == [VIEW]


async def test_delete_many_answers_key_by_key(either: ElementStore) -> None:
    await either.put(VIEW, b"a", b"", Attributes())
    await either.put(VIEW, b"b", b"", Attributes())
    wrong = Condition(if_match=("other",))
    results = await either.delete_many(VIEW, [b"a", b"b", b"c", b"d"], [None, wrong, None, ANY])
    assert [result if isinstance(result, Deletion) else type(result) for result in results] == [
        Deletion(True),
        PreconditionFailed,
        Deletion(False),
        NotFound,
    ]
    with pytest.raises(LimitExceeded):
        await either.delete_many(VIEW, [b"k"] * 1001, [None] * 1001)
    with pytest.raises(LimitExceeded):
        await either.delete_many(VIEW, [b"k"], [])


async def test_a_listing_in_pages(either: ElementStore) -> None:
    for key in (b"a", b"a/b", b"a/c", b"b", b"b\xff"):
        await either.put(VIEW, key, key, Attributes())
    page = await either.list(VIEW, delimiter=b"/", limit=2)
    assert ([element.key for element in page.elements], list(page.prefixes), page.next_after) == ([b"a"], [b"a/"], b"a/")
    page = await either.list(VIEW, delimiter=b"/", start_after=b"a/")
    assert ([element.key for element in page.elements], list(page.prefixes), page.next_after) == ([b"b", b"b\xff"], [], None)
    page = await either.list(VIEW, prefix=b"a/")
    assert [element.key for element in page.elements] == [b"a/b", b"a/c"]


async def test_an_upload(either: ElementStore) -> None:
    attributes = Attributes(xattrs={"user.a": b"1"})
    upload = await either.create_upload(VIEW, b"key", attributes, {"algorithm": b"crc32"})
    assert upload == await either.upload(VIEW, b"key", upload.id)
    assert (upload.key, dict(upload.extra), upload.attributes) == (b"key", {"algorithm": b"crc32"}, attributes)
    parts = []
    for number, data in ((1, b"one" * 1000), (3, b"three")):
        kept = md5(data) | {"crc32": digest("crc32", data)}
        part = await either.put_part(VIEW, b"key", upload.id, number, await stage(either, data), digests=kept)  # type: ignore[arg-type]
        assert (part.number, part.size, part.etag, dict(part.digests)) == (number, len(data), kept["md5"].hex(), kept)
        parts.append(part)
    assert list(await either.list_parts(VIEW, b"key", upload.id)) == parts
    assert list(await either.list_parts(VIEW, b"key", upload.id, after=1)) == parts[1:]
    assert [found.id for found in await either.list_uploads(VIEW)] == [upload.id]
    sums = hashlib.md5(parts[0].digests["md5"] + parts[1].digests["md5"]).digest()
    with pytest.raises(Invalid):
        await either.complete_upload(VIEW, b"key", upload.id, [(2, parts[0].etag)], etag_digest=sums, digests={}, composite=False)
    named = [(part.number, part.etag) for part in parts]
    element = await either.complete_upload(VIEW, b"key", upload.id, named, etag_digest=sums, digests={"crc32": b"1234"}, composite=True)
    assert (element.etag, element.composite, dict(element.digests)) == (f"{sums.hex()}-2", True, {"crc32": b"1234"})
    assert (list(element.part_sizes), list(element.part_digests)) == ([3000, 5], [part.digests["crc32"] for part in parts])
    assert element.attributes == attributes
    assert await read(either, b"key") == b"one" * 1000 + b"three"
    with pytest.raises(NotFound):
        await either.upload(VIEW, b"key", upload.id)


async def test_copies_share_and_digest(either: ElementStore) -> None:
    data = bytes(at % 249 for at in range(300_000))
    staged = await stage(either, data)
    await either.publish(VIEW, b"source", staged, Attributes(), digests=md5(data))  # type: ignore[arg-type]
    upload = await either.create_upload(VIEW, b"parts", Attributes(), {})
    async with await either.open(VIEW, b"source") as source:
        copy = await either.copy(source, VIEW, b"copy", Attributes(uid=1), digests=md5(data))
        assert dict(await either.digest(source, 0, len(data), NAMES)) == {name: digest(name, data) for name in NAMES}
        middle = await either.digest(source, 100_000, 250_001, ("sha256",))
        assert dict(middle) == {"sha256": digest("sha256", data[100_000:250_001])}
        part = await either.copy_part(VIEW, b"parts", upload.id, 1, source, 10, 20, digests=md5(data[10:20]))
        assert (part.size, part.etag) == (10, md5(data[10:20])["md5"].hex())
    assert (copy.size, copy.attributes.uid) == (len(data), 1)
    await either.delete(VIEW, b"source")
    assert await read(either, b"copy") == data


async def test_records(either: ElementStore) -> None:
    assert await either.get_record("user", "a") is None
    await either.put_record("user", "b", b"2")
    await either.put_record("user", "a", bytes(60 * 1024), must_be_new=True)
    await either.put_record("users", "c", b"3")
    with pytest.raises(Conflict):
        await either.put_record("user", "a", b"", must_be_new=True)
    with pytest.raises(LimitExceeded):
        await either.put_record("user", "a", bytes(64 * 1024 + 1))
    assert list(await either.list_records("user")) == [("a", bytes(60 * 1024)), ("b", b"2")]
    assert await either.delete_record("user", "a") is True
    assert await either.delete_record("user", "a") is False


async def test_a_closed_store_says_so(either: ElementStore) -> None:
    await either.close()
    await either.close()
    with pytest.raises(Closed):
        await either.views()
    with pytest.raises(Closed):
        await either.put(VIEW, b"key", b"", Attributes())
    with pytest.raises(Closed):
        either.stage()
