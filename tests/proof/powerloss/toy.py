"""A toy store with a mirrored append log: the subject that proves the instrument before it judges anything real.

`Toy()` is right: every record is written to its mirrors and flushed before it is acknowledged, recovery takes the longest valid chain and
writes it to all mirrors. Its faulty variants must be caught: `flush=False` never flushes, `checksum=False` believes whatever it reads.
Not a model of the product; it keeps everything in memory.
"""

from __future__ import annotations

import hashlib
import os
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.proof.load import Client

MIRRORS_MAX = 3
_RECORD = struct.Struct("<8sQHIB16s")
_MAGIC = b"TOYRECRD"
_ALIGN = 4096


class ToyFull(Exception):
    pass


@dataclass(frozen=True)
class Toy:
    """The subject. See the module for what the switches break."""

    flush: bool = True
    checksum: bool = True

    def start(self, devices: Sequence[Path], state: Path, *, first: bool) -> ToySession:
        return ToySession(devices[:MIRRORS_MAX], self)


class ToySession:
    def __init__(self, devices: Sequence[Path], rules: Toy) -> None:
        self._rules = rules
        self._lock = threading.Lock()
        self._fds = [os.open(path, os.O_RDWR) for path in devices]
        self._size = os.fstat(self._fds[0]).st_size
        self.values: dict[str, bytes] = {}
        self._at, self._sequence = self._recover()

    def client(self) -> Client:
        return ToyClient(self)

    def damage(self) -> Sequence[str]:
        return []

    def work(self) -> Mapping[str, float]:
        return {}

    def freeze(self) -> None:
        raise NotImplementedError("this subject lives in the process of the load and keeps no state directory of interest")

    def thaw(self) -> None:
        return

    def stop(self) -> None:
        for fd in self._fds:
            os.close(fd)

    def apply(self, key: str, value: bytes | None) -> None:
        """Commit one change: on every mirror, flushed, then visible."""
        with self._lock:
            record = self._encode(self._sequence, key, value)
            if self._at + len(record) > self._size:
                raise ToyFull("the toy's log is full; use a shorter load or a larger device")
            for fd in self._fds:
                os.pwrite(fd, record, self._at)
            if self._rules.flush:
                for fd in self._fds:
                    os.fdatasync(fd)
            self._at, self._sequence = self._at + len(record), self._sequence + 1
            self._remember(key, value)

    def _remember(self, key: str, value: bytes | None) -> None:
        if value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = value

    def _encode(self, sequence: int, key: str, value: bytes | None) -> bytes:
        name, body = key.encode(), value or b""
        check = hashlib.blake2b(struct.pack("<Q", sequence) + name + body, digest_size=16).digest()
        record = _RECORD.pack(_MAGIC, sequence, len(name), len(body), value is None, check) + name + body
        return record + bytes(-len(record) % _ALIGN)

    def _decode(self, fd: int, at: int, sequence: int) -> tuple[str, bytes | None, int] | None:
        head = os.pread(fd, _RECORD.size, at)
        if len(head) < _RECORD.size:
            return None
        magic, found, name_length, body_length, deleted, check = _RECORD.unpack(head)
        length = _RECORD.size + name_length + body_length
        if magic != _MAGIC or found != sequence or at + length > self._size:
            return None
        rest = os.pread(fd, name_length + body_length, at + _RECORD.size)
        if self._rules.checksum and hashlib.blake2b(struct.pack("<Q", sequence) + rest, digest_size=16).digest() != check:
            return None
        return rest[:name_length].decode(errors="replace"), None if deleted else rest[name_length:], at + length + -length % _ALIGN

    def _recover(self) -> tuple[int, int]:
        """Take the next record from whichever mirror has it, and give it to the others before serving."""
        at = sequence = 0
        while True:
            found = next((record for fd in self._fds if (record := self._decode(fd, at, sequence)) is not None), None)
            if found is None:
                break
            key, value, end = found
            self._remember(key, value)
            encoded = self._encode(sequence, key, value)
            for fd in self._fds:
                if os.pread(fd, len(encoded), at) != encoded:
                    os.pwrite(fd, encoded, at)
            at, sequence = end, sequence + 1
        if self._rules.flush:
            for fd in self._fds:
                os.fdatasync(fd)
        return at, sequence


class ToyClient:
    def __init__(self, session: ToySession) -> None:
        self._session = session

    def put(self, key: str, data: bytes) -> None:
        self._session.apply(key, data)

    def get(self, key: str) -> bytes | None:
        return self._session.values.get(key)

    def delete(self, key: str) -> None:
        self._session.apply(key, None)

    def copy(self, source: str, key: str) -> None:
        self._session.apply(key, self._session.values[source])

    def multipart(self, key: str, parts: Sequence[bytes], *, complete: bool) -> None:
        if complete:
            self._session.apply(key, b"".join(parts))

    def list(self) -> Sequence[tuple[str, int]]:
        return sorted(((key, len(value)) for key, value in self._session.values.items()), key=lambda item: item[0].encode())

    def close(self) -> None:
        return
