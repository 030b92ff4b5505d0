"""HeadBucket: it exists and the caller may use it."""

from __future__ import annotations

from protocols.s3.context import LOCATION, Context
from protocols.s3.key_policy import HEADER, policy_of
from protocols.s3.request import Request
from protocols.s3.response import Response


async def run(context: Context, request: Request) -> Response:
    view = await context.store.view(request.bucket)
    region = view.attributes.xattrs.get(LOCATION) or context.config.region.encode()
    policy = policy_of(view).value.encode()
    return Response(200, [(b"x-amz-bucket-region", region), (b"x-amz-access-point-alias", b"false"), (HEADER, policy)])
