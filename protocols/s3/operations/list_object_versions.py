"""ListObjectVersions of a bucket without versions: each object is the latest version `null` of its key."""

from __future__ import annotations

from protocols.s3 import xml
from protocols.s3.context import Context
from protocols.s3.errors import invalid_argument
from protocols.s3.listing import Encoding, checksum_elements, common_prefixes, max_keys, owner_element
from protocols.s3.request import Request
from protocols.s3.response import Response, xml_response


async def run(context: Context, request: Request) -> Response:
    query = request.query
    encoding = Encoding(request)
    limit = max_keys(request)
    prefix, delimiter, marker = (query.get(name, "").encode() for name in ("prefix", "delimiter", "key-marker"))
    version_marker = query.get("version-id-marker", "")
    if version_marker and not marker:
        raise invalid_argument("version-id-marker", version_marker, "A version-id marker cannot be specified without a key marker.")
    page = await context.store.list(request.bucket, prefix=prefix, delimiter=delimiter, start_after=marker, limit=limit)
    owner = owner_element(await context.owner_user(request.owner))
    truncated = page.next_after is not None and limit > 0
    versions = [
        f"<Version>{encoding.element('Key', element.key)}<VersionId>null</VersionId><IsLatest>true</IsLatest>"
        f'<LastModified>{xml.iso_time(element.modified_ns)}</LastModified><ETag>"{element.etag}"</ETag>{checksum_elements(element)}'
        f"<Size>{element.size}</Size>{owner}<StorageClass>STANDARD</StorageClass></Version>"
        for element in page.elements
    ]
    next_markers = ""
    if truncated:
        next_markers = encoding.element("NextKeyMarker", page.next_after or b"") + "<NextVersionIdMarker>null</NextVersionIdMarker>"
    inner = [
        f"<Name>{request.bucket}</Name>",
        encoding.element("Prefix", prefix),
        encoding.element("KeyMarker", marker),
        xml.element("VersionIdMarker", version_marker),
        next_markers,
        f"<MaxKeys>{limit}</MaxKeys>",
        encoding.optional("Delimiter", delimiter),
        f"<IsTruncated>{'true' if truncated else 'false'}</IsTruncated>",
        encoding.note,
        *versions,
        common_prefixes(page.prefixes, encoding),
    ]
    return xml_response("ListVersionsResult", "".join(inner))
