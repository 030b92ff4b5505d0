"""What the listing operations share: parameters, encoding, and the elements of their documents."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote_from_bytes

from element_store.interface import ElementStore
from element_store.types import Element, Page
from protocols.auth.accounts import User
from protocols.s3 import checksums, xml
from protocols.s3.errors import invalid_argument
from protocols.s3.request import Request
from protocols.s3.snapshot_keys import is_below, page_of, refusal

KEYS_MAX = 1000
PAGES_MAX = 64
"""Pages that one request passes over because S3 cannot say anything of them."""


class Encoding:
    """How keys are written: as they are, or percent-encoded where the client asked for encoding-type=url."""

    __slots__ = ("url",)

    def __init__(self, request: Request) -> None:
        asked = request.query.get("encoding-type")
        if asked is not None and asked != "url" and asked != "":
            raise invalid_argument("encoding-type", asked, "Invalid Encoding Method specified in Request.")
        self.url = asked == "url"

    def key(self, key: bytes) -> str:
        """Text for an element, escaped already."""
        return quote_from_bytes(key, safe="/-_.~*") if self.url else xml.escape(key.decode("utf-8", "replace"))

    def element(self, name: str, value: bytes) -> str:
        return f"<{name}>{self.key(value)}</{name}>"

    def optional(self, name: str, value: bytes) -> str:
        return self.element(name, value) if value else ""

    def bare_element(self, name: str, value: bytes) -> str:
        """As it is where XML can carry it: SDKs decode everything but the prefix of version 1 listings."""
        text = value.decode("utf-8", "replace")
        return xml.element(name, text) if xml.is_legal(text) else self.element(name, value)

    @property
    def note(self) -> str:
        return "<EncodingType>url</EncodingType>" if self.url else ""


def is_sayable(key: bytes) -> bool:
    """Files may have names that are no text: no S3 client could ask for them."""
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True


async def listed_page(store: ElementStore, request: Request, *, prefix: bytes, delimiter: bytes, after: bytes, limit: int) -> Page:
    """Of what the request may be shown; of snapshots, if they are asked for."""
    if not request.shows_snapshots or not is_below(prefix):
        return await sayable_page(store, request.bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
    if request.is_guest:
        raise refusal()
    page = await page_of(store, request.bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)
    elements = [element for element in page.elements if is_sayable(element.key)]
    return Page(elements, [shown for shown in page.prefixes if is_sayable(shown)], page.next_after)


async def sayable_page(store: ElementStore, bucket: str, *, prefix: bytes, delimiter: bytes, after: bytes, limit: int) -> Page:
    """As the store's, without what S3 cannot say. It may be shorter than `limit`, but goes on until there is something, as a rule."""
    elements: Sequence[Element] = ()
    prefixes: Sequence[bytes] = ()
    following: bytes | None = None
    for _ in range(PAGES_MAX):
        page = await store.list(bucket, prefix=prefix, delimiter=delimiter, start_after=after, limit=limit)
        elements = [element for element in page.elements if is_sayable(element.key)]
        prefixes = [shown for shown in page.prefixes if is_sayable(shown)]
        following = page.next_after
        if elements or prefixes or following is None or limit == 0:
            break
        after = following
    return Page(elements, prefixes, following)


def owner_element(owner: User) -> str:
    return f"<Owner>{xml.element('ID', owner.id)}{xml.element('DisplayName', owner.display_name)}</Owner>"


def checksum_elements(element: Element) -> str:
    found = checksums.kept(element.digests)
    if found is None:
        return ""
    kind = checksums.COMPOSITE if element.composite else checksums.FULL_OBJECT
    return f"<ChecksumAlgorithm>{found[0].wire_name}</ChecksumAlgorithm><ChecksumType>{kind}</ChecksumType>"


def contents(elements: Sequence[Element], encoding: Encoding, owner: str) -> str:
    """`Contents` of each element; `owner` is an element or empty."""
    key, iso_time = encoding.key, xml.iso_time
    return "".join(
        [
            f"<Contents><Key>{key(element.key)}</Key><LastModified>{iso_time(element.modified_ns)}</LastModified>"
            f'<ETag>"{element.etag}"</ETag>{checksum_elements(element)}<Size>{element.size}</Size>{owner}<StorageClass>STANDARD</StorageClass></Contents>'
            for element in elements
        ]
    )


def common_prefixes(prefixes: Sequence[bytes], encoding: Encoding) -> str:
    return "".join([f"<CommonPrefixes><Prefix>{encoding.key(prefix)}</Prefix></CommonPrefixes>" for prefix in prefixes])


def max_keys(request: Request) -> int:
    return request.query_int("max-keys", KEYS_MAX, KEYS_MAX)
