"""What a client says about an object besides its bytes, as element attributes and back as response headers.

User metadata live in `user.s3.meta.*` exactly as the bytes that came; the content type in `user.mime_type`, other content headers in
`user.s3.header.*`, tags in `user.s3.tag.*`. File clients may set any of these: what no header can carry is encoded or counted as missing.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from element_store.types import Attributes, Naming
from protocols.auth.identity import Identity
from protocols.s3.acl import acl_xattrs, canned_acl
from protocols.s3.errors import S3Error, not_implemented
from protocols.s3.request import Request
from protocols.s3.response import Header
from protocols.s3.tags import TAG_PREFIX, parse_tag_header, tag_xattrs

CONTENT_TYPE = "user.mime_type"
HEADER_PREFIX = "user.s3.header."
META_PREFIX = "user.s3.meta."
DEFAULT_CONTENT_TYPE = b"binary/octet-stream"
USER_METADATA_BYTES_MAX = 2048

_META = b"x-amz-meta-"
_CONTENT_HEADERS = {
    name: HEADER_PREFIX + name.decode()
    for name in (
        b"cache-control",
        b"content-disposition",
        b"content-encoding",
        b"content-language",
        b"expires",
        b"x-amz-website-redirect-location",
    )
}
_RESPONSE_OVERRIDES = {
    "response-cache-control": b"cache-control",
    "response-content-disposition": b"content-disposition",
    "response-content-encoding": b"content-encoding",
    "response-content-language": b"content-language",
    "response-content-type": b"content-type",
    "response-expires": b"expires",
}
STORAGE_CLASSES = frozenset({"STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"})
"""Classes with instant access; all are stored alike and reported as STANDARD."""
_UNSUPPORTED = {
    b"x-amz-server-side-encryption": "Server-side encryption",
    b"x-amz-object-lock-": "Object lock",
    b"x-amz-grant-": "An access control list with grants",
    b"x-amz-copy-source-server-side-encryption": "Server-side encryption",
    b"x-amz-write-offset-bytes": "Appending to an object",
}
_UNSUPPORTED_PREFIXES = tuple(_UNSUPPORTED)
_NOT_IN_HEADERS = bytes([*range(0x20), 0x7F])
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


def refuse_unsupported(request: Request) -> None:
    """A header that asks for protection which would not be given must not be ignored."""
    for name in request.headers:
        if name.startswith(_UNSUPPORTED_PREFIXES):
            raise not_implemented(next(text for prefix, text in _UNSUPPORTED.items() if name.startswith(prefix)))
    storage_class = request.headers.get(b"x-amz-storage-class")
    if storage_class is not None and storage_class.decode("latin-1") not in STORAGE_CLASSES:
        raise S3Error("InvalidStorageClass")


def content_xattrs(request: Request) -> dict[str, bytes]:
    """Content type, content headers and user metadata of a request. Raises MetadataTooLarge."""
    headers = request.headers
    xattrs: dict[str, bytes] = {}
    user_bytes = 0
    for name, value in headers.items():
        if name.startswith(_META):
            short = name[len(_META) :]
            user_bytes += len(short) + len(value)
            xattrs[META_PREFIX + short.decode("latin-1")] = value
        elif name == b"content-type":
            xattrs[CONTENT_TYPE] = value
        elif name in _CONTENT_HEADERS:
            if name == b"content-encoding":
                value = _stored_encoding(value)
            if value:
                xattrs[_CONTENT_HEADERS[name]] = value
    if user_bytes > USER_METADATA_BYTES_MAX:
        raise S3Error("MetadataTooLarge", details={"Size": str(user_bytes), "MaxSizeAllowed": str(USER_METADATA_BYTES_MAX)})
    return xattrs


def _stored_encoding(value: bytes) -> bytes:
    """aws-chunked is how the body travelled, not what the object is."""
    if b"aws-chunked" not in value:
        return value
    return b", ".join(part.strip() for part in value.split(b",") if part.strip() not in (b"aws-chunked", b""))


def attributes_of(request: Request, identity: Identity) -> Attributes:
    """Attributes of a new object from the request's headers, owned by the caller."""
    refuse_unsupported(request)
    xattrs = content_xattrs(request)
    xattrs.update(acl_xattrs(canned_acl(request)))
    tagging = request.header_text(b"x-amz-tagging")
    if tagging:
        xattrs.update(tag_xattrs(parse_tag_header(tagging)))
    return owned(identity, xattrs)


def owned(identity: Identity, xattrs: Mapping[str, bytes]) -> Attributes:
    return Attributes(uid=identity.uid, gid=identity.gid, mode=identity.file_mode, xattrs=xattrs)


def naming_of(identity: Identity) -> Naming:
    """An overwrite changes content and metadata, as opening a file for writing does: not its owner and mode."""
    return Naming(directory_mode=identity.directory_mode, inherit=True)


def _header_value(value: bytes) -> bytes:
    """Control characters cannot travel in a header: RFC 2047 form, as S3 does."""
    if value.translate(None, _NOT_IN_HEADERS) == value:
        return value
    return b"=?UTF-8?B?" + base64.b64encode(value) + b"?="


def response_headers(attributes: Attributes, query: Mapping[str, str]) -> list[Header]:
    """Content headers, user metadata and the number of tags, after the overrides that the query asks for."""
    headers: list[Header] = []
    content_type = DEFAULT_CONTENT_TYPE
    missing = tags = 0
    for name, value in attributes.xattrs.items():
        if name == CONTENT_TYPE:
            content_type = _header_value(value) or DEFAULT_CONTENT_TYPE
        elif name.startswith(META_PREFIX):
            short = name[len(META_PREFIX) :].lower().encode("utf-8", "surrogateescape")
            if short and _TOKEN.issuperset(short):
                headers.append((_META + short, _header_value(value)))
            else:
                missing += 1
        elif name.startswith(HEADER_PREFIX):
            header = name[len(HEADER_PREFIX) :].encode("utf-8", "surrogateescape")
            if header in _CONTENT_HEADERS:
                headers.append((header, _header_value(value)))
        elif name.startswith(TAG_PREFIX):
            tags += 1
    headers.append((b"content-type", content_type))
    if missing:
        headers.append((b"x-amz-missing-meta", str(missing).encode()))
    if tags:
        headers.append((b"x-amz-tagging-count", str(tags).encode()))
    if query:
        _override(headers, query)
    return headers


def _override(headers: list[Header], query: Mapping[str, str]) -> None:
    for parameter, name in _RESPONSE_OVERRIDES.items():
        text = query.get(parameter)
        if text is not None:
            headers[:] = [header for header in headers if header[0] != name]
            headers.append((name, _header_value(text.encode())))
