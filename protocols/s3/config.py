"""What an operator sets for the gateway."""

from __future__ import annotations

from dataclasses import dataclass


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
