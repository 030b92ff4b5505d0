"""Listings against a sorted dictionary: any keys, prefix, delimiter and page size give the same sequence, both versions."""

from __future__ import annotations

import asyncio
from urllib.parse import quote, unquote_to_bytes
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from element_store.types import Attributes
from tests.protocols.s3.asgi import Local, local

NS = "{http://s3.amazonaws.com/doc/2006-03-01/}"
KEYS = st.text(alphabet="ab/-\x01\n é\U0001f600", min_size=1, max_size=8)


def expected(keys: set[str], prefix: str, delimiter: str, after: str) -> list[tuple[str, str]]:
    """("key" or "prefix", text) in byte order of what is shown."""
    shown: list[tuple[str, str]] = []
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix):
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        item = ("prefix", key[: cut + len(delimiter)]) if cut >= 0 else ("key", key)
        if key.encode() > after.encode() and not (cut >= 0 and item[1] == after) and item not in shown:
            shown.append(item)
    return shown


def items(root: ElementTree.Element) -> list[tuple[str, str]]:
    keys = [("key", unquote_to_bytes(node.findtext(f"{NS}Key") or "").decode()) for node in root.iter(f"{NS}Contents")]
    prefixes = [("prefix", unquote_to_bytes(node.findtext(f"{NS}Prefix") or "").decode()) for node in root.iter(f"{NS}CommonPrefixes")]
    return sorted(keys + prefixes, key=lambda item: item[1].encode())


async def all_pages(gateway: Local, version: int, prefix: str, delimiter: str, after: str, size: int) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    fixed = f"prefix={quote(prefix)}&delimiter={quote(delimiter)}&max-keys={size}&encoding-type=url"
    place = f"list-type=2&start-after={quote(after)}" if version == 2 else f"marker={quote(after)}"
    for _ in range(100):
        answer = await gateway.call("GET", b"/bucket", f"{fixed}&{place}".encode())
        root = ElementTree.fromstring(answer.body)
        page = items(root)
        found += page
        assert len(page) <= size
        if root.findtext(f"{NS}IsTruncated") == "false":
            return found
        assert len(page) == size
        if version == 2:
            assert root.findtext(f"{NS}KeyCount") == str(len(page))
            place = f"list-type=2&continuation-token={quote(root.findtext(f'{NS}NextContinuationToken') or '')}"
        else:
            marker = root.findtext(f"{NS}NextMarker") if delimiter else quote(page[-1][1])
            assert marker
            place = f"marker={marker}"
    raise AssertionError("the listing does not end")


@settings(max_examples=150, deadline=None)
@given(
    keys=st.sets(KEYS, max_size=14),
    prefix=st.text(alphabet="ab/", max_size=2),
    delimiter=st.sampled_from(["", "/", "a", "-", "é"]),
    after=st.text(alphabet="ab/", max_size=3),
    size=st.integers(1, 5),
    version=st.sampled_from([1, 2]),
)
def test_pages_make_the_whole(keys: set[str], prefix: str, delimiter: str, after: str, size: int, version: int) -> None:
    gateway = local()

    async def run() -> list[tuple[str, str]]:
        await gateway.store.create_view("bucket", Attributes())
        for key in keys:
            await gateway.store.put("bucket", key.encode(), b"", Attributes())
        return await all_pages(gateway, version, prefix, delimiter, after, size)

    assert asyncio.run(run()) == expected(keys, prefix, delimiter, after)


@settings(max_examples=60, deadline=None)
@given(keys=st.lists(KEYS, max_size=10), delimiter=st.sampled_from(["", "/"]), size=st.integers(1, 3))
def test_uploads_page_by_key(keys: list[str], delimiter: str, size: int) -> None:
    gateway = local()

    async def run() -> tuple[list[str], list[str]]:
        await gateway.store.create_view("bucket", Attributes())
        for key in keys:
            await gateway.store.create_upload("bucket", key.encode(), Attributes(), {})
        found, prefixes, place = [], [], ""
        for _ in range(100):
            query = f"uploads&encoding-type=url&delimiter={quote(delimiter)}&max-uploads={size}{place}"
            root = ElementTree.fromstring((await gateway.call("GET", b"/bucket", query.encode())).body)
            found += [unquote_to_bytes(node.findtext(f"{NS}Key") or "").decode() for node in root.iter(f"{NS}Upload")]
            prefixes += [unquote_to_bytes(node.findtext(f"{NS}Prefix") or "").decode() for node in root.iter(f"{NS}CommonPrefixes")]
            if root.findtext(f"{NS}IsTruncated") == "false":
                return found, prefixes
            place = f"&key-marker={root.findtext(f'{NS}NextKeyMarker')}&upload-id-marker={root.findtext(f'{NS}NextUploadIdMarker') or ''}"
        raise AssertionError("the listing does not end")

    found, prefixes = asyncio.run(run())
    plain = [key for key in keys if not delimiter or delimiter not in key]
    assert found == sorted(plain, key=str.encode)
    assert prefixes == sorted({key[: key.index(delimiter) + 1] for key in keys if delimiter and delimiter in key}, key=str.encode)
