"""The gateway as a whole: whatever comes in, a well-formed S3 answer goes out; nothing is read before it is allowed."""

from __future__ import annotations

import asyncio
import logging
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from element_store.types import Attributes
from protocols.s3.errors import CODES
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


def test_damage_before_the_first_byte_is_an_error_and_later_breaks_off(caplog: pytest.LogCaptureFixture) -> None:
    gateway = local()

    async def run() -> Answer:
        await populate(gateway)
        gateway.store.damaged.add(("bucket", b"key"))
        return await gateway.call("GET", b"/bucket/key")

    with caplog.at_level(logging.CRITICAL, "trefoil.s3"):
        assert asyncio.run(run()).status == 500


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
