"""ListBuckets: the caller's own; root sees all. Paged by name where the client asks for pages."""

from __future__ import annotations

import base64
import binascii

from protocols.s3 import xml
from protocols.s3.context import Context, owner_of
from protocols.s3.errors import S3Error, invalid_argument
from protocols.s3.request import Request
from protocols.s3.response import Response, xml_response

BUCKETS_MAX = 10_000


def _start_after(request: Request) -> str:
    token = request.query.get("continuation-token")
    if not token:
        return ""
    try:
        return base64.urlsafe_b64decode(token.encode("ascii")).decode()
    except (binascii.Error, ValueError):
        raise invalid_argument("continuation-token", token, "The continuation token provided is incorrect.") from None


async def run(context: Context, request: Request) -> Response:
    user = request.user
    if user is None:
        raise S3Error("AccessDenied")
    limit = request.query_int("max-buckets", BUCKETS_MAX, BUCKETS_MAX)
    if limit == 0:
        raise invalid_argument("max-buckets", "0", f"max-buckets must be between 1 and {BUCKETS_MAX}.")
    prefix = request.query.get("prefix", "")
    after = _start_after(request)
    views = [
        view
        for view in await context.store.views()
        if (user.is_root or owner_of(view) == user.id) and view.name.startswith(prefix) and view.name > after
    ]
    page = views[:limit]
    buckets = "".join(
        f"<Bucket>{xml.element('Name', view.name)}<CreationDate>{xml.iso_time(view.created_ns)}</CreationDate></Bucket>" for view in page
    )
    owner = f"<Owner>{xml.element('ID', user.id)}{xml.element('DisplayName', user.display_name)}</Owner>"
    inner = f"{owner}<Buckets>{buckets}</Buckets>"
    if prefix:
        inner += xml.element("Prefix", prefix)
    if len(views) > limit:
        inner += xml.element("ContinuationToken", base64.urlsafe_b64encode(page[-1].name.encode()).decode())
    return xml_response("ListAllMyBucketsResult", inner)
