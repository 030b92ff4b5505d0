"""The load and the judge through a mount, and a diary that syncs nothing.

`FileClient` is `load.Client` by POSIX means: a change is on its way in a file of its own, synced, and takes its place by a rename that is synced
too, so that it returns when it is durable and is whole or not there. `Diary` writes one entry after another and never syncs: what is left of it
after a crash must be its beginning, and may lack at most its last second.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.proof.content import content

DIARY = ".diary"
DURABLE_NS = 1_000_000_000
ENTRY_BYTES = (0, 10, 4096, 5000, 140_000)
ENTRIES_PER_DIRECTORY = 50
PAUSE_SECONDS = 0.004
STAGING = ".staging"


class FileClient:
    """One bucket of a mount; keys are paths below it. For one thread."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._staging = root / STAGING / f"{threading.get_ident()}-{time.monotonic_ns()}"
        (root / STAGING).mkdir(exist_ok=True)

    def put(self, key: str, data: bytes) -> None:
        self._write([data])
        self._place(key)

    def get(self, key: str) -> bytes | None:
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError:
            return None

    def delete(self, key: str) -> None:
        path = self._root / key
        path.unlink(missing_ok=True)
        _sync(path.parent if path.parent.exists() else self._root)

    def copy(self, source: str, key: str) -> None:
        with (self._root / source).open("rb") as origin, self._staging.open("wb") as target:
            left = os.fstat(origin.fileno()).st_size
            while left > 0:
                left -= os.copy_file_range(origin.fileno(), target.fileno(), left)
            os.fsync(target.fileno())
        self._place(key)

    def multipart(self, key: str, parts: Sequence[bytes], *, complete: bool) -> None:
        self._write(parts)
        if complete:
            self._place(key)
        else:
            self._staging.unlink()

    def list(self) -> Sequence[tuple[str, int]]:
        found = [(str(path.relative_to(self._root)), path.stat().st_size) for path in _files(self._root)]
        return sorted(found, key=lambda item: item[0].encode())

    def close(self) -> None:
        return

    def _write(self, parts: Sequence[bytes]) -> None:
        with self._staging.open("wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())

    def _place(self, key: str) -> None:
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        self._staging.rename(path)
        _sync(path.parent)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _files(root: Path) -> Iterator[Path]:
    """Those of the load: neither what is on its way nor the diary."""
    for directory, names, files in os.walk(root):
        if Path(directory) == root:
            names[:] = [name for name in names if name not in (STAGING, DIARY)]
        yield from (Path(directory) / name for name in files)


@dataclass
class Entry:
    began_ns: int
    ended_ns: int | None = None


@dataclass
class Written:
    """What the diary's writer knows of its entries, in their order."""

    entries: list[Entry] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Diary(threading.Thread):
    """Writes entry after entry, each a file of its own that is then appended to a common one, and syncs none of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(daemon=True, name="diary")
        self._root = root / DIARY
        self.written = Written()
        self.stopping = threading.Event()

    def run(self) -> None:
        self._root.mkdir(exist_ok=True)
        while not self.stopping.wait(PAUSE_SECONDS):
            number = len(self.written.entries)
            entry = Entry(time.monotonic_ns())
            self.written.entries.append(entry)
            try:
                self._write(number)
            except OSError as error:
                self.written.errors.append(f"diary: entry {number}: {error}")
                break
            entry.ended_ns = time.monotonic_ns()

    def _write(self, number: int) -> None:
        path = _place_of(self._root, number)
        path.parent.mkdir(exist_ok=True)
        on_its_way = path.with_suffix(".new")
        on_its_way.write_bytes(_entry(number))
        on_its_way.rename(path)
        with (self._root / "index").open("ab", buffering=0) as index:
            index.write(_line(number))

    def __enter__(self) -> Diary:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopping.set()
        self.join(60)


def _place_of(root: Path, number: int) -> Path:
    return root / f"{number // ENTRIES_PER_DIRECTORY:04}" / f"{number:06}"


def _entry(number: int) -> bytes:
    return content(f"diary/{number}", ENTRY_BYTES[number % len(ENTRY_BYTES)])


def _line(number: int) -> bytes:
    return b"%06d\n" % number


def judge_diary(root: Path, written: Written, before_ns: int | None = None, after_ns: int | None = None) -> list[str]:
    """Faults, one sentence each: what is left is not a beginning, is torn, or lacks more than a second before the cut."""
    diary = root / DIARY
    index = (diary / "index").read_bytes() if (diary / "index").exists() else b""
    count = len(index) // len(_line(0))
    began = sum(after_ns is None or entry.began_ns <= after_ns for entry in written.entries)
    old = sum(entry.ended_ns is not None and (before_ns is None or entry.ended_ns + DURABLE_NS <= before_ns) for entry in written.entries)
    faults = []
    if not old <= count <= began:
        faults.append(f"lost: the diary has {count} entries; {old} were old enough to be durable, {began} were begun")
    if index != b"".join(_line(number) for number in range(count)):
        faults.append("torn: the diary's index is not a beginning of what was written")
    files = {path.name: path for path in sorted(diary.rglob("*")) if path.is_file() and path.name != "index"}
    # One entry may have got its file, or part of it, and not its line.
    torn = [number for number in range(count) if f"{number:06}" not in files or files[f"{number:06}"].read_bytes() != _entry(number)]
    if torn:
        faults.append(f"torn: entries {torn[:5]} of the diary are not what their lines say")
    late = sorted(name for name in files if int(name.split(".")[0]) > count)
    if late:
        faults.append(f"torn: the diary has files {late[:5]} of entries after its last line, {count - 1}")
    return faults
