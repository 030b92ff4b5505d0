"""AWS Signature Version 4: by header, by query (presigned URL), and over the chunks and trailers of a streamed body.

Follows "Authenticating Requests (AWS Signature Version 4)" of the Amazon S3 API reference. Any region is accepted in the scope; the service
must be `s3`. Comparisons are constant-time. Signing keys are derived once per credential and scope. Never reads a body.
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote_to_bytes

from protocols.auth.accounts import Accounts, Credential
from protocols.auth.errors import AuthError
from protocols.auth.request import SignedRequest

ALGORITHM = "AWS4-HMAC-SHA256"
AUTHORIZATION_BYTES_MAX = 8192
CLOCK_SKEW_SECONDS_MAX = 15 * 60
EXPIRES_SECONDS_MAX = 604_800
SIGNED_HEADERS_MAX = 64
SIGNING_KEYS_PER_CREDENTIAL_MAX = 64
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_SAFE_PATH = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/"
_MALFORMED = "AuthorizationHeaderMalformed"
_QUERY_MALFORMED = "AuthorizationQueryParametersError"


@dataclass(slots=True)
class ChunkSigner:
    """The running signature of a streamed body: each chunk signs the one before it, the first the request."""

    key: bytes
    timestamp: str
    scope: str
    previous: str

    def check_chunk(self, signature: str, content_sha256: str) -> bool:
        return self._check(
            f"AWS4-HMAC-SHA256-PAYLOAD\n{self.timestamp}\n{self.scope}\n{self.previous}\n{EMPTY_SHA256}\n{content_sha256}", signature
        )

    def check_trailer(self, signature: str, trailer_sha256: str) -> bool:
        return self._check(f"AWS4-HMAC-SHA256-TRAILER\n{self.timestamp}\n{self.scope}\n{self.previous}\n{trailer_sha256}", signature)

    def _check(self, string_to_sign: str, signature: str) -> bool:
        self.previous = hmac.digest(self.key, string_to_sign.encode(), "sha256").hex()
        return hmac.compare_digest(self.previous.encode(), signature.encode())


@dataclass(slots=True)
class Verified:
    """`payload_hash` is what the client declared: a hex SHA-256 or one of the named forms."""

    credential: Credential
    payload_hash: str
    signer: ChunkSigner | None


@dataclass(slots=True)
class Scope:
    access_key: str
    date: str
    region: str
    text: str


def parse_scope(credential: str, code: str) -> Scope:
    parts = credential.split("/")
    if len(parts) < 5:
        raise AuthError(code, "The Credential must be ACCESS_KEY/DATE/REGION/s3/aws4_request.")
    date, region, service, terminator = parts[-4:]
    if service != "s3" or terminator != "aws4_request":
        raise AuthError(code, "The credential scope must name the service s3 and end in aws4_request.")
    if len(date) != 8 or not date.isascii() or not date.isdigit():
        raise AuthError(code, "The date of the credential scope must have the form YYYYMMDD.")
    return Scope("/".join(parts[:-4]), date, region, f"{date}/{region}/{service}/{terminator}")


def parse_timestamp(text: str) -> int | None:
    """Seconds of `YYYYMMDDTHHMMSSZ`, None if it is not that."""
    if len(text) != 16 or text[8] != "T" or text[15] != "Z" or not text.isascii():
        return None
    digits = text[:8] + text[9:15]
    if not digits.isdigit():
        return None
    year, month, day = int(digits[:4]), int(digits[4:6]), int(digits[6:8])
    hour, minute, second = int(digits[8:10]), int(digits[10:12]), int(digits[12:])
    if not (year >= 1970 and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 61):
        return None
    return calendar.timegm((year, month, day, hour, minute, second))


def header_timestamp(headers_date: bytes) -> tuple[int, str] | None:
    """Seconds and the compact form of an `x-amz-date` or `Date` header, which may also be an HTTP date."""
    text = headers_date.decode("latin-1").strip()
    seconds = parse_timestamp(text)
    if seconds is not None:
        return seconds, text
    try:
        moment = parsedate_to_datetime(text)
        seconds = calendar.timegm(moment.utctimetuple())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    if seconds < 0:
        return None
    utc = moment.utctimetuple()
    return seconds, f"{utc.tm_year:04d}{utc.tm_mon:02d}{utc.tm_mday:02d}T{utc.tm_hour:02d}{utc.tm_min:02d}{utc.tm_sec:02d}Z"


def signing_key(credential: Credential, scope: Scope) -> bytes:
    key = credential.signing_keys.get(scope.text)
    if key is None:
        key = ("AWS4" + credential.secret_key).encode()
        for part in (scope.date, scope.region, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        if len(credential.signing_keys) >= SIGNING_KEYS_PER_CREDENTIAL_MAX:
            credential.signing_keys.clear()
        credential.signing_keys[scope.text] = key
    return key


def canonical_path(raw_path: bytes) -> str:
    """S3 encodes each byte once; whatever encoding the client chose on the wire, the signed form is this one."""
    if not raw_path.translate(None, _SAFE_PATH):
        return raw_path.decode("ascii")
    return quote(unquote_to_bytes(raw_path), safe="/-_.~")


def canonical_query(request: SignedRequest) -> str:
    items = request.query_items
    if not items:
        return ""
    encoded = [(quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in items if name != "X-Amz-Signature"]
    encoded.sort()
    return "&".join([f"{name}={value}" for name, value in encoded])


def _header_value(value: bytes) -> str:
    text = value.decode("latin-1").strip()
    return " ".join(text.split()) if "  " in text or "\t" in text else text


def canonical_headers(request: SignedRequest, signed_names: str, code: str) -> str:
    """Raises AuthError if `host` or any `x-amz-` header that the request carries is not signed."""
    headers = request.headers
    names = signed_names.split(";")
    if len(names) > SIGNED_HEADERS_MAX:
        raise AuthError(code, "Too many signed headers.")
    if "host" not in names:
        raise AuthError("AccessDenied", "The host header must be signed.")
    for name in headers:
        if name.startswith(b"x-amz-") and name.decode("latin-1") not in names:
            raise AuthError("AccessDenied", f"The header {name.decode('latin-1')} was present in the request but not signed.")
    return "".join([f"{name}:{_header_value(headers.get(name.encode('latin-1', 'replace'), b''))}\n" for name in names])


def _string_to_sign(request: SignedRequest, signed_names: str, payload_hash: str, timestamp: str, scope: Scope, code: str) -> bytes:
    canonical = (
        f"{request.method}\n{canonical_path(request.raw_path)}\n{canonical_query(request)}\n"
        f"{canonical_headers(request, signed_names, code)}\n{signed_names}\n{payload_hash}"
    )
    # Header bytes were read as Latin-1, so this gives back what the client hashed.
    digest = hashlib.sha256(canonical.encode("latin-1", "replace")).hexdigest()
    return f"{ALGORITHM}\n{timestamp}\n{scope.text}\n{digest}".encode()


async def _credential(accounts: Accounts, access_key: str) -> Credential:
    credential = await accounts.credential(access_key)
    if credential is None:
        raise AuthError("InvalidAccessKeyId", "The access key that you provided does not exist.")
    return credential


def _compare(expected: str, given: str) -> None:
    if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace")):
        raise AuthError("SignatureDoesNotMatch", "The signature does not match: check your secret key and how the request is signed.")


def _authorization_fields(authorization: bytes) -> tuple[str, str, str]:
    if len(authorization) > AUTHORIZATION_BYTES_MAX:
        raise AuthError(_MALFORMED, "The authorization header is too long.")
    fields = {}
    for part in authorization[len(ALGORITHM) :].decode("latin-1").split(","):
        name, _, value = part.strip().partition("=")
        fields[name] = value
    try:
        return fields["Credential"], fields["SignedHeaders"], fields["Signature"]
    except KeyError as missing:
        raise AuthError(_MALFORMED, f"The authorization header lacks {missing.args[0]}.") from None


async def verify_header(accounts: Accounts, request: SignedRequest, now: float) -> Verified:
    headers = request.headers
    credential_text, signed_names, signature = _authorization_fields(headers[b"authorization"])
    scope = parse_scope(credential_text, _MALFORMED)
    stamp = header_timestamp(headers.get(b"x-amz-date") or headers.get(b"date") or b"")
    if stamp is None:
        raise AuthError("AccessDenied", "A signed request needs a valid x-amz-date or Date header.")
    seconds, timestamp = stamp
    if abs(now - seconds) > CLOCK_SKEW_SECONDS_MAX:
        raise AuthError("RequestTimeTooSkewed", "The difference between the request time and the server's time is too large.")
    if timestamp[:8] != scope.date:
        raise AuthError(_MALFORMED, "The date of the credential scope differs from the date of the request.")
    declared = headers.get(b"x-amz-content-sha256")
    if declared is None:
        raise AuthError("InvalidRequest", "Missing required header for this request: x-amz-content-sha256.")
    payload_hash = declared.decode("latin-1")
    credential = await _credential(accounts, scope.access_key)
    key = signing_key(credential, scope)
    to_sign = _string_to_sign(request, signed_names, payload_hash, timestamp, scope, _MALFORMED)
    expected = hmac.digest(key, to_sign, "sha256").hex()
    _compare(expected, signature)
    signer = ChunkSigner(key, timestamp, scope.text, expected) if payload_hash.startswith("STREAMING-") else None
    return Verified(credential, payload_hash, signer)


def _presigned_fields(request: SignedRequest) -> tuple[str, str, str, str, str]:
    query = request.query
    try:
        fields = tuple(query[f"X-Amz-{name}"] for name in ("Credential", "SignedHeaders", "Signature", "Date", "Expires"))
    except KeyError as missing:
        raise AuthError(_QUERY_MALFORMED, f"The query lacks {missing.args[0]}.") from None
    return fields  # type: ignore[return-value]


async def verify_query(accounts: Accounts, request: SignedRequest, now: float) -> Verified:
    if request.query.get("X-Amz-Algorithm") != ALGORITHM:
        raise AuthError(_QUERY_MALFORMED, f"X-Amz-Algorithm must be {ALGORITHM}.")
    credential_text, signed_names, signature, timestamp, expires_text = _presigned_fields(request)
    scope = parse_scope(credential_text, _QUERY_MALFORMED)
    seconds = parse_timestamp(timestamp)
    if seconds is None or timestamp[:8] != scope.date:
        raise AuthError(_QUERY_MALFORMED, "X-Amz-Date must have the form YYYYMMDDTHHMMSSZ and the date of the credential.")
    if not (expires_text.isascii() and expires_text.isdigit() and len(expires_text) < 12):
        raise AuthError("AccessDenied", "X-Amz-Expires should be a number.")
    if not 1 <= int(expires_text) <= EXPIRES_SECONDS_MAX:
        raise AuthError("AccessDenied", f"X-Amz-Expires must be between 1 and {EXPIRES_SECONDS_MAX} seconds.")
    if seconds > now + CLOCK_SKEW_SECONDS_MAX:
        raise AuthError("AccessDenied", "Request is not valid yet.")
    if now > seconds + int(expires_text):
        raise AuthError("AccessDenied", "Request has expired.")
    credential = await _credential(accounts, scope.access_key)
    declared = request.headers.get(b"x-amz-content-sha256")
    payload_hash = declared.decode("latin-1") if declared else request.query.get("X-Amz-Content-Sha256", UNSIGNED_PAYLOAD)
    key = signing_key(credential, scope)
    expected = hmac.digest(key, _string_to_sign(request, signed_names, payload_hash, timestamp, scope, _QUERY_MALFORMED), "sha256").hex()
    _compare(expected, signature)
    signer = ChunkSigner(key, timestamp, scope.text, expected) if payload_hash.startswith("STREAMING-") else None
    return Verified(credential, payload_hash, signer)
