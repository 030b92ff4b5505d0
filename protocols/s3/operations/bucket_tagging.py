"""GetBucketTagging, PutBucketTagging, DeleteBucketTagging."""

from __future__ import annotations

from protocols.s3.context import Context
from protocols.s3.errors import S3Error
from protocols.s3.payload import Payload
from protocols.s3.request import Request
from protocols.s3.response import NO_CONTENT, Response, xml_response
from protocols.s3.tags import BUCKET_TAGS_MAX, parse_tag_document, tag_document, tags_of, with_tags


async def get(context: Context, request: Request) -> Response:
    tags = tags_of((await context.store.view(request.bucket)).attributes)
    if not tags:
        raise S3Error("NoSuchTagSet")
    return xml_response("Tagging", tag_document(tags))


async def put(context: Context, request: Request) -> Response:
    tags = await Payload(request, context.config).document(lambda body: parse_tag_document(body, BUCKET_TAGS_MAX))
    await _replace(context, request, tags)
    return Response(NO_CONTENT)


async def delete(context: Context, request: Request) -> Response:
    await _replace(context, request, {})
    return Response(NO_CONTENT)


async def _replace(context: Context, request: Request, tags: dict[str, str]) -> None:
    view = await context.store.view(request.bucket)
    await context.store.set_view_attributes(request.bucket, with_tags(view.attributes, tags))
