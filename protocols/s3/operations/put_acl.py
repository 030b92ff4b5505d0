"""PutBucketAcl and PutObjectAcl: only what says the same as the default (`private`, or the owner's full control) is accepted."""

from __future__ import annotations

from protocols.s3 import xml
from protocols.s3.context import Context
from protocols.s3.errors import S3Error, not_implemented
from protocols.s3.metadata import refuse_unsupported
from protocols.s3.payload import Payload
from protocols.s3.request import Request
from protocols.s3.response import Response
from protocols.s3.versions import check_version


def _only_owner(body: bytes, owner: str) -> bool:
    grants = xml.parse(body, "AccessControlPolicy").child("AccessControlList")
    if grants is None:
        raise S3Error("MalformedXML")
    for grant in grants.all("Grant"):
        grantee = grant.child("Grantee")
        if grantee is None or grantee.value("ID") != owner or grant.value("Permission") != "FULL_CONTROL":
            return False
    return any(grants.all("Grant"))


async def run(context: Context, request: Request) -> Response:
    refuse_unsupported(request)
    if request.key:
        check_version(request)
        await context.store.lookup(request.bucket, request.key)
    body = await Payload(request, context.config).document()
    if b"x-amz-acl" not in request.headers:
        if not body:
            raise S3Error("MissingRequestBodyError")
        if not _only_owner(body, request.owner):
            raise not_implemented("An access control list with grants")
    return Response(200)
