"""What the judges' tests share: six empty directories as devices, and a daemon on them that is gone when the test ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.proof.daemon import Daemon, trefoil

DEVICES = 6


@pytest.fixture
def devices(tmp_path: Path) -> Sequence[Path]:
    paths = [tmp_path / f"device-{index}" for index in range(DEVICES)]
    for path in paths:
        path.mkdir()
    return paths


@pytest.fixture
def daemon(tmp_path: Path, devices: Sequence[Path]) -> Iterator[Daemon]:
    """Not started yet. Its log is printed, so that a failing test shows it."""
    started = Daemon(trefoil(devices, tmp_path / "state"), tmp_path / "daemon.log")
    yield started
    started.kill()
    if started.log.exists():
        print(started.tail(40))
