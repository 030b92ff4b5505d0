"""The nouns of the store's Python API: plain values, no behaviour, no protocol.

Keys are bytes: any sequence of 1 to 1,024 bytes without NUL. Times are nanoseconds since 1970 (UTC).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


class StoreError(Exception):
    """Base of everything the store raises; each subclass is named by its remedy."""


class NotFound(StoreError):
    """The view, key, upload or record is not there."""


class Conflict(StoreError):
    """The request collides with what is there: it exists, is not empty, or is of another kind."""


class PreconditionFailed(StoreError):
    """A `Condition` does not hold; nothing was changed."""


class DigestMismatch(StoreError):
    """Content differs from the digest that the caller announced; nothing was changed. `args[0]` is the digest's name."""


class Invalid(StoreError):
    """The request is wrong; sending it again will not help."""


class ReadOnly(StoreError):
    """A snapshot never changes; copy or clone what is in it."""


class LimitExceeded(StoreError):
    """A named bound was passed."""


class OutOfSpace(StoreError):
    """The pool is full; delete something."""


class Damaged(StoreError):
    """Stored bytes fail their checksum and too few shards are left to rebuild them."""


class Refused(StoreError):
    """A device or pool that must not be used as asked; one sentence for the operator."""


class Closed(StoreError):
    """The store is closing or lost more devices than its code allows."""


class Versioning(enum.StrEnum):
    """What a change of a key does to the version that the key named.

    A view that ever had versions has ENABLED or SUSPENDED ever after: OFF gives up what it finds without looking for more.
    """

    OFF = "off"
    ENABLED = "enabled"
    """It is kept; what is new gets an id."""
    SUSPENDED = "suspended"
    """It is kept unless it is the null version; what is new is the null version, of which a key has at most one."""


@dataclass(frozen=True, slots=True)
class Naming:
    """How a key is put into the tree of files."""

    directory_mode: int = 0o755
    """Of the directories that the key makes; they have the element's owner. In a directory with the set-group-id bit all get its group."""
    inherit: bool = False
    """What is replaced hands on its owner, mode and the extended attributes that S3 has no word for."""


class Kind(enum.StrEnum):
    DIRECTORY = "directory"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a writer gives an element besides its bytes.

    `xattrs`: at most 32 KiB of names and values in all. S3 keeps user metadata under `user.s3.meta.*`, tags under
    `user.s3.tag.*`, the content type under `user.mime_type`, other content headers under `user.s3.header.*`.
    """

    uid: int = 0
    gid: int = 0
    mode: int = 0o644
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Element:
    """One stored element as one committed state shows it."""

    id: int
    kind: Kind
    key: bytes
    size: int
    etag: str
    """Hex, unquoted: MD5 of the content; `<md5 of part md5s>-<parts>` for multipart; `<id and version>-0` for content that was not written by S3."""
    content_version: int
    modified_ns: int
    attributes: Attributes
    digests: Mapping[str, bytes]
    """Digests kept with the content, by name: `md5`, `sha256`, `sha1`, `crc32`, `crc32c`, `crc64nvme`. Raw bytes, big-endian for CRCs."""
    composite: bool
    """True where `digests` (except `md5`) are digests of the parts' digests, S3's COMPOSITE type."""
    part_sizes: Sequence[int]
    """Sizes of the parts of a multipart upload, in order; empty for content written whole."""
    part_digests: Sequence[bytes] = ()
    """The parts' own digests of the kind that `digests` holds besides `md5`, in order; empty when the parts had none. S3 returns them per part."""
    version_id: int = 0
    """0: the null version, which is also all that was written without versioning. Ids of one key rise."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a key: content, or a delete marker, which says that the key named nothing from then on."""

    key: bytes
    version_id: int
    is_latest: bool
    modified_ns: int
    element: Element | None
    """None: a delete marker."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """What a deletion did."""

    existed: bool
    """There was what was to be deleted."""
    marker: bool = False
    """A delete marker was set, or was what was deleted."""
    version_id: int = 0
    """Of the marker that was set, or of what was deleted."""


@dataclass(frozen=True, slots=True)
class View:
    """A view root: a top-level directory (an S3 bucket)."""

    name: str
    id: int
    created_ns: int
    attributes: Attributes
    snapshot_of: str | None = None
    """The view of which it is a snapshot, as that is called now."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a path showed at one moment; nothing in it ever changes."""

    name: str
    path: bytes
    """Where what it was taken of is now, or was, if that is gone."""
    epoch: int
    """Rises with every snapshot of the pool: those of one epoch are of one moment."""
    created_ns: int
    protected_until_ns: int
    """Nobody deletes it before; 0: anybody may."""
    automatic: bool
    """The store kept it when it replaced something (the undo of a restore)."""
    clones: Sequence[bytes] = ()
    """Paths of clones that share its content."""


