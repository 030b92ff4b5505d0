"""The dm-log-writes format as qemu's `blklogwrites` writes it, and the crash states that follow from it.

A log is one header sector (`magic, version, entries, sector size`), then entries: one sector of `sector, sectors, flags, length` (u64
each), followed by the data of a write. Sectors here are log sectors (`SECTOR_BYTES`), so a smaller write shows up as one sector: tearing
below that happens in this module. Entries are logged when the request has completed on the device, hence a FLUSH entry covers every entry
before it. A request that is still under way at the end of a cut may be missing or half written: both are legal states of a drive.

Never trusts the entry count of the header: qemu rewrites it at flushes only.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

SECTOR_BYTES = 4096
TORN_BYTES = (512, 4096)
"""Granularities at which a multi-sector write may be torn: what old and new drives promise to write as a whole."""
_MAGIC = 0x6A736677736872
_HEADER = struct.Struct("<QQQI")
_ENTRY = struct.Struct("<QQQQ")
_FLUSH, _FUA, _DISCARD = 1, 2, 4
_COPY_BYTES = 1 << 20


class BadLog(Exception):
    """The log is not what blklogwrites writes; the instrument, not the subject, is broken."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One request as the device completed it. `data_at`: where its data lies in the log; None for a flush or discard."""

    offset: int
    length: int
    flush: bool
    fua: bool
    discard: bool
    at: int
    data_at: int | None

    @property
    def end(self) -> int:
        """Where the next entry begins."""
        return self.at + SECTOR_BYTES + (self.length if self.data_at is not None else 0)


def entries(log: int, start: int, stop: int) -> Iterator[Entry]:
    """Entries whose header lies in [start, stop) of the log. Start at `first_entry()` or at an entry's end.

    `os.pread` each time: a buffered reader would return stale sectors while qemu still writes.
    """
    at = start
    while at < stop:
        sector, sectors, flags, _ = _ENTRY.unpack(os.pread(log, _ENTRY.size, at))
        if flags & ~(_FLUSH | _FUA | _DISCARD):
            raise BadLog(f"entry at {at} has flags {flags:#x}")
        if not sectors and not flags:
            raise BadLog(f"no entry at {at}, before the end at {stop}")
        has_data = sectors > 0 and not flags & _DISCARD
        entry = Entry(
            offset=sector * SECTOR_BYTES,
            length=sectors * SECTOR_BYTES,
            flush=bool(flags & _FLUSH),
            fua=bool(flags & _FUA),
            discard=bool(flags & _DISCARD),
            at=at,
            data_at=at + SECTOR_BYTES if has_data else None,
        )
        yield entry
        at = entry.end


def first_entry() -> int:
    return SECTOR_BYTES


def check_header(log: int) -> None:
    """Of a log that something was written to: qemu writes the header with the first entry."""
    magic, version, _, sector_bytes = _HEADER.unpack(os.pread(log, _HEADER.size, 0))
    if magic != _MAGIC or version != 1 or sector_bytes != SECTOR_BYTES:
        raise BadLog(f"magic {magic:#x}, version {version}, sector size {sector_bytes}")


def written_end(log: int, start: int) -> int:
    """End of what has been written to the sparse log, found by its holes, from a position known to be written.

    A walk over headers would stop at an entry that is reserved but not written yet and miss completed ones behind it.
    """
    end = start
    while True:
        try:
            data = os.lseek(log, end, os.SEEK_DATA)
        except OSError:
            return end
        end = os.lseek(log, data, os.SEEK_HOLE)


@dataclass(frozen=True, slots=True)
class Survival:
    """What happens to the writes that no flush covered: the chance that a write survives whole, and that it is torn."""

    whole: float
    torn: float


NOTHING = Survival(0.0, 0.0)
EVERYTHING = Survival(1.0, 0.0)
SURVIVALS: Sequence[Survival] = (NOTHING, Survival(0.4, 0.2), EVERYTHING, Survival(0.1, 0.1), Survival(0.8, 0.15))
"""Variants in the order in which they are tried at each sample; the two extremes and one middle come first."""


