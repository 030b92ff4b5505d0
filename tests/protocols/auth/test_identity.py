"""Whose files S3 writes make."""

from __future__ import annotations

import asyncio

import pytest

from protocols.auth import AccountError, Authenticator, User
from protocols.auth.identity import NOBODY, Identity, IdentityMap
from tests.model.store import ModelStore

MAP = IdentityMap(uid=500, gid=501, file_mode=0o640, directory_mode=0o750)


def test_root_and_guests_never_own_roots_files() -> None:
    assert MAP.of(User("root", "root", "", 0, 0)) == Identity(500, 501, 0o640, 0o750)
    assert MAP.of(User("ann", "Ann", "", 7, 0)) == Identity(7, 501, 0o640, 0o750)
    assert MAP.of(None) == Identity(NOBODY, NOBODY, 0o640, 0o750)


def test_a_user_may_have_modes_of_its_own() -> None:
    assert MAP.of(User("ann", "Ann", "", 7, 8, 0o600, 0o2770)) == Identity(7, 8, 0o600, 0o2770)


def test_a_changed_identity_counts_at_once() -> None:
    async def change() -> tuple[User, User | None]:
        auth = Authenticator(ModelStore())
        await auth.create_user("ann", file_mode=0o600)
        key = await auth.create_key("ann")
        before = await auth.credential(key.access_key)
        assert before is not None
        await auth.set_identity("ann", {"uid": 77, "file_mode": None, "directory_mode": 0o700})
        after = await auth.credential(key.access_key)
        return before.user, None if after is None else after.user

    before, after = asyncio.run(change())
    assert after is not None
    assert (before.file_mode, after.uid, after.gid, after.file_mode, after.directory_mode) == (0o600, 77, before.gid, None, 0o700)


@pytest.mark.parametrize(
    "wrong",
    [{"uid": -1}, {"gid": 2**32 - 1}, {"file_mode": 0o1644}, {"file_mode": 0o200}, {"directory_mode": 0o600}, {"directory_mode": 0o1777}],
)
def test_an_owner_or_mode_that_is_none_is_refused(wrong: dict[str, int | None]) -> None:
    async def change() -> None:
        auth = Authenticator(ModelStore())
        await auth.create_user("ann")
        await auth.set_identity("ann", wrong)

    with pytest.raises(AccountError, match=r"must lie between|mode is"):
        asyncio.run(change())
