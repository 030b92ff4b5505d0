"""Which keys a bucket takes: every legal one, or only those that files can name.

The store keeps the policy with the view and enforces it in the commit; here it is chosen, when the bucket is made, and its refusals are put into words.
"""

from __future__ import annotations

from element_store.types import View
from protocols.s3.config import KeyPolicy
from protocols.s3.errors import S3Error
from protocols.s3.request import Request

HEADER = b"x-trefoil-key-policy"
KEY_POLICY = "trefoil.key_policy"


def policy_xattrs(policy: KeyPolicy) -> dict[str, bytes]:
    return {} if policy is KeyPolicy.S3 else {KEY_POLICY: policy.value.encode()}


def policy_of(view: View) -> KeyPolicy:
    return KeyPolicy.POSIX if view.attributes.xattrs.get(KEY_POLICY) == KeyPolicy.POSIX.value.encode() else KeyPolicy.S3


def wanted_policy(request: Request, default: KeyPolicy) -> KeyPolicy:
    """What a CreateBucket asks for. Raises InvalidArgument."""
    asked = request.header(HEADER)
    if asked is None:
        return default
    try:
        return KeyPolicy(asked)
    except ValueError:
        raise S3Error("InvalidArgument", f"{HEADER.decode()} must be one of: {', '.join(KeyPolicy)}.") from None
