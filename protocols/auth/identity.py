"""Whose files S3 writes make, and what others may do with them: from a user to owner and modes.

What S3 writes never belongs to root: uid or gid 0, which the root user has, stands for the map's own. Nobody's writes belong to nobody.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocols.auth.accounts import User

NOBODY = 65534
ORDINARY_ID = 1000
"""The first ordinary user and group of most systems."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a new file gets, and the directories that its key makes."""

    uid: int
    gid: int
    file_mode: int
    directory_mode: int


@dataclass(frozen=True, slots=True)
class IdentityMap:
    """What holds for users that say nothing of their own."""

    uid: int = ORDINARY_ID
    gid: int = ORDINARY_ID
    file_mode: int = 0o644
    directory_mode: int = 0o755

    def of(self, user: User | None) -> Identity:
        """None: somebody without an account."""
        if user is None:
            return Identity(NOBODY, NOBODY, self.file_mode, self.directory_mode)
        return Identity(
            user.uid or self.uid,
            user.gid or self.gid,
            self.file_mode if user.file_mode is None else user.file_mode,
            self.directory_mode if user.directory_mode is None else user.directory_mode,
        )
