"""Who may read a snapshot's bucket, on a real store: its bucket's owner and lists of today, and nobody more than the lists of its own time let in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from element_store import Store
from element_store.testing import MemoryDevices
from protocols.auth.accounts import User
from protocols.auth.sigv4 import Verified
from protocols.s3 import S3Config, S3Gateway
from protocols.s3.context import OWNER
from tests.protocols.s3.asgi import Answer, Caller, TrustingAuthenticator

PAST = "photos--at--one"


class Place(Caller):
    """Requests come from root, from nobody, or from a user who is no root."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.auth = TrustingAuthenticator(store)
        self.trusting = self.auth.authenticate
        super().__init__(S3Gateway(store, self.auth, S3Config()))

    def as_root(self) -> None:
        self._be(self.trusting)

    def as_nobody(self) -> None:
        async def nobody(request: Any) -> None:
            return None

        self._be(nobody)

    def as_user(self, user_id: str) -> None:
        async def somebody(request: Any) -> Verified | None:
            verified = await self.trusting(request)
            assert verified is not None
            user = User(user_id, user_id, "", 0, 0)
            return replace(verified, credential=replace(verified.credential, user=user))

        self._be(somebody)

    def _be(self, authenticate: Any) -> None:
        self.auth.authenticate = authenticate  # type: ignore[method-assign]

    async def set(self, bucket_or_key: str, acl: str) -> None:
        self.as_root()
        answer = await self.call("PUT", f"/{bucket_or_key}".encode(), b"acl", [(b"x-amz-acl", acl.encode())])
        assert answer.status == 200, answer.body

    async def get(self, what: str, query: bytes = b"") -> Answer:
        return await self.call("GET", f"/{what}".encode(), query)

    async def statuses(self, key: str) -> tuple[int, ...]:
        """Of all ways that read a key of the snapshot."""
        attributes = [(b"x-amz-object-attributes", b"ObjectSize")]
        answers = [
            await self.get(f"{PAST}/{key}"),
            await self.call("HEAD", f"/{PAST}/{key}".encode()),
            await self.call("GET", f"/{PAST}/{key}".encode(), b"attributes", attributes),
            await self.call("PUT", b"/own/copy", headers=[(b"x-amz-copy-source", f"{PAST}/{key}".encode())]),
        ]
        return tuple(answer.status for answer in answers)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    store = await MemoryDevices(2).open(state=tmp_path)
    place = Place(store)
    await place.auth.ensure_root("ROOTROOTROOT", "rootrootroot")
    for bucket in (b"/photos", b"/own"):
        await place.call("PUT", bucket)
    await place.set("own", "public-read-write")
    for key, acl in (("open", "public-read"), ("gone", "public-read"), ("closed", "private")):
        await place.call("PUT", f"/photos/{key}".encode(), headers=[(b"x-amz-acl", acl.encode())], body=b"old " + key.encode())
    await place.set("photos", "public-read")
    await store.snapshots.create(b"/photos", "one")
    yield place
    await store.close()


async def test_a_guest_reads_what_both_lists_allow(place: Place):
    place.as_nobody()
    assert await place.statuses("open") == (200, 200, 200, 200)
    assert (await place.get(f"{PAST}/open")).body == b"old open"
    assert await place.statuses("closed") == (403, 403, 403, 403)
    listed = await place.get(PAST, b"list-type=2")
    assert (listed.status, listed.body.count(b"<Key>")) == (200, 3)
    assert (await place.get(PAST, b"versions")).status == 200


async def test_what_was_taken_back_stays_taken_back(place: Place):
    await place.set("photos/open", "private")
    place.as_nobody()
    assert await place.statuses("open") == (403, 403, 403, 403)
    assert (await place.get(PAST, b"list-type=2")).status == 200
    await place.set("photos", "private")
    place.as_nobody()
    for query in (b"list-type=2", b"", b"versions"):
        assert (await place.get(PAST, query)).status == 403
    assert (await place.call("HEAD", f"/{PAST}".encode())).status == 403
    await place.set("photos/open", "public-read")
    place.as_nobody()
    assert await place.statuses("open") == (200, 200, 200, 200)


async def test_a_key_that_is_gone_is_for_the_owner_alone(place: Place):
    await place.call("DELETE", b"/photos/gone")
    assert await place.statuses("gone") == (200, 200, 200, 200)
    place.as_nobody()
    assert await place.statuses("gone") == (403, 403, 403, 403)


async def test_what_is_opened_today_does_not_open_the_past(place: Place):
    await place.set("photos/closed", "public-read")
    place.as_nobody()
    assert (await place.get("photos/closed")).status == 200
    assert await place.statuses("closed") == (403, 403, 403, 403)


async def test_the_owner_is_that_of_today(place: Place):
    view = await place.store.view("photos")
    past = await place.store.view(PAST)
    assert (view.snapshot_of, past.snapshot_of) == (None, "photos")
    xattrs = {**view.attributes.xattrs, OWNER: b"ann"}
    await place.store.set_view_attributes("photos", replace(view.attributes, xattrs=xattrs))
    place.gateway._context.forget_bucket("photos")
    place.as_user("ann")
    assert (await place.get(f"{PAST}/closed")).body == b"old closed"
    assert (await place.get(PAST, b"tagging")).status == 404
    place.as_user("ben")
    assert (await place.get(f"{PAST}/closed")).status == 403
    assert (await place.get(PAST, b"tagging")).status == 403


async def test_a_bucket_of_that_spelling_is_no_snapshot(place: Place):
    """Files may make one, and it has its own list."""
    place.store.files().create(1, b"photos--at--mine", 0o040755, 0, 0, 0)
    assert (await place.store.view("photos--at--mine")).snapshot_of is None
    await place.set("photos--at--mine", "public-read")
    await place.set("photos", "private")
    place.as_nobody()
    assert (await place.get("photos--at--mine", b"list-type=2")).status == 200
