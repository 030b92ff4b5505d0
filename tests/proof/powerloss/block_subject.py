"""The whole daemon on recorded devices, by NVMe/TCP: what a host flushed, or wrote with FUA, must be there whole; of what it did not, the beginning.

A key of the load is a place in one volume: a head that names it and its length, then the bytes, written by one command. The diary is a row of
4 KiB blocks that are never flushed.
"""

from __future__ import annotations

import re
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from server.client import connect
from tests.proof.block.host import Host
from tests.proof.daemon import Daemon, free_port, trefoil
from tests.proof.files import DURABLE_NS, PAUSE_SECONDS, Entry, Written
from tests.proof.judge import PROBE_KEY
from tests.proof.load import Client
from tests.proof.powerloss.daemon_subject import DaemonSession, leave_out_environment

VOLUME = "disk"
VOLUME_BYTES = 128 << 20
PLACE_BYTES = 256 << 10
DATA_BYTES_MAX = 100_000
"""Of the load; with the head, what lands in the journal."""
KEYS_MAX = 64
"""Of a thread."""
THREADS_MAX = 6
BLOCK_BYTES = 512
DIARY_BLOCK_BYTES = 4096
PROBE_PLACE = KEYS_MAX * THREADS_MAX * PLACE_BYTES
DIARY_OFFSET = PROBE_PLACE + PLACE_BYTES
HOST = "nqn.2014-08.org.nvmexpress:uuid:00000000-1111-4222-8333-{number:012d}"
_HEAD = struct.Struct("<8sHI")
_MAGIC = b"PROOFKEY"


@dataclass(frozen=True)
class BlockSubject:
    leave_out_flushes: bool = False
    """As in `DaemonSubject`."""

    def start(self, devices: Sequence[Path], state: Path, *, first: bool) -> BlockSession:
        listen = f"127.0.0.1:{free_port()}"
        trigger = state.with_name("leave-out-flushes")
        env = {"TREFOIL_BLOCK__LISTEN": listen, "TREFOIL_BLOCK__ALLOW_ANY_HOST": "true"}
        if first and self.leave_out_flushes:
            env |= leave_out_environment(trigger)
        daemon = Daemon(trefoil(devices, state, env=env), state.with_name(state.name + ".log"))
        try:
            daemon.start(ready_seconds_max=120.0)
            admin = connect(state, None)
            if first:
                admin.post("/api/v1/volumes", {"name": VOLUME, "size": VOLUME_BYTES})
                trigger.touch()
            line = admin.get("/api/v1/volumes/connect", name=VOLUME)
        except BaseException:
            daemon.kill()
            raise
        return BlockSession(daemon, line["address"], line["nqn"])


class BlockSession:
    def __init__(self, daemon: Daemon, address: str, nqn: str) -> None:
        self._daemon, self._address, self._nqn = daemon, address, nqn
        self._inner = DaemonSession(daemon)
        self._hosts = 0

    def host(self) -> Host:
        self._hosts += 1
        return Host(self._address, self._nqn, host_nqn=HOST.format(number=self._hosts))

    def client(self) -> Client:
        return BlockClient(self.host())

    def diary(self) -> BlockDiary:
        return BlockDiary(self.host())

    def diary_faults(self, written: Written, before_ns: int, after_ns: int) -> Sequence[str]:
        with self.host() as host:
            return judge_diary(host, written, before_ns, after_ns)

    def damage(self) -> Sequence[str]:
        return self._inner.damage()

    def work(self) -> Mapping[str, float]:
        return self._inner.work()

    def freeze(self) -> None:
        self._inner.freeze()

    def thaw(self) -> None:
        self._inner.thaw()

    def stop(self) -> None:
        self._daemon.kill()


