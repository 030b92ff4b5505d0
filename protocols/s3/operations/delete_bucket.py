"""DeleteBucket: only an empty one; uploads in progress go with it."""

from __future__ import annotations

from element_store.types import Conflict
from protocols.s3.context import Context
from protocols.s3.errors import S3Error
from protocols.s3.request import Request
from protocols.s3.response import NO_CONTENT, Response


async def run(context: Context, request: Request) -> Response:
    try:
        await context.store.delete_view(request.bucket)
    except Conflict:
        raise S3Error("BucketNotEmpty") from None
    finally:
        context.forget_bucket(request.bucket)
    return Response(NO_CONTENT)
