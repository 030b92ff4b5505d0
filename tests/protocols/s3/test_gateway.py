"""The gateway as a whole: whatever comes in, a well-formed S3 answer goes out; nothing is read before it is allowed."""

from __future__ import annotations

import asyncio
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from element_store.types import Attributes
from protocols.s3 import S3Config
from protocols.s3.errors import CODES, S3Error
from protocols.s3.router import BUCKET_SUBRESOURCES, OBJECT_SUBRESOURCES
from tests.protocols.s3.asgi import Answer, Local, local

METHODS = st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
PATHS = st.one_of(
    st.sampled_from([b"/", b"//", b"/bucket", b"/bucket/", b"/bucket/key", b"/bucket//", b"/bucket/%00", b"/bucket/%ff", b"/absent/key"]),
    st.sampled_from([b"*", b"/%2e%2e/x"]),
    st.text(alphabet="abc/%0f.~+ \u00e9", max_size=40).map(lambda text: b"/" + text.encode()),
)
PARAMETERS = {"prefix", "delimiter", "marker", "max-keys", "partNumber", "versionId", "encoding-type", "start-after", "key-marker"}
NAMES = sorted(BUCKET_SUBRESOURCES | OBJECT_SUBRESOURCES | PARAMETERS)
VALUES = st.one_of(
    st.sampled_from([b"", b"1", b"0", b"-1", b"2", b"url", b"null", b"99999999999", b"%ff", b"%zz", b"/"]),
    st.binary(max_size=12),
)
QUERIES = st.lists(st.tuples(st.sampled_from(NAMES).map(str.encode), VALUES), max_size=3).map(
    lambda pairs: b"&".join(name + b"=" + value for name, value in pairs)
)
HEADER_NAMES = st.sampled_from(
    b"""range if-match if-none-match if-modified-since x-amz-copy-source x-amz-copy-source-range x-amz-content-sha256 content-md5
    x-amz-tagging x-amz-acl x-amz-metadata-directive x-amz-checksum-crc32 x-amz-checksum-algorithm x-amz-checksum-type x-amz-trailer
    x-amz-decoded-content-length x-amz-object-attributes x-amz-max-parts x-amz-storage-class x-amz-meta-a x-amz-sdk-checksum-algorithm
    content-encoding expect x-amz-server-side-encryption x-amz-checksum-mode x-amz-expected-bucket-owner transfer-encoding
    x-amz-mp-object-size""".split()
)
HEADER_VALUES = st.one_of(
    st.sampled_from(
        b"""|bytes=0-1|bytes=-1|bytes=9-|*|"x"|bucket/key|CRC32|COMPOSITE|ENABLED|STREAMING-UNSIGNED-PAYLOAD-TRAILER|5|REPLACE|a=b&c=d|private
        |STREAMING-AWS4-HMAC-SHA256-PAYLOAD|UNSIGNED-PAYLOAD|x-amz-checksum-crc32|ETag,ObjectParts|public-read|100-continue
        |Sat, 01 Jan 2022 00:00:00 GMT""".split(b"|")
    ).map(bytes.strip),
    st.binary(max_size=24),
)
BODIES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b"<Delete><Object><Key>key</Key></Object></Delete>",
            b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>a</ETag></Part></CompleteMultipartUpload>",
            b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>",
            b"<CreateBucketConfiguration/>",
            b"<a><b>",
            b"5\r\nhello\r\n0\r\n\r\n",
            b'<!DOCTYPE a [<!ENTITY b "c">]><Delete>&b;</Delete>',
        ]
    ),
)


async def populate(gateway: Local) -> None:
    await gateway.store.create_view("bucket", Attributes())
    await gateway.store.put("bucket", b"key", b"content", Attributes())


def check_answer(method: str, answer: Answer) -> None:
    assert answer.status, "no answer"
    assert answer.complete
    assert "x-amz-request-id" in answer.headers
    assert all(not re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value) for value in answer.headers.values())
    if answer.status >= 400 and method != "HEAD":
        root = ElementTree.fromstring(answer.body)
        assert root.tag == "Error"
        assert CODES[root.findtext("Code") or ""][0] == answer.status
        assert root.findtext("RequestId") == answer.headers["x-amz-request-id"]
    assert answer.status < 500 or answer.status == 501
    if method == "HEAD":
        assert answer.body == b""
    elif answer.status not in (204, 304):
        assert int(answer.headers["content-length"]) == len(answer.body)


