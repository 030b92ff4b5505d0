"""CopyObject: the destination shares the source's content; no bytes move unless a digest must be computed that the source lacks."""

from __future__ import annotations

from collections.abc import Mapping

from element_store.interface import Content
from element_store.types import Attributes, Element
from protocols.auth.identity import Identity
from protocols.s3 import checksums, xml
from protocols.s3.acl import ACL, acl_xattrs, canned_acl
from protocols.s3.conditional import check_copy_source, write_condition
from protocols.s3.context import Context
from protocols.s3.copy_source import open_source
from protocols.s3.errors import S3Error, invalid_argument
from protocols.s3.metadata import content_xattrs, naming_of, owned, refuse_unsupported
from protocols.s3.request import Request
from protocols.s3.response import Response, xml_response
from protocols.s3.tags import TAG_PREFIX, parse_tag_header, tag_xattrs
from protocols.s3.versions import new_version_headers

DIRECTIVES = ("COPY", "REPLACE")


def _directive(request: Request, name: bytes) -> str:
    value = (request.header(name) or "COPY").upper()
    if value not in DIRECTIVES:
        raise invalid_argument(name.decode(), value, "Unknown directive: it must be COPY or REPLACE.")
    return value


def _attributes(request: Request, source: Element, identity: Identity) -> Attributes:
    if _directive(request, b"x-amz-metadata-directive") == "REPLACE":
        xattrs = content_xattrs(request)
    else:
        xattrs = {name: value for name, value in source.attributes.xattrs.items() if not name.startswith(TAG_PREFIX) and name != ACL}
    xattrs.update(acl_xattrs(canned_acl(request)))
    if _directive(request, b"x-amz-tagging-directive") == "REPLACE":
        xattrs.update(tag_xattrs(parse_tag_header(request.header_text(b"x-amz-tagging") or "")))
    else:
        xattrs.update({name: value for name, value in source.attributes.xattrs.items() if name.startswith(TAG_PREFIX)})
    return owned(identity, xattrs)


async def _digests(context: Context, request: Request, content: Content) -> Mapping[str, bytes]:
    """Of the copy, which is one whole object even where the source came in parts."""
    source = content.element
    asked = request.header(b"x-amz-checksum-algorithm")
    held = checksums.kept(source.digests)
    algorithm = checksums.algorithm_named(asked) if asked else held[0] if held is not None else None
    wanted = ["md5"] if algorithm is None else ["md5", algorithm.store_name]
    known: dict[str, bytes] = {}
    if not source.part_sizes and source.etag == source.digests.get("md5", b"").hex():
        known["md5"] = source.digests["md5"]
    if held is not None and not source.composite:
        known[held[0].store_name] = held[1]
    missing = [name for name in wanted if name not in known]
    if missing:
        known.update(await context.store.digest(content, 0, source.size, missing))
    return {name: known[name] for name in wanted}


async def run(context: Context, request: Request) -> Response:
    refuse_unsupported(request)
    condition, identity = write_condition(request.headers), context.identity(request)
    async with open_source(context, request) as found:
        content, source = found.content, found.content.element
        check_copy_source(request.headers, source)
        if source.size > context.config.put_bytes_max:
            raise S3Error("InvalidRequest", "The specified copy source is larger than the maximum allowable size for a copy source.")
        changes = {b"x-amz-metadata-directive", b"x-amz-tagging-directive", b"x-amz-storage-class", b"x-amz-checksum-algorithm"}
        is_same = (found.bucket, found.key, found.version) == (request.bucket, request.key, None)
        if is_same and not changes & request.headers.keys():
            raise S3Error(
                "InvalidRequest", "This copy request is illegal because it is trying to copy an object to itself without changing anything."
            )
        element = await context.store.copy(
            content,
            request.bucket,
            request.key,
            _attributes(request, source, identity),
            digests=await _digests(context, request, content),
            condition=condition,
            versioning=request.versioning,
            naming=naming_of(identity),
        )
    inner = f"<LastModified>{xml.iso_time(element.modified_ns)}</LastModified>" + xml.element("ETag", f'"{element.etag}"')
    kept = checksums.kept(element.digests)
    if kept is not None:
        inner += xml.element(kept[0].element, checksums.encode(kept[1])) + "<ChecksumType>FULL_OBJECT</ChecksumType>"
    return xml_response("CopyObjectResult", inner, new_version_headers(element.version_id) + found.headers)
