"""The five checksum kinds of S3: names on the wire, parsing, and what a multipart object's checksum is.

Bytes are hashed by the store; here only digests of digests (composite checksums) are hashed and CRCs combined.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protocols.s3.errors import S3Error
from protocols.s3.response import Header

COMPOSITE = "COMPOSITE"
FULL_OBJECT = "FULL_OBJECT"


@dataclass(frozen=True, slots=True)
class Algorithm:
    store_name: str
    wire_name: str
    length: int
    polynomial: int
    """Of a CRC, bit-reflected; 0 for a cryptographic digest, which cannot be combined."""
    header: bytes = b""
    element: str = ""


def _algorithm(store_name: str, wire_name: str, length: int, polynomial: int) -> Algorithm:
    return Algorithm(store_name, wire_name, length, polynomial, b"x-amz-checksum-" + wire_name.lower().encode(), "Checksum" + wire_name)


ALGORITHMS: Mapping[str, Algorithm] = {
    algorithm.wire_name: algorithm
    for algorithm in (
        _algorithm("crc32", "CRC32", 4, 0xEDB88320),
        _algorithm("crc32c", "CRC32C", 4, 0x82F63B78),
        _algorithm("crc64nvme", "CRC64NVME", 8, 0x9A6C9329AC4BC9B5),
        _algorithm("sha1", "SHA1", 20, 0),
        _algorithm("sha256", "SHA256", 32, 0),
    )
}
BY_HEADER: Mapping[bytes, Algorithm] = {algorithm.header: algorithm for algorithm in ALGORITHMS.values()}
BY_ELEMENT: Mapping[str, Algorithm] = {algorithm.element: algorithm for algorithm in ALGORITHMS.values()}
BY_STORE_NAME: Mapping[str, Algorithm] = {algorithm.store_name: algorithm for algorithm in ALGORITHMS.values()}
_PREFIX = b"x-amz-checksum-"
_NOT_VALUES = frozenset({b"x-amz-checksum-algorithm", b"x-amz-checksum-type", b"x-amz-checksum-mode"})


def algorithm_named(name: str) -> Algorithm:
    algorithm = ALGORITHMS.get(name.upper())
    if algorithm is None:
        raise S3Error(
            "InvalidRequest",
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types: " + ", ".join(ALGORITHMS),
        )
    return algorithm


def decode(algorithm: Algorithm, text: str) -> bytes:
    """The raw digest of a base64 text; a text that cannot be one matches nothing, so it is a BadDigest."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != algorithm.length:
        raise S3Error("BadDigest", f"Value for {algorithm.header.decode()} header is invalid.")
    return raw


def encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def of_headers(headers: Mapping[bytes, bytes]) -> tuple[Algorithm, str] | None:
    """The one checksum that a request carries in its headers, undecoded."""
    found = None
    for name, value in headers.items():
        if name.startswith(_PREFIX) and name not in _NOT_VALUES:
            algorithm = BY_HEADER.get(name)
            if algorithm is None:
                raise S3Error("NotImplemented", f"The checksum header {name.decode('latin-1')} is not implemented.")
            if found is not None:
                raise S3Error("InvalidRequest", "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.")
            found = algorithm, value.decode("latin-1").strip()
    return found


def kept(digests: Mapping[str, bytes]) -> tuple[Algorithm, bytes] | None:
    """The checksum among digests kept with content or a part."""
    for name, raw in digests.items():
        algorithm = BY_STORE_NAME.get(name)
        if algorithm is not None:
            return algorithm, raw
    return None


def shown(raw: bytes, composite: bool, parts: int) -> str:
    return f"{encode(raw)}-{parts}" if composite else encode(raw)


def response_headers(digests: Mapping[str, bytes], composite: bool, parts: int) -> list[Header]:
    found = kept(digests)
    if found is None:
        return []
    algorithm, raw = found
    kind = b"COMPOSITE" if composite else b"FULL_OBJECT"
    return [(algorithm.header, shown(raw, composite, parts).encode()), (b"x-amz-checksum-type", kind)]


