"""GetBucketAcl and GetObjectAcl: the bucket owner has full control; a canned list may add a group."""

from __future__ import annotations

from protocols.s3 import acl
from protocols.s3.context import Context
from protocols.s3.request import Request
from protocols.s3.response import Response, xml_response
from protocols.s3.versions import check_version


async def run(context: Context, request: Request) -> Response:
    if request.key:
        check_version(request)
        attributes = (await context.store.lookup(request.bucket, request.key)).attributes
    else:
        attributes = (await context.store.view(request.bucket)).attributes
    owner = await context.owner_user(request.owner)
    return xml_response("AccessControlPolicy", acl.document(owner, acl.acl_of(attributes)))
