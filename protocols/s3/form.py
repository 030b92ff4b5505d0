"""A browser's form (`multipart/form-data`, RFC 7578) while it arrives: small fields first, then one file.

Bounded: what precedes the file is at most `FIELDS_BYTES_MAX`. What follows the file is read and dropped, as S3 does.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from protocols.s3.errors import S3Error

BOUNDARY_LENGTH_MAX = 200
"""RFC 2046 allows 70; some clients take more."""
FIELDS_BYTES_MAX = 64 * 1024
FILE = "file"

_BOUNDARY = re.compile(r'boundary=(?:"([^"]+)"|([^;\s]+))', re.IGNORECASE)
_PARAMETER = re.compile(r';\s*(name|filename)="((?:[^"\\]|\\.)*)"', re.IGNORECASE)


def _malformed(why: str) -> S3Error:
    return S3Error("MalformedPOSTRequest", f"The body of your POST request is not well-formed multipart/form-data: {why}.")


def is_form(content_type: bytes) -> bool:
    return content_type[:20].lower().startswith(b"multipart/form-data")


def boundary_of(content_type: str) -> bytes:
    found = _BOUNDARY.search(content_type)
    boundary = (found[1] or found[2]) if found else ""
    if not 1 <= len(boundary) <= BOUNDARY_LENGTH_MAX:
        raise _malformed("no boundary")
    return boundary.encode("latin-1")


class Form:
    """`read_fields`, then `content` to its end. Field names are lower-case; `filename` is the file's."""

    def __init__(self, boundary: bytes, pieces: AsyncIterator[bytes | memoryview]) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._pieces = pieces
        # The first delimiter may stand at the very start: with a line break in front it looks like all others.
        self._buffer = b"\r\n"
        self._held = 0
        self.fields: dict[str, str] = {}
        self.filename = ""

    async def read_fields(self) -> None:
        """Raises MalformedPOSTRequest, or InvalidArgument where there is no file."""
        await self._until(self._delimiter)
        while True:
            if (await self._take(2)) != b"\r\n":
                raise S3Error("InvalidArgument", "POST requires exactly one file upload per request.")
            name, filename = _disposition(await self._until(b"\r\n\r\n"))
            if name == FILE:
                self.filename = filename
                return
            if name in self.fields:
                raise _malformed("a field is there twice")
            self.fields[name] = _decode(await self._until(self._delimiter))

    async def content(self) -> AsyncIterator[bytes]:
        """The file's bytes, then nothing more of the body matters: the rest is dropped."""
        data, self._buffer = self._buffer, b""
        keep = len(self._delimiter) - 1
        while (end := data.find(self._delimiter)) < 0:
            if len(data) > keep:
                yield data[:-keep]
                data = data[-keep:]
            data += await self._more()
        if end:
            yield data[:end]
        async for _ in self._pieces:
            pass

    async def _more(self) -> bytes:
        piece = await anext(self._pieces, None)
        if piece is None:
            raise _malformed("it ends early")
        return bytes(piece)

    async def _fill(self) -> None:
        more = await self._more()
        self._buffer += more

    async def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._fill()
        taken, self._buffer = self._buffer[:count], self._buffer[count:]
        return taken

    async def _until(self, mark: bytes) -> bytes:
        """Everything before the mark, which is dropped too."""
        at = 0
        while (end := self._buffer.find(mark, at)) < 0:
            if self._held + len(self._buffer) > FIELDS_BYTES_MAX:
                raise S3Error("MaxPostPreDataLengthExceededError")
            at = max(0, len(self._buffer) - len(mark) + 1)
            await self._fill()
        self._held += end
        if self._held > FIELDS_BYTES_MAX:
            raise S3Error("MaxPostPreDataLengthExceededError")
        found, self._buffer = self._buffer[:end], self._buffer[end + len(mark) :]
        return found


def _disposition(head: bytes) -> tuple[str, str]:
    """Name, lower-case, and file name of a part."""
    for line in _decode(head).split("\r\n"):
        header, _, value = line.partition(":")
        if header.strip().lower() == "content-disposition":
            found = {match[1].lower(): match[2].replace('\\"', '"') for match in _PARAMETER.finditer(value)}
            if found.get("name"):
                return found["name"].lower(), found.get("filename", "")
    raise _malformed("a part has no name")


def _decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _malformed("a field is not UTF-8") from None
