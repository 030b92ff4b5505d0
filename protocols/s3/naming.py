"""What a bucket and a key may be called. Rules: "Bucket naming rules" of the Amazon S3 user guide."""

from __future__ import annotations

import re

from element_store.snapshots import ALIAS
from protocols.s3.errors import S3Error

BUCKET_NAME_LENGTH_MAX = 63
BUCKET_NAME_LENGTH_MIN = 3
KEY_BYTES_MAX = 1024

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]*[a-z0-9]")
_ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
_RESERVED_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


def is_bucket_name(name: str) -> bool:
    return (
        BUCKET_NAME_LENGTH_MIN <= len(name) <= BUCKET_NAME_LENGTH_MAX
        and _BUCKET.fullmatch(name) is not None
        and ".." not in name
        and ".-" not in name
        and "-." not in name
        and _ADDRESS.fullmatch(name) is None
        and not name.startswith(_RESERVED_PREFIXES)
        and not name.endswith(_RESERVED_SUFFIXES)
        and ALIAS not in name
    )


def check_new_bucket(name: str) -> None:
    if not is_bucket_name(name):
        raise S3Error("InvalidBucketName", details={"BucketName": name})


def check_key(key: bytes) -> None:
    if len(key) > KEY_BYTES_MAX:
        raise S3Error("KeyTooLongError", details={"Size": str(len(key)), "MaxSizeAllowed": str(KEY_BYTES_MAX)})
    if b"\0" in key:
        raise S3Error("InvalidArgument", "A key cannot hold a NUL character.")
    try:
        key.decode()
    except UnicodeDecodeError:
        raise S3Error("InvalidURI", "A key must be UTF-8.") from None