@settings(max_examples=400, deadline=None)
@given(method=METHODS, path=PATHS, query=QUERIES, headers=st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=4), body=BODIES)
def test_any_request_gets_an_s3_answer(method: str, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    gateway = local()

    async def run() -> Answer:
        await populate(gateway)
        return await gateway.call(method, path, query, headers, body)

    check_answer(method, asyncio.run(run()))
    assert not gateway.store.staged_open


# Each operation, so that random headers meet the code that reads them.
OPERATIONS: list[tuple[str, bytes, bytes, list[tuple[bytes, bytes]], bytes]] = [
    ("GET", b"/", b"", [], b""),
    ("PUT", b"/new-bucket", b"", [], b""),
    *[("GET", b"/bucket", query, [], b"") for query in (b"", b"list-type=2", b"versions", b"uploads", b"location", b"acl", b"tagging")],
    ("PUT", b"/bucket", b"acl", [(b"x-amz-acl", b"private")], b""),
    ("POST", b"/bucket", b"delete", [], b"<Delete><Object><Key>key</Key></Object></Delete>"),
    ("PUT", b"/bucket/key", b"", [], b"hello"),
    ("PUT", b"/bucket/key", b"", [(b"x-amz-copy-source", b"bucket/multi")], b""),
    ("GET", b"/bucket/multi", b"", [], b""),
    ("HEAD", b"/bucket/multi", b"", [], b""),
    ("GET", b"/bucket/multi", b"attributes", [(b"x-amz-object-attributes", b"ETag,Checksum,ObjectParts,ObjectSize")], b""),
    ("GET", b"/bucket/key", b"tagging", [], b""),
    ("PUT", b"/bucket/key", b"tagging", [], b"<Tagging><TagSet><Tag><Key>a</Key><Value>b</Value></Tag></TagSet></Tagging>"),
    ("DELETE", b"/bucket/key", b"", [], b""),
    ("POST", b"/bucket/key", b"uploads", [], b""),
    ("PUT", b"/bucket/up", b"partNumber=1&uploadId=UPLOAD", [], b"hello"),
    ("PUT", b"/bucket/up", b"partNumber=1&uploadId=UPLOAD", [(b"x-amz-copy-source", b"bucket/key")], b""),
    ("GET", b"/bucket/up", b"uploadId=UPLOAD", [], b""),
    (
        "POST",
        b"/bucket/up",
        b"uploadId=UPLOAD",
        [],
        b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>ETAG</ETag></Part></CompleteMultipartUpload>",
    ),
]


async def populate_uploads(gateway: Local) -> tuple[bytes, bytes]:
    """An object made of parts, and an upload with one part: its id and the part's ETag."""
    last = ("", "")
    for key in (b"multi", b"up"):
        info = await gateway.store.create_upload("bucket", key, Attributes(), {"checksum": b"CRC32", "checksum_type": b"COMPOSITE"})
        staged = gateway.store.stage(digests=("md5", "crc32"))
        await staged.write(b"hello")
        part = await gateway.store.put_part("bucket", key, info.id, 1, staged, digests=await staged.finish())
        last = info.id, part.etag
        if key == b"multi":
            digests = {"md5": b"m" * 16, "crc32": b"crc3"}
            await gateway.store.complete_upload(
                "bucket", key, info.id, [(1, part.etag)], etag_digest=b"m" * 16, digests=digests, composite=True
            )
    return last[0].encode(), last[1].encode()


@settings(max_examples=800, deadline=None)
@given(
    operation=st.sampled_from(OPERATIONS),
    headers=st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), min_size=1, max_size=6, unique_by=lambda header: header[0]),
    parameters=st.lists(st.tuples(st.sampled_from(sorted(PARAMETERS)).map(str.encode), VALUES), max_size=2),
)
def test_any_operation_with_random_headers(
    operation: tuple[str, bytes, bytes, list[tuple[bytes, bytes]], bytes],
    headers: list[tuple[bytes, bytes]],
    parameters: list[tuple[bytes, bytes]],
) -> None:
    method, path, query, base, body = operation
    gateway = local()

    async def run() -> Answer:
        await populate(gateway)
        upload, etag = await populate_uploads(gateway)
        whole_query = b"&".join([query.replace(b"UPLOAD", upload), *(name + b"=" + value for name, value in parameters)])
        return await gateway.call(method, path, whole_query, [*base, *headers], body.replace(b"ETAG", etag))

    check_answer(method, asyncio.run(run()))
    assert not gateway.store.staged_open


