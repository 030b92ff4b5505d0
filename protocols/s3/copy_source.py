"""The x-amz-copy-source header: which object is copied, and whether the caller may read it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote_to_bytes

from element_store.interface import Content
from element_store.types import NotFound
from protocols.s3.acl import acl_of, allows
from protocols.s3.context import Context
from protocols.s3.errors import S3Error, invalid_argument
from protocols.s3.naming import check_key
from protocols.s3.request import Request
from protocols.s3.versions import NULL_VERSION

ARN_PREFIX = "arn:"


def parse_copy_source(text: str) -> tuple[str, bytes]:
    """Bucket and key of `[/]bucket/key[?versionId=null]`, percent-encoded."""
    path, _, query = text.partition("?")
    if query:
        name, _, version = query.partition("=")
        if name != "versionId":
            raise invalid_argument("x-amz-copy-source", text, "Copy Source must mention the source bucket and key: /sourcebucket/sourcekey")
        if version != NULL_VERSION:
            raise S3Error("NoSuchVersion")
    if path.startswith(ARN_PREFIX):
        raise S3Error("NotImplemented", "Copying from an access point is not implemented.")
    bucket, slash, key = unquote_to_bytes(path).removeprefix(b"/").partition(b"/")
    if not bucket or not slash or not key:
        raise invalid_argument("x-amz-copy-source", text, "Copy Source must mention the source bucket and key: /sourcebucket/sourcekey")
    check_key(key)
    return bucket.decode("utf-8", "replace"), key


@asynccontextmanager
async def open_source(context: Context, request: Request) -> AsyncIterator[tuple[str, bytes, Content]]:
    """Bucket, key and pinned content. Raises AccessDenied, NoSuchBucket, NoSuchKey."""
    bucket, key = parse_copy_source(request.header_text(b"x-amz-copy-source") or "")
    owned = await context.authorize_source(request, bucket)
    try:
        opening = await context.store.open(bucket, key)
    except NotFound:
        if owned:
            raise
        raise S3Error("AccessDenied") from None
    async with opening as content:
        if not owned and not allows(acl_of(content.element.attributes), request.user, "READ"):
            raise S3Error("AccessDenied")
        yield bucket, key, content
