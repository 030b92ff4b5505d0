"""ListObjectsV2: pages chained by an opaque token, which is the place to go on after."""

from __future__ import annotations

import base64
import binascii

from protocols.s3 import xml
from protocols.s3.context import Context
from protocols.s3.errors import invalid_argument
from protocols.s3.listing import Encoding, common_prefixes, contents, listed_page, max_keys, owner_element
from protocols.s3.request import Request
from protocols.s3.response import Response, xml_response


def encode_token(after: bytes) -> str:
    return base64.urlsafe_b64encode(b"1" + after).decode()


def decode_token(token: str) -> bytes:
    """The leading 1 is the token's format version, and keeps the token of an empty place from being empty."""
    try:
        raw = base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if not raw.startswith(b"1"):
        raise invalid_argument("continuation-token", token, "The continuation token provided is incorrect.")
    return raw[1:]


async def run(context: Context, request: Request) -> Response:
    query = request.query
    if query["list-type"] != "2":
        raise invalid_argument("list-type", query["list-type"], "Invalid List Type specified in Request.")
    encoding = Encoding(request)
    limit = max_keys(request)
    prefix, delimiter, start_after = (query.get(name, "").encode() for name in ("prefix", "delimiter", "start-after"))
    token = query.get("continuation-token")
    after = decode_token(token) if token else start_after
    page = await listed_page(context.store, request, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
    owner = owner_element(await context.owner_user(request.owner)) if query.get("fetch-owner") == "true" else ""
    truncated = page.next_after is not None and limit > 0
    inner = [
        f"<Name>{request.bucket}</Name>",
        encoding.element("Prefix", prefix),
        encoding.optional("StartAfter", start_after),
        xml.optional("ContinuationToken", token),
        xml.element("NextContinuationToken", encode_token(page.next_after or b"")) if truncated else "",
        f"<KeyCount>{len(page.elements) + len(page.prefixes)}</KeyCount><MaxKeys>{limit}</MaxKeys>",
        encoding.optional("Delimiter", delimiter),
        f"<IsTruncated>{'true' if truncated else 'false'}</IsTruncated>",
        encoding.note,
        contents(page.elements, encoding, owner),
        common_prefixes(page.prefixes, encoding),
    ]
    return xml_response("ListBucketResult", "".join(inner))
