"""Digests of the model store, by name: straightforward, for tests only.

CRC64NVME has no wide-spread Python library, so it is a table here; its check value is asserted by the tests.
"""

from __future__ import annotations

import functools
import hashlib
import zlib

import google_crc32c

CRC64NVME_POLYNOMIAL = 0x9A6C9329AC4BC9B5
"""Bit-reflected."""


@functools.cache
def _crc64_tables() -> list[list[int]]:
    """Eight tables, so that eight bytes are taken per step (slicing by eight)."""
    first = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = (crc >> 1) ^ (CRC64NVME_POLYNOMIAL if crc & 1 else 0)
        first.append(crc)
    tables = [first]
    for _ in range(7):
        previous = tables[-1]
        tables.append([first[value & 0xFF] ^ (value >> 8) for value in previous])
    return tables


def crc64nvme(data: bytes) -> int:
    t0, t1, t2, t3, t4, t5, t6, t7 = _crc64_tables()
    crc = 0xFFFFFFFFFFFFFFFF
    whole = len(data) & ~7
    for at in range(0, whole, 8):
        x = crc ^ int.from_bytes(data[at : at + 8], "little")
        crc = (
            t7[x & 0xFF]
            ^ t6[x >> 8 & 0xFF]
            ^ t5[x >> 16 & 0xFF]
            ^ t4[x >> 24 & 0xFF]
            ^ t3[x >> 32 & 0xFF]
            ^ t2[x >> 40 & 0xFF]
            ^ t1[x >> 48 & 0xFF]
            ^ t0[x >> 56]
        )
    for byte in data[whole:]:
        crc = (crc >> 8) ^ t0[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFFFFFFFFFF


def digest(name: str, data: bytes) -> bytes:
    """Raw digest; CRCs big-endian. KeyError for an unknown name."""
    if name in ("md5", "sha1", "sha256"):
        return hashlib.new(name, data, usedforsecurity=False).digest()
    if name == "crc32":
        return zlib.crc32(data).to_bytes(4, "big")
    if name == "crc32c":
        return int(google_crc32c.value(data)).to_bytes(4, "big")
    if name == "crc64nvme":
        return crc64nvme(data).to_bytes(8, "big")
    raise KeyError(name)