class Recording:
    """One device's log and an image that holds what is certainly durable at a position that only moves forward."""

    def __init__(self, log: Path, image: Path, size: int) -> None:
        self.image = image
        self.size = size
        self._log = os.open(log, os.O_RDONLY)
        if os.fstat(self._log).st_blocks:
            check_header(self._log)
        self._image = os.open(image, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._image, size)
        self.durable_at = first_entry()

    def close(self) -> None:
        os.close(self._log)
        os.close(self._image)

    def advance(self, position: int) -> None:
        """Make the image what is durable at `position`: all entries up to the last flush before it. Log positions only grow."""
        pending: list[Entry] = []
        for entry in entries(self._log, self.durable_at, position):
            pending.append(entry)
            if entry.flush:
                for durable in pending:
                    _apply(self._log, self._image, durable)
                pending.clear()
                self.durable_at = entry.end

    def counts(self, start: int, stop: int) -> tuple[int, int]:
        """(writes, flushes) between two positions; controls compare them with what they did."""
        found = list(entries(self._log, start, stop))
        return sum(1 for e in found if e.data_at is not None), sum(1 for e in found if e.flush)


def crash_state(log: Path, image: Path, durable_at: int, position: int, survival: Survival, seed: str, target: Path) -> int:
    """Write one crash state to `target`: the durable image and, of the entries since, what `survival` and the seed choose.

    Reads the recording and changes nothing of it, so that many states can be built at once. Returns the number of undecided writes.
    """
    chance = random.Random(seed)
    sparse_copy(image, target)
    source, sink = os.open(log, os.O_RDONLY), os.open(target, os.O_RDWR)
    try:
        undecided = 0
        for entry in entries(source, durable_at, position):
            if entry.data_at is None and not entry.discard:
                continue
            undecided += 1
            roll = chance.random()
            if entry.fua or roll < survival.whole:
                _apply(source, sink, entry)
            elif roll < survival.whole + survival.torn and entry.data_at is not None:
                _apply_torn(source, sink, entry, chance)
        return undecided
    finally:
        os.close(source)
        os.close(sink)


def sparse_copy(source: Path, target: Path) -> None:
    """Copy only the data of a sparse file; a device of 256 MiB with 20 MiB in it costs 20 MiB."""
    reader, writer = os.open(source, os.O_RDONLY), os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        size = os.fstat(reader).st_size
        os.ftruncate(writer, size)
        at = 0
        while at < size:
            try:
                at = os.lseek(reader, at, os.SEEK_DATA)
            except OSError:
                return
            stop = os.lseek(reader, at, os.SEEK_HOLE)
            _copy(reader, at, writer, at, stop - at)
            at = stop
    finally:
        os.close(reader)
        os.close(writer)


def _copy(source: int, source_at: int, sink: int, sink_at: int, length: int) -> None:
    while length > 0:
        data = os.pread(source, min(length, _COPY_BYTES), source_at)
        if not data:
            raise BadLog(f"file ends at {source_at}")
        os.pwrite(sink, data, sink_at)
        source_at, sink_at, length = source_at + len(data), sink_at + len(data), length - len(data)


def _apply(log: int, image: int, entry: Entry) -> None:
    if entry.data_at is not None:
        _copy(log, entry.data_at, image, entry.offset, entry.length)
    elif entry.discard:
        # A discarded range may read as anything; zeros are what drives return most often.
        _zero(image, entry.offset, entry.length)


def _zero(image: int, offset: int, length: int) -> None:
    zeros = bytes(_COPY_BYTES)
    while length > 0:
        step = min(length, _COPY_BYTES)
        os.pwrite(image, zeros[:step], offset)
        offset, length = offset + step, length - step


def _apply_torn(log: int, image: int, entry: Entry, chance: random.Random) -> None:
    """A random subset of the write's pieces reaches the medium, in no particular order."""
    assert entry.data_at is not None
    piece = chance.choice(TORN_BYTES)
    for at in range(0, entry.length, piece):
        if chance.random() < 0.5:
            _copy(log, entry.data_at + at, image, entry.offset + at, piece)
