"""What operations work with: the store, the accounts, the configuration, and who may touch which bucket.

A bucket belongs to the user whose id its view keeps in `trefoil.owner`; that user and root may do everything with it,
guests what a canned list allows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from element_store.interface import Content, ElementStore
from element_store.types import Attributes, NotFound, Versioning, View
from protocols.auth.accounts import ROOT_ID, User
from protocols.auth.authenticator import Authenticator
from protocols.auth.identity import Identity
from protocols.s3.acl import Access, acl_of, allows
from protocols.s3.config import S3Config
from protocols.s3.errors import S3Error
from protocols.s3.request import Request
from protocols.s3.response import Header
from protocols.s3.snapshot_keys import READS, is_below, place_of, refusal, shows_snapshots
from protocols.s3.versioning_state import versioning_of
from protocols.s3.watch import disconnect_watch

BUCKETS_CACHED_MAX = 1024
BUCKET_CACHE_SECONDS = 1.0
"""A bucket's owner and list are believed for this long; only changes that bypass this gateway (a mount) take that long to show."""
LOCATION = "trefoil.location"
OWNER = "trefoil.owner"
LIST_PERMISSIONS = {Access.READ_ACL: "READ_ACP", Access.WRITE_ACL: "WRITE_ACP"}
BUCKET_PERMISSIONS = {Access.LIST: "READ", Access.WRITE: "WRITE", **LIST_PERMISSIONS}
"""What a bucket's list must grant to others than the owner."""
VIEW_NAME_LENGTH_MAX = 255
WATCH_BYTES_MIN = 4 * 1024 * 1024
"""Longer responses watch for the client's leaving, so that nothing is read for nobody."""


def owner_of(view: View) -> str:
    return view.attributes.xattrs.get(OWNER, ROOT_ID.encode()).decode("utf-8", "replace")


@dataclass(slots=True)
class Bucket:
    """What every request needs of its bucket, believed until a moment of the monotonic clock."""

    owner: str
    acls: tuple[str, ...]
    """Lists that must all allow what others than the owner do."""
    versioning: Versioning
    shows_snapshots: bool
    snapshot_of: str | None
    until: float


def check_object(request: Request, attributes: Attributes, permission: str = "READ") -> None:
    """A guest has the permission by the object's own list. Raises AccessDenied."""
    if request.is_guest and not allows(acl_of(attributes), request.user, permission):
        raise S3Error("AccessDenied")


def _all_allow(bucket: Bucket, user: User | None, permission: str) -> bool:
    return all(allows(acl, user, permission) for acl in bucket.acls)


