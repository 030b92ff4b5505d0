"""Keys `.snapshot/<snapshot>/<key>` of a bucket that shows its snapshots so: what each snapshot of it had under the key, and never to be written.

A bucket opts in by an attribute that administrators set (`trefoil bucket set`), which is refused while it has keys of that spelling; from then on none is
made. No listing shows them unless its prefix begins with `.snapshot/`. They are for the owner and root alone: lists of who else may read are those of
the past, and what was taken back since must stay taken back.
"""

from __future__ import annotations

from dataclasses import replace

from element_store.interface import ElementStore
from element_store.snapshots import ALIAS
from element_store.types import Element, NotFound, Page, View
from protocols.s3.errors import S3Error

PREFIX = b".snapshot/"
ATTRIBUTE = "trefoil.snapshot_keys"
READS = frozenset({"GetObject", "HeadObject", "GetObjectAttributes", "GetObjectTagging", "GetObjectAcl"})


def shows_snapshots(view: View) -> bool:
    return ATTRIBUTE in view.attributes.xattrs


def is_below(key: bytes) -> bool:
    return key.startswith(PREFIX)


def refusal() -> S3Error:
    return S3Error(
        "AccessDenied", "Keys below .snapshot/ are what snapshots of the bucket show: they are read, by its owner, and not written."
    )


def place_of(bucket: str, key: bytes) -> tuple[str, bytes]:
    """The bucket and key under which the store has what the key shows. Raises NotFound."""
    name, _, inner = key.removeprefix(PREFIX).partition(b"/")
    if not name or not inner:
        raise NotFound("key")
    return f"{bucket}{ALIAS}{name.decode('utf-8', 'replace')}", inner


async def page_of(store: ElementStore, bucket: str, *, prefix: bytes, delimiter: bytes, after: bytes, limit: int) -> Page:
    """One page, as a listing of one prefix in all snapshots."""
    elements: list[Element] = []
    prefixes: list[bytes] = []
    names = await _names(store, bucket)
    for full in names:
        left = limit - len(elements) - len(prefixes)
        last = max([*prefixes[-1:], *(element.key for element in elements[-1:])], default=after)
        if full.startswith(prefix) and delimiter and delimiter in full[len(prefix) :]:
            common = prefix + full[len(prefix) :].partition(delimiter)[0] + delimiter
            if common <= after or common in prefixes[-1:]:
                continue
            if not left:
                return Page(elements, prefixes, last)
            prefixes.append(common)
        elif full.startswith(prefix) or prefix.startswith(full):
            if after > full and not after.startswith(full):
                continue
            if not left:
                return Page(elements, prefixes, last)
            page = await _inside(
                store, bucket, full, prefix[len(full) :], delimiter, after[len(full) :] if after.startswith(full) else b"", left
            )
            elements += page.elements
            prefixes += page.prefixes
            if page.next_after is not None:
                return Page(elements, prefixes, page.next_after)
    return Page(elements, prefixes, None)


async def _names(store: ElementStore, bucket: str) -> list[bytes]:
    """What the keys of each snapshot of the whole bucket begin with, in the order of keys."""
    path = f"/{bucket}".encode()
    return sorted(PREFIX + snapshot.name.encode() + b"/" for snapshot in await store.snapshots.list(path) if snapshot.path == path)


async def _inside(store: ElementStore, bucket: str, full: bytes, prefix: bytes, delimiter: bytes, after: bytes, limit: int) -> Page:
    alias = f"{bucket}{ALIAS}{full[len(PREFIX) : -1].decode()}"
    try:
        page = await store.list(alias, prefix=prefix, delimiter=delimiter, start_after=after, limit=limit)
    except NotFound:
        # Deleted meanwhile.
        return Page([], [], None)
    following = None if page.next_after is None else full + page.next_after
    return Page(
        [replace(element, key=full + element.key) for element in page.elements], [full + shown for shown in page.prefixes], following
    )
