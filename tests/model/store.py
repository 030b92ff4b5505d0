"""A dictionary that behaves as `element_store.Store`: the oracle of property tests and the store under gateway tests.

Everything is in memory and every call finishes without yielding, so each is atomic. It never persists and never fails by itself.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from bisect import bisect_right, insort
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from element_store.interface import SMALL_BYTES_MAX, Buffer, Content, Staged
from element_store.types import (
    Attributes,
    Closed,
    Condition,
    Conflict,
    Damaged,
    DigestMismatch,
    Element,
    Invalid,
    Kind,
    LimitExceeded,
    NotFound,
    Page,
    Part,
    PoolStatus,
    PreconditionFailed,
    UploadInfo,
    View,
)
from tests.model.digests import digest

CHUNK_BYTES_MAX = 1024 * 1024
DELETE_KEYS_MAX = 1000
KEY_BYTES_MAX = 1024
RECORD_BYTES_MAX = 64 * 1024
XATTR_BYTES_MAX = 32 * 1024


def check_condition(condition: Condition | None, current: Element | None) -> None:
    """Raises NotFound or PreconditionFailed as `Condition` says."""
    if condition is None:
        return
    if condition.if_match:
        if current is None:
            raise NotFound("key")
        if "*" not in condition.if_match and current.etag not in condition.if_match:
            raise PreconditionFailed("if_match")
    if current is not None and not {"*", current.etag}.isdisjoint(condition.if_none_match):
        raise PreconditionFailed("if_none_match")


def check_attributes(attributes: Attributes) -> None:
    if sum(len(name.encode()) + len(value) for name, value in attributes.xattrs.items()) > XATTR_BYTES_MAX:
        raise LimitExceeded("attributes")


class ModelContent:
    """Bytes and element as they were at `open`."""

    def __init__(self, element: Element, data: bytes, damaged_from: int | None = None) -> None:
        self.element = element
        self.data = data
        self.damaged_from = damaged_from
        self.entered = 0

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        assert 0 <= start <= stop <= len(self.data)
        for at in range(start, stop, CHUNK_BYTES_MAX):
            if self.damaged_from is not None and at >= self.damaged_from:
                raise Damaged("content")
            yield self.data[at : min(at + CHUNK_BYTES_MAX, stop)]

    async def __aenter__(self) -> ModelContent:
        self.entered += 1
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.entered -= 1


class ModelStaged:
    def __init__(self, store: ModelStore, digests: Collection[str]) -> None:
        self._store = store
        self._names = tuple(digests)
        self.data = bytearray()
        self.digests: dict[str, bytes] = {}
        self.finished = False
        store.staged_open.add(id(self))

    async def write(self, data: Buffer) -> None:
        assert not self.finished
        self.data += data

    async def finish(self) -> Mapping[str, bytes]:
        self.finished = True
        self.digests = {name: digest(name, bytes(self.data)) for name in self._names}
        return self.digests

    async def discard(self) -> None:
        self._store.staged_open.discard(id(self))

    @property
    def size(self) -> int:
        return len(self.data)


@dataclass(slots=True)
class _Upload:
    info: UploadInfo
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


@dataclass(slots=True)
class _View:
    view: View
    keys: list[bytes] = field(default_factory=list)
    elements: dict[bytes, tuple[Element, bytes]] = field(default_factory=dict)
    uploads: dict[str, _Upload] = field(default_factory=dict)


class ModelStore:
    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._ids = itertools.count(1)
        self._views: dict[str, _View] = {}
        self._records: dict[tuple[str, str], bytes] = {}
        self._closed = False
        self.staged_open: set[int] = set()
        """Staged content that was neither published nor discarded: tests assert that none is left."""
        self.damaged: dict[tuple[str, bytes], int] = {}
        """Keys whose content is to fail when read, from an offset on."""

    # Views
    async def create_view(self, name: str, attributes: Attributes) -> View:
        self._alive()
        check_attributes(attributes)
        if name in self._views:
            raise Conflict("view")
        view = View(name, next(self._ids), self._clock_ns(), attributes)
        self._views[name] = _View(view)
        return view

    async def delete_view(self, name: str) -> None:
        if self._at(name).keys:
            raise Conflict("view")
        del self._views[name]

    async def view(self, name: str) -> View:
        return self._at(name).view

    async def views(self) -> Sequence[View]:
        self._alive()
        return [self._views[name].view for name in sorted(self._views, key=str.encode)]

    async def set_view_attributes(self, name: str, attributes: Attributes) -> View:
        check_attributes(attributes)
        at = self._at(name)
        at.view = replace(at.view, attributes=attributes)
        return at.view

    # Elements
    async def lookup(self, view: str, key: bytes) -> Element:
        return self._element(view, key)[0]

    async def put(
        self,
        view: str,
        key: bytes,
        data: Buffer,
        attributes: Attributes,
        *,
        digests: Collection[str] = ("md5",),
        expected: Mapping[str, bytes] | None = None,
        condition: Condition | None = None,
    ) -> Element:
        if len(data) > SMALL_BYTES_MAX:
            raise LimitExceeded("small content")
        content = bytes(data)
        for name, value in (expected or {}).items():
            if digest(name, content) != value:
                raise DigestMismatch(name)
        kept = {name: digest(name, content) for name in {*digests, "md5"}}
        return self._store(view, key, content, attributes, kept, condition)

    def stage(self, *, digests: Collection[str] = ("md5",), size_hint: int | None = None) -> ModelStaged:
        self._alive()
        return ModelStaged(self, digests)

    async def publish(
        self,
        view: str,
        key: bytes,
        staged: Staged,
        attributes: Attributes,
        *,
        digests: Mapping[str, bytes],
        condition: Condition | None = None,
    ) -> Element:
        assert isinstance(staged, ModelStaged)
        assert staged.finished
        assert "md5" in digests
        element = self._store(view, key, bytes(staged.data), attributes, dict(digests), condition)
        self.staged_open.discard(id(staged))
        return element

    async def open(self, view: str, key: bytes) -> ModelContent:
        element, data = self._element(view, key)
        return ModelContent(element, data, self.damaged.get((view, key)))

    async def delete(self, view: str, key: bytes, *, condition: Condition | None = None) -> bool:
        at = self._at(view)
        current = at.elements.get(key)
        check_condition(condition, current[0] if current else None)
        if current is None:
            return False
        del at.elements[key]
        at.keys.remove(key)
        return True

    async def delete_many(self, view: str, keys: Sequence[bytes], conditions: Sequence[Condition | None]) -> Sequence[bool | Exception]:
        self._at(view)
        if len(keys) > DELETE_KEYS_MAX or len(keys) != len(conditions):
            raise LimitExceeded("keys")
        results: list[bool | Exception] = []
        for key, condition in zip(keys, conditions, strict=True):
            try:
                results.append(await self.delete(view, key, condition=condition))
            except (NotFound, PreconditionFailed) as error:
                results.append(error)
        return results

    async def copy(
        self,
        source: Content,
        view: str,
        key: bytes,
        attributes: Attributes,
        *,
        digests: Mapping[str, bytes],
        condition: Condition | None = None,
    ) -> Element:
        assert isinstance(source, ModelContent)
        assert "md5" in digests
        return self._store(view, key, source.data, attributes, dict(digests), condition)

    async def digest(self, source: Content, start: int, stop: int, digests: Collection[str]) -> Mapping[str, bytes]:
        assert isinstance(source, ModelContent)
        return {name: digest(name, source.data[start:stop]) for name in digests}

    async def set_attributes(self, view: str, key: bytes, attributes: Attributes, *, condition: Condition | None = None) -> Element:
        check_attributes(attributes)
        element, data = self._element(view, key)
        check_condition(condition, element)
        element = replace(element, attributes=attributes)
        self._at(view).elements[key] = (element, data)
        return element

    async def list(self, view: str, *, prefix: bytes = b"", delimiter: bytes = b"", start_after: bytes = b"", limit: int = 1000) -> Page:
        at = self._at(view)
        elements: list[Element] = []
        prefixes: list[bytes] = []
        last: bytes | None = None
        for key in at.keys[bisect_right(at.keys, start_after) :]:
            if not key.startswith(prefix):
                if key > prefix:
                    break
                continue
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            shown = key[: cut + len(delimiter)] if cut >= 0 else key
            if cut >= 0 and shown == start_after:
                continue
            if prefixes and shown == prefixes[-1]:
                continue
            if len(elements) + len(prefixes) >= limit:
                return Page(elements, prefixes, last)
            if cut >= 0:
                prefixes.append(shown)
            else:
                elements.append(at.elements[key][0])
            last = shown
        return Page(elements, prefixes, None)

    # Multipart uploads
    async def create_upload(self, view: str, key: bytes, attributes: Attributes, extra: Mapping[str, bytes]) -> UploadInfo:
        self._check_key(key)
        check_attributes(attributes)
        upload_id = f"{next(self._ids):016x}{hashlib.sha256(key).hexdigest()[:16]}"
        info = UploadInfo(upload_id, key, self._clock_ns(), attributes, MappingProxyType(dict(extra)))
        self._at(view).uploads[upload_id] = _Upload(info)
        return info

    async def upload(self, view: str, key: bytes, upload_id: str) -> UploadInfo:
        return self._upload(view, key, upload_id).info

    async def put_part(self, view: str, key: bytes, upload_id: str, number: int, staged: Staged, *, digests: Mapping[str, bytes]) -> Part:
        assert isinstance(staged, ModelStaged)
        assert staged.finished
        part = self._store_part(view, key, upload_id, number, bytes(staged.data), digests)
        self.staged_open.discard(id(staged))
        return part

    async def copy_part(
        self,
        view: str,
        key: bytes,
        upload_id: str,
        number: int,
        source: Content,
        start: int,
        stop: int,
        *,
        digests: Mapping[str, bytes],
    ) -> Part:
        assert isinstance(source, ModelContent)
        return self._store_part(view, key, upload_id, number, source.data[start:stop], digests)

    async def list_parts(self, view: str, key: bytes, upload_id: str, *, after: int = 0, limit: int = 1000) -> Sequence[Part]:
        parts = self._upload(view, key, upload_id).parts
        return [parts[number][0] for number in sorted(parts) if number > after][:limit]

    async def list_uploads(
        self, view: str, *, prefix: bytes = b"", after_key: bytes = b"", after_id: str = "", limit: int = 1000
    ) -> Sequence[UploadInfo]:
        infos = sorted((upload.info for upload in self._at(view).uploads.values()), key=lambda info: (info.key, info.id))
        after = (after_key, after_id) if after_id else (after_key, "\U0010ffff")
        return [info for info in infos if info.key.startswith(prefix) and (not after_key or (info.key, info.id) > after)][:limit]

    async def complete_upload(
        self,
        view: str,
        key: bytes,
        upload_id: str,
        parts: Sequence[tuple[int, str]],
        *,
        etag_digest: bytes,
        digests: Mapping[str, bytes],
        composite: bool,
        condition: Condition | None = None,
    ) -> Element:
        upload = self._upload(view, key, upload_id)
        chosen = []
        for number, etag in parts:
            held = upload.parts.get(number)
            if held is None or held[0].etag != etag:
                raise Invalid(f"part {number}")
            chosen.append(held)
        kind = next((name for name in digests if name != "md5"), None)
        element = self._store(
            view,
            key,
            b"".join(data for _, data in chosen),
            upload.info.attributes,
            dict(digests),
            condition,
            etag=f"{etag_digest.hex()}-{len(parts)}",
            composite=composite,
            part_sizes=tuple(part.size for part, _ in chosen),
            part_digests=tuple(part.digests[kind] for part, _ in chosen)
            if kind and all(kind in part.digests for part, _ in chosen)
            else (),
        )
        del self._at(view).uploads[upload_id]
        return element

    async def abort_upload(self, view: str, key: bytes, upload_id: str) -> None:
        self._upload(view, key, upload_id)
        del self._at(view).uploads[upload_id]

    # Records
    async def get_record(self, kind: str, name: str) -> bytes | None:
        self._alive()
        return self._records.get((kind, name))

    async def put_record(self, kind: str, name: str, value: bytes, *, must_be_new: bool = False) -> None:
        self._alive()
        if len(value) > RECORD_BYTES_MAX:
            raise LimitExceeded("record")
        if must_be_new and (kind, name) in self._records:
            raise Conflict("record")
        self._records[kind, name] = value

    async def delete_record(self, kind: str, name: str) -> bool:
        self._alive()
        return self._records.pop((kind, name), None) is not None

    async def list_records(self, kind: str) -> Sequence[tuple[str, bytes]]:
        self._alive()
        return sorted((name, value) for (of, name), value in self._records.items() if of == kind)

    # The store itself
    async def status(self) -> PoolStatus:
        used = sum(element.size for at in self._views.values() for element, _ in at.elements.values())
        return PoolStatus("model", (1, 0), False, 1, (), 1 << 40, used, ())

    def metrics(self) -> Mapping[str, float]:
        return {}

    async def scrub(self) -> Mapping[str, int]:
        return {}

    async def close(self) -> None:
        self._closed = True

    # Inside
    def _alive(self) -> None:
        if self._closed:
            raise Closed("store")

    def _at(self, view: str) -> _View:
        self._alive()
        at = self._views.get(view)
        if at is None:
            raise NotFound("view")
        return at

    def _check_key(self, key: bytes) -> None:
        if not 1 <= len(key) <= KEY_BYTES_MAX or b"\0" in key:
            raise Invalid("key")

    def _element(self, view: str, key: bytes) -> tuple[Element, bytes]:
        held = self._at(view).elements.get(key)
        if held is None:
            raise NotFound("key")
        return held

    def _upload(self, view: str, key: bytes, upload_id: str) -> _Upload:
        upload = self._at(view).uploads.get(upload_id)
        if upload is None or upload.info.key != key:
            raise NotFound("upload")
        return upload

    def _store(
        self,
        view: str,
        key: bytes,
        data: bytes,
        attributes: Attributes,
        digests: dict[str, bytes],
        condition: Condition | None,
        *,
        etag: str | None = None,
        composite: bool = False,
        part_sizes: Sequence[int] = (),
        part_digests: Sequence[bytes] = (),
    ) -> Element:
        at = self._at(view)
        self._check_key(key)
        check_attributes(attributes)
        current = at.elements.get(key)
        check_condition(condition, current[0] if current else None)
        element = Element(
            id=current[0].id if current else next(self._ids),
            kind=Kind.FILE,
            key=key,
            size=len(data),
            etag=etag or digests["md5"].hex(),
            content_version=current[0].content_version + 1 if current else 1,
            modified_ns=self._clock_ns(),
            attributes=attributes,
            digests=digests,
            composite=composite,
            part_sizes=part_sizes,
            part_digests=part_digests,
        )
        if current is None:
            insort(at.keys, key)
        at.elements[key] = (element, data)
        return element

    def _store_part(self, view: str, key: bytes, upload_id: str, number: int, data: bytes, digests: Mapping[str, bytes]) -> Part:
        upload = self._upload(view, key, upload_id)
        part = Part(number, len(data), digests["md5"].hex(), self._clock_ns(), dict(digests))
        upload.parts[number] = (part, data)
        return part
