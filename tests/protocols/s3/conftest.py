"""One server for all integration tests of the gateway; each test gets buckets of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from protocols.s3 import S3Config
from tests.protocols.s3.server import Server, start

_names = itertools.count(1)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = start(S3Config(domains=("s3.example.test",)))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3(server: Server) -> Any:
    return server.client()


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"bucket-{next(_names)}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture(autouse=True)
def nothing_left_staged(request: pytest.FixtureRequest) -> Iterator[None]:
    """Staged content that nobody published or discarded would leak space until a restart."""
    yield
    if "server" in request.fixturenames:
        assert not request.getfixturevalue("server").store.staged_open
