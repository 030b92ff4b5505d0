"""Answers: plain values that the gateway sends."""

from __future__ import annotations

from protocols.s3 import xml

Header = tuple[bytes, bytes]


class Response:
    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int = 200, headers: list[Header] | None = None, body: bytes = b"") -> None:
        self.status = status
        self.headers = headers if headers is not None else []
        self.body = body


def xml_response(root: str, inner: str, headers: list[Header] | None = None) -> Response:
    return Response(200, [(b"content-type", b"application/xml"), *(headers or [])], xml.document(root, inner))


NO_CONTENT = 204
