"""DeleteObject: what is not there is deleted already."""

from __future__ import annotations

from protocols.s3.conditional import write_condition
from protocols.s3.context import Context
from protocols.s3.request import Request
from protocols.s3.response import NO_CONTENT, Response
from protocols.s3.versions import check_version


async def run(context: Context, request: Request) -> Response:
    check_version(request)
    await context.store.delete(request.bucket, request.key, condition=write_condition(request.headers))
    return Response(NO_CONTENT)
