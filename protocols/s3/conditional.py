"""Conditional headers: on reads judged here against the pinned element, on writes made a `Condition` that the commit judges.

Follows RFC 9110 section 13 with S3's reading of it: entity tags compare without weakness, dates have seconds.
"""

from __future__ import annotations

from collections.abc import Mapping

from element_store.types import Condition, Element
from protocols.s3.errors import S3Error
from protocols.s3.response import Header
from protocols.s3.xml import http_time, parse_http_time

ETAGS_MAX = 64


def parse_etags(text: str) -> tuple[str, ...]:
    """`"a", W/"b", *` as plain tags. Clients also send tags without quotes."""
    tags = []
    for part in text.split(","):
        tag = part.strip()
        if tag.startswith("W/"):
            tag = tag[2:]
        tags.append(tag.strip('"'))
    if len(tags) > ETAGS_MAX:
        raise S3Error("InvalidRequest", "Too many entity tags in a condition.")
    return tuple(tags)


def write_condition(headers: Mapping[bytes, bytes]) -> Condition | None:
    match, none_match = headers.get(b"if-match"), headers.get(b"if-none-match")
    if match is None and none_match is None:
        return None
    return Condition(
        if_match=parse_etags(match.decode("latin-1")) if match is not None else (),
        if_none_match=parse_etags(none_match.decode("latin-1")) if none_match is not None else (),
    )


def _matches(tags: tuple[str, ...], element: Element) -> bool:
    return "*" in tags or element.etag in tags


def _time(headers: Mapping[bytes, bytes], name: bytes) -> int | None:
    value = headers.get(name)
    return None if value is None else parse_http_time(value.decode("latin-1"))


def _failed(headers: Mapping[bytes, bytes], element: Element, prefix: bytes) -> tuple[str, bool] | None:
    """The header that does not hold, and whether it means `not modified`."""
    modified = element.modified_ns // 1_000_000_000
    match = headers.get(prefix + b"if-match")
    if match is not None:
        if not _matches(parse_etags(match.decode("latin-1")), element):
            return "If-Match", False
    else:
        limit = _time(headers, prefix + b"if-unmodified-since")
        if limit is not None and modified > limit:
            return "If-Unmodified-Since", False
    none_match = headers.get(prefix + b"if-none-match")
    if none_match is not None:
        if _matches(parse_etags(none_match.decode("latin-1")), element):
            return "If-None-Match", True
    else:
        limit = _time(headers, prefix + b"if-modified-since")
        if limit is not None and modified <= limit:
            return "If-Modified-Since", True
    return None


def check_read(headers: Mapping[bytes, bytes], element: Element) -> None:
    """Raises PreconditionFailed or NotModified."""
    failed = _failed(headers, element, b"")
    if failed is None:
        return
    name, not_modified = failed
    if not_modified:
        raise S3Error("NotModified", headers=validators(element))
    raise S3Error("PreconditionFailed", details={"Condition": name})


def check_copy_source(headers: Mapping[bytes, bytes], element: Element) -> None:
    """Raises PreconditionFailed."""
    failed = _failed(headers, element, b"x-amz-copy-source-")
    if failed is not None:
        raise S3Error("PreconditionFailed", details={"Condition": f"x-amz-copy-source-{failed[0]}"})


def validators(element: Element) -> list[Header]:
    return [
        (b"etag", b'"' + element.etag.encode() + b'"'),
        (b"last-modified", http_time(element.modified_ns // 1_000_000_000).encode()),
    ]
