"""GetObjectTagging, PutObjectTagging, DeleteObjectTagging."""

from __future__ import annotations

from protocols.s3.attributes import replace_attributes
from protocols.s3.context import Context
from protocols.s3.payload import Payload
from protocols.s3.request import Request
from protocols.s3.response import NO_CONTENT, Response, xml_response
from protocols.s3.tags import parse_tag_document, tag_document, tags_of, with_tags
from protocols.s3.versions import version_headers, wanted_version


async def get(context: Context, request: Request) -> Response:
    element = await context.store.lookup(request.bucket, request.key, version=wanted_version(request))
    return xml_response("Tagging", tag_document(tags_of(element.attributes)), version_headers(request, element.version_id))


async def put(context: Context, request: Request) -> Response:
    version = wanted_version(request)
    await context.store.lookup(request.bucket, request.key, version=version)
    tags = await Payload(request, context.config).document(parse_tag_document)
    element = await replace_attributes(context, request, version, lambda attributes: with_tags(attributes, tags))
    return Response(200, version_headers(request, element.version_id))


async def delete(context: Context, request: Request) -> Response:
    element = await replace_attributes(context, request, wanted_version(request), lambda attributes: with_tags(attributes, {}))
    return Response(NO_CONTENT, version_headers(request, element.version_id))
