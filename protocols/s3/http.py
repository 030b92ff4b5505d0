"""HTTP/1.1 connections as S3 clients need them: uvicorn's protocol, bounded and with fewer copies of large bodies.

Owns what the ASGI interface cannot say: a head of more than `HEAD_BYTES_MAX` bytes is refused before it is understood, bytes that are not HTTP
are answered with an S3 error document, and bytes after a request do not displace the answer to it. Never looks into a request.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterable
from itertools import chain
from typing import cast

from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from protocols.s3 import xml
from protocols.s3.errors import S3Error
from protocols.s3.request import BODY_READY, Scope

BODILESS = frozenset({204, 304})
BODY_BYTES_HELD_MAX = 512 * 1024
"""Reading pauses beyond it; event loops read at most 256 KiB at once, so a connection holds less than 1 MiB that nobody asked for yet."""
PIECE_BYTES_MIN = 64 * 1024
"""Smaller pieces are joined when several wait: each one given out costs a turn of the application."""
HEAD_BYTES_MAX = 64 * 1024
"""Request line and headers while they arrive. `request` has tighter bounds for each of them; this one bounds what is held before it can count."""


class Cycle(RequestResponseCycle):
    """One request and its answer. Its body is kept in the pieces in which it came: uvicorn's own copies each byte three times.

    The answer's head waits for the first bytes of its body, so that both are one system call and one packet. No access log is written.
    """

    pieces: deque[bytes]
    held: int
    ended: bool
    head: bytes

    def begin(self) -> None:
        cast(Scope, self.scope)[BODY_READY] = self.ready
        self.head = b""
        self.pieces = deque()
        self.held = 0
        self.ended = False

    def ready(self) -> bool:
        """`receive` will not wait."""
        return bool(self.pieces) or not (self.more_body or self.ended)

    def add(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self.held += len(piece)
        if self.held > BODY_BYTES_HELD_MAX:
            self.flow.pause_reading()
        self.message_event.set()

    async def send(self, message: ASGISendEvent) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start" and not self.response_started:
            self.response_started = True
            self.waiting_for_100_continue = False
            self.head = self._head(message["status"], message.get("headers", ()))
        elif message["type"] == "http.response.body" and self.response_started and not self.response_complete:
            self._write_body(message.get("body", b""), message.get("more_body", False))
        else:
            raise RuntimeError(f"unexpected message {message['type']}")

    def _head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        lines = [STATUS_LINE[status]]
        length = None
        for name, value in chain(self.default_headers, headers):
            if name == b"content-length":
                length = int(value)
            elif name == b"connection" and value == b"close":
                self.keep_alive = False
                continue
            lines.append(b"%b: %b\r\n" % (name, value))
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        bodiless = status in BODILESS or self.scope["method"] == "HEAD"
        self.chunked_encoding = length is None and not bodiless
        self.expected_content_length = 0 if bodiless else length or 0
        if self.chunked_encoding:
            lines.append(b"transfer-encoding: chunked\r\n")
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines) or b"\0" in head:
            raise RuntimeError("a response header holds a line break")
        return head + b"\r\n"

    def _write_body(self, body: bytes, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            body = b""
        if self.chunked_encoding:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
        else:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0 or (self.expected_content_length and not more):
                raise RuntimeError("the response's body does not have its Content-Length")
        head, self.head = self.head, b""
        if head and len(body) >= PIECE_BYTES_MIN:
            self.transport.writelines((head, body))
        elif head or body:
            self.transport.write(head + body if head else body)
        if not more:
            self.response_complete = True
            # It refers to what refers to it: without this, each request would wait for the garbage collector.
            cast(Scope, self.scope).pop(BODY_READY, None)
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()

    async def receive(self) -> ASGIReceiveEvent:
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.waiting_for_100_continue = False
        while not (self.disconnected or self.response_complete or self.ready()):
            self.flow.resume_reading()
            self.message_event.clear()
            await self.message_event.wait()
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        body = self._take()
        self.ended = not (self.more_body or self.pieces)
        return {"type": "http.request", "body": body, "more_body": not self.ended}

    def _take(self) -> bytes:
        """A large piece as it came, or the small ones joined."""
        pieces = self.pieces
        if not pieces:
            return b""
        if len(pieces) == 1 or len(pieces[0]) >= PIECE_BYTES_MIN:
            body = pieces.popleft()
        else:
            body = b"".join(pieces)
            pieces.clear()
        self.held -= len(body)
        if self.held <= BODY_BYTES_HELD_MAX // 2:
            self.flow.resume_reading()
        return body


class S3HttpProtocol(HttpToolsProtocol):
    cycle: RequestResponseCycle | None  # type: ignore[assignment]  # uvicorn says it is never None, and makes it so
    _head_bytes = 0
    _in_head = False

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(S3Error("MaxMessageLengthExceeded", "The request's headers are too long."))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()
        cycle = self.cycle
        if type(cycle) is RequestResponseCycle:
            # uvicorn names its class where it makes one and has no hook; the task that runs it starts only after this callback.
            cycle.__class__ = Cycle
            cast(Cycle, cycle).begin()

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if isinstance(cycle, Cycle) and not cycle.response_complete:
            cycle.add(body)

    def send_400_response(self, msg: str) -> None:
        """The parser gave up."""
        self._refuse(S3Error("BadRequest", "An error occurred when parsing the HTTP request."))

    def _refuse(self, error: S3Error) -> None:
        """What arrives is of no use. Called again for whatever else arrives until the connection is closed."""
        cycle = self.cycle
        if self.transport.is_closing():
            return
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                # What is broken came after a whole request: that one is answered, then nothing more.
                cycle.keep_alive = False
                self.flow.pause_reading()
                return
            if cycle.response_started:
                self.transport.close()
                return
        request_id = secrets.token_hex(8)
        body = xml.error_document(error, "", request_id)
        head = b"content-type: application/xml\r\nx-amz-request-id: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[error.status] + head % (request_id.encode(), len(body)) + body)
        self.transport.close()
