"""The body of a request: which form it has, what digests the client announced, and its decoded bytes.

`Payload` is made from headers alone, before the first byte is asked for, so that `Expect: 100-continue` clients hear of errors first.
Content is hashed by the store; `expected` tells it what must come out. Only chunk signatures are hashed here, large pieces in a thread.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar

from protocols.s3 import checksums
from protocols.s3.checksums import Algorithm
from protocols.s3.config import S3Config
from protocols.s3.errors import ClientGone, S3Error, invalid_argument
from protocols.s3.request import Request
from protocols.s3.streaming import ChunkedDecoder

DOCUMENT_BYTES_MAX = 8 * 1024 * 1024
"""XML bodies: CompleteMultipartUpload with 10,000 parts and checksums has about 3 MB, DeleteObjects of 1,000 escaped keys up to 6 MB."""
THREAD_BYTES_MIN = 64 * 1024
"""Signed chunks in larger pieces are hashed in a thread; for smaller ones the hop costs more than the hash."""
JOIN_BYTES = 1024 * 1024
"""Small pieces are joined to about this size before they go to the store."""
JOINED_BYTES_MAX = 64 * 1024
"""Larger pieces go to the store as they came: copying them would cost more than a call."""

T = TypeVar("T")

_HEX = frozenset("0123456789abcdef")
_STREAMING_FORMS = {
    # form -> (chunks signed, trailers, trailers signed)
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER": (False, True, False),
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD": (True, False, False),
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER": (True, True, True),
}


class Payload:
    """`length`: bytes of content, None if only the end will tell. `checksum`: the algorithm to keep with the content.

    `checksum_of_body` is false where checksum headers speak of something else (CompleteMultipartUpload: of the object).
    """

    __slots__ = ("_decoder", "_idle_seconds", "_request", "_sha256_is_payload", "checksum", "expected", "length")

    def __init__(self, request: Request, config: S3Config, *, checksum_of_body: bool = True) -> None:
        self._request = request
        self._idle_seconds = config.body_idle_seconds
        self._decoder: ChunkedDecoder | None = None
        self._sha256_is_payload = False
        self.length = request.content_length
        self.expected: dict[str, bytes] = {}
        self.checksum: Algorithm | None = None
        md5 = request.headers.get(b"content-md5")
        if md5 is not None:
            self.expected["md5"] = _content_md5(md5)
        if request.verified is not None:
            form = request.verified.payload_hash
        else:
            form = request.header(b"x-amz-content-sha256") or "UNSIGNED-PAYLOAD"
        if len(form) == 64 and _HEX.issuperset(form):
            self.expected["sha256"] = bytes.fromhex(form)
            self._sha256_is_payload = True
        elif form != "UNSIGNED-PAYLOAD":
            self._open_stream(form)
        if checksum_of_body:
            self._announced_checksum()

    def _open_stream(self, form: str) -> None:
        request = self._request
        if form.startswith("STREAMING-AWS4-ECDSA"):
            raise S3Error("NotImplemented", "Signature Version 4A is not implemented.")
        described = _STREAMING_FORMS.get(form)
        if described is None:
            raise invalid_argument(
                "x-amz-content-sha256", form, "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, a STREAMING- form or a valid SHA-256."
            )
        signed, has_trailers, trailer_signed = described
        signer = request.verified.signer if request.verified is not None else None
        if signed and signer is None:
            raise S3Error("InvalidRequest", "Chunk signatures need a Signature Version 4 request.")
        length = request.headers.get(b"x-amz-decoded-content-length", b"")
        if not length.isdigit() or len(length) > 18:
            raise S3Error("MissingContentLength")
        self.length = int(length)
        declared = request.header(b"x-amz-trailer")
        names = frozenset(name.strip().lower() for name in declared.split(",") if name.strip()) if declared else frozenset()
        if names and not has_trailers:
            raise S3Error("InvalidRequest", "x-amz-trailer needs a payload form with trailers.")
        for name in names:
            if name.encode("latin-1") not in checksums.BY_HEADER or len(names) > 1:
                raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported.")
            self.checksum = checksums.BY_HEADER[name.encode("latin-1")]
        self._decoder = ChunkedDecoder(self.length, signer if signed else None, names, trailer_signed)

    def _announced_checksum(self) -> None:
        headers = self._request.headers
        found = checksums.of_headers(headers)
        if found is not None:
            if self.checksum is not None:
                raise S3Error("InvalidRequest", "Expecting a single x-amz-checksum- header or trailer.")
            self.checksum = found[0]
            self._expect(*found)
        wanted = headers.get(b"x-amz-sdk-checksum-algorithm")
        if wanted is not None:
            algorithm = checksums.algorithm_named(wanted.decode("latin-1"))
            if self.checksum is not None and algorithm is not self.checksum:
                raise S3Error("InvalidRequest", "Value for x-amz-sdk-checksum-algorithm header is invalid.")
            self.checksum = algorithm

    def _expect(self, algorithm: Algorithm, text: str) -> None:
        raw = checksums.decode(algorithm, text)
        known = self.expected.setdefault(algorithm.store_name, raw)
        if known != raw:
            raise S3Error("BadDigest", f"The {algorithm.wire_name} you specified did not match the calculated checksum.")

    @property
    def kept_names(self) -> tuple[str, ...]:
        """Digests to keep with the content."""
        return ("md5",) if self.checksum is None else ("md5", self.checksum.store_name)

    @property
    def computed_names(self) -> frozenset[str]:
        """Digests to compute while content passes; call before reading, when a trailer's value is still to come."""
        return frozenset((*self.kept_names, *self.expected))

    def compare(self, digests: Mapping[str, bytes]) -> None:
        """Raises unless every announced digest came out."""
        for name, raw in self.expected.items():
            if digests[name] != raw:
                raise self.mismatch(name)

    def mismatch(self, name: str) -> S3Error:
        if name == "sha256" and self._sha256_is_payload:
            return S3Error("XAmzContentSHA256Mismatch")
        return S3Error("BadDigest", f"The {name.upper()} you specified did not match the calculated checksum.")

    async def _receive(self) -> tuple[bytes, bool]:
        request = self._request
        if request.body_ready is not None and request.body_ready():
            # A timer costs more than all else here.
            message = await request.receive()
        else:
            try:
                async with asyncio.timeout(self._idle_seconds):
                    message = await request.receive()
            except TimeoutError:
                raise S3Error("RequestTimeout", headers=[(b"connection", b"close")]) from None
        if message["type"] != "http.request":
            raise ClientGone
        more = bool(message.get("more_body", False))
        if not more:
            self._request.unread = False
        return message.get("body", b""), more

    async def collect(self, bytes_max: int) -> bytes:
        """The whole content. Raises EntityTooLarge as soon as it is known to be longer."""
        if self.length is not None and self.length > bytes_max:
            raise S3Error("EntityTooLarge")
        held: list[bytes | memoryview] = []
        total, more = 0, True
        if not self._request.unread:
            more = False
        elif self._decoder is None and self._request.content_length is not None:
            body, more = await self._receive()
            if not more:
                return body
            held.append(body)
            total = len(body)
        async for piece in self._pieces(more, total):
            held.append(piece)
            total += len(piece)
            if total > bytes_max:
                raise S3Error("EntityTooLarge")
        return b"".join(held)

    async def pieces(self, bytes_max: int) -> AsyncIterator[bytes | memoryview]:
        """Content in pieces worth a call of the store. Raises EntityTooLarge as soon as it is known to be longer."""
        if self.length is not None and self.length > bytes_max:
            raise S3Error("EntityTooLarge")
        held: list[bytes | memoryview] = []
        held_bytes = total = 0
        async for piece in self._pieces(True, 0):
            total += len(piece)
            if total > bytes_max:
                raise S3Error("EntityTooLarge")
            large = len(piece) > JOINED_BYTES_MAX
            if not large:
                held.append(piece)
                held_bytes += len(piece)
            if held and (large or held_bytes >= JOIN_BYTES):
                yield b"".join(held)
                held.clear()
                held_bytes = 0
            if large:
                yield piece
        if held:
            yield b"".join(held)

    async def _pieces(self, more: bool, got: int) -> AsyncIterator[bytes | memoryview]:
        decoder = self._decoder
        while more:
            body, more = await self._receive()
            if decoder is None:
                got += len(body)
                if body:
                    yield body
                continue
            if decoder.hashes and len(body) >= THREAD_BYTES_MIN:
                found = await asyncio.to_thread(decoder.feed, body)
            else:
                found = decoder.feed(body)
            for piece in found:
                yield piece
        if decoder is not None:
            for name, value in decoder.close().items():
                self._expect(checksums.BY_HEADER[name.encode()], value)
        elif self.length is not None and got != self.length:
            raise S3Error("IncompleteBody")

    async def document(self, parse: Callable[[bytes], T]) -> T:
        """A small body that must be whole and verified before it is understood (XML), parsed; in a thread unless it is tiny."""
        body = await self.collect(DOCUMENT_BYTES_MAX)
        if len(body) < THREAD_BYTES_MIN:
            return self._understand(body, parse)
        return await asyncio.to_thread(self._understand, body, parse)

    def _understand(self, body: bytes, parse: Callable[[bytes], T]) -> T:
        self._check_document(body)
        return parse(body)

    def _check_document(self, body: bytes) -> None:
        for name, raw in self.expected.items():
            if checksums.digest_small(name, body) != raw:
                raise self.mismatch(name)


def _content_md5(value: bytes) -> bytes:
    try:
        raw = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 16:
        raise S3Error("InvalidDigest")
    return raw
