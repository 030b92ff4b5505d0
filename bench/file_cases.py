"""The cases of bench/files.py, in the order in which they run: later ones use what earlier ones of the round left."""

from __future__ import annotations

from dataclasses import dataclass

STREAM_BYTES = 256 << 20
STREAM_BLOCK = 1 << 20
SMALL = 4096
SECONDS = 1.5
NAMES = 4000
NAMES_NFS = 1500
SYNCED = 250
THREADS = 8


@dataclass(frozen=True)
class Case:
    name: str
    operation: str
    """Of fileload."""
    bytes: int = 0
    block: int = SMALL
    count: int = 1
    threads: int = 1
    sync: str = ""
    data: str = "data"
    """Name of what it works on, in each round another."""
    is_cold: bool = False
    """After the kernel's caches were dropped."""
    is_warm: bool = False
    """After the file was read once by the same descriptor."""
    is_direct: bool = False

    @property
    def is_stream(self) -> bool:
        return self.operation in ("write", "read")

    def arguments(self, number: int) -> list[str]:
        words = ["--name", f"{self.data}-{number}", "--bytes", self.bytes, "--block", self.block, "--count", self.count]
        words += ["--threads", self.threads, "--seconds", SECONDS]
        if self.sync:
            words += ["--sync", self.sync]
        words += ["--direct"] * self.is_direct + ["--warm"] * self.is_warm
        return [str(word) for word in words]


def _content(name: str, operation: str, **more: str | int | bool) -> Case:
    return Case(name, operation, bytes=STREAM_BYTES, **more)  # type: ignore[arg-type]


CONTENT = [
    _content("sequential write", "write", block=STREAM_BLOCK),
    _content("sequential write, synced", "write", block=STREAM_BLOCK, sync="end", data="synced"),
    _content("sequential read, cold", "read", block=STREAM_BLOCK, is_cold=True),
    _content("sequential read, cached", "read", block=STREAM_BLOCK, is_warm=True),
    _content("4 KiB random read, cached", "random-read", is_warm=True),
    _content("4 KiB random read, past the cache", "random-read", is_direct=True, is_warm=True),
    _content("4 KiB random read, cold", "random-read", is_cold=True, data="synced"),
    _content("4 KiB random write", "random-write"),
    _content("4 KiB random write, each synced", "random-write", sync="each", data="synced"),
]


def _names(count: int, threads: int = 1) -> list[Case]:
    by = f" x{threads}" if threads > 1 else ""

    def case(name: str, operation: str, *, is_cold: bool = False) -> Case:
        return Case(f"{name}{by}", operation, count=count // threads, threads=threads, data=f"empty{threads}", is_cold=is_cold)

    return [
        case("create", "create"),
        case("stat, cold", "stat", is_cold=True),
        case("list with attributes, cold", "list", is_cold=True),
        case("rename", "rename"),
        case("unlink", "unlink"),
    ]


def _small(count: int) -> list[Case]:
    return [
        Case("create 4 KiB", "create", bytes=SMALL, count=count, data="small"),
        Case("open and read 4 KiB, cold", "read-small", bytes=SMALL, count=count, data="small", is_cold=True),
        Case("open and read 4 KiB", "read-small", bytes=SMALL, count=count, data="small"),
        Case("create 4 KiB, synced", "create", bytes=SMALL, count=SYNCED, sync="end", data="durable"),
        Case(
            f"create 4 KiB, synced x{THREADS}", "create", bytes=SMALL, count=SYNCED, sync="end", data=f"durable{THREADS}", threads=THREADS
        ),
    ]


MOUNT_CASES = [*CONTENT, *_names(NAMES), *_small(NAMES)]
NFS_CASES = [
    *(case for case in CONTENT if not case.is_direct and case.name != "sequential read, cached" and case.name != "4 KiB random read, cold"),
    *_names(NAMES_NFS),
    *_names(NAMES_NFS, THREADS),
    *_small(NAMES_NFS),
]
