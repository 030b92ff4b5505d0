"""kill -9 under load: nothing acknowledged is lost, and recovery is quick. `python -m tests.proof.kill` runs it for two minutes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.proof.daemon import Daemon, trefoil
from tests.proof.kill import FullJournalPlan, KillPlan, KillReport, full_journal_devices, recovery_with_full_journal, run

SECONDS = float(os.environ.get("PROOF_KILL_SECONDS", "120"))
RECOVERY_SECONDS_MAX = 5.0
JOURNAL_BYTES_MAX = 256 << 20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def check(report: KillReport) -> None:
    print(report.sentence())
    assert report.faults == []
    assert report.kills >= 3
    assert report.acknowledged > 100
    assert max(report.recovery_seconds) < RECOVERY_SECONDS_MAX


def test_kills_under_load_lose_nothing(daemon: Daemon) -> None:
    check(run(daemon, KillPlan(seconds=SECONDS, every=4.0)))


def test_kills_with_a_device_gone_lose_nothing_and_are_explained(daemon: Daemon, devices: Sequence[Path], tmp_path: Path) -> None:
    def lose() -> None:
        devices[1].rename(tmp_path / "lost")

    report = run(daemon, KillPlan(seconds=SECONDS, every=4.0, seed=2, at_half=lose))
    check(report)
    assert report.advice


def test_recovery_with_a_full_journal_is_quick(tmp_path: Path) -> None:
    daemon = Daemon(trefoil(full_journal_devices(tmp_path), tmp_path / "state"), tmp_path / "daemon.log")
    report = recovery_with_full_journal(daemon, FullJournalPlan())
    print(report.sentence())
    assert report.faults == []
    assert report.size_bytes == JOURNAL_BYTES_MAX
    assert report.recovery_seconds < RECOVERY_SECONDS_MAX
