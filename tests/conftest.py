"""Rules for all tests: a warning in the log that the test did not announce fails it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import hypothesis
import pytest

hypothesis.settings.register_profile("everyday", deadline=None, max_examples=60, print_blob=True)
hypothesis.settings.register_profile("long", deadline=None, max_examples=2000, print_blob=True)
hypothesis.settings.load_profile("everyday")

OURS = ("trefoil", "server", "protocols", "element_store", "uvicorn", "asyncio")


def _is_unexpected(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING and record.name.split(".")[0] in OURS


@pytest.fixture(autouse=True)
def no_unexpected_warnings(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    if request.node.get_closest_marker("expects_warnings"):
        return
    records = [record for phase in ("setup", "call") for record in caplog.get_records(phase)]
    unexpected = [f"{record.name}: {record.getMessage()}" for record in records if _is_unexpected(record)]
    assert not unexpected, f"unexpected warnings in the log: {unexpected}"
