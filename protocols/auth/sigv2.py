"""AWS Signature Version 2, by header and by query: old clients, and `aws s3 presign` of AWS CLI 1, still send it.

Follows "Signing and Authenticating REST Requests" of the Amazon S3 developer guide. The payload is never signed.
"""

from __future__ import annotations

import base64
import hmac

from protocols.auth.accounts import Accounts, Credential
from protocols.auth.errors import AuthError
from protocols.auth.request import SignedRequest
from protocols.auth.sigv4 import CLOCK_SKEW_SECONDS_MAX, UNSIGNED_PAYLOAD, Verified, header_timestamp

SIGNED_SUBRESOURCES = frozenset(
    [
        "accelerate",
        "acl",
        "cors",
        "delete",
        "encryption",
        "lifecycle",
        "location",
        "logging",
        "notification",
        "object-lock",
        "partNumber",
        "policy",
        "policyStatus",
        "publicAccessBlock",
        "replication",
        "requestPayment",
        "response-cache-control",
        "response-content-disposition",
        "response-content-encoding",
        "response-content-language",
        "response-content-type",
        "response-expires",
        "restore",
        "retention",
        "legal-hold",
        "tagging",
        "torrent",
        "uploadId",
        "uploads",
        "versionId",
        "versioning",
        "versions",
        "website",
        "inventory",
        "analytics",
        "metrics",
        "ownershipControls",
        "attributes",
    ]
)


def resource_paths(request: SignedRequest) -> tuple[str, ...]:
    """What the client may have signed as the path: SDKs sign a bucket in path style as `/bucket/` even where they ask for `/bucket`."""
    path = request.raw_path.decode("latin-1")
    if request.host_bucket:
        return (f"/{request.host_bucket}{path}",)
    if path.find("/", 1) < 0 and len(path) > 1:
        return path, path + "/"
    return (path,)


def canonical_resource(request: SignedRequest, path: str) -> str:
    chosen = sorted((name, value) for name, value in request.query_items if name in SIGNED_SUBRESOURCES)
    if chosen:
        path += "?" + "&".join(f"{name}={value}" if value else name for name, value in chosen)
    return path


def strings_to_sign(request: SignedRequest, date: str) -> list[str]:
    headers = request.headers
    amz = sorted((name, value) for name, value in headers.items() if name.startswith(b"x-amz-"))
    amz_text = "".join(f"{name.decode('latin-1')}:{' '.join(value.decode('latin-1').split())}\n" for name, value in amz)
    md5 = headers.get(b"content-md5", b"").decode("latin-1")
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    head = f"{request.method}\n{md5}\n{content_type}\n{date}\n{amz_text}"
    return [head + canonical_resource(request, path) for path in resource_paths(request)]


def sign(secret_key: str, text: str) -> str:
    return base64.b64encode(hmac.digest(secret_key.encode(), text.encode("latin-1", "replace"), "sha1")).decode()


async def _check(accounts: Accounts, access_key: str, signature: str, texts: list[str]) -> Credential:
    credential = await accounts.credential(access_key)
    if credential is None:
        raise AuthError("InvalidAccessKeyId", "The access key that you provided does not exist.")
    given = signature.encode("utf-8", "replace")
    if not any(hmac.compare_digest(sign(credential.secret_key, text).encode(), given) for text in texts):
        raise AuthError("SignatureDoesNotMatch", "The signature does not match: check your secret key and how the request is signed.")
    return credential


def _payload_hash(request: SignedRequest) -> str:
    """Version 2 signs no payload, but a client may still declare the body's form; it must not claim chunk signatures."""
    declared = request.headers.get(b"x-amz-content-sha256")
    return declared.decode("latin-1") if declared else UNSIGNED_PAYLOAD


async def verify_header(accounts: Accounts, request: SignedRequest, now: float) -> Verified:
    headers = request.headers
    access_key, colon, signature = headers[b"authorization"][len(b"AWS ") :].decode("latin-1").strip().partition(":")
    if not colon:
        raise AuthError("InvalidArgument", "The authorization header must have the form AWS ACCESS_KEY:SIGNATURE.")
    amz_date = headers.get(b"x-amz-date")
    stamp = header_timestamp(amz_date if amz_date is not None else headers.get(b"date", b""))
    if stamp is None:
        raise AuthError("AccessDenied", "A signed request needs a valid x-amz-date or Date header.")
    if abs(now - stamp[0]) > CLOCK_SKEW_SECONDS_MAX:
        raise AuthError("RequestTimeTooSkewed", "The difference between the request time and the server's time is too large.")
    date = "" if amz_date is not None else headers.get(b"date", b"").decode("latin-1")
    credential = await _check(accounts, access_key, signature, strings_to_sign(request, date))
    return Verified(credential, _payload_hash(request), None)


async def verify_query(accounts: Accounts, request: SignedRequest, now: float) -> Verified:
    query = request.query
    access_key, signature, expires = query.get("AWSAccessKeyId", ""), query.get("Signature", ""), query.get("Expires", "")
    if not access_key or not signature or not (expires.isascii() and expires.isdigit() and len(expires) < 16):
        raise AuthError("AccessDenied", "Query-string authentication needs AWSAccessKeyId, Signature and a numeric Expires.")
    if now > int(expires):
        raise AuthError("AccessDenied", "Request has expired.")
    credential = await _check(accounts, access_key, signature, strings_to_sign(request, expires))
    return Verified(credential, _payload_hash(request), None)
