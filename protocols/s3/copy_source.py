"""The x-amz-copy-source header: which object is copied, and whether the caller may read it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from element_store.interface import Content
from element_store.types import NotFound, Versioning
from protocols.s3.acl import acl_of, allows
from protocols.s3.context import Context
from protocols.s3.errors import S3Error, invalid_argument
from protocols.s3.naming import check_key
from protocols.s3.request import Request
from protocols.s3.response import Header
from protocols.s3.versions import parse_version, version_text

ARN_PREFIX = "arn:"


@dataclass(frozen=True, slots=True)
class Source:
    bucket: str
    key: bytes
    version: int | None
    content: Content
    headers: list[Header]
    """What the answer says of it."""


def parse_copy_source(text: str) -> tuple[str, bytes, int | None]:
    """Bucket, key and version of `[/]bucket/key[?versionId=id]`, percent-encoded."""
    found: int | None = None
    path, _, query = text.partition("?")
    if query:
        name, _, version = query.partition("=")
        if name != "versionId":
            raise invalid_argument("x-amz-copy-source", text, "Copy Source must mention the source bucket and key: /sourcebucket/sourcekey")
        found = parse_version(version)
    if path.startswith(ARN_PREFIX):
        raise S3Error("NotImplemented", "Copying from an access point is not implemented.")
    bucket, slash, key = unquote_to_bytes(path).removeprefix(b"/").partition(b"/")
    if not bucket or not slash or not key:
        raise invalid_argument("x-amz-copy-source", text, "Copy Source must mention the source bucket and key: /sourcebucket/sourcekey")
    check_key(key)
    return bucket.decode("utf-8", "replace"), key, found


async def _open(context: Context, bucket: str, key: bytes, version: int | None, *, is_shown: bool) -> Content:
    """`is_shown`: in a snapshot, of which the bucket knows perhaps nothing."""
    try:
        return await context.store.open(bucket, key, version=version)
    except NotFound as error:
        raise NotFound("key") if is_shown and error.args[:1] == ("view",) else error from None


@asynccontextmanager
async def open_source(context: Context, request: Request) -> AsyncIterator[Source]:
    """Raises AccessDenied, NoSuchBucket, NoSuchKey, NoSuchVersion, InvalidRequest for a delete marker."""
    bucket, key, version = parse_copy_source(request.header_text(b"x-amz-copy-source") or "")
    owned = await context.authorize_source(request, bucket)
    try:
        where, inner = await context.place_of_source(bucket, key, is_owned=owned)
        opening = await _open(context, where, inner, version, is_shown=where != bucket)
    except NotFound as error:
        if not owned:
            raise S3Error("AccessDenied") from None
        if error.args[:1] == ("marker",):
            raise S3Error(
                "InvalidRequest", "The source of a copy request may not specifically refer to a delete marker by version id."
            ) from None
        raise
    async with opening as content:
        if not owned:
            await context.check_today(bucket, key, request.user, "READ")
            if not allows(acl_of(content.element.attributes), request.user, "READ"):
                raise S3Error("AccessDenied")
        headers: list[Header] = []
        if (await context.bucket(bucket)).versioning is not Versioning.OFF:
            headers.append((b"x-amz-copy-source-version-id", version_text(content.element.version_id).encode()))
        yield Source(bucket, key, version, content, headers)
