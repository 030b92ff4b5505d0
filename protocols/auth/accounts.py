"""Users and access keys, kept as records of the store: kind `user` by id, kind `key` by access key.

A key names its user; a user that is deleted takes its keys along. Lookups by access key are cached, and every change through this
object drops what it touches, so one process must own the records. Secrets are stored as they are: SigV4 needs them in clear.
"""

from __future__ import annotations

import json
import re
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from element_store.interface import ElementStore
from element_store.types import Conflict
from protocols.auth.errors import AccountError

ACCESS_KEY_ALPHABET = string.ascii_uppercase + string.digits
ACCESS_KEY_LENGTH = 20
CREDENTIALS_CACHED_MAX = 4096
FIRST_UID = 2000
"""Users made by the daemon own their files under uids from here on; root has 0."""
KEYS_PER_USER_MAX = 16
KIND_KEY = "key"
KIND_USER = "user"
ROOT_ID = "root"
SECRET_LENGTH = 40
UID_MAX = 2**32 - 2
FILE_MODE_MAX = 0o777
DIRECTORY_MODE_MAX = 0o2777
"""The set-group-id bit makes a directory hand its group on; nothing that S3 writes is set-user-id or sticky."""

_USER_ID = re.compile(r"[A-Za-z0-9_.@$+=,-]{1,128}")
_ACCESS_KEY = re.compile(r"[A-Za-z0-9_.-]{3,128}")
_SECRET = re.compile(r"[\x21-\x7e]{8,128}")


@dataclass(frozen=True, slots=True)
class User:
    id: str
    display_name: str
    email: str
    uid: int
    gid: int
    file_mode: int | None = None
    """Of what the user writes through S3; None: as the identity map says (`protocols.auth.identity`), also for uid and gid 0."""
    directory_mode: int | None = None

    @property
    def is_root(self) -> bool:
        return self.id == ROOT_ID


@dataclass(frozen=True, slots=True)
class AccessKey:
    access_key: str
    secret_key: str
    user_id: str


@dataclass(slots=True)
class Credential:
    """A key with its user, and the signing keys derived from its secret."""

    access_key: str
    secret_key: str
    user: User
    signing_keys: dict[str, bytes] = field(default_factory=dict)
    """By credential scope; dropped with the credential, so that no signing key outlives its secret."""


def _encode(value: User | AccessKey) -> bytes:
    return json.dumps({name: getattr(value, name) for name in value.__dataclass_fields__}, sort_keys=True).encode()


def _decode_user(value: bytes) -> User:
    fields = json.loads(value)
    return User(
        id=str(fields["id"]),
        display_name=str(fields["display_name"]),
        email=str(fields["email"]),
        uid=int(fields["uid"]),
        gid=int(fields["gid"]),
        file_mode=fields.get("file_mode"),
        directory_mode=fields.get("directory_mode"),
    )


def _decode_key(value: bytes) -> AccessKey:
    fields = json.loads(value)
    return AccessKey(access_key=str(fields["access_key"]), secret_key=str(fields["secret_key"]), user_id=str(fields["user_id"]))


def _check_identity(user: User) -> None:
    if not (0 <= user.uid <= UID_MAX and 0 <= user.gid <= UID_MAX):
        raise AccountError(f"uid and gid must lie between 0 and {UID_MAX}")
    check_modes(user.file_mode, user.directory_mode)


def check_modes(file_mode: int | None, directory_mode: int | None) -> None:
    """Raises AccountError."""
    if file_mode is not None and (not 0 <= file_mode <= FILE_MODE_MAX or not file_mode & 0o400):
        raise AccountError("a file mode is 0400 to 0777 in octal digits, and lets the owner read")
    mode = directory_mode
    if mode is not None and (not 0 <= mode <= DIRECTORY_MODE_MAX or mode & 0o500 != 0o500 or mode & 0o1000):
        raise AccountError("a directory mode is 0500 to 0777, or 2500 to 2777, in octal digits, and lets the owner read and enter")


