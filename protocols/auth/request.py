"""What signature checks need to know of a request, whichever gateway received it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class SignedRequest(Protocol):
    @property
    def method(self) -> str: ...

    @property
    def raw_path(self) -> bytes:
        """As it stood in the request line, percent-encoded."""
        ...

    @property
    def query_items(self) -> Sequence[tuple[str, str]]:
        """Decoded, in the order in which they came."""
        ...

    @property
    def query(self) -> Mapping[str, str]: ...

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """Lower-case names; values of repeated headers joined by a comma."""
        ...

    @property
    def host_bucket(self) -> str:
        """The bucket that the Host header named, else empty."""
        ...
