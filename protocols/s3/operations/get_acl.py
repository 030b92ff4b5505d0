"""GetBucketAcl and GetObjectAcl: the bucket owner has full control; the list names who else has what."""

from __future__ import annotations

from protocols.s3 import acl
from protocols.s3.context import Context, check_object
from protocols.s3.request import Request
from protocols.s3.response import Response, xml_response
from protocols.s3.versions import wanted_version


async def run(context: Context, request: Request) -> Response:
    if request.key:
        attributes = (await context.store.lookup(request.bucket, request.key, version=wanted_version(request))).attributes
        check_object(request, attributes, "READ_ACP")
    else:
        attributes = (await context.store.view(request.bucket)).attributes
    owner = await context.owner_user(request.owner)
    chosen = acl.acl_of(attributes)
    users = [await context.auth.user(user) for user in acl.users_of(chosen)]
    return xml_response("AccessControlPolicy", acl.document(owner, chosen, {user.id: user.display_name for user in users if user}))
