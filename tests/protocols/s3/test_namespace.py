"""What S3 requests make of files: owners and modes, and which keys a bucket takes. The store is the real one, on drives in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import pytest

from element_store import Store
from element_store.testing import MemoryDevices
from element_store.types import Attributes
from protocols.auth.identity import IdentityMap
from protocols.s3 import S3Config, S3Gateway
from protocols.s3.config import KeyPolicy
from tests.protocols.s3.asgi import Answer, Caller, TrustingAuthenticator

NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
CONFIG = S3Config(identity=IdentityMap(500, 501, 0o640, 0o750))


def run(tmp_path: Path, test: Callable[[Caller, Store], Awaitable[None]], config: S3Config = CONFIG) -> None:
    async def whole() -> None:
        store = await MemoryDevices(2).open(state=tmp_path)
        try:
            auth = TrustingAuthenticator(store)
            await auth.ensure_root("ROOTROOTROOT", "rootrootroot")
            await test(Caller(S3Gateway(store, auth, config)), store)
        finally:
            await store.close()

    asyncio.run(whole())


def code(answer: Answer) -> tuple[int, str | None]:
    return answer.status, ElementTree.fromstring(answer.body).findtext("Code") if answer.body else None


async def owner(store: Store, key: bytes) -> tuple[int, int, int]:
    attributes = (await store.lookup("bucket", key)).attributes
    return attributes.uid, attributes.gid, attributes.mode


def test_writes_belong_to_whom_the_map_says(tmp_path: Path) -> None:
    async def test(s3: Caller, store: Store) -> None:
        await s3.call("PUT", b"/bucket")
        view = (await store.view("bucket")).attributes
        assert (view.uid, view.gid, view.mode) == (500, 501, 0o750)
        await s3.call("PUT", b"/bucket/put", body=b"x")
        await s3.call("PUT", b"/bucket/large", body=b"x" * 300_000)
        await s3.call("PUT", b"/bucket/copy", headers=[(b"x-amz-copy-source", b"bucket/put")])
        started = ElementTree.fromstring((await s3.call("POST", b"/bucket/parts", b"uploads")).body)
        upload = next(node.text for node in started.iter() if node.tag.endswith("UploadId")) or ""
        part = await s3.call("PUT", b"/bucket/parts", b"partNumber=1&uploadId=" + upload.encode(), body=b"x")
        document = (
            f"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{part.headers['etag']}</ETag></Part></CompleteMultipartUpload>"
        )
        assert (await s3.call("POST", b"/bucket/parts", b"uploadId=" + upload.encode(), body=document.encode())).status == 200
        for key in (b"put", b"large", b"copy", b"parts"):
            assert await owner(store, key) == (500, 501, 0o640), key

    run(tmp_path, test)


def test_an_overwrite_keeps_owner_and_mode(tmp_path: Path) -> None:
    async def test(s3: Caller, store: Store) -> None:
        await s3.call("PUT", b"/bucket")
        await s3.call("PUT", b"/bucket/key", headers=[(b"x-amz-meta-old", b"1")], body=b"x")
        element = await store.lookup("bucket", b"key")
        changed = {**element.attributes.xattrs, "user.own": b"kept"}
        await store.set_attributes("bucket", b"key", type(element.attributes)(7, 8, 0o600, changed))
        await s3.call("PUT", b"/bucket/key", headers=[(b"x-amz-meta-new", b"2")], body=b"y")
        assert await owner(store, b"key") == (7, 8, 0o600)
        assert (await store.lookup("bucket", b"key")).attributes.xattrs == {"user.s3.meta.new": b"2", "user.own": b"kept"}

    run(tmp_path, test)


@pytest.mark.parametrize("chosen", ["header", "default"])
def test_a_bucket_may_take_only_paths(tmp_path: Path, chosen: str) -> None:
    async def test(s3: Caller, store: Store) -> None:
        await s3.call("PUT", b"/bucket", headers=[(b"x-trefoil-key-policy", b"posix")] if chosen == "header" else ())
        assert (await s3.call("HEAD", b"/bucket")).headers["x-trefoil-key-policy"] == "posix"
        assert (await s3.call("PUT", b"/bucket/a", body=b"x")).status == 200
        assert (await s3.call("PUT", b"/bucket/d/e", body=b"x")).status == 200
        assert (await s3.call("PUT", b"/bucket/d/", body=b"")).status == 200
        assert code(await s3.call("PUT", b"/bucket/a/b", body=b"x")) == (409, "ObjectParentIsFile")
        assert code(await s3.call("PUT", b"/bucket/d", body=b"x")) == (409, "ExistingObjectIsDirectory")
        for key in (b"a//b", b"./x", b"..", b".keys/x", b"n" * 256, b"marker/"):
            assert code(await s3.call("PUT", b"/bucket/" + key, body=b"x")) == (400, "InvalidArgument"), key
        assert code(await s3.call("POST", b"/bucket/a//b", b"uploads")) == (400, "InvalidArgument")
        assert code(await s3.call("PUT", b"/bucket/d", headers=[(b"x-amz-copy-source", b"bucket/a")])) == (409, "ExistingObjectIsDirectory")
        assert [element.key for element in (await store.list("bucket")).elements] == [b"a", b"d/", b"d/e"]

    run(tmp_path, test, S3Config(key_policy=KeyPolicy.POSIX if chosen == "default" else KeyPolicy.S3))


def test_what_is_no_text_is_not_listed(tmp_path: Path) -> None:
    async def test(s3: Caller, store: Store) -> None:
        await s3.call("PUT", b"/bucket")
        names = [b"a", b"b\xff", b"c\xfe/x", b"c\xff", b"d", b"z\xff"]
        for name in names:
            await store.put("bucket", name, b"", Attributes())
        for query in (b"list-type=2", b"", b"delimiter=/", b"versions", b"list-type=2&delimiter=/"):
            assert keys_of((await s3.call("GET", b"/bucket", query)).body) == ["a", "d"], query
        token, found = b"", []
        while True:
            answer = ElementTree.fromstring((await s3.call("GET", b"/bucket", b"list-type=2&max-keys=1" + token)).body)
            found += keys_of(ElementTree.tostring(answer))
            following = answer.findtext(NAMESPACE + "NextContinuationToken")
            if following is None:
                break
            token = b"&continuation-token=" + quote(following).encode()
        assert found == ["a", "d"]

    run(tmp_path, test)


def keys_of(body: bytes) -> list[str]:
    return [node.text or "" for node in ElementTree.fromstring(body).iter(NAMESPACE + "Key")]


def test_a_bucket_takes_every_key_otherwise(tmp_path: Path) -> None:
    async def test(s3: Caller, store: Store) -> None:
        assert code(await s3.call("PUT", b"/bucket", headers=[(b"x-trefoil-key-policy", b"windows")])) == (400, "InvalidArgument")
        await s3.call("PUT", b"/bucket")
        assert (await s3.call("HEAD", b"/bucket")).headers["x-trefoil-key-policy"] == "s3"
        keys = [b"a", b"a/b", b"a//b", b"./x", b"..", b".keys/x", b"n" * 256, b"marker/", b"x" * 1024]
        for key in keys:
            assert (await s3.call("PUT", b"/bucket/" + key, body=key)).status == 200, key
            assert (await s3.call("GET", b"/bucket/" + key)).body == key
        assert [element.key for element in (await store.list("bucket")).elements] == sorted(keys)

    run(tmp_path, test)