def upload_type(algorithm: Algorithm, asked: str | None) -> str:
    """The type of a multipart upload's checksum: what was asked for, where the algorithm allows it, else its default."""
    if asked is None:
        return FULL_OBJECT if algorithm.wire_name == "CRC64NVME" else COMPOSITE
    kind = asked.upper()
    if kind not in (COMPOSITE, FULL_OBJECT):
        raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
    if (kind == FULL_OBJECT and not algorithm.polynomial) or (kind == COMPOSITE and algorithm.wire_name == "CRC64NVME"):
        raise S3Error(
            "InvalidRequest", f"The {kind} checksum type cannot be used with the {algorithm.wire_name.lower()} checksum algorithm."
        )
    return kind


def composite_digest(algorithm: Algorithm, parts: Sequence[bytes]) -> bytes:
    return digest_small(algorithm.store_name, b"".join(parts))


def digest_small(name: str, data: bytes) -> bytes:
    """A digest by its store name, of requests' documents and of digests: small data that never reaches the store."""
    if name in ("md5", "sha1", "sha256"):
        return hashlib.new(name, data, usedforsecurity=False).digest()
    if name == "crc32":
        return zlib.crc32(data).to_bytes(4, "big")
    algorithm = BY_STORE_NAME[name]
    return _crc(data, algorithm.polynomial, algorithm.length).to_bytes(algorithm.length, "big")


@functools.cache
def _tables(polynomial: int) -> list[list[int]]:
    """Table k: the CRC of a byte followed by k zero bytes (slicing by eight)."""
    first = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (polynomial if crc & 1 else 0)
        first.append(crc)
    tables = [first]
    for _ in range(7):
        tables.append([first[value & 0xFF] ^ (value >> 8) for value in tables[-1]])
    return tables


def _crc(data: bytes, polynomial: int, length: int) -> int:
    """About 15 MB/s: for documents that clients protect with a CRC that Python lacks, and for digests of digests."""
    t0, t1, t2, t3, t4, t5, t6, t7 = _tables(polynomial)
    ones = (1 << length * 8) - 1
    crc = ones
    whole = len(data) & ~7
    for (word,) in struct.iter_unpack("<Q", memoryview(data)[:whole]):
        x = crc ^ word
        crc = t7[x & 0xFF] ^ t6[x >> 8 & 0xFF] ^ t5[x >> 16 & 0xFF] ^ t4[x >> 24 & 0xFF]
        crc ^= t3[x >> 32 & 0xFF] ^ t2[x >> 40 & 0xFF] ^ t1[x >> 48 & 0xFF] ^ t0[x >> 56]
    for byte in data[whole:]:
        crc = (crc >> 8) ^ t0[(crc ^ byte) & 0xFF]
    return crc ^ ones


def _multiply(a: int, b: int, polynomial: int, width: int) -> int:
    """a * b modulo the polynomial over GF(2), bit-reflected (the scheme of zlib's `multmodp`)."""
    product = 0
    for bit in range(width - 1, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = (b >> 1) ^ polynomial if b & 1 else b >> 1
    return product


@functools.lru_cache(maxsize=4096)
def _shift(length: int, polynomial: int, width: int) -> int:
    """x^(8 * length) modulo the polynomial. Cached: parts of one upload mostly have one size."""
    power = 1 << (width - 1 - 8)  # x^8
    result = 1 << (width - 1)  # x^0
    while length:
        if length & 1:
            result = _multiply(result, power, polynomial, width)
        power = _multiply(power, power, polynomial, width)
        length >>= 1
    return result


def combine(algorithm: Algorithm, parts: Sequence[tuple[bytes, int]]) -> bytes:
    """The CRC of concatenated parts from each part's CRC and length."""
    width = algorithm.length * 8
    crc = 0
    for raw, length in parts:
        crc = _multiply(_shift(length, algorithm.polynomial, width), crc, algorithm.polynomial, width) ^ int.from_bytes(raw, "big")
    return crc.to_bytes(algorithm.length, "big")
