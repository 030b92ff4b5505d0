"""Why a request is not authenticated, as the code that S3 clients know. Gateways map codes to their wire form."""

from __future__ import annotations


class AuthError(Exception):
    """`code` is an S3 error code; `message` one sentence for the client."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class AccountError(Exception):
    """An operator's mistake with users or keys, in one sentence."""
