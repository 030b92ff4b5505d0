"""Byte ranges of reads and of part copies. A malformed or multiple Range header is ignored, as RFC 9110 allows and S3 does."""

from __future__ import annotations

from element_store.types import Element
from protocols.s3.errors import S3Error, invalid_argument

DIGITS_MAX = 18


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX else None


def _unsatisfiable(size: int) -> S3Error:
    return S3Error("InvalidRange", details={"ActualObjectSize": str(size)}, headers=[(b"content-range", f"bytes */{size}".encode())])


def parse_range(text: str | None, size: int) -> tuple[int, int] | None:
    """[start, stop) of a Range header, None if there is none to obey. Raises InvalidRange."""
    if text is None or not text.startswith("bytes="):
        return None
    first_text, dash, last_text = text[len("bytes=") :].strip().partition("-")
    if not dash or "," in last_text:
        return None
    first, last = _number(first_text), _number(last_text)
    if first is None:
        if first_text or last is None:
            return None
        if last == 0 or size == 0:
            raise _unsatisfiable(size)
        return max(0, size - last), size
    if last is None and last_text:
        return None
    if last is not None and last < first:
        return None
    if first >= size:
        raise _unsatisfiable(size)
    return first, size if last is None else min(last + 1, size)


def parse_copy_range(text: str, size: int) -> tuple[int, int]:
    """[start, stop) of x-amz-copy-source-range, which must be whole and inside the source."""
    first_text, _, last_text = text.removeprefix("bytes=").partition("-")
    first, last = _number(first_text), _number(last_text)
    if not text.startswith("bytes=") or first is None or last is None or last < first:
        raise invalid_argument("x-amz-copy-source-range", text, "The x-amz-copy-source-range value must be of the form bytes=first-last.")
    if last >= size:
        raise S3Error("InvalidRange", f"Range specified is not valid for source object of size: {size}")
    return first, last + 1


def part_range(element: Element, number: int) -> tuple[int, int]:
    """[start, stop) of a part; content written whole counts as one part. Raises InvalidPart."""
    sizes = element.part_sizes or (element.size,)
    if not 1 <= number <= len(sizes):
        raise S3Error("InvalidPart", "The requested part number is not satisfiable.", details={"ActualPartCount": str(len(sizes))})
    start = sum(sizes[: number - 1])
    return start, start + sizes[number - 1]
