"""The policy of a browser's form: what its signer allows whoever sends the form to upload.

Every field of the form must be named by a condition, except those that sign it, those that start with `x-ignore-`, and checksums, which only
narrow what is accepted. Names compare without case.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from protocols.s3.errors import S3Error

CONDITIONS_MAX = 200
POLICY_BYTES_MAX = 64 * 1024
_UNNAMED = frozenset({"policy", "signature", "awsaccesskeyid", "x-amz-signature", "file"})
_UNNAMED_PREFIXES = ("x-ignore-", "x-amz-checksum-")


@dataclass(frozen=True, slots=True)
class Condition:
    exact: bool
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Policy:
    expires: int
    conditions: tuple[Condition, ...]
    size_min: int = 0
    size_max: int | None = None

    def check(self, fields: Mapping[str, str], now: float) -> None:
        """Raises AccessDenied. `fields` by lower-case name, with the bucket that the form was sent to."""
        if now > self.expires:
            raise S3Error("AccessDenied", "Invalid according to Policy: Policy expired.")
        for condition in self.conditions:
            value = fields.get(condition.name, "")
            if value != condition.value if condition.exact else not value.startswith(condition.value):
                raise S3Error("AccessDenied", f"Invalid according to Policy: Policy Condition failed: {condition.name}.")
        named = {condition.name for condition in self.conditions}
        for name in fields:
            if name not in named and name not in _UNNAMED and not name.startswith(_UNNAMED_PREFIXES):
                raise S3Error("AccessDenied", f"Invalid according to Policy: Extra input fields: {name}.")


def _invalid(why: str) -> S3Error:
    return S3Error("InvalidPolicyDocument", f"Invalid Policy: {why}.")


def parse_policy(text: str) -> Policy:
    """Raises InvalidPolicyDocument."""
    if len(text) > POLICY_BYTES_MAX:
        raise _invalid("it is too long")
    try:
        found = json.loads(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise _invalid("it is not JSON in base64") from None
    if not isinstance(found, dict) or not isinstance(found.get("conditions"), list) or not isinstance(found.get("expiration"), str):
        raise _invalid("it must be an object with expiration and conditions")
    if len(found["conditions"]) > CONDITIONS_MAX:
        raise _invalid("it has too many conditions")
    conditions: list[Condition] = []
    size_min, size_max = 0, None
    for condition in found["conditions"]:
        if isinstance(condition, list) and len(condition) == 3 and _text(condition[0]).lower() == "content-length-range":
            size_min, size_max = _size(condition[1]), _size(condition[2])
        else:
            conditions += _conditions(condition)
    return Policy(_expiration(found["expiration"]), tuple(conditions), size_min, size_max)


def _conditions(condition: object) -> list[Condition]:
    if isinstance(condition, dict) and condition:
        return [Condition(True, name.lower(), _text(value)) for name, value in condition.items()]
    if isinstance(condition, list) and len(condition) == 3:
        kind, name, value = (_text(part) for part in condition)
        if kind.lower() in ("eq", "starts-with") and name.startswith("$"):
            return [Condition(kind.lower() == "eq", name[1:].lower(), value)]
    raise _invalid("a condition is not understood")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _invalid("a condition holds something other than text")
    return value


def _size(value: object) -> int:
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise _invalid("content-length-range needs two sizes")
    return int(text)


def _expiration(text: str) -> int:
    for form in ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%fZ"):
        try:
            return calendar.timegm(time.strptime(text, form))
        except ValueError:
            continue
    raise _invalid("expiration must have the form YYYY-MM-DDTHH:MM:SSZ")
