"""HTTP/1.1 connections as S3 clients need them: uvicorn's protocol, bounded and with fewer copies of large bodies.

Owns what the ASGI interface cannot say: a head of more than `HEAD_BYTES_MAX` bytes is refused before it is understood, bytes that are not HTTP
are answered with an S3 error document, and bytes after a request do not displace the answer to it. Never looks into a request.
"""

from __future__ import annotations

import secrets

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from protocols.s3 import xml
from protocols.s3.errors import S3Error

BODY_BYTES_HELD_MAX = 512 * 1024
"""Reading pauses beyond it; event loops read at most 256 KiB at once, so a connection holds less than 1 MiB that nobody asked for yet."""
HEAD_BYTES_MAX = 64 * 1024
"""Request line and headers while they arrive. `request` has tighter bounds for each of them; this one bounds what is held before it can count."""


class Pieces:
    """Body bytes since the application last asked. Takes the place of uvicorn's `bytearray`, which copies what it gets and what it gives."""

    __slots__ = ("held", "total")

    def __init__(self) -> None:
        self.held: list[bytes] = []
        self.total = 0

    def append(self, piece: bytes) -> None:
        self.held.append(piece)
        self.total += len(piece)

    def __len__(self) -> int:
        return self.total

    def __bytes__(self) -> bytes:
        return self.held[0] if len(self.held) == 1 else b"".join(self.held)


class S3HttpProtocol(HttpToolsProtocol):
    _head_bytes = 0
    _in_head = False

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self._answer(S3Error("MaxMessageLengthExceeded", "The request's headers are too long."))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if cycle.response_complete:
            return
        pieces = cycle.body
        if not isinstance(pieces, Pieces):
            # Each `receive` leaves an empty bytearray behind.
            pieces = cycle.body = Pieces()  # type: ignore[assignment]
        pieces.append(body)
        if pieces.total > BODY_BYTES_HELD_MAX:
            self.flow.pause_reading()
        cycle.message_event.set()

    def send_400_response(self, msg: str) -> None:
        """The parser gave up. Called again for whatever arrives until the connection is closed."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            # What is broken came after a whole request: that one is answered, then nothing more.
            cycle.keep_alive = False
            self.flow.pause_reading()
        elif not self.transport.is_closing():
            self._answer(S3Error("BadRequest", "An error occurred when parsing the HTTP request."))

    def _answer(self, error: S3Error) -> None:
        """A final answer from here, and the end of the connection; nothing but the end where another answer is on its way."""
        self._in_head = False
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            body = xml.error_document(error, "", secrets.token_hex(8))
            head = b"content-type: application/xml\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[error.status] + head + body)
        self.transport.close()
