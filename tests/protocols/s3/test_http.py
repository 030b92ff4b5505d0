"""What the connection itself answers: broken HTTP, heads without end, pipelines, bodies in many pieces. Over real sockets."""

from __future__ import annotations

import hashlib
import socket
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from protocols.s3.http import BODY_BYTES_HELD_MAX, HEAD_BYTES_MAX
from tests.protocols.s3.server import ALICE, Server

pytestmark = pytest.mark.expects_warnings


def signed(server: Server, method: str, path: str, body: bytes = b"", length: int | None = None, **headers: str) -> bytes:
    request = AWSRequest(method, f"{server.url}{path}", data=body, headers={"Host": f"127.0.0.1:{server.port}", **headers})
    request.headers["X-Amz-Content-SHA256"] = hashlib.sha256(body).hexdigest()
    S3SigV4Auth(Credentials(*ALICE), "s3", "us-east-1").add_auth(request)
    lines = [f"{method} {path} HTTP/1.1", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in request.headers.items()), "", ""]).encode()


def rest(connection: socket.socket) -> bytes:
    """Everything until the server closes."""
    received = b""
    try:
        while got := connection.recv(65536):
            received += got
    except ConnectionResetError:
        pass  # the server closed before it had read all that was sent
    return received


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01\x02\x00\x01", b"NO SUCH THING\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET /a HTTP/1.1\r\nContent-Length: -1\r\n\r\n"],
)
def test_broken_http_gets_an_error_document(server: Server, garbage: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(garbage)
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"<Code>BadRequest</Code>" in answer
    assert answer.count(b"HTTP/1.1") == 1


def test_bytes_after_a_request_do_not_displace_its_answer(server: Server, s3: Any, bucket: str) -> None:
    body = b"three"
    with server.connect() as connection:
        connection.sendall(signed(server, "PUT", f"/{bucket}/key", body, length=2) + body)
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"<Code>XAmzContentSHA256Mismatch</Code>" in answer
    with server.connect() as connection:
        connection.sendall(signed(server, "PUT", f"/{bucket}/key", body) + body + b"garbage")
        assert rest(connection).startswith(b"HTTP/1.1 200 OK\r\n")
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == body


def test_broken_chunk_of_a_body(server: Server, bucket: str) -> None:
    head = signed(server, "PUT", f"/{bucket}/key").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with server.connect() as connection:
        connection.sendall(head + b"no number\r\n")
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nx-amz-meta-a: "])
def test_a_head_without_end_is_refused(server: Server, start: bytes) -> None:
    piece = b"a: b\r\n" * 1000 if start.endswith(b"\n") else b"a" * 6000
    with server.connect() as connection:
        connection.sendall(start)
        sent = 0
        try:
            while sent < 50 * HEAD_BYTES_MAX:
                connection.sendall(piece)
                sent += len(piece)
        except OSError:
            pass  # closed, as it should be
        assert sent < 50 * HEAD_BYTES_MAX
        answer = rest(connection)
    assert not answer or b"<Code>MaxMessageLengthExceeded</Code>" in answer


def test_a_head_without_end_after_a_request_does_not_displace_its_answer(server: Server, s3: Any, bucket: str) -> None:
    with server.connect() as connection:
        connection.sendall(signed(server, "PUT", f"/{bucket}/key", b"x") + b"x" + b"GET /" + b"a" * 2 * HEAD_BYTES_MAX)
        assert rest(connection).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("headers", [b"a: b\r\n" * 300, b"a: " + b"b" * 40_000 + b"\r\n"])
def test_too_many_header_bytes_end_the_connection(server: Server, headers: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n" + headers + b"\r\n")
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"<Code>MaxMessageLengthExceeded</Code>" in answer


def test_pipelined_requests_are_answered_in_order(server: Server, s3: Any, bucket: str) -> None:
    bodies = [b"a" * 10, b"b" * 70_000, b""]
    with server.connect() as connection:
        connection.sendall(
            b"".join(signed(server, "PUT", f"/{bucket}/{number}", body) + body for number, body in enumerate(bodies))
            + signed(server, "GET", f"/{bucket}/0", Connection="close")
        )
        answer = rest(connection)
    assert answer.count(b"HTTP/1.1 200 OK") == 4
    assert answer.endswith(bodies[0])
    assert [s3.get_object(Bucket=bucket, Key=str(number))["Body"].read() for number in range(3)] == bodies


def test_a_body_in_pieces_of_all_sizes(server: Server, s3: Any, bucket: str) -> None:
    """Small pieces are joined, large ones passed on, reading pauses and resumes; nothing is lost or swapped."""
    body = b"".join(hashlib.sha256(b"%d" % at).digest() for at in range(4 * BODY_BYTES_HELD_MAX // 32 + 1))
    view = memoryview(body)
    with server.connect() as connection:
        connection.sendall(signed(server, "PUT", f"/{bucket}/key", body, Connection="close"))
        at, size = 0, 1
        while at < len(body):
            connection.sendall(view[at : at + size])
            at += size
            size = size * 3 % 700_001
        assert rest(connection).startswith(b"HTTP/1.1 200 OK\r\n")
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == body
