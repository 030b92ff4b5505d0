"""GetObject and HeadObject: the content that the key names now, pinned while it is sent."""

from __future__ import annotations

from element_store.types import Element, NotFound
from protocols.s3 import checksums, metadata
from protocols.s3.conditional import check_read, validators
from protocols.s3.context import Context, check_object, send_content
from protocols.s3.errors import invalid_argument
from protocols.s3.ranges import parse_range, part_range
from protocols.s3.request import Request
from protocols.s3.response import Header, Response
from protocols.s3.versions import missing, version_headers, wanted_version

PART_NUMBER_MAX = 10_000


async def run(context: Context, request: Request) -> Response | None:
    version = wanted_version(request)
    try:
        if request.method == "HEAD":
            return await _head(request, await context.store.lookup(request.bucket, request.key, version=version))
        content = await context.store.open(request.bucket, request.key, version=version)
    except NotFound as error:
        raise await missing(context, request, version, error) from None
    async with content:
        status, headers, start, stop = _answer(request, content.element)
        await send_content(request, status, headers, content, start, stop)
    return None


async def _head(request: Request, element: Element) -> Response | None:
    status, headers, start, stop = _answer(request, element)
    headers.append((b"content-length", str(stop - start).encode()))
    headers.append((b"x-amz-request-id", request.request_id.encode("latin-1", "replace")))
    request.response_started = True
    await request.send({"type": "http.response.start", "status": status, "headers": headers})
    await request.send({"type": "http.response.body", "body": b""})
    return None


def _answer(request: Request, element: Element) -> tuple[int, list[Header], int, int]:
    """Status, headers but the length, and the bytes to send. Raises what the object's list, the conditions and the ranges demand."""
    check_object(request, element.attributes)
    check_read(request.headers, element)
    start, stop, status = 0, element.size, 200
    part = _part_number(request)
    if part:
        start, stop = part_range(element, part)
        if element.size:
            status = 206
    else:
        wanted = parse_range(request.header(b"range"), element.size)
        if wanted is not None:
            (start, stop), status = wanted, 206
    headers = validators(element) + version_headers(request, element.version_id)
    headers += metadata.response_headers(element.attributes, request.query)
    headers.append((b"accept-ranges", b"bytes"))
    if status == 206:
        headers.append((b"content-range", f"bytes {start}-{stop - 1}/{element.size}".encode()))
    if part and element.part_sizes:
        headers.append((b"x-amz-mp-parts-count", str(len(element.part_sizes)).encode()))
    if request.headers.get(b"x-amz-checksum-mode", b"").upper() == b"ENABLED":
        headers += _checksum(element, part, status)
    return status, headers, start, stop


def _part_number(request: Request) -> int:
    """0 where the request names no part."""
    if not request.query or "partNumber" not in request.query:
        return 0
    number = request.query_int("partNumber", 0, PART_NUMBER_MAX + 1)
    if not 1 <= number <= PART_NUMBER_MAX:
        raise invalid_argument("partNumber", str(number), f"Part number must be an integer between 1 and {PART_NUMBER_MAX}, inclusive.")
    if b"range" in request.headers:
        raise invalid_argument("partNumber", str(number), "Cannot specify both Range header and partNumber query parameter.")
    return number


def _checksum(element: Element, part: int, status: int) -> list[Header]:
    """Of the bytes that are sent: the whole object's or one part's; a range has none."""
    if not part:
        return [] if status == 206 else checksums.response_headers(element.digests, element.composite, len(element.part_sizes))
    if not element.part_sizes:
        return checksums.response_headers(element.digests, False, 0)
    found = checksums.kept(element.digests)
    if found is None or not element.part_digests:
        return []
    kind = b"COMPOSITE" if element.composite else b"FULL_OBJECT"
    return [(found[0].header, checksums.encode(element.part_digests[part - 1]).encode()), (b"x-amz-checksum-type", kind)]
