"""Object tags: their limits, and their three forms (a header, a document, extended attributes)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl

from element_store.types import Attributes
from protocols.s3 import xml
from protocols.s3.errors import S3Error

TAG_PREFIX = "user.s3.tag."
BUCKET_TAGS_MAX = 50
TAGS_MAX = 10
TAG_KEY_LENGTH_MAX = 128
TAG_VALUE_LENGTH_MAX = 256


def check_tags(pairs: list[tuple[str, str]], count_max: int = TAGS_MAX) -> dict[str, str]:
    """Raises InvalidTag."""
    if len(pairs) > count_max:
        raise S3Error("InvalidTag", f"There cannot be more than {count_max} tags.")
    tags = dict(pairs)
    if len(tags) != len(pairs):
        raise S3Error("InvalidTag", "Cannot provide multiple tags with the same key.")
    for key, value in pairs:
        if not 1 <= len(key) <= TAG_KEY_LENGTH_MAX or key.startswith("aws:") or not key.isprintable():
            raise S3Error("InvalidTag", "The TagKey that you have provided is invalid.")
        if len(value) > TAG_VALUE_LENGTH_MAX or not value.isprintable():
            raise S3Error("InvalidTag", "The TagValue that you have provided is invalid.")
    return tags


def parse_tag_header(text: str) -> dict[str, str]:
    """`a=1&b=2`, percent-encoded."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=TAGS_MAX + 1)
    except ValueError:
        raise S3Error(
            "InvalidArgument", "The header x-amz-tagging must be encoded as URL query parameters, with at most ten tags."
        ) from None
    return check_tags(pairs)


def parse_tag_document(body: bytes, count_max: int = TAGS_MAX) -> dict[str, str]:
    tag_set = xml.parse(body, "Tagging").child("TagSet")
    if tag_set is None:
        raise S3Error("MalformedXML")
    pairs = []
    for tag in tag_set.all("Tag"):
        key, value = tag.value("Key"), tag.value("Value")
        if key is None or value is None:
            raise S3Error("MalformedXML")
        pairs.append((key, value))
    return check_tags(pairs, count_max)


def tag_xattrs(tags: Mapping[str, str]) -> dict[str, bytes]:
    return {TAG_PREFIX + key: value.encode() for key, value in tags.items()}


def tags_of(attributes: Attributes) -> dict[str, str]:
    """In the order of keys."""
    prefix = len(TAG_PREFIX)
    return {
        name[prefix:]: value.decode("utf-8", "replace") for name, value in sorted(attributes.xattrs.items()) if name.startswith(TAG_PREFIX)
    }


def with_tags(attributes: Attributes, tags: Mapping[str, str]) -> Attributes:
    kept = {name: value for name, value in attributes.xattrs.items() if not name.startswith(TAG_PREFIX)}
    return Attributes(attributes.uid, attributes.gid, attributes.mode, kept | tag_xattrs(tags))


def tag_document(tags: Mapping[str, str]) -> str:
    inner = "".join(f"<Tag>{xml.element('Key', key)}{xml.element('Value', value)}</Tag>" for key, value in tags.items())
    return f"<TagSet>{inner}</TagSet>"