class BlockClient:
    """For one thread. Half of what it does is made durable by FUA, the other half by Flush."""

    def __init__(self, host: Host) -> None:
        self._host = host
        (self._nsid,) = host.namespaces()
        self._operations = 0

    def put(self, key: str, data: bytes) -> None:
        assert len(data) <= PLACE_BYTES - BLOCK_BYTES
        head = (_HEAD.pack(_MAGIC, len(key), len(data)) + key.encode()).ljust(BLOCK_BYTES, b"\0")
        durable = self._is_durable()
        self._host.write(self._nsid, _place(key), head + data + bytes(-len(data) % BLOCK_BYTES), durable=durable)
        self._settle(durable)

    def get(self, key: str) -> bytes | None:
        head = self._host.read(self._nsid, _place(key), BLOCK_BYTES)
        length = _length(head, key)
        if not length:
            return None if length is None else b""
        return self._host.read(self._nsid, _place(key) + BLOCK_BYTES, length + -length % BLOCK_BYTES)[:length]

    def delete(self, key: str) -> None:
        durable = self._is_durable()
        self._host.zero(self._nsid, _place(key), PLACE_BYTES, durable=durable)
        self._settle(durable)

    def copy(self, source: str, key: str) -> None:
        data = self.get(source)
        assert data is not None
        self.put(key, data)

    def multipart(self, key: str, parts: Sequence[bytes], *, complete: bool) -> None:
        raise NotImplementedError("blocks come in no parts")

    def list(self) -> Sequence[tuple[str, int]]:
        found = []
        for place in range(0, DIARY_OFFSET, PLACE_BYTES):
            head = self._host.read(self._nsid, place, BLOCK_BYTES)
            magic, key_bytes, length = _HEAD.unpack_from(head)
            if magic == _MAGIC:
                found.append((head[_HEAD.size : _HEAD.size + key_bytes].decode(), length))
        return sorted(found)

    def close(self) -> None:
        self._host.close()

    def _is_durable(self) -> bool:
        self._operations += 1
        return self._operations % 2 == 0

    def _settle(self, durable: bool) -> None:
        if not durable:
            self._host.flush(self._nsid)


def _place(key: str) -> int:
    if key == PROBE_KEY:
        return PROBE_PLACE
    match = re.fullmatch(r"t(\d+)/(?:deep/)*k(\d+)", key)
    assert match
    thread, index = int(match[1]), int(match[2])
    assert thread < THREADS_MAX and index < KEYS_MAX
    return (thread * KEYS_MAX + index) * PLACE_BYTES


def _length(head: bytes, key: str) -> int | None:
    magic, key_bytes, length = _HEAD.unpack_from(head)
    if magic != _MAGIC or head[_HEAD.size : _HEAD.size + key_bytes] != key.encode():
        return None
    return int(length)


class BlockDiary(threading.Thread):
    """Writes block after block, each a word of its number, and flushes none."""

    def __init__(self, host: Host) -> None:
        super().__init__(daemon=True, name="diary")
        self._host = host
        self.written = Written()
        self.stopping = threading.Event()

    def run(self) -> None:
        (nsid,) = self._host.namespaces()
        while not self.stopping.wait(PAUSE_SECONDS):
            number = len(self.written.entries)
            offset = DIARY_OFFSET + number * DIARY_BLOCK_BYTES
            if offset + DIARY_BLOCK_BYTES > VOLUME_BYTES:
                break
            entry = Entry(time.monotonic_ns())
            self.written.entries.append(entry)
            try:
                self._host.write(nsid, offset, _block(number))
            except OSError as error:
                self.written.errors.append(f"diary: block {number}: {error}")
                break
            entry.ended_ns = time.monotonic_ns()

    def __enter__(self) -> BlockDiary:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopping.set()
        self.join(60)
        self._host.close()


def _block(number: int) -> bytes:
    return (number + 1).to_bytes(8, "little") * (DIARY_BLOCK_BYTES // 8)


def judge_diary(host: Host, written: Written, before_ns: int, after_ns: int) -> Sequence[str]:
    """What is left must be the beginning, no block torn, and lack at most the last second."""
    (nsid,) = host.namespaces()
    blocks = [host.read(nsid, DIARY_OFFSET + number * DIARY_BLOCK_BYTES, DIARY_BLOCK_BYTES) for number in range(len(written.entries))]
    kept = [bool(block.strip(b"\0")) for block in blocks]
    count = kept.index(False) if False in kept else len(kept)
    began = sum(entry.began_ns <= after_ns for entry in written.entries)
    old = sum(entry.ended_ns is not None and entry.ended_ns + DURABLE_NS <= before_ns for entry in written.entries)
    faults = []
    if not old <= count <= began:
        faults.append(f"lost: the diary has {count} blocks; {old} were old enough to be durable, {began} were begun")
    if any(kept[count:]):
        faults.append(f"lost: the diary lacks block {count} and has later ones")
    torn = [number for number in range(len(blocks)) if kept[number] and blocks[number] != _block(number)]
    if torn:
        faults.append(f"torn: blocks {torn[:5]} of the diary")
    return faults
