"""GetObjectTagging, PutObjectTagging, DeleteObjectTagging."""

from __future__ import annotations

from protocols.s3.attributes import replace_attributes
from protocols.s3.context import Context
from protocols.s3.payload import Payload
from protocols.s3.request import Request
from protocols.s3.response import NO_CONTENT, Response, xml_response
from protocols.s3.tags import parse_tag_document, tag_document, tags_of, with_tags
from protocols.s3.versions import check_version


async def get(context: Context, request: Request) -> Response:
    check_version(request)
    element = await context.store.lookup(request.bucket, request.key)
    return xml_response("Tagging", tag_document(tags_of(element.attributes)))


async def put(context: Context, request: Request) -> Response:
    check_version(request)
    await context.store.lookup(request.bucket, request.key)
    tags = await Payload(request, context.config).document(parse_tag_document)
    await replace_attributes(context, request, lambda attributes: with_tags(attributes, tags))
    return Response(200)


async def delete(context: Context, request: Request) -> Response:
    check_version(request)
    await replace_attributes(context, request, lambda attributes: with_tags(attributes, {}))
    return Response(NO_CONTENT)
