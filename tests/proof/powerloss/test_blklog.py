"""The log's format and the crash states, on logs made here byte by byte; no qemu needed."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.proof.powerloss.blklog import (
    EVERYTHING,
    NOTHING,
    SECTOR_BYTES,
    BadLog,
    Recording,
    Survival,
    crash_state,
    first_entry,
    written_end,
)

SIZE = 64 * SECTOR_BYTES
FLUSH, FUA, DISCARD = 1, 2, 4


def write_log(path: Path, entries: Sequence[tuple[int, int, int, bytes]]) -> int:
    """Entries of (sector, sectors, flags, data). Returns where the log ends."""
    log = bytearray(struct.pack("<QQQI", 0x6A736677736872, 1, len(entries), SECTOR_BYTES).ljust(SECTOR_BYTES, b"\0"))
    for sector, sectors, flags, data in entries:
        log += struct.pack("<QQQQ", sector, sectors, flags, 0).ljust(SECTOR_BYTES, b"\0") + data
    path.write_bytes(log)
    return len(log)


def block(letter: bytes, sectors: int = 1) -> bytes:
    return letter * (sectors * SECTOR_BYTES)


def state(directory: Path, entries: Sequence[tuple[int, int, int, bytes]], survival: Survival, seed: str = "s") -> bytes:
    end = write_log(directory / "log", entries)
    recording = Recording(directory / "log", directory / "durable", SIZE)
    recording.advance(end)
    crash_state(directory / "log", recording.image, recording.durable_at, end, survival, seed, directory / "state")
    recording.close()
    return (directory / "state").read_bytes()


def test_what_a_flush_covers_survives_and_the_rest_may_not(tmp_path: Path) -> None:
    entries = [(0, 1, 0, block(b"a")), (3, 2, 0, block(b"b", 2)), (0, 0, FLUSH, b""), (0, 1, 0, block(b"c")), (9, 1, 0, block(b"d"))]
    lost = state(tmp_path, entries, NOTHING)
    assert lost[:SECTOR_BYTES] == block(b"a")
    assert lost[3 * SECTOR_BYTES : 5 * SECTOR_BYTES] == block(b"b", 2)
    assert lost[9 * SECTOR_BYTES : 10 * SECTOR_BYTES] == bytes(SECTOR_BYTES)
    kept = state(tmp_path, entries, EVERYTHING)
    assert kept[:SECTOR_BYTES] == block(b"c")
    assert kept[9 * SECTOR_BYTES : 10 * SECTOR_BYTES] == block(b"d")


def test_a_forced_write_survives_without_a_flush(tmp_path: Path) -> None:
    lost = state(tmp_path, [(1, 1, 0, block(b"a")), (2, 1, FUA, block(b"b"))], NOTHING)
    assert lost[SECTOR_BYTES : 3 * SECTOR_BYTES] == bytes(SECTOR_BYTES) + block(b"b")


def test_a_torn_write_holds_old_and_new_pieces_only(tmp_path: Path) -> None:
    entries = [(0, 8, 0, block(b"o", 8)), (0, 0, FLUSH, b""), (0, 8, 0, block(b"n", 8))]
    seen = set()
    for seed in range(20):
        torn = state(tmp_path, entries, Survival(whole=0.0, torn=1.0), str(seed))[: 8 * SECTOR_BYTES]
        pieces = {torn[at : at + 512] for at in range(0, len(torn), 512)}
        assert pieces <= {b"o" * 512, b"n" * 512}
        seen.add(len(pieces))
    assert 2 in seen, "old and new side by side"


def test_states_differ_by_seed_and_repeat_with_it(tmp_path: Path) -> None:
    entries = [(sector, 1, 0, block(bytes([sector + 1]))) for sector in range(32)]
    half = Survival(0.5, 0.0)
    assert state(tmp_path, entries, half, "one") == state(tmp_path, entries, half, "one")
    assert state(tmp_path, entries, half, "one") != state(tmp_path, entries, half, "two")


def test_a_durable_discard_reads_as_zeros(tmp_path: Path) -> None:
    assert state(tmp_path, [(0, 1, 0, block(b"a")), (0, 1, DISCARD, b""), (0, 0, FLUSH, b"")], NOTHING)[:SECTOR_BYTES] == bytes(
        SECTOR_BYTES
    )


def test_the_end_is_found_behind_an_entry_that_is_not_written_yet(tmp_path: Path) -> None:
    log = tmp_path / "log"
    end = write_log(log, [(0, 1, 0, block(b"a")), (1, 1, 0, block(b"b"))])
    with log.open("r+b") as file:
        file.truncate(end + (64 << 20))
        file.seek(end + 2 * SECTOR_BYTES)
        file.write(block(b"c"))
        file.flush()
        assert written_end(file.fileno(), first_entry()) == end + 3 * SECTOR_BYTES


def test_a_log_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(bytes(2 * SECTOR_BYTES))
    with pytest.raises(BadLog, match="magic"):
        Recording(tmp_path / "log", tmp_path / "durable", SIZE)
    end = write_log(tmp_path / "log", [(0, 1, 64, block(b"a"))])
    recording = Recording(tmp_path / "log", tmp_path / "durable", SIZE)
    with pytest.raises(BadLog, match="flags"):
        recording.advance(end)
    recording.close()
