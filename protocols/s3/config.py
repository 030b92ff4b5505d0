"""What an operator sets for the gateway."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from protocols.auth.identity import IdentityMap


class KeyPolicy(enum.StrEnum):
    """Which keys a bucket takes."""

    S3 = "s3"
    """Every legal one: what has no path, or shares one with a directory, files find in `.keys` of the bucket's directory."""
    POSIX = "posix"
    """Those that are paths of files."""


@dataclass(frozen=True, slots=True)
class S3Config:
    region: str = "us-east-1"
    """Answered as the region of buckets made without a location; signatures may name any region."""
    domains: tuple[str, ...] = ()
    """Host names under which `bucket.<domain>` addresses a bucket; path style always works."""
    body_idle_seconds: float = 60.0
    """A body that does not move for this long is given up."""
    object_bytes_max: int = 5 * 1024**4
    """Of one object."""
    put_bytes_max: int = 5 * 1024**3
    """Of one PutObject or UploadPart."""
    key_policy: KeyPolicy = KeyPolicy.S3
    """Of buckets made without one."""
    identity: IdentityMap = field(default_factory=IdentityMap)
    """Whose files requests make."""
