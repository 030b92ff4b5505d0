"""An independent decoder of the erasure code, written from docs/FORMAT.md section 3 alone, against shards that the Rust code made."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

VECTORS = json.loads((Path(__file__).parent / "code_vectors.json").read_text())


def mul(a: int, b: int) -> int:
    product = 0
    while b:
        product ^= a if b & 1 else 0
        a = (a << 1) ^ (0x11D if a & 0x80 else 0)
        b >>= 1
    return product


INVERSE = {a: b for a in range(1, 256) for b in range(1, 256) if mul(a, b) == 1}


def coefficient(i: int, j: int) -> int:
    def cauchy(i: int, j: int) -> int:
        return INVERSE[(16 + i) ^ j]

    return mul(mul(cauchy(i, j), cauchy(0, 0)), INVERSE[mul(cauchy(0, j), cauchy(i, 0))])


def decode(k: int, shards: dict[int, bytes]) -> list[bytes]:
    """The k data shards, from any k shards by their numbers: Gauss-Jordan on generator rows with the bytes beside them."""
    rows = [[int(j == n) if n < k else coefficient(n - k, j) for j in range(k)] + list(shard) for n, shard in shards.items()]
    for column in range(k):
        pivot = next(row for row in range(column, k) if rows[row][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        scale = INVERSE[rows[column][column]]
        rows[column] = [mul(value, scale) for value in rows[column]]
        for row in range(k):
            if row != column and (factor := rows[row][column]):
                rows[row] = [value ^ mul(factor, other) for value, other in zip(rows[row], rows[column], strict=True)]
    return [bytes(row[k:]) for row in rows]


def test_any_k_shards_give_the_data() -> None:
    for vector in VECTORS:
        k, m = vector["k"], vector["m"]
        shards = [bytes.fromhex(shard) for shard in vector["shards"]]
        assert len(shards) == k + m
        for lost in itertools.islice(itertools.combinations(range(k + m), m), 0, None, 1 + k * m // 8):
            present = {n: shard for n, shard in enumerate(shards) if n not in lost}
            assert decode(k, present) == shards[:k], (k, m, lost)


def test_mirroring_and_xor() -> None:
    mirrored = next(vector["shards"] for vector in VECTORS if vector["k"] == 1)
    assert len(set(mirrored)) == 1
    assert all(coefficient(0, j) == 1 for j in range(16)) and all(coefficient(i, 0) == 1 for i in range(4))
