"""PostObject: forms as browsers send them, signed by boto3 or by nobody, whole and broken."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.s3.errors import S3Error
from protocols.s3.form import FIELDS_BYTES_MAX, Form, boundary_of
from protocols.s3.post_policy import parse_policy
from tests.protocols.s3.server import ALICE, Server

LARGE = bytes(range(256)) * 2048 * 3


def encode(fields: dict[str, str], content: bytes | None, filename: str = "f.txt") -> bytes:
    parts = [f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    if content is not None:
        head = f'--B\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\nContent-Type: text/plain\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + b"--B--\r\n"


def post(server: Server, bucket: str, body: bytes) -> tuple[HTTPResponse, str]:
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        connection.request("POST", f"/{bucket}", body, {"Content-Type": "multipart/form-data; boundary=B"})
        response = connection.getresponse()
        return response, response.read().decode()


def signed(
    s3: Any, bucket: str, key: str = "k", fields: dict[str, str] | None = None, conditions: list[Any] | None = None
) -> dict[str, str]:
    found: dict[str, str] = s3.generate_presigned_post(bucket, key, Fields=fields, Conditions=conditions)["fields"]
    return found


@pytest.mark.parametrize("content", [b"", b"small", b"\r\n--", b"\r\n--B\r", LARGE])
def test_signed_form(server: Server, s3: Any, bucket: str, content: bytes) -> None:
    fields = {"Content-Type": "text/x", "x-amz-meta-a": "b", "acl": "public-read"}
    content = content.replace(b"\r\n--B", b"\r\n--A")
    response, _ = post(server, bucket, encode(signed(s3, bucket, "k", fields, [{name: value} for name, value in fields.items()]), content))
    assert response.status == 204
    stored = s3.get_object(Bucket=bucket, Key="k")
    assert stored["Body"].read() == content
    assert (stored["ContentType"], stored["Metadata"], stored["ETag"]) == ("text/x", {"a": "b"}, response.headers["ETag"])
    assert len(s3.get_object_acl(Bucket=bucket, Key="k")["Grants"]) == 2


def test_signature_version_2(server: Server, s3: Any, bucket: str) -> None:
    document = {"expiration": "2999-01-01T00:00:00.000Z", "conditions": [{"bucket": bucket}, ["starts-with", "$key", "a/"]]}
    policy = base64.b64encode(json.dumps(document).encode()).decode()
    signature = base64.b64encode(hmac.digest(ALICE[1].encode(), policy.encode(), "sha1")).decode()
    fields = {"key": "a/${filename}", "AWSAccessKeyId": ALICE[0], "policy": policy, "signature": signature}
    assert post(server, bucket, encode(fields, b"two", "C:\\dir\\name.txt"))[0].status == 204
    assert s3.get_object(Bucket=bucket, Key="a/name.txt")["Body"].read() == b"two"
    assert post(server, bucket, encode({**fields, "key": "b/x"}, b"two"))[0].status == 403
    assert post(server, bucket, encode({**fields, "signature": signature[::-1]}, b"two"))[0].status == 403


def test_answers(server: Server, s3: Any, bucket: str) -> None:
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    response, text = post(server, bucket, encode({"key": "a b", "success_action_status": "201"}, b"x"))
    assert response.status == 201
    assert f"<Bucket>{bucket}</Bucket><Key>a b</Key>" in text
    response, _ = post(server, bucket, encode({"key": "a b", "success_action_redirect": "http://example.com/done?a=1"}, b"x"))
    assert response.status == 303
    etag = hashlib.md5(b"x", usedforsecurity=False).hexdigest()
    assert response.headers["Location"] == f"http://example.com/done?a=1&bucket={bucket}&key=a%20b&etag=%22{etag}%22"
    for useless in ("javascript:alert(1)", "http://a\r\nX-Evil: b/", "nothing"):
        response, _ = post(server, bucket, encode({"key": "k", "redirect": useless}, b"x"))
        assert response.status == 204
        assert "X-Evil" not in response.headers


@pytest.mark.parametrize(
    ("fields", "conditions", "content", "code"),
    [
        ({"x-amz-meta-a": "b"}, [], b"x", "AccessDenied"),
        ({"x-amz-meta-a": "b"}, [["eq", "$x-amz-meta-a", "c"]], b"x", "AccessDenied"),
        ({}, [["content-length-range", 2, 3]], b"x", "EntityTooSmall"),
        ({}, [["content-length-range", 2, 3]], LARGE, "EntityTooLarge"),
        ({"x-amz-checksum-crc32": "AAAAAA=="}, [], b"x", "BadDigest"),
        ({"x-amz-server-side-encryption": "AES256"}, [["starts-with", "$x-amz-server-side-encryption", ""]], b"x", "NotImplemented"),
        ({}, [], None, "InvalidArgument"),
    ],
)
def test_refused(
    server: Server, s3: Any, bucket: str, fields: dict[str, str], conditions: list[Any], content: bytes | None, code: str
) -> None:
    form = {**signed(s3, bucket, conditions=conditions), **fields}
    response, text = post(server, bucket, encode(form, content))
    assert response.status >= 400
    assert f"<Code>{code}</Code>" in text
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_nobody_may_send_forms_to_a_private_bucket(server: Server, s3: Any, bucket: str) -> None:
    assert "<Code>AccessDenied</Code>" in post(server, bucket, encode({"key": "k"}, b"x"))[1]
    other = signed(s3, bucket)
    s3.create_bucket(Bucket=f"{bucket}-other")
    assert "<Code>AccessDenied</Code>" in post(server, f"{bucket}-other", encode(other, b"x"))[1]


def read(body: bytes, size: int) -> tuple[dict[str, str], bytes]:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), size):
            yield body[at : at + size]

    async def run() -> tuple[dict[str, str], bytes]:
        form = Form(b"B", pieces())
        await form.read_fields()
        return form.fields, b"".join([piece async for piece in form.content()])

    return asyncio.run(run())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_pieces_of_any_size(size: int) -> None:
    content = b"\r\n--\r\n--A\r\n" * 50 + b"\r\n-"
    assert read(encode({"A": "1", "b": ""}, content) + b"epilogue", size) == ({"a": "1", "b": ""}, content)


@given(st.binary(max_size=300), st.integers(1, 50))
def test_hostile_forms_are_refused(data: bytes, size: int) -> None:
    for body in (data, encode({"a": "b"}, None)[:-6] + data, encode({"a": "b"}, data)[:-7]):
        try:
            read(body, size)
        except S3Error as error:
            assert error.status == 400


def test_fields_are_bounded() -> None:
    for body in (encode({"a": "x" * FIELDS_BYTES_MAX}, b""), encode({str(n): "x" * 100 for n in range(FIELDS_BYTES_MAX // 100)}, b"")):
        with pytest.raises(S3Error, match="MaxPostPreDataLengthExceededError"):
            read(body, 1000)
    with pytest.raises(S3Error, match="MalformedPOSTRequest"):
        boundary_of("multipart/form-data")


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_hostile_policies_are_refused(conditions: Any) -> None:
    for document in (
        conditions,
        {"expiration": "2999-01-01T00:00:00Z", "conditions": conditions},
        {"expiration": conditions, "conditions": []},
    ):
        try:
            parse_policy(base64.b64encode(json.dumps(document).encode()).decode())
        except S3Error as error:
            assert error.code == "InvalidPolicyDocument"
