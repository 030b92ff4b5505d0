"""DeleteObject: what is not there is deleted already. With versioning a delete marker hides the object; a named version is given up."""

from __future__ import annotations

from protocols.s3.conditional import write_condition
from protocols.s3.context import Context
from protocols.s3.request import Request
from protocols.s3.response import NO_CONTENT, Response
from protocols.s3.versions import version_headers, wanted_version


async def run(context: Context, request: Request) -> Response:
    version = wanted_version(request)
    deletion = await context.store.delete(
        request.bucket, request.key, version=version, condition=write_condition(request.headers), versioning=request.versioning
    )
    return Response(NO_CONTENT, version_headers(request, deletion.version_id, marker=deletion.marker))
