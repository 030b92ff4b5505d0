"""The state directory: who may use it, and the small files that the daemon keeps there.

Invariants: one daemon at a time (an flock that dies with the process); secrets are created 0600 and replaced atomically.
Never holds what the pool must not lose: everything here can be made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from server.errors import Exit, UserError

TOKEN_BYTES = 32
SECRET_FILE_BYTES_MAX = 4096
SOCKET_PATH_BYTES_MAX = 107
"""What `sockaddr_un` holds on Linux."""


@dataclass(frozen=True, slots=True)
class Credentials:
    access_key: str
    secret_key: str


def new_credentials() -> Credentials:
    """Of the lengths that S3 tools expect: 20 and 40 characters."""
    access_key = "".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(20))
    return Credentials(access_key, "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(40)))


@dataclass(frozen=True, slots=True)
class StateDirectory:
    path: Path

    @property
    def socket(self) -> Path:
        return self.path / "admin.sock"

    @property
    def token_file(self) -> Path:
        return self.path / "admin-token"

    @property
    def credentials_file(self) -> Path:
        return self.path / "root-credentials.json"

    @property
    def endpoints_file(self) -> Path:
        """What the running daemon serves, for the CLI; not a secret."""
        return self.path / "endpoints.json"

    @property
    def lock_hosts_file(self) -> Path:
        """The NFS clients that hold locks; not a secret. Without it they are not told of a restart."""
        return self.path / "nfs-lock-hosts"

    @property
    def kernel_mount(self) -> Path:
        """Where the kernel's block target finds the volumes' files."""
        return self.path / "nvmet"

    @property
    def store(self) -> Path:
        """The element store's own directory."""
        return self.path / "store"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Raises UserError if the directory cannot be used, or another daemon uses it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.store.mkdir(exist_ok=True, mode=0o700)
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UserError(
                f"cannot use the state directory {self.path}: {error.strerror}", exit_code=Exit.REFUSED, kind="refused"
            ) from None
        if len(os.fsencode(self.socket)) > SOCKET_PATH_BYTES_MAX:
            raise UserError(f"the state directory's path is too long for a unix socket: {self.path}")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise UserError(f"another trefoil daemon uses {self.path}", exit_code=Exit.REFUSED, kind="refused") from None
        try:
            yield
        finally:
            os.close(descriptor)

    def token(self) -> str:
        """The admin API's bearer token; made if there is none."""
        token = self.read_secret(self.token_file)
        if token is None:
            token = secrets.token_urlsafe(TOKEN_BYTES)
            write_secret(self.token_file, token)
        return token

    def root_credentials(self) -> Credentials | None:
        """Raises UserError if the file is not what we wrote."""
        text = self.read_secret(self.credentials_file)
        if text is None:
            return None
        try:
            fields = json.loads(text)
            return Credentials(str(fields["access_key"]), str(fields["secret_key"]))
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{self.credentials_file} is damaged; move it away, and give the root keys in the environment") from None

    def keep_root_credentials(self, credentials: Credentials) -> None:
        text = json.dumps({"access_key": credentials.access_key, "secret_key": credentials.secret_key}, indent=2)
        write_secret(self.credentials_file, text)

    def keep_endpoints(self, endpoints: Mapping[str, str]) -> None:
        self.endpoints_file.write_text(json.dumps(endpoints) + "\n")

    def endpoints(self) -> dict[str, str]:
        """Empty while no daemon runs."""
        try:
            found = json.loads(self.endpoints_file.read_text())
        except (OSError, ValueError):
            return {}
        return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}

    def forget_endpoints(self) -> None:
        self.endpoints_file.unlink(missing_ok=True)
        self.socket.unlink(missing_ok=True)

    def read_secret(self, path: Path) -> str | None:
        try:
            with path.open() as file:
                return file.read(SECRET_FILE_BYTES_MAX).strip()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}", exit_code=Exit.UNREACHABLE, kind="unreachable") from None


def write_secret(path: Path, text: str) -> None:
    """Readable by its owner only from its first moment; durable when this returns."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
