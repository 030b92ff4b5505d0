"""The ASGI application: request in, operation found, sender verified and allowed, answer out.

Everything that can refuse a request happens before its body is asked for. Each failure becomes one S3 error document; only a failure after
the response began breaks the connection. Nothing here knows what an operation does. Takes `request_id` from the scope and leaves
`operation` and `user` there, for logs and metrics.
"""

from __future__ import annotations

import logging
import secrets
from typing import Any

from element_store.interface import ElementStore
from element_store.types import StoreError
from protocols.auth.authenticator import Authenticator
from protocols.auth.errors import AuthError
from protocols.s3 import xml
from protocols.s3.config import S3Config
from protocols.s3.context import Context
from protocols.s3.errors import CODES, ClientGone, S3Error, from_store
from protocols.s3.request import Message, Receive, Request, Scope, Send
from protocols.s3.response import Header, Response
from protocols.s3.router import route

log = logging.getLogger("trefoil.s3")
_TELLTALE = frozenset({"NoSuchKey", "NoSuchVersion", "MethodNotAllowed"})
"""What tells that a key, or a version of it, exists or does not."""


class S3Gateway:
    __slots__ = ("_config", "_context")

    def __init__(self, store: ElementStore, auth: Authenticator, config: S3Config) -> None:
        self._config = config
        self._context = Context(store, auth, config)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError("only HTTP is served here")
        request_id: str = scope.get("request_id") or secrets.token_hex(8)
        request: Request | None = None
        try:
            request = Request(scope, receive, send, self._config, request_id)
            response = await self._answer(scope, request)
        except S3Error as error:
            response = self._refusal(scope, request, request_id, error)
        except StoreError as error:
            response = self._refusal(scope, request, request_id, self._from_store(request, error))
        except AuthError as error:
            response = self._refusal(scope, request, request_id, _from_auth(error))
        except ClientGone:
            return
        except Exception:
            log.exception("request %s failed", request_id)
            response = self._refusal(scope, request, request_id, S3Error("InternalError"))
        if response is not None:
            await _send(scope, request, request_id, response, send)

    async def _answer(self, scope: Scope, request: Request) -> Response | None:
        operation = route(request)
        scope["operation"] = operation.name
        request.verified = verified = await self._context.auth.authenticate(request)
        if verified is not None:
            request.user = verified.credential.user
            scope["user"] = request.user.id
        if operation.access is not None:
            await self._context.authorize(request, operation.access)
            self._context.enter_snapshot(request, operation.name)
        elif verified is None and not operation.signed_inside:
            raise S3Error("AccessDenied")
        return await operation.run(self._context, request)

    def _from_store(self, request: Request | None, error: StoreError) -> S3Error:
        found = from_store(error)
        if found.code == "NoSuchBucket" and request is not None and request.shown_as:
            # The bucket is there, and has no such snapshot.
            found = S3Error("NoSuchKey")
        if found.code == "NoSuchBucket" and request is not None:
            self._context.forget_bucket(request.bucket)
        if found.code in _TELLTALE and request is not None and not request.may_list:
            return S3Error("AccessDenied")
        if found.status >= 500:
            log.error("store: %s: %s", type(error).__name__, error)
        return found

    def _refusal(self, scope: Scope, request: Request | None, request_id: str, error: S3Error) -> Response | None:
        if request is not None and request.response_started:
            # Too late for an answer: an incomplete response must not look complete.
            raise error
        headers: list[Header] = list(error.headers)
        if error.status == 304:
            return Response(304, headers)
        body = b""
        if scope["method"] != "HEAD":
            headers.append((b"content-type", b"application/xml"))
            details = dict(error.details)
            if request is not None:
                bucket, key = request.shown_as or (request.bucket, request.key)
                if bucket:
                    details.setdefault("BucketName", bucket)
                if key:
                    details.setdefault("Key", key.decode("utf-8", "replace"))
            error.details = details
            body = xml.error_document(error, request.resource if request else "", request_id)
        return Response(error.status, headers, body)


def _from_auth(error: AuthError) -> S3Error:
    return S3Error(error.code if error.code in CODES else "AccessDenied", error.message)


async def _send(scope: Scope, request: Request | None, request_id: str, response: Response, send: Send) -> None:
    headers = response.headers
    headers.append((b"x-amz-request-id", request_id.encode("latin-1", "replace")))
    if response.status not in (204, 304):
        headers.append((b"content-length", str(len(response.body)).encode()))
    if request is not None and request.unread and request.expects_continue:
        if response.status < 400 and request.content_length == 0:
            # Accepted without a body: some clients wait for the interim answer all the same.
            await request.receive()
        else:
            # The client may or may not send the body that it announced: this connection has no next request.
            headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else response.body})


async def _lifespan(receive: Receive, send: Send) -> None:
    """Nothing to start or stop: the daemon owns the store."""
    while True:
        message: Message = await receive()
        kind: Any = message["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
