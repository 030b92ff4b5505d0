"""CreateMultipartUpload: the object's attributes and the kind of its checksum are fixed here."""

from __future__ import annotations

from protocols.s3 import checksums, xml
from protocols.s3.context import Context
from protocols.s3.errors import S3Error
from protocols.s3.metadata import attributes_of
from protocols.s3.request import Request
from protocols.s3.response import Header, Response, xml_response
from protocols.s3.uploads import UploadChecksum, owner_extra


def _checksum(request: Request) -> UploadChecksum | None:
    name, kind = request.header(b"x-amz-checksum-algorithm"), request.header(b"x-amz-checksum-type")
    if name is None:
        if kind is not None:
            raise S3Error("InvalidRequest", "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.")
        return None
    algorithm = checksums.algorithm_named(name)
    return UploadChecksum(algorithm, checksums.upload_type(algorithm, kind))


async def run(context: Context, request: Request) -> Response:
    checksum = _checksum(request)
    extra = {**(checksum.extra if checksum is not None else {}), **owner_extra(request)}
    info = await context.store.create_upload(request.bucket, request.key, attributes_of(request, context.identity(request)), extra)
    headers: list[Header] = []
    if checksum is not None:
        headers.append((b"x-amz-checksum-algorithm", checksum.algorithm.wire_name.encode()))
        headers.append((b"x-amz-checksum-type", checksum.kind.encode()))
    inner = f"<Bucket>{request.bucket}</Bucket>{xml.element('Key', request.key.decode())}{xml.element('UploadId', info.id)}"
    return xml_response("InitiateMultipartUploadResult", inner, headers)
