"""Requests that no SDK sends over plain HTTP, written by hand."""

from __future__ import annotations

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.protocols.s3.server import ALICE, Server

AWS_CHUNK_BYTES = 1024 * 1024
HTTP_CHUNK_BYTES = 128 * 1024


class _TrailerAuth(S3SigV4Auth):
    def payload(self, request: object) -> str:
        return "STREAMING-UNSIGNED-PAYLOAD-TRAILER"


def put_with_trailer(server: Server, bucket: str, key: str, body: bytes, crc64nvme: str) -> bytes:
    headers = {
        "Host": f"127.0.0.1:{server.port}",
        "Content-Encoding": "aws-chunked",
        "Transfer-Encoding": "chunked",
        "X-Amz-Trailer": "x-amz-checksum-crc64nvme",
        "X-Amz-Decoded-Content-Length": str(len(body)),
        "X-Amz-Content-SHA256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
    }
    request = AWSRequest("PUT", f"{server.url}/{bucket}/{key}", headers=headers)
    _TrailerAuth(Credentials(*ALICE), "s3", "us-east-1").add_auth(request)
    framed = b""
    for at in range(0, len(body), AWS_CHUNK_BYTES):
        chunk = body[at : at + AWS_CHUNK_BYTES]
        framed += b"%x\r\n%b\r\n" % (len(chunk), chunk)
    framed += b"0\r\nx-amz-checksum-crc64nvme:" + crc64nvme.encode() + b"\r\n\r\n"
    lines = [f"PUT /{bucket}/{key} HTTP/1.1", "Connection: close", *(f"{name}: {value}" for name, value in request.headers.items()), "", ""]
    with server.connect() as connection:
        connection.sendall("\r\n".join(lines).encode())
        for at in range(0, len(framed), HTTP_CHUNK_BYTES):
            piece = framed[at : at + HTTP_CHUNK_BYTES]
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")
        answer = b""
        while got := connection.recv(65536):
            answer += got
        return answer
