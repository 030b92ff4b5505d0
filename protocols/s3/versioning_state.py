"""Whether a bucket keeps versions: kept in `user.s3.versioning` of its view as `Enabled` or `Suspended`; absent where it never did."""

from __future__ import annotations

from element_store.types import Attributes, Versioning

STATE = "user.s3.versioning"
STATUSES = {"Enabled": Versioning.ENABLED, "Suspended": Versioning.SUSPENDED}


def status_of(attributes: Attributes) -> str:
    """As S3 calls it; empty where the bucket never kept versions."""
    status = attributes.xattrs.get(STATE, b"").decode("latin-1")
    return status if status in STATUSES else ""


def versioning_of(attributes: Attributes) -> Versioning:
    return STATUSES.get(status_of(attributes), Versioning.OFF)


def with_status(attributes: Attributes, status: str) -> Attributes:
    return Attributes(attributes.uid, attributes.gid, attributes.mode, {**attributes.xattrs, STATE: status.encode()})
