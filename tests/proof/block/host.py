"""A small NVMe/TCP host: enough to attach a volume and judge what it keeps. It is not the kernel: that is judged in a guest (`machine.py`).

One admin queue and one I/O queue, one command at a time. Writes go by R2T, so that the target asks for every byte; nothing is retried here.
Sources: NVM Express base specification 1.4, TCP transport specification 1.0.
"""

from __future__ import annotations

import socket
import struct
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

IC_REQ, IC_RESP, COMMAND, RESPONSE, H2C_DATA, C2H_DATA, R2T = 0x00, 0x01, 0x04, 0x05, 0x06, 0x07, 0x09
LAST, SUCCESS = 0x04, 0x08
FABRICS, PROPERTY_SET, CONNECT, PROPERTY_GET = 0x7F, 0x00, 0x01, 0x04
GET_LOG, IDENTIFY, SET_FEATURES = 0x02, 0x06, 0x09
FLUSH, WRITE, READ, COMPARE, ZERO, MANAGE = 0x00, 0x01, 0x02, 0x05, 0x08, 0x09
FUSE_FIRST, FUSE_SECOND = 0x01, 0x02
FUA = 1 << 30
DISCOVERY_NQN = "nqn.2014-08.org.nvmexpress.discovery"
COMPARE_FAILED = 0x285
SECONDS_MAX = 60.0
PDU_BYTES_MAX = 4 << 20


