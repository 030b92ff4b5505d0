"""AbortMultipartUpload."""

from __future__ import annotations

from protocols.s3.context import Context
from protocols.s3.request import Request
from protocols.s3.response import NO_CONTENT, Response
from protocols.s3.uploads import guarded_upload, upload_id


async def run(context: Context, request: Request) -> Response:
    info = await guarded_upload(context, request, upload_id(request))
    await context.store.abort_upload(request.bucket, request.key, info.id)
    return Response(NO_CONTENT)
