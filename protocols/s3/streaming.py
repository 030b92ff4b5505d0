"""The aws-chunked body form, decoded without I/O: bytes in, content out.

    size-hex [";chunk-signature=" hex] CRLF  content  CRLF        repeated
    "0" [";chunk-signature=" hex] CRLF  [name ":" value CRLF]...  CRLF

Framing is exact: a line too long, a size that is no number, a missing CRLF, content beyond the declared length, bytes after the end are all
errors. Content is handed out before its chunk's signature is known to hold, so nothing may be published before `close` returned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from protocols.s3.errors import S3Error

if TYPE_CHECKING:
    from protocols.auth.sigv4 import ChunkSigner

CHUNK_LINE_BYTES_MAX = 256
SIZE_DIGITS_MAX = 16
TRAILER_BYTES_MAX = 4096
TRAILER_SIGNATURE = "x-amz-trailer-signature"

_HEX = frozenset("0123456789abcdefABCDEF")
_LINE, _CONTENT, _CONTENT_END, _TRAILER, _DONE = range(5)


class ChunkedDecoder:
    """`declared_trailers`: lower-case names from x-amz-trailer. After `close`, `trailers` holds exactly these."""

    __slots__ = (
        "_buffer",
        "_declared",
        "_hash",
        "_left",
        "_remaining",
        "_signature",
        "_signer",
        "_state",
        "_trailer_bytes",
        "_trailer_signed",
        "trailers",
    )

    def __init__(self, length: int, signer: ChunkSigner | None, declared_trailers: frozenset[str], trailer_signed: bool) -> None:
        self._remaining = length
        self._signer = signer
        self._declared = declared_trailers
        self._trailer_signed = trailer_signed
        self._state = _LINE
        self._buffer = b""
        self._left = 0
        self._hash = hashlib.sha256()
        self._signature = ""
        self._trailer_bytes = 0
        self.trailers: dict[str, str] = {}

    @property
    def hashes(self) -> bool:
        """Feeding it large data takes long."""
        return self._signer is not None

    def feed(self, data: bytes) -> list[memoryview]:
        """Content found in the next bytes of the body. Raises S3Error; the decoder is unusable afterwards."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        view = memoryview(data)
        at, end = 0, len(data)
        pieces: list[memoryview] = []
        while at < end:
            if self._state == _CONTENT:
                stop = min(end, at + self._left)
                piece = view[at:stop]
                if self._signer is not None:
                    self._hash.update(piece)
                pieces.append(piece)
                self._left -= stop - at
                at = stop
                if not self._left:
                    self._state = _CONTENT_END
            elif self._state == _CONTENT_END:
                if end - at < 2 and data[at:end] == b"\r":
                    break
                if data[at : at + 2] != b"\r\n":
                    raise S3Error("IncompleteBody", "A chunk does not end where its size says.")
                at += 2
                self._check_chunk()
                self._state = _LINE
            elif self._state == _DONE:
                raise S3Error("IncompleteBody", "There are bytes after the last chunk.")
            else:
                line_end = self._line_end(data, at, end)
                if line_end < 0:
                    break
                self._line(data[at:line_end])
                at = line_end + 2
        self._buffer = data[at:end]
        return pieces

    def close(self) -> Mapping[str, str]:
        """The body has ended. Raises IncompleteBody if it ended early; returns the trailers."""
        if self._state != _DONE:
            raise S3Error("IncompleteBody", "The chunked body ends early.")
        if self._remaining:
            raise S3Error("IncompleteBody", "The content is shorter than x-amz-decoded-content-length.")
        return self.trailers

    def _line_end(self, data: bytes, at: int, end: int) -> int:
        longest = CHUNK_LINE_BYTES_MAX if self._state == _LINE else TRAILER_BYTES_MAX
        found = data.find(b"\r\n", at, min(end, at + longest + 2))
        if found < 0 and end - at >= longest + 2:
            raise S3Error("IncompleteBody" if self._state == _LINE else "MalformedTrailerError", "A line of the chunked body is too long.")
        return found

    def _line(self, line: bytes) -> None:
        if self._state == _LINE:
            self._chunk_line(line)
        elif line:
            self._trailer_line(line)
        else:
            self._check_trailers()
            self._state = _DONE

    def _chunk_line(self, line: bytes) -> None:
        size_text, _, extension = line.decode("latin-1").partition(";")
        if not 1 <= len(size_text) <= SIZE_DIGITS_MAX or not _HEX.issuperset(size_text):
            raise S3Error("IncompleteBody", "A chunk has no valid size.")
        size = int(size_text, 16)
        if size > self._remaining:
            raise S3Error("IncompleteBody", "The content is longer than x-amz-decoded-content-length.")
        if self._signer is not None:
            name, _, self._signature = extension.partition("=")
            if name != "chunk-signature":
                raise S3Error("SignatureDoesNotMatch", "A chunk carries no signature.")
            self._hash = hashlib.sha256()
        self._remaining -= size
        self._left = size
        if size:
            self._state = _CONTENT
        else:
            self._check_chunk()
            self._state = _TRAILER

    def _check_chunk(self) -> None:
        if self._signer is not None and not self._signer.check_chunk(self._signature, self._hash.hexdigest()):
            raise S3Error("SignatureDoesNotMatch", "The signature of a chunk does not match.")

    def _trailer_line(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > TRAILER_BYTES_MAX:
            raise S3Error("MalformedTrailerError", "The trailers are too long.")
        name, colon, value = line.decode("latin-1").partition(":")
        name = name.strip().lower()
        wanted = name in self._declared or (self._trailer_signed and name == TRAILER_SIGNATURE)
        if not colon or not wanted or name in self.trailers:
            raise S3Error("MalformedTrailerError")
        self.trailers[name] = value.strip()

    def _check_trailers(self) -> None:
        signature = self.trailers.pop(TRAILER_SIGNATURE, "")
        if self._declared != self.trailers.keys():
            raise S3Error("MalformedTrailerError")
        if self._signer is not None and self._trailer_signed:
            text = "".join(f"{name}:{value}\n" for name, value in self.trailers.items())
            if not self._signer.check_trailer(signature, hashlib.sha256(text.encode("latin-1")).hexdigest()):
                raise S3Error("SignatureDoesNotMatch", "The signature of the trailers does not match.")
