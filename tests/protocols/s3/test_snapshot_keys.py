"""Keys below `.snapshot/`, on a real store: what a bucket shows that opted in, that nothing writes there, and who may look."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from element_store import Store
from element_store.testing import MemoryDevices
from protocols.s3 import S3Config, S3Gateway
from protocols.s3.snapshot_keys import ATTRIBUTE
from tests.protocols.s3.asgi import Answer, Caller, TrustingAuthenticator

KEYS = ("a/b", "a/c", "d", "e//f")


def header_list(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


class Place(Caller):
    def __init__(self, store: Store) -> None:
        self.store = store
        self.auth = TrustingAuthenticator(store)
        super().__init__(S3Gateway(store, self.auth, S3Config()))

    async def put(self, key: str, body: bytes, **headers: str) -> Answer:
        return await self.call("PUT", f"/photos/{key}".encode(), body=body, headers=header_list(headers))

    async def get(self, key: str, **headers: str) -> Answer:
        return await self.call("GET", f"/photos/{key}".encode(), headers=header_list(headers))

    async def shows(self, on: bool) -> None:
        view = await self.store.view("photos")
        xattrs = {name: value for name, value in view.attributes.xattrs.items() if name != ATTRIBUTE} | ({ATTRIBUTE: b"1"} if on else {})
        await self.store.set_view_attributes("photos", replace(view.attributes, xattrs=xattrs))
        self.gateway._context.forget_bucket("photos")

    async def listed(self, query: str) -> tuple[list[str], list[str], Answer]:
        answer = await self.call("GET", b"/photos", f"list-type=2&{query}".encode())
        text = answer.body.decode()
        return re.findall("<Key>(.*?)</Key>", text), re.findall("<CommonPrefixes><Prefix>(.*?)</Prefix>", text), answer

    async def walked(self, query: str, size: int) -> list[str]:
        """Page by page."""
        found: list[str] = []
        more = ""
        while True:
            keys, prefixes, answer = await self.listed(f"{query}&max-keys={size}{more}")
            assert len(keys) + len(prefixes) <= size
            found += keys + prefixes
            token = re.search("<NextContinuationToken>(.*?)</", answer.body.decode())
            if token is None:
                return found
            more = f"&continuation-token={token[1]}"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    store = await MemoryDevices(2).open(state=tmp_path)
    place = Place(store)
    await place.auth.ensure_root("ROOTROOTROOT", "rootrootroot")
    await place.call("PUT", b"/photos")
    for key in KEYS:
        await place.put(key, b"old " + key.encode())
    await store.snapshots.create(b"/photos", "one")
    await store.snapshots.create(b"/photos/a", "part")
    await place.put("a/b", b"new")
    await place.call("DELETE", b"/photos/d")
    await store.snapshots.create(b"/photos", "one-b")
    yield place
    await store.close()


async def test_a_bucket_shows_its_snapshots_as_keys_once_it_is_told_to(place: Place):
    key = ".snapshot/one/a/b"
    assert (await place.get(key)).status == 404
    await place.shows(True)
    found = await place.get(key)
    assert (found.status, found.body) == (200, b"old a/b")
    assert (await place.get(".snapshot/one-b/a/b")).body == b"new"
    assert (await place.get(".snapshot/one/e//f")).body == b"old e//f"
    part = await place.get(key, range="bytes=1-2")
    assert (part.status, part.body, part.headers["content-range"]) == (206, b"ld", "bytes 1-2/7")
    head = await place.call("HEAD", f"/photos/{key}".encode())
    assert (head.status, head.headers["content-length"], head.headers["etag"]) == (200, "7", found.headers["etag"])
    assert (await place.get(key, **{"if-none-match": found.headers["etag"]})).status == 304
    for absent in (".snapshot/one/x", ".snapshot/none/a/b", ".snapshot/part/b", ".snapshot/one", ".snapshot/one/", ".snapshot/"):
        answer = await place.get(absent)
        assert (answer.status, b"NoSuchKey" in answer.body) == (404, True), absent
        assert b"photos--at--" not in answer.body and f"<Key>{absent}</Key>".encode() in answer.body
    await place.shows(False)
    assert (await place.get(key)).status == 404


async def test_they_are_copied_from(place: Place):
    await place.shows(True)
    assert (await place.put("back", b"", **{"x-amz-copy-source": "/photos/.snapshot/one/d"})).status == 200
    assert (await place.get("back")).body == b"old d"
    for absent in ("one/x", "none/d"):
        refused = await place.put("back", b"", **{"x-amz-copy-source": f"/photos/.snapshot/{absent}"})
        assert (refused.status, b"NoSuchKey" in refused.body) == (404, True)


FORM = "\r\n".join(
    (
        "--x",
        'Content-Disposition: form-data; name="key"',
        "",
        ".snapshot/one/y",
        "--x",
        'Content-Disposition: form-data; name="file"',
        "",
        "z",
        "--x--",
        "",
    )
).encode()


async def test_nothing_is_written_there(place: Place):
    await place.shows(True)
    path = b"/photos/.snapshot/one/a/b"
    calls: list[tuple[Any, ...]] = [
        ("PUT", path, b"", [], b"x"),
        ("PUT", b"/photos/.snapshot/two/x", b"", [], b"x"),
        ("PUT", path, b"", [(b"x-amz-copy-source", b"/photos/a/c")], b""),
        ("DELETE", path, b"", [], b""),
        ("PUT", path, b"tagging", [], b"<Tagging/>"),
        ("PUT", path, b"acl", [(b"x-amz-acl", b"private")], b""),
        ("POST", path, b"uploads", [], b""),
        ("POST", b"/photos", b"", [(b"content-type", b"multipart/form-data; boundary=x")], FORM),
    ]
    for method, where, query, headers, body in calls:
        refused = await place.call(method, where, query, headers, body)
        assert (refused.status, b"AccessDenied" in refused.body) == (403, True), (method, query)
    document = b"<Delete><Object><Key>.snapshot/one/a/b</Key></Object><Object><Key>a/c</Key></Object></Delete>"
    deleted = await place.call("POST", b"/photos", b"delete", [], document)
    assert deleted.status == 200 and deleted.body.count(b"<Error>") == 1 and b"<Deleted><Key>a/c</Key>" in deleted.body
    assert (await place.get(".snapshot/one/a/b")).body == b"old a/b"
    assert (await place.get(".snapshot/one/a/c")).body == b"old a/c"


async def test_listings_show_them_only_when_asked(place: Place):
    await place.shows(True)
    assert (await place.listed(""))[0] == ["a/b", "a/c", "e//f"]
    assert (await place.listed("prefix=.s"))[:2] == ([], [])
    assert (await place.listed("prefix=.snapshot/&delimiter=/"))[:2] == ([], [".snapshot/one-b/", ".snapshot/one/"])
    assert (await place.listed("prefix=.snapshot/one/&delimiter=/"))[:2] == (
        [".snapshot/one/d"],
        [".snapshot/one/a/", ".snapshot/one/e/"],
    )
    assert (await place.listed("prefix=.snapshot/one/a/"))[0] == [".snapshot/one/a/b", ".snapshot/one/a/c"]
    assert (await place.listed("prefix=.snapshot/none/"))[:2] == ([], [])
    every = [f".snapshot/one-b/{key}" for key in ("a/b", "a/c", "e//f")] + [f".snapshot/one/{key}" for key in KEYS]
    assert sorted(every) == every
    for size in (1, 2, 3, 1000):
        assert await place.walked("prefix=.snapshot/", size) == every
        assert await place.walked("prefix=.snapshot/one", size) == every
        assert await place.walked("prefix=.snapshot/&delimiter=/", size) == [".snapshot/one-b/", ".snapshot/one/"]
    assert (await place.listed("prefix=.snapshot/&start-after=.snapshot/one-b/e//f"))[0] == every[3:]
    old = await place.call("GET", b"/photos", b"prefix=.snapshot/one/&max-keys=2")
    assert re.findall("<Key>(.*?)</Key>", old.body.decode()) == every[3:5] and b"<IsTruncated>true" in old.body


async def test_guests_see_none_of_it(place: Place, monkeypatch: pytest.MonkeyPatch):
    """What was open to all when the snapshot was taken may be private since."""
    await place.put("open", b"open", **{"x-amz-acl": "public-read"})
    await place.call("PUT", b"/photos", b"acl", [(b"x-amz-acl", b"public-read")])
    await place.store.snapshots.create(b"/photos", "open")
    await place.shows(True)

    async def nobody(request: Any) -> None:
        return None

    monkeypatch.setattr(place.auth, "authenticate", nobody)
    assert (await place.get("open")).status == 200
    assert (await place.get(".snapshot/open/open")).status == 403
    assert (await place.listed("prefix=.snapshot/"))[2].status == 403
