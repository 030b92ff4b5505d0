"""Expect: 100-continue over a real socket: the interim answer comes only after authentication and preconditions."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.protocols.s3.server import ALICE, Server

BODY = b"x" * 1000


def head(server: Server, path: str, signed: bool = True, body: bytes = BODY, headers: dict[str, str] | None = None) -> bytes:
    request = AWSRequest("PUT", f"{server.url}{path}", data=body, headers={"Host": f"127.0.0.1:{server.port}", **(headers or {})})
    if signed:
        request.headers["X-Amz-Content-SHA256"] = hashlib.sha256(body).hexdigest()
        S3SigV4Auth(Credentials(*ALICE), "s3", "us-east-1").add_auth(request)
    lines = [
        f"PUT {path} HTTP/1.1",
        "Expect: 100-continue",
        f"Content-Length: {len(body)}",
        *(f"{n}: {v}" for n, v in request.headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


@contextmanager
def exchange(server: Server, request: bytes) -> Iterator[tuple[bytes, socket.socket]]:
    """The first answer, and the connection to go on with."""
    with server.connect() as connection:
        connection.sendall(request)
        yield connection.recv(65536), connection


def test_continue_then_stored(server: Server, s3: Any, bucket: str) -> None:
    with exchange(server, head(server, f"/{bucket}/key")) as (first, connection):
        assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 OK")
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == BODY


@pytest.mark.parametrize(
    ("key", "signed", "headers", "status"),
    [
        ("key", False, {}, b"403"),
        ("taken", True, {"If-None-Match": "*"}, b"412"),
        ("absent", True, {"If-Match": "*"}, b"404"),
        ("key", True, {"Content-MD5": "bad"}, b"400"),
    ],
)
def test_final_status_instead(server: Server, s3: Any, bucket: str, key: str, signed: bool, headers: dict[str, str], status: bytes) -> None:
    s3.put_object(Bucket=bucket, Key="taken", Body=b"")
    with exchange(server, head(server, f"/{bucket}/{key}", signed, headers=headers)) as (first, connection):
        assert first.startswith(b"HTTP/1.1 " + status)
        assert b"connection: close" in first.lower()
        while connection.recv(65536):
            pass


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def everything(connection: socket.socket, received: bytes) -> bytes:
    """Up to the end of an answer without a body."""
    while b"HTTP/1.1 2" not in received or not received.endswith(b"\r\n\r\n"):
        got = connection.recv(65536)
        assert got, received
        received += got
    return received


@pytest.mark.parametrize("what", ["object", "copy", "part"])
def test_continue_before_accepting_a_body_of_no_bytes(server: Server, s3: Any, bucket: str, what: str) -> None:
    """The AWS CLI sends Expect for empty files too, and does not take a final answer for an interim one."""
    s3.put_object(Bucket=bucket, Key="source", Body=b"x")
    path, headers = f"/{bucket}/key", {}
    if what == "copy":
        headers = {"X-Amz-Copy-Source": f"{bucket}/source"}
    elif what == "part":
        upload = s3.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
        path += f"?partNumber=1&uploadId={upload}"
    with exchange(server, head(server, path, body=b"", headers=headers)) as (first, connection):
        assert first.startswith(CONTINUE)
        if what == "object":
            assert b"connection: close" not in everything(connection, first).lower()
            # The connection goes on.
            connection.sendall(head(server, path, body=b""))
            assert connection.recv(65536).startswith(CONTINUE)
    if what == "object":
        assert s3.head_object(Bucket=bucket, Key="key")["ContentLength"] == 0


def test_refused_body_of_no_bytes_ends_the_connection(server: Server, s3: Any, bucket: str) -> None:
    with exchange(server, head(server, f"/{bucket}/key", signed=False, body=b"")) as (first, connection):
        assert first.startswith(b"HTTP/1.1 403")
        assert b"connection: close" in first.lower()
        while connection.recv(65536):
            pass


def test_the_next_request_of_a_client_works(server: Server, s3: Any, bucket: str) -> None:
    """botocore sends Expect with every PutObject; after a refusal it must not stumble over its own connection."""
    for _ in range(3):
        with pytest.raises(s3.exceptions.ClientError, match="NoSuchBucket"):
            s3.put_object(Bucket="absent-bucket", Key="key", Body=b"x")
        s3.put_object(Bucket=bucket, Key="key", Body=b"x")
