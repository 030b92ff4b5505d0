"""UploadPart: a part is staged like an object and replaces an earlier part of its number."""

from __future__ import annotations

from protocols.s3 import checksums
from protocols.s3.context import Context
from protocols.s3.errors import S3Error
from protocols.s3.metadata import refuse_unsupported
from protocols.s3.operations.put_object import require_length
from protocols.s3.payload import Payload
from protocols.s3.request import Request
from protocols.s3.response import Response
from protocols.s3.staging import stage_payload
from protocols.s3.uploads import checksum_of, guarded_upload, part_number, upload_id


async def run(context: Context, request: Request) -> Response:
    number, identity = part_number(request), upload_id(request)
    require_length(request)
    refuse_unsupported(request)
    payload = Payload(request, context.config)
    if payload.length is not None and payload.length > context.config.put_bytes_max:
        raise S3Error("EntityTooLarge", details={"MaxSizeAllowed": str(context.config.put_bytes_max)})
    info = await guarded_upload(context, request, identity)
    checksum = checksum_of(info.extra)
    if checksum is not None:
        if payload.checksum is not None and payload.checksum is not checksum.algorithm:
            raise S3Error(
                "InvalidRequest",
                f"Checksum Type mismatch occurred, expected checksum Type: {checksum.algorithm.wire_name.lower()}, "
                f"actual checksum Type: {payload.checksum.wire_name.lower()}",
            )
        payload.checksum = checksum.algorithm
    async with stage_payload(context, payload) as (staged, digests):
        part = await context.store.put_part(request.bucket, request.key, identity, number, staged, digests=digests)
    headers = [(b"etag", b'"' + part.etag.encode() + b'"')]
    found = checksums.kept(part.digests)
    if found is not None:
        headers.append((found[0].header, checksums.encode(found[1]).encode()))
    return Response(200, headers)