@dataclass(frozen=True, slots=True)
class SnapshotSpace:
    """What only a snapshot sees still."""

    rows: int
    content_bytes: int
    """Of content as its elements had it."""
    stored_bytes: int
    """Freed with it, parity left out."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Checked inside the commit, against the element that the key names then. ETags unquoted; `*` stands for any element.

    A failed condition raises PreconditionFailed; `if_match` on an absent key raises NotFound.
    """

    if_match: Sequence[str] = ()
    if_none_match: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing in byte order. `next_after`: pass it as `start_after` for the next page; None at the end.

    `next_after` is the last key or common prefix of this page; a listing that starts after a common prefix skips all of it.
    """

    elements: Sequence[Element]
    prefixes: Sequence[bytes]
    next_after: bytes | None


@dataclass(frozen=True, slots=True)
class VersionPage:
    """One page of a listing of versions: keys in byte order, each key's newest version first.

    `next_key` and `next_version`: pass them as `after_key` and `after_version` for the next page; no key at the end, no version after a prefix.
    """

    versions: Sequence[Version]
    prefixes: Sequence[bytes]
    next_key: bytes | None
    next_version: int | None


@dataclass(frozen=True, slots=True)
class UploadInfo:
    """A multipart upload in progress; it is not in the namespace."""

    id: str
    key: bytes
    created_ns: int
    attributes: Attributes
    extra: Mapping[str, bytes]
    """Opaque to the store: what the gateway must remember until completion (checksum algorithm and type, owner)."""


@dataclass(frozen=True, slots=True)
class Part:
    number: int
    size: int
    etag: str
    modified_ns: int
    digests: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    index: int
    name: str
    state: str
    """`live`, `dead` or `missing`."""
    bytes_total: int
    bytes_used: int
    reason: str
    """Why it is not live, else empty."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a check of the metadata found wrong: how much, and the first of it in sentences."""

    count: int
    sentences: Sequence[str]


@dataclass(frozen=True, slots=True)
class StoredPart:
    """A run of an element's bytes, and the chunk that has them."""

    offset: int
    length: int
    extent: int
    kind: str
    """`journal`, `landed` (not reduced yet), `zeros` (stored nowhere), `raw`, `zstd` or `delta`."""
    chunk: int
    """0: none."""
    chunk_bytes: int
    stored_bytes: int
    bases: Sequence[int]
    """The chunks that a delta refers to."""
    references: int
    """Runs and deltas that name the chunk."""
    segment: int
    shard: int
    at: int


@dataclass(frozen=True, slots=True)
class PoolStatus:
    uuid: str
    code: tuple[int, int]
    """k data and m parity shards of new segments."""
    protected: bool
    """False while fewer than m further devices may be lost, or m is 0."""
    membership_epoch: int
    devices: Sequence[DeviceStatus]
    bytes_total: int
    """Usable, after parity."""
    bytes_used: int
    advice: Sequence[str]
    """What happened and what to do, a sentence each; empty when all is well."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A file that hosts attach as a block device. What takes its name away leaves no volume."""

    id: int
    """1 to 1024, its namespace number; another volume may have it later."""
    path: str
    """The view, a slash and the key."""
    uuid: str
    """Never another's."""
    size: int
    block_size: int
    """512 or 4096."""
    allocated: int
    """Bytes that are no holes."""
    handles: int
    """While hosts hold any, no other face may change its content or its name."""
    unlocked: bool
    """... but for an operator's word, until the last handle is gone."""
    read_only: bool = False
    """What a snapshot has of a volume: PATH@SNAPSHOT."""
