"""What operations work with: the store, the accounts, the configuration, and who may touch which bucket.

A bucket belongs to the user whose id its view keeps in `trefoil.owner`; only that user and root may use it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from element_store.interface import Content, ElementStore
from element_store.types import View
from protocols.auth.accounts import ROOT_ID, User
from protocols.auth.authenticator import Authenticator
from protocols.s3.config import S3Config
from protocols.s3.errors import S3Error
from protocols.s3.request import Request
from protocols.s3.response import Header
from protocols.s3.watch import disconnect_watch

BUCKETS_CACHED_MAX = 1024
BUCKET_CACHE_SECONDS = 1.0
"""A bucket's owner is believed for this long; only changes that bypass this gateway (a mount) take that long to show."""
LOCATION = "trefoil.location"
OWNER = "trefoil.owner"
WATCH_BYTES_MIN = 4 * 1024 * 1024
"""Longer responses watch for the client's leaving, so that nothing is read for nobody."""


def owner_of(view: View) -> str:
    return view.attributes.xattrs.get(OWNER, ROOT_ID.encode()).decode("utf-8", "replace")


class Context:
    __slots__ = ("_clock", "_owners", "auth", "config", "store")

    def __init__(self, store: ElementStore, auth: Authenticator, config: S3Config, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self.auth = auth
        self.config = config
        self._clock = clock
        self._owners: dict[str, tuple[str, float]] = {}

    async def bucket_owner(self, bucket: str) -> str:
        """Raises NotFound."""
        now = self._clock()
        known = self._owners.get(bucket)
        if known is not None and known[1] > now:
            return known[0]
        owner = owner_of(await self.store.view(bucket))
        if len(self._owners) >= BUCKETS_CACHED_MAX:
            self._owners.clear()
        self._owners[bucket] = owner, now + BUCKET_CACHE_SECONDS
        return owner

    def forget_bucket(self, bucket: str) -> None:
        self._owners.pop(bucket, None)

    async def authorize(self, request: Request) -> None:
        """The caller may use the request's bucket, else AccessDenied; NotFound if there is none."""
        request.owner = await self.allowed_owner(request, request.bucket)
        expected = request.headers.get(b"x-amz-expected-bucket-owner")
        if expected is not None and expected.decode("latin-1") != request.owner:
            raise S3Error("AccessDenied")

    async def allowed_owner(self, request: Request, bucket: str) -> str:
        owner = await self.bucket_owner(bucket)
        user = request.user
        if user is None or (user.id != owner and not user.is_root):
            raise S3Error("AccessDenied")
        return owner

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