class Refused(Exception):
    """The target answered with this status (its type and code)."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status:#x}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Namespace:
    nsid: int
    size_bytes: int
    block_bytes: int
    nguid: bytes


class Queue:
    """One connection. Raises OSError when it breaks."""

    def __init__(self, address: str, seconds_max: float) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host.strip("[]"), int(port)), timeout=seconds_max)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = self._socket.makefile("rb")
        self._cid = 0
        self._send(IC_REQ, 128, struct.pack("<HBBI", 0, 0, 0, 0).ljust(120, b"\0"))
        kind, _, _ = self._receive()
        if kind != IC_RESP:
            raise ConnectionError(f"unit {kind:#x} instead of ICResp")

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def command(
        self,
        opcode: int,
        *,
        nsid: int = 0,
        dwords: Sequence[int] = (),
        send: bytes = b"",
        want: int = 0,
        in_capsule: bool = False,
        flags: int = 0,
    ) -> tuple[int, bytes]:
        """The result and the data. Raises Refused."""
        cid = self.begin(opcode, nsid=nsid, dwords=dwords, send=send, want=want, in_capsule=in_capsule, flags=flags)
        return self.end(cid, send, want)

    def begin(
        self,
        opcode: int,
        *,
        nsid: int = 0,
        dwords: Sequence[int] = (),
        send: bytes = b"",
        want: int = 0,
        in_capsule: bool = False,
        flags: int = 0,
    ) -> int:
        self._cid = (self._cid + 1) % 0xFFF0
        descriptor = struct.pack("<QI3xB", 0, len(send) or want, 0x01 if in_capsule else 0x5A)
        words = struct.pack("<6I", *dwords, *[0] * (6 - len(dwords)))
        entry = struct.pack("<BBHI16x", opcode, 0x40 | flags, self._cid, nsid) + descriptor + words
        self._send(COMMAND, 72, entry, send if in_capsule else b"")
        return self._cid

    def end(self, cid: int, send: bytes = b"", want: int = 0) -> tuple[int, bytes]:
        data = bytearray(want)
        while True:
            kind, flags, unit = self._receive()
            if kind == C2H_DATA:
                of, offset, length = struct.unpack_from("<H2xII", unit, 8)
                assert of == cid and offset + length <= want, "data for nobody"
                data[offset : offset + length] = unit[unit[3] : unit[3] + length]
                if flags & SUCCESS:
                    return 0, bytes(data)
            elif kind == R2T:
                of, tag, offset, length = struct.unpack_from("<HHII", unit, 8)
                assert of == cid and offset + length <= len(send), "a request for data that there is not"
                header = struct.pack("<HHII4x", cid, tag, offset, length)
                self._send(H2C_DATA, 24, header, send[offset : offset + length], LAST)
            elif kind == RESPONSE:
                result, _, _, of, status = struct.unpack_from("<QHHHH", unit, 8)
                assert of == cid, "an answer for nobody"
                if status >> 1 & 0x7FF:
                    raise Refused(status >> 1 & 0x7FF)
                return result, bytes(data)
            else:
                raise ConnectionError(f"the target ended it with unit {kind:#x}: {unit.hex()[:64]}")

    def _send(self, kind: int, header_bytes: int, header: bytes, data: bytes = b"", flags: int = 0) -> None:
        offset = header_bytes if data else 0
        length = header_bytes + len(data)
        self._socket.sendall(struct.pack("<BBBBI", kind, flags, header_bytes, offset, length) + header + data)

    def _receive(self) -> tuple[int, int, bytes]:
        head = self._exactly(8)
        kind, flags, _, _, length = struct.unpack("<BBBBI", head)
        if not 8 <= length <= PDU_BYTES_MAX:
            raise ConnectionError(f"a unit of {length} bytes")
        return kind, flags, head + self._exactly(length - 8)

    def _exactly(self, count: int) -> bytes:
        found = self._stream.read(count)
        if len(found) < count:
            raise ConnectionResetError("the target closed the connection")
        return found


class Host:
    """Connected to one subsystem."""

    def __init__(
        self, address: str, nqn: str, *, host_nqn: str, host_id: uuid.UUID | None = None, seconds_max: float = SECONDS_MAX
    ) -> None:
        """Raises Refused, OSError."""
        self._names = (nqn, host_nqn, (host_id or uuid.uuid5(uuid.NAMESPACE_URL, host_nqn)).bytes)
        self._address, self._seconds_max = address, seconds_max
        self._namespaces: dict[int, Namespace] = {}
        self._queues: list[Queue] = []
        try:
            self.controller = self._connect(0, 31, 0xFFFF)
            self._set_property(0x14, 0x460001)
            while not self._property(0x1C) & 1:
                pass
            if nqn != DISCOVERY_NQN:
                self.admin.command(SET_FEATURES, dwords=[0x07, 0])
                self._connect(1, 127, self.controller)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Host:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def admin(self) -> Queue:
        return self._queues[0]

    @property
    def io(self) -> Queue:
        return self._queues[1]

    def close(self) -> None:
        for queue in self._queues:
            queue.close()
        self._queues.clear()

    def say_goodbye(self) -> None:
        """What it has attached is let go at once, and not when it had time to come back."""
        self._set_property(0x14, 0x464001)

    def _connect(self, qid: int, entries: int, controller: int) -> int:
        nqn, host_nqn, host_id = self._names
        data = (host_id + struct.pack("<H", controller)).ljust(256, b"\0")
        data += nqn.encode().ljust(256, b"\0") + host_nqn.encode().ljust(256, b"\0")
        queue = Queue(self._address, self._seconds_max)
        self._queues.append(queue)
        dwords = [qid << 16, entries, 0]
        result, _ = queue.command(FABRICS, nsid=CONNECT, dwords=dwords, send=data.ljust(1024, b"\0"), in_capsule=True)
        return result & 0xFFFF

    def _set_property(self, offset: int, value: int) -> None:
        self.admin.command(FABRICS, nsid=PROPERTY_SET, dwords=[0, offset, value, 0])

    def _property(self, offset: int) -> int:
        return self.admin.command(FABRICS, nsid=PROPERTY_GET, dwords=[0, offset])[0]

    def identify(self, cns: int, nsid: int = 0) -> bytes:
        return self.admin.command(IDENTIFY, nsid=nsid, dwords=[cns], want=4096)[1]

    def namespaces(self) -> Sequence[int]:
        ids = struct.unpack("<1024I", self.identify(2))
        return [nsid for nsid in ids if nsid]

    def namespace(self, nsid: int, *, fresh: bool = False) -> Namespace:
        if fresh or nsid not in self._namespaces:
            page = self.identify(0, nsid)
            blocks, shift = struct.unpack_from("<Q", page)[0], page[128 + 4 * (page[26] & 0xF) + 2]
            self._namespaces[nsid] = Namespace(nsid, blocks << shift, 1 << shift, page[104:120])
        return self._namespaces[nsid]

    def log(self, page: int, length: int) -> bytes:
        return self.admin.command(GET_LOG, nsid=0xFFFFFFFF, dwords=[page | (length // 4 - 1) << 16], want=length)[1]

    def _place(self, nsid: int, offset: int, length: int) -> list[int]:
        block = self.namespace(nsid).block_bytes
        assert not offset % block and not length % block and length
        start = offset // block
        return [start & 0xFFFFFFFF, start >> 32, length // block - 1]

    def read(self, nsid: int, offset: int, length: int) -> bytes:
        return self.io.command(READ, nsid=nsid, dwords=self._place(nsid, offset, length), want=length)[1]

    def write(self, nsid: int, offset: int, data: bytes, *, durable: bool = False) -> None:
        dwords = self._place(nsid, offset, len(data))
        dwords[2] |= FUA if durable else 0
        self.io.command(WRITE, nsid=nsid, dwords=dwords, send=data)

    def flush(self, nsid: int) -> None:
        self.io.command(FLUSH, nsid=nsid)

    def zero(self, nsid: int, offset: int, length: int, *, durable: bool = False) -> None:
        dwords = self._place(nsid, offset, length)
        dwords[2] |= 1 << 25 | (FUA if durable else 0)
        self.io.command(ZERO, nsid=nsid, dwords=dwords)

    def deallocate(self, nsid: int, offset: int, length: int) -> None:
        block = self.namespace(nsid).block_bytes
        ranges = struct.pack("<IIQ", 0, length // block, offset // block)
        self.io.command(MANAGE, nsid=nsid, dwords=[0, 4], send=ranges)

    def compare_and_write(self, nsid: int, offset: int, expected: bytes, data: bytes) -> bool:
        """Fused, as ESXi locks with it."""
        dwords = self._place(nsid, offset, len(data))
        first = self.io.begin(COMPARE, nsid=nsid, dwords=dwords, send=expected, in_capsule=True, flags=FUSE_FIRST)
        second = self.io.begin(WRITE, nsid=nsid, dwords=dwords, send=data, in_capsule=True, flags=FUSE_SECOND)
        outcomes = []
        for cid in (first, second):
            try:
                self.io.end(cid)
                outcomes.append(0)
            except Refused as error:
                outcomes.append(error.status)
        if outcomes[0] not in (0, COMPARE_FAILED):
            raise Refused(outcomes[0])
        return outcomes == [0, 0]