def test_every_operation_succeeds_unchanged() -> None:
    """Else the test above would only see refusals."""
    for method, path, query, headers, body in OPERATIONS:
        gateway = local()

        async def run(
            gateway: Local = gateway,
            method: str = method,
            path: bytes = path,
            query: bytes = query,
            headers: list[tuple[bytes, bytes]] = headers,
            body: bytes = body,
        ) -> Answer:
            await populate(gateway)
            await gateway.store.set_view_attributes("bucket", Attributes(xattrs={"user.s3.tag.a": b"b"}))
            upload, etag = await populate_uploads(gateway)
            return await gateway.call(method, path, query.replace(b"UPLOAD", upload), headers, body.replace(b"ETAG", etag))

        assert 200 <= asyncio.run(run()).status < 300, (method, path, query)


def ask(method: str, path: bytes, query: bytes = b"", headers: list[tuple[bytes, bytes]] | None = None, body: bytes = b"") -> Answer:
    gateway = local()

    async def run() -> Answer:
        await populate(gateway)
        return await gateway.call(method, path, query, headers or [], body)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "query", "headers"),
    [
        (b"/absent/key", b"", []),
        (b"/bucket/key", b"partNumber=0&uploadId=x", []),
        (b"/bucket/key", b"partNumber=1&uploadId=x", []),
        (b"/bucket/key", b"", [(b"content-md5", b"x")]),
        (b"/bucket/key", b"", [(b"x-amz-checksum-crc32", b"x")]),
        (b"/bucket/key", b"", [(b"if-none-match", b"*"), (b"expect", b"100-continue")]),
        (b"/bucket/" + b"k" * 1025, b"", []),
    ],
)
def test_refused_before_the_body(path: bytes, query: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    answer = ask("PUT", path, query, headers, b"x")
    assert answer.status >= 400
    assert not answer.body_was_asked_for


def test_too_many_headers() -> None:
    assert ask("GET", b"/bucket/key", headers=[(b"x-%d" % number, b"") for number in range(300)]).status == 400


def test_a_client_that_leaves_changes_nothing() -> None:
    gateway = local()

    async def run() -> Answer:
        await populate(gateway)
        for length in (b"9", b"900000"):
            answer = await gateway.call("PUT", b"/bucket/new", b"", [(b"content-length", length)], b"half", disconnect=True)
            assert answer.status == 0
        return await gateway.call("HEAD", b"/bucket/new")

    assert asyncio.run(run()).status == 404
    assert not gateway.store.staged_open


@pytest.mark.expects_warnings
def test_damage_before_the_first_byte_is_an_error() -> None:
    gateway = local()

    async def run() -> Answer:
        await populate(gateway)
        gateway.store.damaged["bucket", b"key"] = 0
        return await gateway.call("GET", b"/bucket/key")

    answer = asyncio.run(run())
    assert (answer.status, b"<Code>InternalError</Code>" in answer.body) == (500, True)


@pytest.mark.expects_warnings
def test_damage_after_the_first_byte_breaks_off() -> None:
    """An answer that began cannot become an error, and must not look complete."""
    gateway = local()
    answers: list[Answer] = []

    async def run() -> None:
        await populate(gateway)
        staged = gateway.store.stage()
        await staged.write(bytes(3 * 1024 * 1024))
        await gateway.store.publish("bucket", b"large", staged, Attributes(), digests=await staged.finish())
        gateway.store.damaged["bucket", b"large"] = 1024 * 1024
        await gateway.call("GET", b"/bucket/large", into=answers)

    with pytest.raises(S3Error, match="InternalError"):
        asyncio.run(run())
    assert (answers[0].status, len(answers[0].body), answers[0].complete) == (200, 1024 * 1024, False)


def test_an_idle_body_is_given_up() -> None:
    gateway = local(S3Config(body_idle_seconds=0.01))
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, object]:
        await asyncio.sleep(60)
        raise AssertionError("waited for too long")

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        await populate(gateway)
        headers = [(b"content-length", b"5")]
        scope = {"type": "http", "method": "PUT", "raw_path": b"/bucket/k", "query_string": b"", "headers": headers}
        await gateway.gateway(scope, receive, send)

    asyncio.run(run())
    assert sent[0]["status"] == 400
    assert (b"connection", b"close") in sent[0]["headers"]
    assert b"RequestTimeout" in sent[1]["body"]


def test_a_request_id_of_the_daemon_is_kept() -> None:
    gateway = local()
    sent = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b""}

    async def send(message: object) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "raw_path": b"/x/y", "query_string": b"", "headers": [], "request_id": "my-id"}
    asyncio.run(gateway.gateway(scope, receive, send))
    assert (b"x-amz-request-id", b"my-id") in sent[0]["headers"]  # type: ignore[index]
