"""Who sends a request: picks the signature scheme and verifies it. Decides nothing about what the sender may do."""

from __future__ import annotations

import time
from collections.abc import Callable

from element_store.interface import ElementStore
from protocols.auth import sigv2, sigv4
from protocols.auth.accounts import Accounts
from protocols.auth.errors import AuthError
from protocols.auth.request import SignedRequest
from protocols.auth.sigv4 import Verified


class Authenticator(Accounts):
    """Accounts plus verification; the clock is passed in so that tests own it."""

    def __init__(self, store: ElementStore, clock: Callable[[], float] = time.time) -> None:
        super().__init__(store)
        self._clock = clock

    async def authenticate(self, request: SignedRequest) -> Verified | None:
        """None for an anonymous request. Raises AuthError."""
        authorization = request.headers.get(b"authorization")
        query = request.query
        if authorization is not None:
            if "X-Amz-Signature" in query or "Signature" in query:
                raise AuthError("InvalidArgument", "Only one authentication mechanism is allowed: header or query.")
            if authorization.startswith(b"AWS4-HMAC-SHA256"):
                return await sigv4.verify_header(self, request, self._clock())
            if authorization.startswith(b"AWS "):
                return await sigv2.verify_header(self, request, self._clock())
            if not authorization.strip():
                return None
            raise AuthError("InvalidArgument", "Unsupported authorization type.")
        if query:
            if "X-Amz-Algorithm" in query or "X-Amz-Signature" in query or "X-Amz-Credential" in query:
                return await sigv4.verify_query(self, request, self._clock())
            if "AWSAccessKeyId" in query or "Signature" in query:
                return await sigv2.verify_query(self, request, self._clock())
        return None
