"""GetObjectAttributes: what is known of an object, without its bytes."""

from __future__ import annotations

from element_store.types import Element, NotFound
from protocols.s3 import checksums, xml
from protocols.s3.conditional import check_read, validators
from protocols.s3.context import Context, check_object
from protocols.s3.errors import invalid_argument
from protocols.s3.request import Request
from protocols.s3.response import Response, xml_response
from protocols.s3.versions import missing, version_headers, wanted_version

KNOWN = frozenset({"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"})
PARTS_MAX = 1000


def _checksum(element: Element) -> str:
    found = checksums.kept(element.digests)
    if found is None:
        return ""
    algorithm, raw = found
    kind = checksums.COMPOSITE if element.composite else checksums.FULL_OBJECT
    text = checksums.shown(raw, element.composite, len(element.part_sizes))
    return f"<Checksum>{xml.element(algorithm.element, text)}<ChecksumType>{kind}</ChecksumType></Checksum>"


def _header_int(request: Request, name: bytes, default: int) -> int:
    text = request.header(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise invalid_argument(name.decode(), text, f"{name.decode()} must be a number.")
    return int(text)


def _parts(request: Request, element: Element) -> str:
    count = len(element.part_sizes)
    limit = min(_header_int(request, b"x-amz-max-parts", PARTS_MAX), PARTS_MAX)
    marker = min(_header_int(request, b"x-amz-part-number-marker", 0), count)
    stop = min(count, marker + limit)
    found = checksums.kept(element.digests)
    rows = []
    for index in range(marker, stop):
        checksum = xml.element(found[0].element, checksums.encode(element.part_digests[index])) if found and element.part_digests else ""
        rows.append(f"<Part><PartNumber>{index + 1}</PartNumber><Size>{element.part_sizes[index]}</Size>{checksum}</Part>")
    return (
        f"<ObjectParts><PartsCount>{count}</PartsCount><PartNumberMarker>{marker}</PartNumberMarker>"
        f"<NextPartNumberMarker>{stop}</NextPartNumberMarker><MaxParts>{limit}</MaxParts>"
        f"<IsTruncated>{'true' if stop < count else 'false'}</IsTruncated>{''.join(rows)}</ObjectParts>"
    )


async def run(context: Context, request: Request) -> Response:
    version = wanted_version(request)
    asked = {name.strip() for name in (request.header(b"x-amz-object-attributes") or "").split(",") if name.strip()}
    if not asked or not asked <= KNOWN:
        raise invalid_argument("x-amz-object-attributes", ",".join(sorted(asked)), "Invalid attribute name specified.")
    try:
        element = await context.store.lookup(request.bucket, request.key, version=version)
    except NotFound as error:
        raise await missing(context, request, version, error) from None
    check_object(request, element.attributes)
    check_read(request.headers, element)
    inner = ""
    if "ETag" in asked:
        inner += xml.element("ETag", element.etag)
    if "Checksum" in asked:
        inner += _checksum(element)
    if "ObjectParts" in asked and element.part_sizes:
        inner += _parts(request, element)
    if "StorageClass" in asked:
        inner += "<StorageClass>STANDARD</StorageClass>"
    if "ObjectSize" in asked:
        inner += f"<ObjectSize>{element.size}</ObjectSize>"
    headers = [header for header in validators(element) if header[0] == b"last-modified"]
    return xml_response("GetObjectAttributesResponse", inner, headers + version_headers(request, element.version_id))