class Context:
    __slots__ = ("_buckets", "_clock", "auth", "config", "store")

    def __init__(self, store: ElementStore, auth: Authenticator, config: S3Config, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self.auth = auth
        self.config = config
        self._clock = clock
        self._buckets: dict[str, Bucket] = {}

    async def bucket(self, name: str) -> Bucket:
        """A snapshot belongs to whom its bucket belongs to today, and shows others no more than both lists allow. Raises NotFound."""
        found = await self._believed(name)
        if found.snapshot_of is None:
            return found
        today = await self._believed(found.snapshot_of)
        return replace(found, owner=today.owner, acls=found.acls + today.acls)

    async def _believed(self, name: str) -> Bucket:
        """By itself, so that a list which was changed is not believed any longer for a snapshot's sake."""
        now = self._clock()
        known = self._buckets.get(name)
        if known is not None and known.until > now:
            return known
        if len(name) > VIEW_NAME_LENGTH_MAX or "\0" in name:
            raise NotFound("view")
        view = await self.store.view(name)
        if len(self._buckets) >= BUCKETS_CACHED_MAX:
            self._buckets.clear()
        found = self._buckets[name] = Bucket(
            owner_of(view),
            (acl_of(view.attributes),),
            versioning_of(view.attributes),
            shows_snapshots(view),
            view.snapshot_of,
            now + BUCKET_CACHE_SECONDS,
        )
        return found

    def forget_bucket(self, name: str) -> None:
        self._buckets.pop(name, None)

    async def authorize(self, request: Request, access: Access) -> None:
        """The caller may do this with the request's bucket, else AccessDenied; NotFound if there is none.

        For READ_OBJECT and objects' lists the object's own list decides, see `check_object`.
        """
        bucket = await self.bucket(request.bucket)
        request.owner = bucket.owner
        request.versioning = bucket.versioning
        request.shows_snapshots = bucket.shows_snapshots
        user = request.user
        expected = request.headers.get(b"x-amz-expected-bucket-owner")
        if expected is not None and expected.decode("latin-1") != bucket.owner:
            raise S3Error("AccessDenied")
        if user is not None and (user.id == bucket.owner or user.is_root):
            return
        request.is_guest = True
        request.may_list = _all_allow(bucket, user, "READ")
        if access is Access.READ_OBJECT or (request.key and access in LIST_PERMISSIONS):
            await self.check_today(request.bucket, request.key, user, LIST_PERMISSIONS.get(access, "READ"))
            return
        if access in BUCKET_PERMISSIONS and _all_allow(bucket, user, BUCKET_PERMISSIONS[access]):
            return
        raise S3Error("AccessDenied")

    async def check_today(self, name: str, key: bytes, user: User | None, permission: str) -> None:
        """In a snapshot, what has the key today must allow it to a guest too; a key that is gone allows nothing. Raises AccessDenied, NotFound."""
        live = (await self.bucket(name)).snapshot_of
        if live is None:
            return
        try:
            attributes = (await self.store.lookup(live, key)).attributes
        except NotFound:
            raise S3Error("AccessDenied") from None
        if not allows(acl_of(attributes), user, permission):
            raise S3Error("AccessDenied")

    def enter_snapshot(self, request: Request, operation: str) -> None:
        """A key that shows what a snapshot has is read where the store has it, and not written. Raises AccessDenied, NotFound."""
        if not request.shows_snapshots or not is_below(request.key):
            return
        if operation not in READS or request.is_guest:
            raise refusal()
        request.shown_as = (request.bucket, request.key)
        request.bucket, request.key = place_of(request.bucket, request.key)

    async def authorize_source(self, request: Request, name: str) -> bool:
        """The caller owns the bucket; if not, the objects' own lists decide. Raises NotFound."""
        bucket = await self.bucket(name)
        return request.user is not None and (request.user.id == bucket.owner or request.user.is_root)

    async def place_of_source(self, name: str, key: bytes, *, is_owned: bool) -> tuple[str, bytes]:
        """Where the store has what a copy's source shows. Raises AccessDenied, NotFound."""
        if not (await self.bucket(name)).shows_snapshots or not is_below(key):
            return name, key
        if not is_owned:
            raise refusal()
        return place_of(name, key)

    def identity(self, request: Request) -> Identity:
        """Whose files the request makes."""
        return self.config.identity.of(request.user)

    async def owner_user(self, owner: str) -> User:
        """The bucket owner for responses, also when the account is gone."""
        return await self.auth.user(owner) or User(owner, owner, "", 0, 0)


async def send_content(request: Request, status: int, headers: list[Header], content: Content, start: int, stop: int) -> None:
    """Stream bytes of pinned content. Failures after the first byte propagate, so that the connection breaks instead of lying."""
    headers.append((b"content-length", str(stop - start).encode()))
    headers.append((b"x-amz-request-id", request.request_id.encode("latin-1", "replace")))
    chunks = content.chunks(start, stop)
    first = b"" if start == stop else await anext(chunks)
    request.response_started = True
    send = request.send
    await send({"type": "http.response.start", "status": status, "headers": headers})
    left = stop - start - len(first)
    await send({"type": "http.response.body", "body": first, "more_body": left > 0})
    if not left:
        return
    with disconnect_watch(request, left >= WATCH_BYTES_MIN) as watch:
        async for piece in chunks:
            if watch.gone:
                return
            left -= len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
