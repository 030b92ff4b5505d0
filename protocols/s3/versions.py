"""Versions of buckets that have none: every object is its own latest version, `null`."""

from __future__ import annotations

from protocols.s3.errors import S3Error, invalid_argument
from protocols.s3.request import Request

NULL_VERSION = "null"


def check_version(request: Request) -> None:
    """The version that the query names can only be `null`."""
    version = request.query.get("versionId")
    if version is None or version == NULL_VERSION:
        return
    if not version:
        raise invalid_argument("versionId", version, "Version id cannot be the empty string.")
    raise S3Error("NoSuchVersion", details={"VersionId": version[:1024]})