def _random(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


class Accounts:
    def __init__(self, store: ElementStore) -> None:
        self._store = store
        self._credentials: dict[str, Credential] = {}
        self._users: dict[str, User] = {}

    # Lookups of the request path
    async def credential(self, access_key: str) -> Credential | None:
        found = self._credentials.get(access_key)
        if found is not None:
            return found
        if not _ACCESS_KEY.fullmatch(access_key):
            return None
        record = await self._store.get_record(KIND_KEY, access_key)
        if record is None:
            return None
        key = _decode_key(record)
        user = await self.user(key.user_id)
        if user is None:
            return None
        if len(self._credentials) >= CREDENTIALS_CACHED_MAX:
            self._credentials.clear()
        credential = Credential(key.access_key, key.secret_key, user)
        self._credentials[access_key] = credential
        return credential

    async def user(self, user_id: str) -> User | None:
        found = self._users.get(user_id)
        if found is None:
            record = await self._store.get_record(KIND_USER, user_id)
            if record is None:
                return None
            if len(self._users) >= CREDENTIALS_CACHED_MAX:
                self._users.clear()
            found = self._users[user_id] = _decode_user(record)
        return found

    # What an operator does
    async def create_user(
        self,
        user_id: str,
        *,
        display_name: str = "",
        email: str = "",
        uid: int | None = None,
        gid: int | None = None,
        file_mode: int | None = None,
        directory_mode: int | None = None,
    ) -> User:
        """Raises AccountError if the id is taken or malformed, or an owner or mode is none."""
        if not _USER_ID.fullmatch(user_id):
            raise AccountError(f"{user_id!r} is not a user id: use 1 to 128 letters, digits or _.@$+=,-")
        if uid is None:
            uid = max([FIRST_UID - 1, *(user.uid for user in await self.list_users())]) + 1
        gid = uid if gid is None else gid
        user = User(user_id, display_name or user_id, email, uid, gid, file_mode, directory_mode)
        _check_identity(user)
        try:
            await self._store.put_record(KIND_USER, user_id, _encode(user), must_be_new=True)
        except Conflict:
            raise AccountError(f"user {user_id} exists already") from None
        self._forget()
        return user

    async def list_users(self) -> list[User]:
        return [_decode_user(value) for _, value in await self._store.list_records(KIND_USER)]

    async def delete_user(self, user_id: str) -> None:
        """Deletes the user and its keys. Buckets stay and belong to nobody but root until a user of that id returns."""
        if user_id == ROOT_ID:
            raise AccountError("the root user cannot be deleted")
        if await self._store.get_record(KIND_USER, user_id) is None:
            raise AccountError(f"there is no user {user_id}")
        for key in await self.list_keys(user_id):
            await self._store.delete_record(KIND_KEY, key.access_key)
        await self._store.delete_record(KIND_USER, user_id)
        self._forget()

    async def set_identity(self, user_id: str, changes: Mapping[str, int | None]) -> User:
        """Changes uid, gid, file_mode or directory_mode: of what the user writes from now on. Raises AccountError."""
        user = await self.user(user_id)
        if user is None:
            raise AccountError(f"there is no user {user_id}")
        changed = replace(user, **changes)  # type: ignore[arg-type]
        _check_identity(changed)
        await self._store.put_record(KIND_USER, user_id, _encode(changed))
        self._forget()
        return changed

    async def create_key(self, user_id: str, access_key: str | None = None, secret_key: str | None = None) -> AccessKey:
        """Raises AccountError if the user is unknown, has too many keys, or the key is taken or malformed."""
        if await self._store.get_record(KIND_USER, user_id) is None:
            raise AccountError(f"there is no user {user_id}")
        if len(await self.list_keys(user_id)) >= KEYS_PER_USER_MAX:
            raise AccountError(f"user {user_id} has {KEYS_PER_USER_MAX} keys already: delete one first")
        key = self._new_key(user_id, access_key, secret_key)
        try:
            await self._store.put_record(KIND_KEY, key.access_key, _encode(key), must_be_new=True)
        except Conflict:
            raise AccountError(f"access key {key.access_key} exists already") from None
        self._forget()
        return key

    async def list_keys(self, user_id: str | None = None) -> list[AccessKey]:
        keys = [_decode_key(value) for _, value in await self._store.list_records(KIND_KEY)]
        return [key for key in keys if user_id is None or key.user_id == user_id]

    async def delete_key(self, access_key: str) -> None:
        if not await self._store.delete_record(KIND_KEY, access_key):
            raise AccountError(f"there is no access key {access_key}")
        self._forget()

    async def ensure_root(self, access_key: str, secret_key: str) -> AccessKey:
        """The root user exists and this is its one key; any earlier root key stops working."""
        key = self._new_key(ROOT_ID, access_key, secret_key)
        held = await self._store.get_record(KIND_KEY, access_key)
        if held is not None and _decode_key(held).user_id != ROOT_ID:
            raise AccountError(f"access key {access_key} belongs to another user: choose another root access key")
        if await self._store.get_record(KIND_USER, ROOT_ID) is None:
            await self._store.put_record(KIND_USER, ROOT_ID, _encode(User(ROOT_ID, ROOT_ID, "", 0, 0)))
        await self._store.put_record(KIND_KEY, access_key, _encode(key))
        for other in await self.list_keys(ROOT_ID):
            if other.access_key != access_key:
                await self._store.delete_record(KIND_KEY, other.access_key)
        self._forget()
        return key

    def _new_key(self, user_id: str, access_key: str | None, secret_key: str | None) -> AccessKey:
        if access_key is None:
            access_key = _random(ACCESS_KEY_ALPHABET, ACCESS_KEY_LENGTH)
        if secret_key is None:
            secret_key = _random(string.ascii_letters + string.digits, SECRET_LENGTH)
        if not _ACCESS_KEY.fullmatch(access_key):
            raise AccountError("an access key has 3 to 128 letters, digits or _.-")
        if not _SECRET.fullmatch(secret_key):
            raise AccountError("a secret key has 8 to 128 printable ASCII characters without spaces")
        return AccessKey(access_key, secret_key, user_id)

    def _forget(self) -> None:
        self._credentials.clear()
        self._users.clear()
