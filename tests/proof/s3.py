"""A small S3 client over raw HTTP: what the load and the judges speak. Implements `load.Client`.

Independent of boto3 on purpose: no retries (an error is an observation), no hidden parallelism, a few microseconds of signing per request.
Stock clients are judged in `clients.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import socket
import ssl
import time
import urllib.parse
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

TIMEOUT_SECONDS = 60.0
REGION = "us-east-1"
_NAMESPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
_UNRESERVED = "-_.~"


class S3Error(Exception):
    """An answer other than the expected one."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{status} {code} {message}".strip())
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Endpoint:
    """Where and as whom to connect. `ca_file`: use TLS and trust it."""

    host: str
    port: int
    access_key: str
    secret_key: str
    ca_file: str | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.ca_file else 'http'}://{self.host}:{self.port}"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class S3Client:
    """One connection, one bucket; not for use by several threads."""

    def __init__(self, endpoint: Endpoint, bucket: str) -> None:
        self._endpoint = endpoint
        self._bucket = bucket
        self._connection: http.client.HTTPConnection | None = None
        self._signing_keys: dict[str, bytes] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def create_bucket(self) -> None:
        try:
            self.request("PUT", "")
        except S3Error as error:
            if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise

    def put(self, key: str, data: bytes) -> None:
        self.request("PUT", key, body=data)

    def get(self, key: str) -> bytes | None:
        try:
            return self.request("GET", key).body
        except S3Error as error:
            if error.code == "NoSuchKey":
                return None
            raise

    def delete(self, key: str) -> None:
        self.request("DELETE", key)

    def copy(self, source: str, key: str) -> None:
        """A copy may fail after its headers: the body of a 200 says so."""
        body = self.request("PUT", key, headers={"x-amz-copy-source": f"/{self._bucket}/{_quote(source)}"}).body
        if b"<Error>" in body:
            raise S3Error(200, "CopyFailed", body.decode(errors="replace"))

    def multipart(self, key: str, parts: Sequence[bytes], *, complete: bool) -> None:
        upload = _text(self.request("POST", key, {"uploads": ""}).body, "UploadId")
        etags = [
            self.request("PUT", key, {"partNumber": str(number), "uploadId": upload}, body=part).headers["etag"]
            for number, part in enumerate(parts, 1)
        ]
        if not complete:
            self.request("DELETE", key, {"uploadId": upload})
            return
        listed = "".join(f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in enumerate(etags, 1))
        document = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        body = self.request("POST", key, {"uploadId": upload}, body=document).body
        if b"<Error>" in body:
            raise S3Error(200, "CompleteFailed", body.decode(errors="replace"))

    def list(self) -> Sequence[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        query = {"list-type": "2", "encoding-type": "url"}
        while True:
            root = ElementTree.fromstring(self.request("GET", "", query).body)
            for item in root.iter(f"{_NAMESPACE}Contents"):
                key, size = item.findtext(f"{_NAMESPACE}Key"), item.findtext(f"{_NAMESPACE}Size")
                if key is None or size is None:
                    raise S3Error(200, "BadListing", "an entry without key or size")
                found.append((urllib.parse.unquote_plus(key), int(size)))
            token = root.findtext(f"{_NAMESPACE}NextContinuationToken")
            if not token:
                return found
            query["continuation-token"] = token

    def request(
        self,
        method: str,
        key: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One signed request; raises S3Error for a status of 300 and above."""
        path = f"/{self._bucket}/{_quote(key)}" if key else f"/{self._bucket}"
        pairs = sorted((query or {}).items())
        encoded = "&".join(f"{_quote_all(name)}={_quote_all(value)}" for name, value in pairs)
        signed = self._sign(method, path, encoded, body, headers or {})
        connection = self._connected()
        try:
            connection.request(method, f"{path}?{encoded}" if encoded else path, body=body, headers=signed)
            response = connection.getresponse()
            data = response.read()
        except BaseException:
            self.close()
            raise
        answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, data)
        if response.will_close:
            self.close()
        if answer.status >= 300:
            raise S3Error(answer.status, _find_text(data, "Code") or "", _find_text(data, "Message") or "")
        return answer

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            target = self._endpoint
            if target.ca_file:
                context = ssl.create_default_context(cafile=target.ca_file)
                self._connection = http.client.HTTPSConnection(target.host, target.port, timeout=TIMEOUT_SECONDS, context=context)
            else:
                self._connection = http.client.HTTPConnection(target.host, target.port, timeout=TIMEOUT_SECONDS)
            self._connection.connect()
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._connection

    def _sign(self, method: str, path: str, query: str, body: bytes, extra: Mapping[str, str]) -> dict[str, str]:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        payload = hashlib.sha256(body).hexdigest()
        headers = {"host": f"{self._endpoint.host}:{self._endpoint.port}", "x-amz-content-sha256": payload, "x-amz-date": stamp}
        headers |= {name.lower(): value for name, value in extra.items()}
        names = sorted(headers)
        canonical = "\n".join([method, path, query, *(f"{name}:{headers[name]}" for name in names), "", ";".join(names), payload])
        scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
        to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.new(self._signing_key(stamp[:8]), to_sign.encode(), hashlib.sha256).hexdigest()
        credential = f"{self._endpoint.access_key}/{scope}"
        headers["authorization"] = f"AWS4-HMAC-SHA256 Credential={credential},SignedHeaders={';'.join(names)},Signature={signature}"
        return headers

    def _signing_key(self, day: str) -> bytes:
        if day not in self._signing_keys:
            key = ("AWS4" + self._endpoint.secret_key).encode()
            for step in (day, REGION, "s3", "aws4_request"):
                key = hmac.new(key, step.encode(), hashlib.sha256).digest()
            self._signing_keys = {day: key}
        return self._signing_keys[day]


def _quote(key: str) -> str:
    return urllib.parse.quote(key, safe="/" + _UNRESERVED)


def _quote_all(text: str) -> str:
    return urllib.parse.quote(text, safe=_UNRESERVED)


def _find_text(body: bytes, name: str) -> str | None:
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError:
        return None
    return root.findtext(f"{_NAMESPACE}{name}") or root.findtext(name)


def _text(body: bytes, name: str) -> str:
    found = _find_text(body, name)
    if found is None:
        raise S3Error(200, "BadAnswer", f"no {name} in {body[:200]!r}")
    return found
