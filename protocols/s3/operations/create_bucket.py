"""CreateBucket. Creating one's own bucket again succeeds and changes nothing, as in us-east-1."""

from __future__ import annotations

import re

from element_store.types import Attributes, Conflict
from protocols.s3 import xml
from protocols.s3.acl import acl_xattrs, canned_acl
from protocols.s3.context import LOCATION, OWNER, Context
from protocols.s3.errors import S3Error, not_implemented
from protocols.s3.key_policy import policy_xattrs, wanted_policy
from protocols.s3.metadata import refuse_unsupported
from protocols.s3.naming import check_new_bucket
from protocols.s3.payload import Payload
from protocols.s3.request import Request
from protocols.s3.response import Response

_REGION = re.compile(r"[A-Za-z0-9-]{1,64}")
OWNERSHIPS = ("BucketOwnerEnforced", "BucketOwnerPreferred", "ObjectWriter")


def _location(body: bytes) -> str:
    if not body.strip():
        return ""
    region = xml.parse(body, "CreateBucketConfiguration").value("LocationConstraint") or ""
    if region and not _REGION.fullmatch(region):
        raise S3Error("InvalidRequest", "The location constraint is not valid.")
    return region


async def run(context: Context, request: Request) -> Response:
    user = request.user
    if user is None:
        raise S3Error("AccessDenied")
    check_new_bucket(request.bucket)
    if request.headers.get(b"x-amz-bucket-object-lock-enabled", b"").lower() == b"true":
        raise not_implemented("Object lock")
    ownership = request.header(b"x-amz-object-ownership")
    if ownership is not None and ownership != "BucketOwnerEnforced":
        if ownership not in OWNERSHIPS:
            raise S3Error("InvalidArgument", "Invalid x-amz-object-ownership header.")
        raise not_implemented(f"The object ownership {ownership}")
    refuse_unsupported(request)
    policy = wanted_policy(request, context.config.key_policy)
    xattrs = {OWNER: user.id.encode(), **acl_xattrs(canned_acl(request)), **policy_xattrs(policy)}
    location = await Payload(request, context.config).document(_location)
    if location:
        xattrs[LOCATION] = location.encode()
    identity = context.identity(request)
    attributes = Attributes(uid=identity.uid, gid=identity.gid, mode=identity.directory_mode, xattrs=xattrs)
    try:
        await context.store.create_view(request.bucket, attributes)
    except Conflict:
        if (await context.bucket(request.bucket)).owner != user.id:
            raise S3Error("BucketAlreadyExists") from None
    context.forget_bucket(request.bucket)
    return Response(200, [(b"location", b"/" + request.bucket.encode())])
