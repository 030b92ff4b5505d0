"""ListParts of an upload in progress."""

from __future__ import annotations

from protocols.s3 import xml
from protocols.s3.context import Context
from protocols.s3.listing import Encoding, owner_element
from protocols.s3.request import Request
from protocols.s3.response import Response, xml_response
from protocols.s3.uploads import PARTS_PAGE_MAX, checksum_element, checksum_of, guarded_upload, upload_id, upload_owner


async def run(context: Context, request: Request) -> Response:
    identity = upload_id(request)
    encoding = Encoding(request)
    limit = request.query_int("max-parts", PARTS_PAGE_MAX, PARTS_PAGE_MAX)
    marker = request.query_int("part-number-marker", 0, 2**31 - 1)
    info = await guarded_upload(context, request, identity)
    found = await context.store.list_parts(request.bucket, request.key, identity, after=marker, limit=limit + 1)
    parts = found[:limit]
    truncated = len(found) > limit > 0
    owner = await upload_owner(context, request, info)
    rows = [
        f"<Part><PartNumber>{part.number}</PartNumber><LastModified>{xml.iso_time(part.modified_ns)}</LastModified>"
        f'<ETag>"{part.etag}"</ETag><Size>{part.size}</Size>{checksum_element(part.digests)}</Part>'
        for part in parts
    ]
    checksum = checksum_of(info.extra)
    kinds = ""
    if checksum is not None:
        kinds = f"<ChecksumAlgorithm>{checksum.algorithm.wire_name}</ChecksumAlgorithm><ChecksumType>{checksum.kind}</ChecksumType>"
    owner_text = owner_element(owner)
    inner = [
        f"<Bucket>{request.bucket}</Bucket>{encoding.element('Key', request.key)}{xml.element('UploadId', identity)}",
        owner_text.replace("Owner>", "Initiator>"),
        owner_text,
        "<StorageClass>STANDARD</StorageClass>",
        f"<PartNumberMarker>{marker}</PartNumberMarker>",
        f"<NextPartNumberMarker>{parts[-1].number if parts else marker}</NextPartNumberMarker>",
        f"<MaxParts>{limit}</MaxParts><IsTruncated>{'true' if truncated else 'false'}</IsTruncated>",
        kinds,
        *rows,
    ]
    return xml_response("ListPartsResult", "".join(inner))
