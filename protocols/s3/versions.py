"""Versions as clients know them: ids as text, what a bucket says about keeping them, and what an answer says of the one that it is about."""

from __future__ import annotations

import re

from element_store.types import NotFound, StoreError, Versioning
from protocols.s3.context import Context
from protocols.s3.errors import S3Error, invalid_argument
from protocols.s3.request import Request
from protocols.s3.response import Header
from protocols.s3.xml import http_time

NULL_VERSION = "null"
_ID = re.compile(r"[0-9a-f]{16}")
_DELETE_MARKER: Header = (b"x-amz-delete-marker", b"true")


def version_text(version_id: int) -> str:
    return f"{version_id:016x}" if version_id else NULL_VERSION


def parse_version(text: str) -> int:
    """Raises InvalidArgument for no text, NoSuchVersion for what can be no id."""
    if text == NULL_VERSION:
        return 0
    if not text:
        raise invalid_argument("versionId", text, "Version id cannot be the empty string.")
    version = int(text, 16) if _ID.fullmatch(text) else 0
    if not version:
        raise S3Error("NoSuchVersion", details={"VersionId": text[:1024]})
    return version


def wanted_version(request: Request) -> int | None:
    """The version that the query names."""
    text = request.query.get("versionId") if request.query else None
    return None if text is None else parse_version(text)


def version_headers(request: Request, version_id: int, *, marker: bool = False) -> list[Header]:
    """Nothing where the bucket never had versions."""
    if request.versioning is Versioning.OFF:
        return []
    headers: list[Header] = [(b"x-amz-version-id", version_text(version_id).encode())]
    return [_DELETE_MARKER, *headers] if marker else headers


def new_version_headers(version_id: int) -> list[Header]:
    """Of what was just written: S3 says nothing of a null version."""
    return [(b"x-amz-version-id", version_text(version_id).encode())] if version_id else []


async def missing(context: Context, request: Request, version: int | None, error: NotFound) -> S3Error | StoreError:
    """What to answer where the store had nothing to read: a delete marker is told of in headers, and cannot be read itself."""
    if request.versioning is Versioning.OFF or not request.may_list or error.args[:1] not in (("key",), ("marker",)):
        return error
    try:
        found = await context.store.version(request.bucket, request.key, version=version)
    except NotFound:
        return error
    if found.element is not None:
        return error
    headers = version_headers(request, found.version_id, marker=True)
    if version is None:
        return S3Error("NoSuchKey", headers=headers)
    headers.append((b"last-modified", http_time(found.modified_ns // 1_000_000_000).encode()))
    return S3Error("MethodNotAllowed", details={"Method": request.method, "ResourceType": "DeleteMarker"}, headers=headers)
