"""One request as the gateway sees it: parsed once, within bounds, before anything else happens.

Owns the split of path and host into bucket and key, and access to headers and query. Does not read the body (see `payload`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote_to_bytes

from element_store.types import Versioning
from protocols.s3.config import S3Config
from protocols.s3.errors import S3Error, invalid_argument
from protocols.s3.naming import check_key

if TYPE_CHECKING:
    from protocols.auth.accounts import User
    from protocols.auth.sigv4 import Verified

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

BODY_READY = "trefoil.body_ready"
"""In the scope of servers that have it: a function that says whether `receive` would return at once."""
HEADER_BYTES_MAX = 32 * 1024
HEADER_COUNT_MAX = 200
PATH_BYTES_MAX = 8 * 1024
"""1,024 bytes of key, each as %XX, and a bucket name fit."""
QUERY_BYTES_MAX = 16 * 1024
QUERY_PARAMETERS_MAX = 100


class Request:
    """Header names are lower-case bytes. `key` is empty for bucket and service requests.

    `unread`: the body was not asked for to its end; a client that expects `100 Continue` waits until it is, also for a body of no bytes.
    Set once the sender is known: `verified` and `user` (None for anonymous), `owner` (of the bucket), `is_guest` (neither owner nor root),
    `may_list` (a guest without it must not learn which keys exist), `versioning` and `shows_snapshots` (of the bucket), `shown_as` (the bucket and
    key that were asked for, where these are now those of a snapshot).
    """

    __slots__ = (
        "body_ready",
        "bucket",
        "content_length",
        "expects_continue",
        "headers",
        "host_bucket",
        "is_guest",
        "key",
        "may_list",
        "method",
        "owner",
        "query",
        "query_items",
        "raw_path",
        "receive",
        "request_id",
        "response_started",
        "scheme",
        "send",
        "shown_as",
        "shows_snapshots",
        "unread",
        "user",
        "verified",
        "versioning",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, config: S3Config, request_id: str) -> None:
        self.request_id = request_id
        self.receive = receive
        self.body_ready: Callable[[], bool] | None = scope.get(BODY_READY)
        self.send = send
        self.response_started = False
        self.method: str = scope["method"]
        self.scheme: str = scope.get("scheme", "http")
        self.raw_path: bytes = scope["raw_path"] or b"/"
        self.verified: Verified | None = None
        self.user: User | None = None
        self.owner = ""
        self.is_guest = False
        self.may_list = True
        self.versioning = Versioning.OFF
        self.shows_snapshots = False
        self.shown_as: tuple[str, bytes] | None = None
        self.headers = _headers(scope["headers"])
        self.content_length = _content_length(self.headers)
        self.expects_continue = b"expect" in self.headers
        self.unread = self.expects_continue or self.content_length != 0
        self.query_items: list[tuple[str, str]] = []
        self.query: Mapping[str, str] = {}
        self.bucket = ""
        self.key = b""
        self.host_bucket = ""
        query_string: bytes = scope["query_string"]
        if query_string:
            self.query_items = _query(query_string)
            self.query = dict(self.query_items)
        if config.domains:
            self.host_bucket = _bucket_of_host(self.headers.get(b"host", b""), config.domains)
        self._split_path()

    def _split_path(self) -> None:
        raw = self.raw_path
        if len(raw) > PATH_BYTES_MAX:
            raise S3Error("KeyTooLongError")
        if not raw.startswith(b"/"):
            raise S3Error("InvalidURI")
        path = unquote_to_bytes(raw) if b"%" in raw else raw
        if self.host_bucket:
            self.bucket = self.host_bucket
            self.key = path[1:]
        else:
            slash = path.find(b"/", 1)
            if slash < 0:
                self.bucket = path[1:].decode("utf-8", "replace")
            else:
                self.bucket = path[1:slash].decode("utf-8", "replace")
                self.key = path[slash + 1 :]
        if self.key:
            if not self.bucket:
                raise S3Error("InvalidBucketName")
            check_key(self.key)

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def header_text(self, name: bytes) -> str | None:
        """A header that may carry UTF-8."""
        value = self.headers.get(name)
        if value is None:
            return None
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")

    def query_int(self, name: str, default: int, largest: int) -> int:
        """A bounded non-negative number of the query; larger values count as `largest`."""
        text = self.query.get(name)
        if text is None or text == "":
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 10) or int(text) > 2**31 - 1:
            raise invalid_argument(name, text, f"Provided {name} is not an integer or within integer range.")
        return min(int(text), largest)

    @property
    def resource(self) -> str:
        return self.raw_path.decode("latin-1")


def _too_long(message: str) -> S3Error:
    return S3Error("MaxMessageLengthExceeded", message, headers=[(b"connection", b"close")])


def _headers(pairs: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    if len(pairs) > HEADER_COUNT_MAX:
        raise _too_long("The request has too many headers.")
    headers = dict(pairs)
    if len(headers) != len(pairs):
        headers.clear()
        for name, value in pairs:
            headers[name] = headers[name] + b"," + value if name in headers else value
    if sum(map(len, headers)) + sum(map(len, headers.values())) > HEADER_BYTES_MAX:
        raise _too_long("The request's headers are too long.")
    return headers


def _content_length(headers: Mapping[bytes, bytes]) -> int | None:
    """None where the body is chunked: its length is known at its end."""
    if b"transfer-encoding" in headers:
        return None
    text = headers.get(b"content-length")
    if text is None:
        return 0
    if not text.isdigit() or len(text) > 19:
        raise S3Error("InvalidRequest", "Content-Length must be a number.")
    return int(text)


def _query(text: bytes) -> list[tuple[str, str]]:
    if len(text) > QUERY_BYTES_MAX or text.count(b"&") >= QUERY_PARAMETERS_MAX:
        raise S3Error("InvalidURI", "The query is too long.")
    try:
        if b"%" not in text and b"+" not in text:
            plain = text.decode()
            return [(name, value) for name, _, value in [part.partition("=") for part in plain.split("&") if part]]
        return [
            (unquote_to_bytes(name).decode(), unquote_to_bytes(value).decode())
            for name, _, value in [part.replace(b"+", b" ").partition(b"=") for part in text.split(b"&") if part]
        ]
    except UnicodeDecodeError:
        raise S3Error("InvalidURI", "The query must be UTF-8.") from None


def _bucket_of_host(host: bytes, domains: tuple[str, ...]) -> str:
    name = host.decode("latin-1").lower()
    if name.rpartition(":")[2].isdigit():
        name = name.rpartition(":")[0]
    for domain in domains:
        if name.endswith("." + domain):
            return name[: -len(domain) - 1]
    return ""
