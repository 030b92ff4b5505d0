"""AbortMultipartUpload."""

from __future__ import annotations

from protocols.s3.context import Context
from protocols.s3.request import Request
from protocols.s3.response import NO_CONTENT, Response
from protocols.s3.uploads import upload_id


async def run(context: Context, request: Request) -> Response:
    await context.store.abort_upload(request.bucket, request.key, upload_id(request))
    return Response(NO_CONTENT)
