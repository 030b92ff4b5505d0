"""Who sends a browser's form: the policy in it is signed, by Signature Version 4 or 2. What the policy demands is not looked at here."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping

from protocols.auth.accounts import Accounts, Credential
from protocols.auth.errors import AuthError
from protocols.auth.sigv4 import ALGORITHM, parse_scope, parse_timestamp, signing_key

SIGNATURE_FIELDS = frozenset({"awsaccesskeyid", "signature", "x-amz-signature"})


async def verify_form(accounts: Accounts, fields: Mapping[str, str]) -> Credential | None:
    """`fields`: by lower-case name. None for an anonymous form. Raises AuthError."""
    policy = fields.get("policy")
    if policy is None:
        if SIGNATURE_FIELDS.isdisjoint(fields):
            return None
        raise AuthError("InvalidArgument", "A signed form needs the field policy.")
    version_4 = "x-amz-signature" in fields or "x-amz-algorithm" in fields
    names = ("x-amz-credential", "x-amz-date", "x-amz-signature") if version_4 else ("awsaccesskeyid", "signature")
    for name in names:
        if name not in fields:
            raise AuthError("InvalidArgument", f"A form with a policy needs the field {name}.")
    signed = policy.encode()
    if version_4:
        scope = parse_scope(fields["x-amz-credential"], "AuthorizationQueryParametersError")
        date = fields["x-amz-date"]
        if fields.get("x-amz-algorithm") != ALGORITHM or parse_timestamp(date) is None or date[:8] != scope.date:
            raise AuthError("InvalidArgument", f"The form needs x-amz-algorithm {ALGORITHM} and an x-amz-date of the credential's day.")
        credential = await _credential(accounts, scope.access_key)
        expected = hmac.digest(signing_key(credential, scope), signed, "sha256").hex()
        given = fields["x-amz-signature"]
    else:
        credential = await _credential(accounts, fields["awsaccesskeyid"])
        expected = base64.b64encode(hmac.digest(credential.secret_key.encode(), signed, "sha1")).decode()
        given = fields["signature"]
    if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace")):
        raise AuthError("SignatureDoesNotMatch", "The signature does not match: check your secret key and how the policy is signed.")
    return credential


async def _credential(accounts: Accounts, access_key: str) -> Credential:
    found = await accounts.credential(access_key)
    if found is None:
        raise AuthError("InvalidAccessKeyId", "The access key that you provided does not exist.")
    return found
