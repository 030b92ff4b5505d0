"""Content that can be checked without being kept: bytes derived from a tag and a size.

A third is random, a third repeats itself (compressible), a third shares long runs with its neighbours (reducible), so that a store which
compresses or deduplicates goes through those paths too.
"""

from __future__ import annotations

import hashlib


def content(tag: str, size: int) -> bytes:
    seed = hashlib.blake2b(tag.encode(), digest_size=16).digest()
    style = seed[0] % 3
    if style == 0 or size < 64:
        return hashlib.shake_128(seed).digest(size)
    if style == 1:
        unit = seed.hex().encode() * 32
        return (unit * (size // len(unit) + 1))[:size]
    shared = hashlib.shake_128(bytes([seed[1] % 4])).digest(size)
    return seed + shared[len(seed) :]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
