"""PostObject: a browser's form. Its fields stand for the headers of PutObject, its policy for the signature; its file is the content.

Who sends it and what may be sent is only known once the fields before the file have arrived; nothing is stored before that is checked.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from urllib.parse import quote, urlsplit

from element_store.types import Element
from protocols.auth.post_form import verify_form
from protocols.s3 import checksums, xml
from protocols.s3.acl import Access
from protocols.s3.context import Context
from protocols.s3.errors import S3Error, invalid_argument
from protocols.s3.form import Form, boundary_of
from protocols.s3.metadata import attributes_of, naming_of
from protocols.s3.naming import check_key
from protocols.s3.payload import Payload
from protocols.s3.post_policy import Policy, parse_policy
from protocols.s3.request import Request
from protocols.s3.response import Header, Response
from protocols.s3.staging import stage_pieces
from protocols.s3.tags import parse_tag_document, with_tags
from protocols.s3.versions import new_version_headers

FILENAME = "${filename}"
REDIRECT_LENGTH_MAX = 4096
_AS_HEADERS = frozenset({"cache-control", "content-type", "content-disposition", "content-encoding", "content-language", "expires"})


async def run(context: Context, request: Request) -> Response:
    if b"content-length" not in request.headers:
        raise S3Error("MissingContentLength")
    payload = Payload(request, context.config, checksum_of_body=False)
    pieces = payload.pieces(context.config.put_bytes_max)
    form = Form(boundary_of(request.header(b"content-type") or ""), pieces)
    await form.read_fields()
    request.key = _key(form)
    policy = await _admit(context, request, form.fields)
    request.headers = _headers(form.fields)
    attributes = attributes_of(request, context.identity(request))
    if "tagging" in form.fields:
        attributes = with_tags(attributes, parse_tag_document(form.fields["tagging"].encode()))
    announced = checksums.of_headers(request.headers)
    names = ("md5",) if announced is None else ("md5", announced[0].store_name)
    expected = checksums.decode(*announced) if announced is not None else b""
    async with stage_pieces(context, _sized(form.content(), policy), names, None) as (staged, digests):
        if announced is not None and digests[announced[0].store_name] != expected:
            raise S3Error("BadDigest", f"The {announced[0].wire_name} you specified did not match the calculated checksum.")
        element = await context.store.publish(
            request.bucket,
            request.key,
            staged,
            attributes,
            digests=digests,
            versioning=request.versioning,
            naming=naming_of(context.identity(request)),
        )
    return _answer(request, form.fields, element)


def _key(form: Form) -> bytes:
    key = form.fields.get("key", "")
    if not key:
        raise invalid_argument(
            "key", "", "Bucket POST must contain a field named 'key'. If it is specified, please check the order of the fields."
        )
    found = key.replace(FILENAME, form.filename.rpartition("/")[2].rpartition("\\")[2]).encode()
    if not found:
        raise invalid_argument("key", key, "User key must have a length greater than 0.")
    check_key(found)
    return found


async def _admit(context: Context, request: Request, fields: Mapping[str, str]) -> Policy | None:
    """The sender may write this object here. None where no policy limits what is sent."""
    credential = await verify_form(context.auth, fields)
    # A signature in the headers would not be compared with this body: it counts for nothing.
    request.user = None if credential is None else credential.user
    policy = None
    if credential is not None:
        policy = parse_policy(fields["policy"])
        policy.check({**fields, "key": request.key.decode(), "bucket": request.bucket}, time.time())
    await context.authorize(request, Access.WRITE)
    context.enter_snapshot(request, "PostObject")
    return policy


def _headers(fields: Mapping[str, str]) -> dict[bytes, bytes]:
    """What PutObject would have said in headers."""
    headers: dict[bytes, bytes] = {}
    for name, value in fields.items():
        if name == "acl":
            headers[b"x-amz-acl"] = value.encode()
        elif name in _AS_HEADERS or name.startswith("x-amz-"):
            headers[name.encode()] = value.encode()
    return headers


async def _sized(content: AsyncIterator[bytes], policy: Policy | None) -> AsyncIterator[bytes]:
    """Raises EntityTooLarge as soon as it is known, EntityTooSmall at the end."""
    total = 0
    async for piece in content:
        total += len(piece)
        if policy is not None and policy.size_max is not None and total > policy.size_max:
            raise S3Error("EntityTooLarge", details={"MaxSizeAllowed": str(policy.size_max)})
        yield piece
    if policy is not None and total < policy.size_min:
        raise S3Error("EntityTooSmall", details={"ProposedSize": str(total), "MinSizeAllowed": str(policy.size_min)})


def _answer(request: Request, fields: Mapping[str, str], element: Element) -> Response:
    etag = f'"{element.etag}"'
    headers: list[Header] = [(b"etag", etag.encode()), *new_version_headers(element.version_id)]
    redirect = fields.get("success_action_redirect") or fields.get("redirect") or ""
    if _is_url(redirect):
        query = f"bucket={quote(request.bucket, safe='')}&key={quote(request.key, safe='')}&etag={quote(etag, safe='')}"
        target = f"{redirect}{'&' if '?' in redirect else '?'}{query}"
        return Response(303, [*headers, (b"location", target.encode())])
    status = fields.get("success_action_status")
    location = f"/{request.bucket}/{quote(request.key)}"
    headers.append((b"location", location.encode()))
    if status == "201":
        inner = xml.element("Location", location) + xml.element("Bucket", request.bucket)
        inner += xml.element("Key", request.key.decode()) + xml.element("ETag", etag)
        # Unlike all others, this document has no namespace.
        body = f"{xml.HEADER}<PostResponse>{inner}</PostResponse>".encode()
        return Response(201, [*headers, (b"content-type", b"application/xml")], body)
    return Response(200 if status == "200" else 204, headers)


def _is_url(text: str) -> bool:
    """Whether it can be redirected to; S3 ignores what cannot."""
    if not 0 < len(text) <= REDIRECT_LENGTH_MAX or not text.isascii() or not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc) and not parts.fragment
