"""GetBucketLocation: the constraint that the bucket was made with; empty stands for us-east-1."""

from __future__ import annotations

from protocols.s3 import xml
from protocols.s3.context import LOCATION, Context
from protocols.s3.request import Request
from protocols.s3.response import Response


async def run(context: Context, request: Request) -> Response:
    view = await context.store.view(request.bucket)
    location = view.attributes.xattrs.get(LOCATION, b"").decode()
    if not location and context.config.region != "us-east-1":
        location = context.config.region
    return Response(200, [(b"content-type", b"application/xml")], xml.document("LocationConstraint", xml.escape(location)))
