"""PutBucketAcl and PutObjectAcl: a canned list by its name, or a document with grants to users that exist."""

from __future__ import annotations

from protocols.s3 import acl
from protocols.s3.attributes import replace_attributes
from protocols.s3.context import Context, check_object
from protocols.s3.errors import S3Error, invalid_argument
from protocols.s3.metadata import refuse_unsupported
from protocols.s3.payload import Payload
from protocols.s3.request import Request
from protocols.s3.response import Response
from protocols.s3.versions import wanted_version


def _choose(named: str | None, body: bytes, owner: str) -> str:
    if named is not None:
        return named
    if not body:
        raise S3Error("MissingRequestBodyError")
    return acl.parse_document(body, owner)


async def run(context: Context, request: Request) -> Response:
    refuse_unsupported(request)
    named = acl.canned_acl(request)
    if request.key:
        held = await context.store.lookup(request.bucket, request.key, version=wanted_version(request))
        check_object(request, held.attributes, "WRITE_ACP")
    chosen = await Payload(request, context.config).document(lambda body: _choose(named, body, request.owner))
    for user in acl.users_of(chosen):
        if user != request.owner and await context.auth.user(user) is None:
            raise invalid_argument("CanonicalUser/ID", user, "Invalid id")
    if request.key:
        await replace_attributes(context, request, wanted_version(request), lambda attributes: acl.with_acl(attributes, chosen))
    else:
        view = await context.store.view(request.bucket)
        await context.store.set_view_attributes(request.bucket, acl.with_acl(view.attributes, chosen))
        context.forget_bucket(request.bucket)
    return Response(200)
