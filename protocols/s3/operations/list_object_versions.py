"""ListObjectVersions: every version of every key, the newest first, and the delete markers. Without versioning each object is version `null`."""

from __future__ import annotations

from element_store.types import Version
from protocols.s3 import xml
from protocols.s3.context import Context
from protocols.s3.errors import S3Error, invalid_argument
from protocols.s3.listing import Encoding, checksum_elements, common_prefixes, is_sayable, max_keys, owner_element
from protocols.s3.request import Request
from protocols.s3.response import Response, xml_response
from protocols.s3.versions import parse_version, version_text


def _marker(text: str, key: bytes) -> int | None:
    if not text:
        return None
    if not key:
        raise invalid_argument("version-id-marker", text, "A version-id marker cannot be specified without a key marker.")
    try:
        return parse_version(text)
    except S3Error:
        raise invalid_argument("version-id-marker", text, "Invalid version id specified.") from None


def _entry(version: Version, encoding: Encoding, owner: str) -> str:
    head = (
        f"{encoding.element('Key', version.key)}<VersionId>{version_text(version.version_id)}</VersionId>"
        f"<IsLatest>{'true' if version.is_latest else 'false'}</IsLatest>"
        f"<LastModified>{xml.iso_time(version.modified_ns)}</LastModified>"
    )
    element = version.element
    if element is None:
        return f"<DeleteMarker>{head}{owner}</DeleteMarker>"
    return (
        f'<Version>{head}<ETag>"{element.etag}"</ETag>{checksum_elements(element)}<Size>{element.size}</Size>{owner}'
        "<StorageClass>STANDARD</StorageClass></Version>"
    )


async def run(context: Context, request: Request) -> Response:
    query = request.query
    encoding = Encoding(request)
    limit = max_keys(request)
    prefix, delimiter, marker = (query.get(name, "").encode() for name in ("prefix", "delimiter", "key-marker"))
    version_marker = query.get("version-id-marker", "")
    page = await context.store.list_versions(
        request.bucket,
        prefix=prefix,
        delimiter=delimiter,
        after_key=marker,
        after_version=_marker(version_marker, marker),
        limit=limit,
    )
    owner = owner_element(await context.owner_user(request.owner))
    truncated = page.next_key is not None and limit > 0
    next_markers = ""
    if truncated:
        next_markers = encoding.element("NextKeyMarker", page.next_key or b"")
        if page.next_version is not None:
            next_markers += f"<NextVersionIdMarker>{version_text(page.next_version)}</NextVersionIdMarker>"
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
        *[_entry(version, encoding, owner) for version in page.versions if is_sayable(version.key)],
        common_prefixes([shown for shown in page.prefixes if is_sayable(shown)], encoding),
    ]
    return xml_response("ListVersionsResult", "".join(inner))
