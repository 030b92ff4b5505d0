"""ListObjects (version 1): keys after a marker; NextMarker only where a delimiter makes it needed."""

from __future__ import annotations

from protocols.s3.context import Context
from protocols.s3.listing import Encoding, common_prefixes, contents, listed_page, max_keys, owner_element
from protocols.s3.request import Request
from protocols.s3.response import Response, xml_response


async def run(context: Context, request: Request) -> Response:
    query = request.query
    encoding = Encoding(request)
    limit = max_keys(request)
    prefix, delimiter, marker = (query.get(name, "").encode() for name in ("prefix", "delimiter", "marker"))
    page = await listed_page(context.store, request, prefix=prefix, delimiter=delimiter, after=marker, limit=limit)
    owner = owner_element(await context.owner_user(request.owner)) if page.elements else ""
    truncated = page.next_after is not None and limit > 0
    # The last that can be said; what cannot be said behind it is passed over once more.
    last = max([*page.prefixes[-1:], *(element.key for element in page.elements[-1:])], default=b"")
    inner = [
        f"<Name>{request.bucket}</Name>",
        encoding.bare_element("Prefix", prefix),
        encoding.element("Marker", marker),
        encoding.element("NextMarker", last) if truncated and delimiter else "",
        f"<MaxKeys>{limit}</MaxKeys>",
        encoding.optional("Delimiter", delimiter),
        f"<IsTruncated>{'true' if truncated else 'false'}</IsTruncated>",
        encoding.note,
        contents(page.elements, encoding, owner),
        common_prefixes(page.prefixes, encoding),
    ]
    return xml_response("ListBucketResult", "".join(inner))
