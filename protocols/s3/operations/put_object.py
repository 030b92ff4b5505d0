"""PutObject. Small content goes to the store in one step; larger content is staged while it arrives and named at the end.

An object appears, whole and verified, or nothing changes.
"""

from __future__ import annotations

from element_store.interface import SMALL_BYTES_MAX
from element_store.types import Attributes, Condition, DigestMismatch, Element, NotFound, PreconditionFailed
from protocols.s3 import checksums
from protocols.s3.conditional import write_condition
from protocols.s3.context import Context
from protocols.s3.errors import S3Error
from protocols.s3.metadata import attributes_of, naming_of
from protocols.s3.payload import Payload
from protocols.s3.request import Request
from protocols.s3.response import Response
from protocols.s3.staging import stage_payload
from protocols.s3.versions import new_version_headers


async def run(context: Context, request: Request) -> Response:
    require_length(request)
    payload = Payload(request, context.config)
    condition = write_condition(request.headers)
    attributes = attributes_of(request, context.identity(request))
    if payload.length is not None and payload.length > context.config.put_bytes_max:
        raise S3Error("EntityTooLarge", details={"MaxSizeAllowed": str(context.config.put_bytes_max)})
    if condition is not None:
        await _early_refusal(context, request, condition)
    if payload.length is not None and payload.length <= SMALL_BYTES_MAX:
        element = await _put_small(context, request, payload, attributes, condition)
    else:
        element = await _put_staged(context, request, payload, attributes, condition)
    headers = [(b"etag", b'"' + element.etag.encode() + b'"')]
    headers += new_version_headers(element.version_id)
    if payload.checksum is not None:
        headers += checksums.response_headers(element.digests, False, 0)
    return Response(200, headers)


def require_length(request: Request) -> None:
    if b"content-length" not in request.headers and b"transfer-encoding" not in request.headers:
        raise S3Error("MissingContentLength")


async def _early_refusal(context: Context, request: Request, condition: Condition) -> None:
    """A client that waits for `100 Continue` should not send content which the commit would refuse anyway. The commit still decides."""
    if not request.expects_continue:
        return
    try:
        current = await context.store.lookup(request.bucket, request.key)
    except NotFound:
        if condition.if_match:
            raise
        return
    if condition.if_match and "*" not in condition.if_match and current.etag not in condition.if_match:
        raise PreconditionFailed("if_match")
    if condition.if_none_match and ("*" in condition.if_none_match or current.etag in condition.if_none_match):
        raise PreconditionFailed("if_none_match")


async def _put_small(context: Context, request: Request, payload: Payload, attributes: Attributes, condition: Condition | None) -> Element:
    data = await payload.collect(SMALL_BYTES_MAX)
    try:
        return await context.store.put(
            request.bucket,
            request.key,
            data,
            attributes,
            digests=payload.kept_names,
            expected=payload.expected,
            condition=condition,
            versioning=request.versioning,
            naming=naming_of(context.identity(request)),
        )
    except DigestMismatch as error:
        raise payload.mismatch(str(error.args[0])) from None


async def _put_staged(context: Context, request: Request, payload: Payload, attributes: Attributes, condition: Condition | None) -> Element:
    async with stage_payload(context, payload) as (staged, digests):
        return await context.store.publish(
            request.bucket,
            request.key,
            staged,
            attributes,
            digests=digests,
            condition=condition,
            versioning=request.versioning,
            naming=naming_of(context.identity(request)),
        )
