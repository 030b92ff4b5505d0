"""Signature Version 4 against the published examples of the Amazon S3 API reference ("Signature Calculations for the Authorization Header",
"Authenticating Requests: Using Query Parameters", "Transferring Payload in Multiple Chunks", "... with trailing headers")."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field

import pytest

from protocols.auth import Authenticator, AuthError
from protocols.auth.sigv4 import ChunkSigner, Verified, canonical_path, parse_timestamp
from protocols.s3.errors import S3Error
from protocols.s3.streaming import ChunkedDecoder
from tests.model.store import ModelStore

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
NOW = float(parse_timestamp("20130524T000000Z") or 0)
EMPTY = hashlib.sha256(b"").hexdigest()
SCOPE = f"{ACCESS_KEY}/20130524/us-east-1/s3/aws4_request"


@dataclass
class FakeRequest:
    method: str
    raw_path: bytes
    headers: dict[bytes, bytes]
    query_items: list[tuple[str, str]] = field(default_factory=list)
    host_bucket: str = "examplebucket"

    @property
    def query(self) -> dict[str, str]:
        return dict(self.query_items)


def authenticate(request: FakeRequest, now: float = NOW) -> Verified | None:
    async def run() -> Verified | None:
        auth = Authenticator(ModelStore(), clock=lambda: now)
        await auth.create_user("example")
        await auth.create_key("example", ACCESS_KEY, SECRET_KEY)
        return await auth.authenticate(request)

    return asyncio.run(run())


def signed(
    method: str,
    path: bytes,
    signature: str,
    headers: dict[bytes, bytes],
    query: list[tuple[str, str]] | None = None,
    payload_hash: str = EMPTY,
    host: bytes = b"examplebucket.s3.amazonaws.com",
) -> FakeRequest:
    everything = {b"host": host, b"x-amz-date": b"20130524T000000Z", b"x-amz-content-sha256": payload_hash.encode(), **headers}
    names = ";".join(sorted(name.decode() for name in everything if name != b"content-length-unsigned"))
    everything[b"authorization"] = f"AWS4-HMAC-SHA256 Credential={SCOPE},SignedHeaders={names},Signature={signature}".encode()
    return FakeRequest(method, path, everything, query or [])


GET_OBJECT = signed("GET", b"/test.txt", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41", {b"range": b"bytes=0-9"})
PUT_OBJECT = signed(
    "PUT",
    b"/test%24file.text",
    "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    {b"date": b"Fri, 24 May 2013 00:00:00 GMT", b"x-amz-storage-class": b"REDUCED_REDUNDANCY"},
    payload_hash=hashlib.sha256(b"Welcome to Amazon S3.").hexdigest(),
)
GET_LIFECYCLE = signed("GET", b"/", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543", {}, [("lifecycle", "")])
LIST = signed(
    "GET",
    b"/",
    "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    {},
    [("max-keys", "2"), ("prefix", "J")],
)


@pytest.mark.parametrize("request_", [GET_OBJECT, PUT_OBJECT, GET_LIFECYCLE, LIST], ids=["get", "put", "lifecycle", "list"])
def test_published_header_examples(request_: FakeRequest) -> None:
    verified = authenticate(request_)
    assert verified is not None
    assert verified.credential.user.id == "example"


def refused(request: FakeRequest, now: float = NOW) -> str:
    with pytest.raises(AuthError) as caught:
        authenticate(request, now)
    return caught.value.code


def changed(request: FakeRequest, **headers: bytes | None) -> FakeRequest:
    new = dict(request.headers)
    for name, value in headers.items():
        key = name.replace("_", "-").encode()
        new.pop(key, None)
        if value is not None:
            new[key] = value
    return FakeRequest(request.method, request.raw_path, new, request.query_items, request.host_bucket)


def test_any_change_breaks_the_signature() -> None:
    assert refused(changed(GET_OBJECT, range=b"bytes=0-8")) == "SignatureDoesNotMatch"
    assert refused(FakeRequest("PUT", GET_OBJECT.raw_path, GET_OBJECT.headers)) == "SignatureDoesNotMatch"
    assert refused(FakeRequest("GET", b"/test.txu", GET_OBJECT.headers)) == "SignatureDoesNotMatch"
    assert refused(FakeRequest("GET", GET_OBJECT.raw_path, GET_OBJECT.headers, [("a", "b")])) == "SignatureDoesNotMatch"
    assert refused(changed(GET_OBJECT, authorization=GET_OBJECT.headers[b"authorization"][:-1] + b"0")) == "SignatureDoesNotMatch"


def test_unsigned_amz_headers_are_refused() -> None:
    assert refused(changed(GET_OBJECT, x_amz_acl=b"public-read")) == "AccessDenied"


def test_clock_skew() -> None:
    assert authenticate(GET_OBJECT, NOW + 900) is not None
    assert authenticate(GET_OBJECT, NOW - 900) is not None
    assert refused(GET_OBJECT, NOW + 901) == "RequestTimeTooSkewed"
    assert refused(GET_OBJECT, NOW - 901) == "RequestTimeTooSkewed"


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (b"AWS4-HMAC-SHA256", "AuthorizationHeaderMalformed"),
        (b"AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=0", "AuthorizationHeaderMalformed"),
        (
            b"AWS4-HMAC-SHA256 Credential=" + SCOPE.replace("s3", "ec2").encode() + b",SignedHeaders=host,Signature=0",
            "AuthorizationHeaderMalformed",
        ),
        (
            b"AWS4-HMAC-SHA256 Credential=" + SCOPE.replace("0524", "0523").encode() + b",SignedHeaders=host,Signature=0",
            "AuthorizationHeaderMalformed",
        ),
        (
            b"AWS4-HMAC-SHA256 Credential=" + SCOPE.replace("AKIA", "BKIA").encode() + b",SignedHeaders=host,Signature=0",
            "InvalidAccessKeyId",
        ),
        (b"AWS4-HMAC-SHA256 Credential=" + SCOPE.encode() + b",SignedHeaders=range,Signature=0", "AccessDenied"),
        (b"Bearer x", "InvalidArgument"),
        (b"AWS HAHAHA", "InvalidArgument"),
    ],
)
def test_malformed_authorization(authorization: bytes, code: str) -> None:
    assert refused(changed(GET_OBJECT, authorization=authorization)) == code


def test_anonymous() -> None:
    assert authenticate(FakeRequest("GET", b"/", {b"host": b"h"})) is None
    assert authenticate(FakeRequest("GET", b"/", {b"host": b"h", b"authorization": b""})) is None


def presigned(**changes: str) -> FakeRequest:
    query = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": SCOPE,
        "X-Amz-Date": "20130524T000000Z",
        "X-Amz-Expires": "86400",
        "X-Amz-SignedHeaders": "host",
        "X-Amz-Signature": "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
    }
    query.update({f"X-Amz-{name}": value for name, value in changes.items()})
    return FakeRequest("GET", b"/test.txt", {b"host": b"examplebucket.s3.amazonaws.com"}, [(n, v) for n, v in query.items() if v])


def test_published_presigned_example() -> None:
    verified = authenticate(presigned())
    assert verified is not None
    assert verified.payload_hash == "UNSIGNED-PAYLOAD"
    assert authenticate(presigned(), NOW + 86400) is not None
    assert refused(presigned(), NOW + 86401) == "AccessDenied"
    assert refused(presigned(), NOW - 901) == "AccessDenied"


@pytest.mark.parametrize("expires", ["-1", "x", "1.5", "9" * 40])
def test_presigned_expiry_must_be_a_number(expires: str) -> None:
    assert refused(presigned(Expires=expires)) == "AccessDenied"


@pytest.mark.parametrize("expires", ["0", "604801"])
def test_presigned_expiry_bounds(expires: str) -> None:
    assert refused(presigned(Expires=expires)) == "AccessDenied"


@pytest.mark.parametrize("name", ["Credential", "Date", "Expires", "SignedHeaders", "Signature", "Algorithm"])
def test_presigned_needs_every_parameter(name: str) -> None:
    assert refused(presigned(**{name: ""})) == "AuthorizationQueryParametersError"


CHUNKED = signed(
    "PUT",
    b"/examplebucket/chunkObject.txt",
    "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
    {
        b"content-encoding": b"aws-chunked",
        b"content-length": b"66824",
        b"x-amz-decoded-content-length": b"66560",
        b"x-amz-storage-class": b"REDUCED_REDUNDANCY",
    },
    payload_hash="STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
    host=b"s3.amazonaws.com",
)
CHUNKED_BODY = (
    b"10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n" + b"a" * 65536 + b"\r\n"
    b"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n" + b"a" * 1024 + b"\r\n"
    b"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
)


def test_published_chunk_signatures() -> None:
    verified = authenticate(CHUNKED)
    assert verified is not None
    decoder = ChunkedDecoder(66560, verified.signer, frozenset(), False)
    assert b"".join(decoder.feed(CHUNKED_BODY)) == b"a" * 66560
    assert decoder.close() == {}


def test_a_changed_chunk_is_refused() -> None:
    verified = authenticate(CHUNKED)
    assert verified is not None
    decoder = ChunkedDecoder(66560, verified.signer, frozenset(), False)
    with pytest.raises(S3Error) as caught:
        decoder.feed(CHUNKED_BODY.replace(b"aaaa\r\n0;", b"aaab\r\n0;"))
    assert caught.value.code == "SignatureDoesNotMatch"


TRAILING = signed(
    "PUT",
    b"/examplebucket/chunkObject.txt",
    "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
    {
        b"content-encoding": b"aws-chunked",
        b"x-amz-decoded-content-length": b"66560",
        b"x-amz-storage-class": b"REDUCED_REDUNDANCY",
        b"x-amz-trailer": b"x-amz-checksum-crc32c",
    },
    payload_hash="STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
    host=b"s3.amazonaws.com",
)
TRAILING_BODY = (
    b"10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n" + b"a" * 65536 + b"\r\n"
    b"400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n" + b"a" * 1024 + b"\r\n"
    b"0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n"
    b"x-amz-checksum-crc32c:sOO8/Q==\r\n"
    b"x-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
)


def trailing_signer() -> ChunkSigner:
    verified = authenticate(TRAILING)
    assert verified is not None
    assert verified.signer is not None
    return verified.signer


def test_published_trailer_signature() -> None:
    decoder = ChunkedDecoder(66560, trailing_signer(), frozenset({"x-amz-checksum-crc32c"}), True)
    assert b"".join(decoder.feed(TRAILING_BODY)) == b"a" * 66560
    assert decoder.close() == {"x-amz-checksum-crc32c": "sOO8/Q=="}


def test_a_changed_trailer_is_refused() -> None:
    decoder = ChunkedDecoder(66560, trailing_signer(), frozenset({"x-amz-checksum-crc32c"}), True)
    with pytest.raises(S3Error) as caught:
        decoder.feed(TRAILING_BODY.replace(b"sOO8", b"sOO9"))
    assert caught.value.code == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    ("wire", "canonical"),
    [
        (b"/a/b.txt", "/a/b.txt"),
        (b"/a%2Fb", "/a/b"),
        (b"/a+b", "/a%2Bb"),
        (b"/%7e", "/~"),
        (b"/%zz", "/%25zz"),
        (b"/a//b", "/a//b"),
        (b"/%E2%82%AC", "/%E2%82%AC"),
    ],
)
def test_canonical_path(wire: bytes, canonical: str) -> None:
    assert canonical_path(wire) == canonical
