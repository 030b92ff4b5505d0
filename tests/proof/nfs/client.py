"""An NFS version 3 client (RFC 1813) as small as the proofs need: one connection, one call at a time, AUTH_SYS.

It encodes and decodes by itself, and repeats a call on a new connection, with the same xid, when the old one broke: as a hard mount does.
"""

from __future__ import annotations

import itertools
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

NFS, MOUNT, NLM = 100003, 100005, 100021
VERSIONS = {NFS: 3, MOUNT: 3, NLM: 4}
UNSTABLE, DATA_SYNC, FILE_SYNC = range(3)
NOENT, EXIST, ROFS, STALE = 2, 17, 30, 70
NLM_GRANTED, NLM_DENIED = 0, 1
LAST_FRAGMENT = 1 << 31
RECONNECT_SECONDS = 0.1
_xids = itertools.count(int(time.time()) << 8 & 0x7FFFFFFF)


class NfsError(Exception):
    def __init__(self, procedure: str, status: int) -> None:
        super().__init__(f"{procedure} answered {status}")
        self.status = status


class Results:
    """What a call answered, read from its front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def word(self) -> int:
        return self._unpack("!I", 4)

    def long(self) -> int:
        return self._unpack("!Q", 8)

    def fixed(self, length: int) -> bytes:
        if self._at + length > len(self._data):
            raise ValueError(f"an answer of {len(self._data)} bytes is too short")
        taken = self._data[self._at : self._at + length]
        self._at += length
        return taken

    def opaque(self) -> bytes:
        length = self.word()
        return self.fixed(length + -length % 4)[:length]

    def _unpack(self, form: str, length: int) -> int:
        (value,) = struct.unpack(form, self.fixed(length))
        return int(value)

    def attributes(self) -> Attributes | None:
        """`post_op_attr`"""
        return Attributes.decode(self) if self.word() else None

    def wcc(self) -> Attributes | None:
        if self.word():
            self.fixed(24)
        return self.attributes()


@dataclass(frozen=True, slots=True)
class Attributes:
    kind: int
    mode: int
    links: int
    uid: int
    gid: int
    size: int
    inode: int

    @classmethod
    def decode(cls, results: Results) -> Attributes:
        kind, mode, links, uid, gid = (results.word() for _ in range(5))
        size = results.long()
        results.fixed(8 + 8 + 8)
        inode = results.long()
        results.fixed(3 * 8)
        return cls(kind, mode, links, uid, gid, size, inode)


@dataclass(frozen=True, slots=True)
class Written:
    count: int
    stable: int
    verifier: bytes


def opaque(data: bytes) -> bytes:
    return struct.pack("!I", len(data)) + data + bytes(-len(data) % 4)


def settings(*, mode: int | None = None, size: int | None = None) -> bytes:
    """`sattr3`"""
    first = struct.pack("!I", 0) if mode is None else struct.pack("!II", 1, mode)
    middle = struct.pack("!I", 0) if size is None else struct.pack("!IQ", 1, size)
    return first + bytes(8) + middle + bytes(8)


class NfsClient:
    """`patience_seconds`: for how long a broken connection is tried again."""

    def __init__(self, host: str, port: int, *, uid: int = 0, gid: int = 0, machine: str = "proof", patience_seconds: float = 60.0) -> None:
        self._address = (host, port)
        self._patience_seconds = patience_seconds
        body = struct.pack("!I", 0) + opaque(machine.encode()) + struct.pack("!III", uid, gid, 0)
        self._credential = struct.pack("!I", 1) + opaque(body) + bytes(8)
        self._machine = machine.encode()
        self._socket: socket.socket | None = None
        self.reconnections = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None

    def mount(self, path: str) -> bytes:
        results = self._call(MOUNT, 1, opaque(path.encode()))
        if status := results.word():
            raise NfsError("MNT", status)
        return results.opaque()

    def getattr(self, handle: bytes) -> Attributes:
        return Attributes.decode(self._nfs("GETATTR", 1, opaque(handle)))

    def truncate(self, handle: bytes, size: int) -> None:
        self._nfs("SETATTR", 2, opaque(handle) + settings(size=size) + bytes(4))

    def lookup(self, directory: bytes, name: str) -> bytes:
        return self._nfs("LOOKUP", 3, opaque(directory) + opaque(name.encode())).opaque()

    def walk(self, directory: bytes, path: str) -> bytes:
        for name in path.split("/"):
            directory = self.lookup(directory, name)
        return directory

    def read(self, handle: bytes, offset: int, count: int) -> bytes:
        results = self._nfs("READ", 6, opaque(handle) + struct.pack("!QI", offset, count))
        results.attributes()
        results.fixed(8)
        return results.opaque()

    def read_all(self, handle: bytes, piece_bytes: int = 1 << 20) -> bytes:
        found = bytearray()
        while piece := self.read(handle, len(found), piece_bytes):
            found += piece
        return bytes(found)

    def write(self, handle: bytes, offset: int, data: bytes, stable: int = FILE_SYNC) -> Written:
        results = self._nfs("WRITE", 7, opaque(handle) + struct.pack("!QII", offset, len(data), stable) + opaque(data))
        results.wcc()
        return Written(results.word(), results.word(), results.fixed(8))

    def create(self, directory: bytes, name: str, mode: int = 0o644) -> bytes:
        """As open(O_CREAT): an existing file is left as it is."""
        return self._made("CREATE", 8, opaque(directory) + opaque(name.encode()) + bytes(4) + settings(mode=mode))

    def mkdir(self, directory: bytes, name: str, mode: int = 0o755) -> bytes:
        return self._made("MKDIR", 9, opaque(directory) + opaque(name.encode()) + settings(mode=mode))

    def symlink(self, directory: bytes, name: str, target: str) -> bytes:
        return self._made("SYMLINK", 10, opaque(directory) + opaque(name.encode()) + settings() + opaque(target.encode()))

    def remove(self, directory: bytes, name: str) -> None:
        self._nfs("REMOVE", 12, opaque(directory) + opaque(name.encode()))

    def rmdir(self, directory: bytes, name: str) -> None:
        self._nfs("RMDIR", 13, opaque(directory) + opaque(name.encode()))

    def rename(self, source: bytes, old: str, target: bytes, new: str) -> None:
        self._nfs("RENAME", 14, opaque(source) + opaque(old.encode()) + opaque(target) + opaque(new.encode()))

    def link(self, handle: bytes, directory: bytes, name: str) -> None:
        self._nfs("LINK", 15, opaque(handle) + opaque(directory) + opaque(name.encode()))

    def names(self, directory: bytes, reply_bytes: int = 8192) -> Iterator[str]:
        """Without `.` and `..`."""
        cookie, end = 0, False
        while not end:
            results = self._nfs("READDIR", 16, opaque(directory) + struct.pack("!QQI", cookie, 0, reply_bytes))
            results.attributes()
            results.fixed(8)
            while results.word():
                results.long()
                name = results.opaque().decode()
                cookie = results.long()
                if name not in (".", ".."):
                    yield name
            end = bool(results.word())

    def commit(self, handle: bytes) -> bytes:
        """The write verifier."""
        results = self._nfs("COMMIT", 21, opaque(handle) + bytes(12))
        results.wcc()
        return results.fixed(8)

    def lock(self, handle: bytes, offset: int, length: int, *, process: int = 1) -> int:
        """Exclusively, without waiting: `nlm4_stats`."""
        arguments = opaque(b"cookie") + struct.pack("!II", 0, 1) + self._lock(handle, offset, length, process) + struct.pack("!II", 0, 1)
        return self._locked(2, arguments)

    def unlock(self, handle: bytes, offset: int, length: int, *, process: int = 1) -> int:
        return self._locked(4, opaque(b"cookie") + self._lock(handle, offset, length, process))

    def _lock(self, handle: bytes, offset: int, length: int, process: int) -> bytes:
        owner = f"{process}@".encode() + self._machine
        return opaque(self._machine) + opaque(handle) + opaque(owner) + struct.pack("!IQQ", process, offset, length)

    def _locked(self, procedure: int, arguments: bytes) -> int:
        results = self._call(NLM, procedure, arguments)
        results.opaque()
        return results.word()

    def _made(self, name: str, procedure: int, arguments: bytes) -> bytes:
        results = self._nfs(name, procedure, arguments)
        assert results.word() == 1, "a handle follows"
        return results.opaque()

    def _nfs(self, name: str, procedure: int, arguments: bytes) -> Results:
        results = self._call(NFS, procedure, arguments)
        if status := results.word():
            raise NfsError(name, status)
        return results

    def _call(self, program: int, procedure: int, arguments: bytes) -> Results:
        xid = next(_xids) & 0xFFFFFFFF
        call = struct.pack("!6I", xid, 0, 2, program, VERSIONS[program], procedure) + self._credential + arguments
        results = Results(self._exchange(call))
        header = [results.word() for _ in range(6)]
        if header != [xid, 1, 0, 0, 0, 0]:
            raise ValueError(f"the call was not done: {header}")
        return results

    def _exchange(self, call: bytes) -> bytes:
        deadline = time.monotonic() + self._patience_seconds
        while True:
            try:
                return self._exchange_once(call)
            except (ConnectionError, EOFError):
                self.close()
                self.reconnections += 1
                if time.monotonic() > deadline:
                    raise
                time.sleep(RECONNECT_SECONDS)

    def _exchange_once(self, call: bytes) -> bytes:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, timeout=self._patience_seconds)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(struct.pack("!I", LAST_FRAGMENT | len(call)) + call)
        (mark,) = struct.unpack("!I", self._receive(4))
        assert mark & LAST_FRAGMENT, "answers come in one fragment"
        return self._receive(mark & ~LAST_FRAGMENT)

    def _receive(self, length: int) -> bytes:
        assert self._socket is not None
        received = bytearray()
        while len(received) < length:
            part = self._socket.recv(length - len(received))
            if not part:
                raise EOFError("the server closed the connection")
            received += part
        return bytes(received)
