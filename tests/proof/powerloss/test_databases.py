"""PostgreSQL and SQLite on a mount lose nothing that they acknowledged when the power goes, and start again; with flushes left out they do."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proof.powerloss.databases import explore

STATES = 6
ROWS_MIN = 50

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def place() -> Iterator[Path]:
    """Not pytest's own: the database's user may not enter that."""
    with tempfile.TemporaryDirectory(prefix="databases-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_databases_come_back_whole_after_power_loss(place: Path) -> None:
    outcome = explore(place, STATES, seconds=15)
    print(outcome.sentence())
    assert outcome.faults == []
    assert outcome.states == STATES
    assert min(outcome.rows.values()) >= ROWS_MIN, outcome.rows


def test_databases_over_flushes_that_are_left_out_are_caught(place: Path) -> None:
    assert explore(place, states=2, seconds=6, leave_out_flushes=True).faults
