"""Users and keys: what an operator may do, and that the request path sees it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

import pytest

from protocols.auth import AccountError, Authenticator
from protocols.auth.accounts import FIRST_UID
from tests.model.store import ModelStore

T = TypeVar("T")


def run(awaitable: Awaitable[T]) -> T:
    async def wait() -> T:
        return await awaitable

    return asyncio.run(wait())


@pytest.fixture
def auth() -> Authenticator:
    return Authenticator(ModelStore())


def test_users_get_uids_of_their_own(auth: Authenticator) -> None:
    assert [run(auth.create_user(name)).uid for name in "ab"] == [FIRST_UID, FIRST_UID + 1]
    assert [user.id for user in run(auth.list_users())] == ["a", "b"]
    with pytest.raises(AccountError, match="exists already"):
        run(auth.create_user("a"))


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 129, "ü"])
def test_bad_user_ids(auth: Authenticator, name: str) -> None:
    with pytest.raises(AccountError, match="not a user id"):
        run(auth.create_user(name))


def test_a_deleted_key_stops_working_at_once(auth: Authenticator) -> None:
    run(auth.create_user("a"))
    key = run(auth.create_key("a"))
    assert len(key.access_key) == 20
    assert len(key.secret_key) == 40
    credential = run(auth.credential(key.access_key))
    assert credential is not None
    assert credential.user.id == "a"
    run(auth.delete_key(key.access_key))
    assert run(auth.credential(key.access_key)) is None
    with pytest.raises(AccountError, match="no access key"):
        run(auth.delete_key(key.access_key))


def test_a_deleted_user_takes_its_keys_along(auth: Authenticator) -> None:
    run(auth.create_user("a"))
    key = run(auth.create_key("a"))
    assert run(auth.credential(key.access_key)) is not None
    run(auth.delete_user("a"))
    assert run(auth.credential(key.access_key)) is None
    assert run(auth.list_keys()) == []


def test_root_has_one_key(auth: Authenticator) -> None:
    run(auth.ensure_root("FIRSTROOTKEY", "first-secret"))
    run(auth.ensure_root("SECONDROOTKEY", "second-secret"))
    run(auth.ensure_root("SECONDROOTKEY", "third-secret"))
    assert [(key.access_key, key.secret_key) for key in run(auth.list_keys("root"))] == [("SECONDROOTKEY", "third-secret")]
    assert run(auth.credential("FIRSTROOTKEY")) is None
    credential = run(auth.credential("SECONDROOTKEY"))
    assert credential is not None
    assert credential.user.is_root
    with pytest.raises(AccountError, match="cannot be deleted"):
        run(auth.delete_user("root"))


def test_root_cannot_take_a_key_of_another(auth: Authenticator) -> None:
    run(auth.create_user("a"))
    run(auth.create_key("a", "TAKENTAKEN", "secret-secret"))
    with pytest.raises(AccountError, match="belongs to another"):
        run(auth.ensure_root("TAKENTAKEN", "secret-secret"))


@pytest.mark.parametrize(
    ("access", "secret"), [("ab", "12345678"), ("a b c", "12345678"), ("abc", "short"), ("abc", "with space"), ("a/b", "12345678")]
)
def test_bad_keys(auth: Authenticator, access: str, secret: str) -> None:
    run(auth.create_user("a"))
    with pytest.raises(AccountError):
        run(auth.create_key("a", access, secret))
