"""ListMultipartUploads: by key, then by start; a delimiter folds keys into common prefixes."""

from __future__ import annotations

from dataclasses import dataclass, field

from element_store.types import UploadInfo
from protocols.s3 import xml
from protocols.s3.context import Context
from protocols.s3.listing import Encoding, common_prefixes, owner_element
from protocols.s3.request import Request
from protocols.s3.response import Response, xml_response
from protocols.s3.uploads import UPLOAD_ID_LENGTH_MAX, checksum_of, upload_owner

BEYOND = b"\xff"
"""Greater than the rest of any key, for keys are UTF-8: skips a common prefix."""
UPLOADS_MAX = 1000


@dataclass(slots=True)
class _Page:
    uploads: list[UploadInfo] = field(default_factory=list)
    prefixes: list[bytes] = field(default_factory=list)
    next_key: bytes = b""
    next_id: str = ""
    truncated: bool = False

    def __len__(self) -> int:
        return len(self.uploads) + len(self.prefixes)


async def _collect(context: Context, bucket: str, prefix: bytes, delimiter: bytes, key: bytes, identity: str, limit: int) -> _Page:
    page = _Page(next_key=key, next_id=identity)
    while True:
        found = await context.store.list_uploads(bucket, prefix=prefix, after_key=key, after_id=identity, limit=UPLOADS_MAX)
        for info in found:
            key, identity = info.key, info.id
            cut = info.key.find(delimiter, len(prefix)) if delimiter else -1
            folded = info.key[: cut + len(delimiter)] if cut >= 0 else b""
            if folded and page.prefixes and page.prefixes[-1] == folded:
                continue
            if len(page) == limit:
                page.truncated = True
                return page
            if folded:
                page.prefixes.append(folded)
                page.next_key, page.next_id = folded + BEYOND, ""
                key, identity = page.next_key, ""
                break
            page.uploads.append(info)
            page.next_key, page.next_id = info.key, info.id
        else:
            if len(found) < UPLOADS_MAX:
                return page


def _upload(info: UploadInfo, encoding: Encoding, owner: str) -> str:
    checksum = checksum_of(info.extra)
    kinds = ""
    if checksum is not None:
        kinds = f"<ChecksumAlgorithm>{checksum.algorithm.wire_name}</ChecksumAlgorithm><ChecksumType>{checksum.kind}</ChecksumType>"
    return (
        f"<Upload>{encoding.element('Key', info.key)}{xml.element('UploadId', info.id)}{owner.replace('Owner>', 'Initiator>')}{owner}"
        f"<StorageClass>STANDARD</StorageClass><Initiated>{xml.iso_time(info.created_ns)}</Initiated>{kinds}</Upload>"
    )


async def run(context: Context, request: Request) -> Response:
    query = request.query
    encoding = Encoding(request)
    limit = request.query_int("max-uploads", UPLOADS_MAX, UPLOADS_MAX)
    prefix, delimiter, key_marker = (query.get(name, "").encode() for name in ("prefix", "delimiter", "key-marker"))
    id_marker = query.get("upload-id-marker", "")[:UPLOAD_ID_LENGTH_MAX] if key_marker else ""
    after = key_marker + BEYOND if delimiter and key_marker.endswith(delimiter) and not id_marker else key_marker
    page = await _collect(context, request.bucket, prefix, delimiter, after, id_marker, limit)
    owners = [owner_element(await upload_owner(context, request, info)) for info in page.uploads]
    next_markers = ""
    if page.truncated and limit:
        next_markers = encoding.element("NextKeyMarker", page.next_key.removesuffix(BEYOND)) + xml.element(
            "NextUploadIdMarker", page.next_id
        )
    inner = [
        f"<Bucket>{request.bucket}</Bucket>",
        encoding.element("KeyMarker", key_marker),
        xml.element("UploadIdMarker", id_marker),
        next_markers,
        encoding.optional("Delimiter", delimiter),
        encoding.element("Prefix", prefix),
        encoding.note,
        f"<MaxUploads>{limit}</MaxUploads><IsTruncated>{'true' if page.truncated and limit else 'false'}</IsTruncated>",
        *[_upload(info, encoding, owner) for info, owner in zip(page.uploads, owners, strict=True)],
        common_prefixes(page.prefixes, encoding),
    ]
    return xml_response("ListMultipartUploadsResult", "".join(inner))
