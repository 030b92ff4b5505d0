"""A dictionary that behaves as `element_store.Store`: the oracle of property tests and the store under gateway tests.

Everything is in memory and every call finishes without yielding, so each is atomic. It never persists and never fails by itself.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from bisect import bisect_right, insort
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from element_store.interface import NAMING, SMALL_BYTES_MAX, Buffer, Content, Staged
from element_store.types import (
    Attributes,
    Closed,
    Condition,
    Conflict,
    Deletion,
    DigestMismatch,
    Element,
    Findings,
    Invalid,
    Kind,
    LimitExceeded,
    Naming,
    NotFound,
    Page,
    Part,
    PoolStatus,
    PreconditionFailed,
    StoredPart,
    UploadInfo,
    Version,
    Versioning,
    VersionPage,
    View,
)
from tests.model.content import ModelContent, ModelStaged
from tests.model.digests import digest
from tests.model.snapshots import ModelSnapshots

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


@dataclass(slots=True)
class _Upload:
    info: UploadInfo
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


@dataclass(slots=True)
class _Past:
    """A version that its key does not name: content, or a delete marker."""

    version_id: int
    modified_ns: int
    held: tuple[Element, bytes] | None


@dataclass(slots=True)
class _View:
    view: View
    keys: list[bytes] = field(default_factory=list)
    elements: dict[bytes, tuple[Element, bytes]] = field(default_factory=dict)
    past: dict[bytes, list[_Past]] = field(default_factory=dict)
    """By key, the newest first; no empty lists."""
    uploads: dict[str, _Upload] = field(default_factory=dict)


class ModelStore:
    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._ids = itertools.count(1)
        self._views: dict[str, _View] = {}
        self._modes: dict[bytes, str] = {}
        self._records: dict[tuple[str, str], bytes] = {}
        self._closed = False
        self.staged_open: set[int] = set()
        """Staged content that was neither published nor discarded: tests assert that none is left."""
        self.damaged: dict[tuple[str, bytes], int] = {}
        """Keys whose content is to fail when read, from an offset on."""
        self.snapshots = ModelSnapshots(lambda path: path[1:].decode() in self._views, clock_ns)

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
        if self._at(name).keys or self._at(name).past:
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
    async def lookup(self, view: str, key: bytes, *, version: int | None = None) -> Element:
        return self._element(view, key, version)[0]

    async def version(self, view: str, key: bytes, *, version: int | None = None) -> Version:
        for found in self._versions(self._at(view), key):
            if version is None or found.version_id == version:
                return found
        raise NotFound("version")

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
        versioning: Versioning = Versioning.OFF,
        naming: Naming = NAMING,
    ) -> Element:
        if len(data) > SMALL_BYTES_MAX:
            raise LimitExceeded("small content")
        content = bytes(data)
        for name, value in (expected or {}).items():
            if digest(name, content) != value:
                raise DigestMismatch(name)
        kept = {name: digest(name, content) for name in {*digests, "md5"}}
        return self._store(view, key, content, attributes, kept, condition, versioning, naming)

    def stage(self, *, digests: Collection[str] = ("md5",), size_hint: int | None = None) -> ModelStaged:
        self._alive()
        return ModelStaged(digests, self.staged_open)

    async def publish(
        self,
        view: str,
        key: bytes,
        staged: Staged,
        attributes: Attributes,
        *,
        digests: Mapping[str, bytes],
        condition: Condition | None = None,
        versioning: Versioning = Versioning.OFF,
        naming: Naming = NAMING,
    ) -> Element:
        assert isinstance(staged, ModelStaged)
        assert staged.finished
        assert "md5" in digests
        element = self._store(view, key, bytes(staged.data), attributes, dict(digests), condition, versioning, naming)
        self.staged_open.discard(id(staged))
        return element

    async def open(self, view: str, key: bytes, *, version: int | None = None) -> ModelContent:
        element, data = self._element(view, key, version)
        return ModelContent(element, data, self.damaged.get((view, key)))

    async def delete(
        self,
        view: str,
        key: bytes,
        *,
        version: int | None = None,
        condition: Condition | None = None,
        versioning: Versioning = Versioning.OFF,
    ) -> Deletion:
        at = self._at(view)
        if version is not None:
            return self._delete_version(at, key, version, condition)
        current = at.elements.get(key)
        check_condition(condition, current[0] if current else None)
        if versioning is Versioning.OFF and (current is None or not current[0].version_id):
            self._unname(at, key)
            return Deletion(current is not None)
        self._check_key(key)
        version_id = self._succeed(at, key, versioning)
        self._unname(at, key)
        at.past.setdefault(key, []).insert(0, _Past(version_id, self._clock_ns(), None))
        return Deletion(current is not None, True, version_id)

    async def delete_many(
        self,
        view: str,
        keys: Sequence[bytes],
        conditions: Sequence[Condition | None],
        *,
        versions: Sequence[int | None] | None = None,
        versioning: Versioning = Versioning.OFF,
    ) -> Sequence[Deletion | Exception]:
        self._at(view)
        versions = versions or [None] * len(keys)
        if len(keys) > DELETE_KEYS_MAX or len(keys) != len(conditions) or len(keys) != len(versions):
            raise LimitExceeded("keys")
        results: list[Deletion | Exception] = []
        for key, condition, version in zip(keys, conditions, versions, strict=True):
            try:
                results.append(await self.delete(view, key, version=version, condition=condition, versioning=versioning))
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
        versioning: Versioning = Versioning.OFF,
        naming: Naming = NAMING,
    ) -> Element:
        assert isinstance(source, ModelContent)
        assert "md5" in digests
        return self._store(view, key, source.data, attributes, dict(digests), condition, versioning, naming)

    async def digest(self, source: Content, start: int, stop: int, digests: Collection[str]) -> Mapping[str, bytes]:
        assert isinstance(source, ModelContent)
        return {name: digest(name, source.data[start:stop]) for name in digests}

    async def set_attributes(
        self, view: str, key: bytes, attributes: Attributes, *, version: int | None = None, condition: Condition | None = None
    ) -> Element:
        check_attributes(attributes)
        element, data = self._element(view, key, version)
        check_condition(condition, element)
        changed = replace(element, attributes=attributes)
        at = self._at(view)
        if at.elements.get(key) == (element, data):
            at.elements[key] = (changed, data)
        for past in at.past.get(key, ()):
            if past.held == (element, data):
                past.held = (changed, data)
        return changed

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

    async def list_versions(
        self,
        view: str,
        *,
        prefix: bytes = b"",
        delimiter: bytes = b"",
        after_key: bytes = b"",
        after_version: int | None = None,
        limit: int = 1000,
    ) -> VersionPage:
        at = self._at(view)
        versions: list[Version] = []
        prefixes: list[bytes] = []
        last: tuple[bytes | None, int | None] = (None, None)
        for key in sorted({*at.keys, *at.past}):
            if not key.startswith(prefix) or key < after_key or (key == after_key and after_version is None):
                continue
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                shown = key[: cut + len(delimiter)]
                if shown == after_key or (prefixes and shown == prefixes[-1]):
                    continue
                if len(versions) + len(prefixes) >= limit:
                    return VersionPage(versions, prefixes, *last)
                prefixes.append(shown)
                last = (shown, None)
                continue
            of_key = self._versions(at, key)
            if key == after_key:
                ids = [version.version_id for version in of_key]
                of_key = (
                    of_key[ids.index(after_version) + 1 :]
                    if after_version in ids
                    else [v for v in of_key if v.version_id < (after_version or 1 << 64)]
                )
            for version in of_key:
                if len(versions) + len(prefixes) >= limit:
                    return VersionPage(versions, prefixes, *last)
                versions.append(version)
                last = (key, version.version_id)
        return VersionPage(versions, prefixes, None, None)

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
        versioning: Versioning = Versioning.OFF,
        naming: Naming = NAMING,
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
            versioning,
            naming,
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

    async def check(self) -> Findings:
        return Findings(0, ())

    async def scrub(self) -> Mapping[str, int]:
        return {}

    async def reduction(self, view: str | None = None, prefix: bytes = b"") -> Mapping[str, int]:
        """Nothing is reduced."""
        views = self._views.values() if view is None else [self._at(view)]
        named = (element for at in views for key, (element, _) in at.elements.items() if key.startswith(prefix))
        size = sum(element.size for element in named)
        gains = dict.fromkeys(("zero_bytes", "dedupe_gain_bytes", "similarity_gain_bytes", "compression_gain_bytes"), 0)
        return {"logical_bytes": size, "stored_bytes": size, "landed_bytes": size, "held_bytes": 0, "row_bytes": 0, **gains}

    async def reduction_mode(self, path: bytes | None = None) -> str:
        if path is not None:
            self._at(path.strip(b"/").split(b"/")[0].decode())
        return self._modes.get((path or b"").strip(b"/"), "balanced")

    async def set_reduction_mode(self, path: bytes, mode: str | None) -> None:
        self._at(path.strip(b"/").split(b"/")[0].decode())
        self._modes[path.strip(b"/")] = mode or "balanced"

    async def why(self, view: str, key: bytes) -> Sequence[StoredPart]:
        element, _ = self._element(view, key, None)
        return [StoredPart(0, element.size, 1, "journal", 0, 0, element.size, (), 0, 0, 0, 0)]

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

    def _element(self, view: str, key: bytes, version: int | None = None) -> tuple[Element, bytes]:
        at = self._at(view)
        held = at.elements.get(key)
        if version is None:
            if held is None:
                raise NotFound("key")
            return held
        if held is not None and held[0].version_id == version:
            return held
        for past in at.past.get(key, ()):
            if past.version_id == version:
                if past.held is None:
                    raise NotFound("marker")
                return past.held
        raise NotFound("version")

    def _versions(self, at: _View, key: bytes) -> Sequence[Version]:
        """The newest first."""
        found = []
        if key in at.elements:
            element = at.elements[key][0]
            found.append(Version(key, element.version_id, True, element.modified_ns, self._listed(element)))
        for past in at.past.get(key, ()):
            element_or_none = self._listed(past.held[0]) if past.held else None
            found.append(Version(key, past.version_id, not found, past.modified_ns, element_or_none))
        return found

    def _listed(self, element: Element) -> Element:
        return replace(element, part_sizes=(), part_digests=())

    def _succeed(self, at: _View, key: bytes, versioning: Versioning) -> int:
        """What the key names becomes history or is given up; returns the id of the version that follows."""
        current = at.elements.get(key)
        past = at.past.pop(key, [])
        if versioning is not Versioning.ENABLED or (current and not current[0].version_id):
            past = [version for version in past if version.version_id]
        if current and (current[0].version_id or versioning is Versioning.ENABLED):
            past.insert(0, _Past(current[0].version_id, current[0].modified_ns, current))
        if past:
            at.past[key] = past
        return next(self._ids) if versioning is Versioning.ENABLED else 0

    def _unname(self, at: _View, key: bytes) -> None:
        if at.elements.pop(key, None) is not None:
            at.keys.remove(key)

    def _delete_version(self, at: _View, key: bytes, version: int, condition: Condition | None) -> Deletion:
        of_key = self._versions(at, key)
        ids = [found.version_id for found in of_key]
        if version not in ids:
            check_condition(condition, None)
            return Deletion(False, False, version)
        index = ids.index(version)
        element = of_key[index].element
        check_condition(condition, element)
        past = at.past.get(key, [])
        if key in at.elements:
            index -= 1
        if index < 0:
            self._unname(at, key)
        else:
            del past[index]
        if key not in at.elements and past and past[0].held is not None:
            at.elements[key] = past.pop(0).held  # type: ignore[assignment]
            insort(at.keys, key)
        if not past:
            at.past.pop(key, None)
        return Deletion(True, element is None, version)

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
        versioning: Versioning,
        naming: Naming,
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
        if current and naming.inherit:
            attributes = replace(attributes, uid=current[0].attributes.uid, gid=current[0].attributes.gid, mode=current[0].attributes.mode)
        element = Element(
            id=next(self._ids),
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
            version_id=self._succeed(at, key, versioning),
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
