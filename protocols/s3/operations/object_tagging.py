"""GetObjectTagging, PutObjectTagging, DeleteObjectTagging."""

from __future__ import annotations

from element_store.types import Condition, PreconditionFailed
from protocols.s3.context import Context
from protocols.s3.errors import S3Error
from protocols.s3.payload import Payload
from protocols.s3.request import Request
from protocols.s3.response import NO_CONTENT, Response, xml_response
from protocols.s3.tags import parse_tag_document, tag_document, tags_of, with_tags
from protocols.s3.versions import check_version

ATTEMPTS_MAX = 8


async def get(context: Context, request: Request) -> Response:
    check_version(request)
    element = await context.store.lookup(request.bucket, request.key)
    return xml_response("Tagging", tag_document(tags_of(element.attributes)))


async def put(context: Context, request: Request) -> Response:
    check_version(request)
    body = await Payload(request, context.config).document()
    await _replace(context, request, parse_tag_document(body))
    return Response(200)


async def delete(context: Context, request: Request) -> Response:
    check_version(request)
    await _replace(context, request, {})
    return Response(NO_CONTENT)


async def _replace(context: Context, request: Request, tags: dict[str, str]) -> None:
    """Attributes are read, changed and written back on the condition that the same content is still there."""
    for _ in range(ATTEMPTS_MAX):
        element = await context.store.lookup(request.bucket, request.key)
        try:
            await context.store.set_attributes(
                request.bucket, request.key, with_tags(element.attributes, tags), condition=Condition(if_match=(element.etag,))
            )
            return
        except PreconditionFailed:
            continue
    raise S3Error("ConditionalRequestConflict")
