"""aws-chunked: exact framing, the same answer however the bytes are cut, and never anything but S3Error."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.auth.sigv4 import ChunkSigner
from protocols.s3.errors import S3Error
from protocols.s3.streaming import CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX, ChunkedDecoder

CRC = frozenset({"x-amz-checksum-crc32"})


def decode(
    body: bytes, length: int, cuts: list[int] | None = None, trailers: frozenset[str] = frozenset(), signed: bool = False
) -> tuple[object, ...]:
    """("ok", content, trailers) or ("error", code), from a body that arrives in pieces."""
    signer = ChunkSigner(b"key", "20130524T000000Z", "scope", "0" * 64) if signed else None
    decoder = ChunkedDecoder(length, signer, trailers, signed)
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts or []), len(body)]
    content = b""
    try:
        for start, stop in itertools.pairwise(edges):
            content += b"".join(decoder.feed(body[start:stop]))
        return "ok", content, dict(decoder.close())
    except S3Error as error:
        return "error", error.code


def encode(chunks: list[bytes], trailers: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks if chunk) + b"0\r\n" + trailers + b"\r\n"


def test_plain() -> None:
    assert decode(encode([b"hello ", b"world"]), 11) == ("ok", b"hello world", {})
    assert decode(encode([]), 0) == ("ok", b"", {})


def test_trailer() -> None:
    body = encode([b"hello"], b"x-amz-checksum-crc32:NhCmhg==\r\n")
    assert decode(body, 5, trailers=CRC) == ("ok", b"hello", {"x-amz-checksum-crc32": "NhCmhg=="})


@pytest.mark.parametrize(
    ("body", "length", "trailers", "code"),
    [
        (b"", 5, frozenset(), "IncompleteBody"),
        (b"5\r\nhello\r\n", 5, frozenset(), "IncompleteBody"),
        (b"5\r\nhello\r\n0\r\n", 5, frozenset(), "IncompleteBody"),
        (b"5\r\nhelloX\r\n0\r\n\r\n", 5, frozenset(), "IncompleteBody"),
        (b"5\r\nhell\r\n0\r\n\r\n", 5, frozenset(), "IncompleteBody"),
        (b"6\r\nhello!\r\n0\r\n\r\n", 5, frozenset(), "IncompleteBody"),
        (b"4\r\nhell\r\n0\r\n\r\n", 5, frozenset(), "IncompleteBody"),
        (b"5\r\nhello\r\n0\r\n\r\nx", 5, frozenset(), "IncompleteBody"),
        (b"x\r\nhello\r\n0\r\n\r\n", 5, frozenset(), "IncompleteBody"),
        (b"-5\r\nhello\r\n0\r\n\r\n", 5, frozenset(), "IncompleteBody"),
        (b"+5\r\nhello\r\n0\r\n\r\n", 5, frozenset(), "IncompleteBody"),
        (b" 5\r\nhello\r\n0\r\n\r\n", 5, frozenset(), "IncompleteBody"),
        (b"0" * 17 + b"\r\n\r\n", 0, frozenset(), "IncompleteBody"),
        (b"0" * (CHUNK_LINE_BYTES_MAX + 1) + b"\r\n\r\n", 0, frozenset(), "IncompleteBody"),
        (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n", 5, frozenset(), "MalformedTrailerError"),
        (b"5\r\nhello\r\n0\r\n\r\n", 5, CRC, "MalformedTrailerError"),
        (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32\r\n\r\n", 5, CRC, "MalformedTrailerError"),
        (b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:a\r\nx-amz-checksum-crc32:a\r\n\r\n", 5, CRC, "MalformedTrailerError"),
        (b"0\r\nx-amz-checksum-crc32:" + b"a" * TRAILER_BYTES_MAX + b"\r\n\r\n", 0, CRC, "MalformedTrailerError"),
    ],
)
def test_bad_framing(body: bytes, length: int, trailers: frozenset[str], code: str) -> None:
    assert decode(body, length, trailers=trailers) == ("error", code)
    assert decode(body, length, list(range(len(body))), trailers) == ("error", code)


def test_signed_chunks_need_signatures() -> None:
    assert decode(encode([b"hello"]), 5, signed=True) == ("error", "SignatureDoesNotMatch")
    assert decode(b"5;chunk-signature=00\r\nhello\r\n0;chunk-signature=00\r\n\r\n", 5, signed=True) == ("error", "SignatureDoesNotMatch")


@given(chunks=st.lists(st.binary(max_size=300), max_size=6), cuts=st.lists(st.integers(0, 5000), max_size=20))
def test_splits_do_not_matter(chunks: list[bytes], cuts: list[int]) -> None:
    content = b"".join(chunks)
    body = encode(chunks, b"x-amz-checksum-crc32: NhCmhg==\r\n")
    assert decode(body, len(content), cuts, CRC) == ("ok", content, {"x-amz-checksum-crc32": "NhCmhg=="})


PIECES = st.one_of(
    st.binary(max_size=20),
    st.sampled_from(
        [b"5\r\nhello\r\n", b"0\r\n", b"\r\n", b"x-amz-checksum-crc32:a\r\n", b"\r", b"0;chunk-signature=", b"f" * 16, b"A\r\n0123456789"]
    ),
)


@given(
    pieces=st.lists(PIECES, max_size=12),
    cuts=st.lists(st.integers(0, 500), max_size=20),
    length=st.integers(0, 30),
    trailers=st.sampled_from([frozenset(), CRC]),
    signed=st.booleans(),
)
def test_arbitrary_bytes(pieces: list[bytes], cuts: list[int], length: int, trailers: frozenset[str], signed: bool) -> None:
    body = b"".join(pieces)
    assert decode(body, length, cuts, trailers, signed) == decode(body, length, None, trailers, signed)
