"""UploadPartCopy: a part that shares a range of an existing object."""

from __future__ import annotations

from protocols.s3 import xml
from protocols.s3.conditional import check_copy_source
from protocols.s3.context import Context
from protocols.s3.copy_source import open_source
from protocols.s3.errors import S3Error
from protocols.s3.metadata import refuse_unsupported
from protocols.s3.ranges import parse_copy_range
from protocols.s3.request import Request
from protocols.s3.response import Response, xml_response
from protocols.s3.uploads import checksum_element, checksum_of, guarded_upload, part_number, upload_id


async def run(context: Context, request: Request) -> Response:
    number, identity = part_number(request), upload_id(request)
    refuse_unsupported(request)
    info = await guarded_upload(context, request, identity)
    checksum = checksum_of(info.extra)
    names = ["md5"] if checksum is None else ["md5", checksum.algorithm.store_name]
    async with open_source(context, request) as found:
        content, source = found.content, found.content.element
        check_copy_source(request.headers, source)
        wanted = request.header(b"x-amz-copy-source-range")
        start, stop = parse_copy_range(wanted, source.size) if wanted is not None else (0, source.size)
        if stop - start > context.config.put_bytes_max:
            raise S3Error("InvalidRequest", "The specified copy source is larger than the maximum allowable size for a copy source.")
        digests = await context.store.digest(content, start, stop, names)
        part = await context.store.copy_part(request.bucket, request.key, identity, number, content, start, stop, digests=digests)
    inner = f"<LastModified>{xml.iso_time(part.modified_ns)}</LastModified>" + xml.element("ETag", f'"{part.etag}"')
    return xml_response("CopyPartResult", inner + checksum_element(part.digests), found.headers)
