"""kill -9 under load, restart, verify; how long recovery takes; the same with a device gone at half time.

    python -m tests.proof.kill --seconds 120 [--every 4] [--lose-device] [--minio PROGRAM]
    python -m tests.proof.kill --full-journal

After each restart the load rests while every key is judged, and the store is held to what was found then. This shows that recovery is
right and quick; that nothing is lost with the power as well is for `tests.proof.powerloss` to show.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.proof.daemon import JOURNAL_SIZE_METRIC, JOURNAL_USED_METRIC, Daemon, Spec, metric_sum, minio, trefoil
from tests.proof.judge import judge
from tests.proof.load import Load, Mix
from tests.proof.s3 import S3Client

BUCKET = "proof"
FULL_JOURNAL_DEVICE_BYTES = 8 << 30
JOURNAL_EMPTIERS = ("reducer", "upkeep")
"""Names of the threads that make room in the journal."""


@dataclass
class KillReport:
    kills: int = 0
    acknowledged: int = 0
    judged_keys: int = 0
    recovery_seconds: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    advice: Sequence[str] = ()

    def sentence(self) -> str:
        slowest = max(self.recovery_seconds, default=0.0)
        return (
            f"{self.kills} kills, {self.acknowledged} operations acknowledged, {self.judged_keys} keys judged, {len(self.faults)} faults, "
            f"slowest recovery {slowest:.2f} s; advice: {' '.join(self.advice) or 'none'}"
        )


@dataclass(frozen=True)
class KillPlan:
    seconds: float = 120.0
    every: float = 4.0
    seed: int = 1
    threads: int = 4
    mix: Mix = field(default_factory=Mix)
    at_half: Callable[[], None] | None = None
    """Damage to do at half time, while the daemon runs."""


def run(daemon: Daemon, plan: KillPlan) -> KillReport:
    """Start the daemon, kill it again and again, and stop it."""
    report = KillReport()
    chance = random.Random(plan.seed)
    daemon.start()
    try:
        with S3Client(daemon.spec.endpoint, BUCKET) as client:
            client.create_bucket()
        deadline, half = time.monotonic() + plan.seconds, time.monotonic() + plan.seconds / 2
        damage = plan.at_half
        with Load(lambda: S3Client(daemon.spec.endpoint, BUCKET), threads=plan.threads, seed=plan.seed, mix=plan.mix) as load:
            while time.monotonic() < deadline:
                load.run_for(chance.uniform(0.4, 1.6) * plan.every)
                if damage is not None and time.monotonic() > half:
                    damage()
                    damage = None
                    load.run_for(1.0)
                _kill_and_judge(daemon, load, report)
                if report.faults or load.history.errors:
                    break
        report.faults += load.history.errors
        report.acknowledged = load.history.acknowledged()
        report.advice = daemon.advice()
    finally:
        daemon.kill()
    return report


def _kill_and_judge(daemon: Daemon, load: Load, report: KillReport) -> None:
    load.forgive(True)
    daemon.kill()
    load.pause()
    report.kills += 1
    report.recovery_seconds.append(daemon.start())
    load.forgive(False)
    with S3Client(daemon.spec.endpoint, BUCKET) as client:
        verdict = judge(client, load.history)
    verdict.pin(load.history)
    report.judged_keys += verdict.keys
    report.faults += [f"after kill {report.kills}: {fault}" for fault in verdict.faults]
    load.resume()


@dataclass
class FullJournalReport:
    size_bytes: float = 0.0
    used_bytes: float = 0.0
    """Of the journal, at the kill."""
    acknowledged: int = 0
    judged_keys: int = 0
    recovery_seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def full(self) -> float:
        return self.used_bytes / self.size_bytes if self.size_bytes else 0.0

    def sentence(self) -> str:
        return (
            f"kill -9 with {self.used_bytes / 2**20:.0f} MiB of a journal of {self.size_bytes / 2**20:.0f} MiB in use ({self.full:.0%}): "
            f"ready after {self.recovery_seconds:.2f} s; {self.acknowledged} operations acknowledged, {self.judged_keys} keys judged, "
            f"{len(self.faults)} faults"
        )


@dataclass(frozen=True)
class FullJournalPlan:
    full: float = 0.70
    """Kill at this part of the journal; users' changes wait at three quarters."""
    object_bytes: int = 64 << 10
    threads: int = 6
    keys_per_thread: int = 400
    seconds_max: float = 180.0
    """In which it must get so full."""
    seed: int = 1


def full_journal_devices(directory: Path, count: int = 6) -> Sequence[Path]:
    """Sparse files that are large enough for the journal to have its full bound of 256 MiB."""
    devices = [directory / f"file-{index}" for index in range(count)]
    for device in devices:
        device.touch()
        os.truncate(device, FULL_JOURNAL_DEVICE_BYTES)
    return devices


def recovery_with_full_journal(daemon: Daemon, plan: FullJournalPlan) -> FullJournalReport:
    """kill -9 when the journal is as full as it gets; how long until ready, and is everything there?

    Left alone, the store empties its journal long before it is full. So the threads that do it are stopped, as if a busy host never let
    them run; the load then fills the journal until just before the store makes its users wait.
    """
    report = FullJournalReport()
    daemon.start()
    try:
        with S3Client(daemon.spec.endpoint, BUCKET) as client:
            client.create_bucket()
        mix = Mix(delete=0, copy=0, multipart=0, abort=0, keys_per_thread=plan.keys_per_thread, size=plan.object_bytes)
        with Load(lambda: S3Client(daemon.spec.endpoint, BUCKET), threads=plan.threads, seed=plan.seed, mix=mix) as load:
            _fill_journal(daemon, plan, report)
            load.forgive(True)
            daemon.kill()
            load.pause()
            _forget_cached(daemon.spec.devices)
            report.recovery_seconds = daemon.start()
            with S3Client(daemon.spec.endpoint, BUCKET) as client:
                verdict = judge(client, load.history)
        report.faults = verdict.faults + load.history.errors
        report.acknowledged, report.judged_keys = load.history.acknowledged(), verdict.keys
    finally:
        daemon.kill()
    return report


def _forget_cached(files: Sequence[Path]) -> None:
    """Recovery is to read from the drives, as after a crash of the host, and not from the page cache."""
    for file in files:
        with file.open("rb") as source:
            os.fsync(source.fileno())
            os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _fill_journal(daemon: Daemon, plan: FullJournalPlan, report: FullJournalReport) -> None:
    for name in JOURNAL_EMPTIERS:
        daemon.stop_thread(name)
    deadline = time.monotonic() + plan.seconds_max
    while report.full < plan.full and time.monotonic() < deadline:
        metrics = daemon.metrics()
        report.used_bytes, report.size_bytes = metric_sum(metrics, JOURNAL_USED_METRIC), metric_sum(metrics, JOURNAL_SIZE_METRIC)
    if report.full < plan.full:
        report.faults.append(f"the journal got only {report.full:.0%} full in {plan.seconds_max:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description="kill -9 under load, restart, verify.")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--every", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--devices", type=int, default=6)
    parser.add_argument("--lose-device", action="store_true", help="take one device away at half time")
    parser.add_argument("--full-journal", action="store_true", help="measure one recovery with a full journal instead")
    parser.add_argument("--object-bytes", type=int, default=FullJournalPlan.object_bytes, help="of the PUTs that fill the journal")
    parser.add_argument("--minio", type=Path, help="judge this MinIO program instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="proof-kill-") as scratch:
        work = Path(scratch)
        if options.full_journal:
            full_plan = FullJournalPlan(object_bytes=options.object_bytes, seed=options.seed)
            full_daemon = Daemon(trefoil(full_journal_devices(work), work / "state"), work / "daemon.log")
            full = recovery_with_full_journal(full_daemon, full_plan)
            print(full.sentence(), *full.faults, sep="\n")
            sys.exit(1 if full.faults else 0)
        devices = [work / f"device-{index}" for index in range(options.devices)]
        for device in devices:
            device.mkdir()
        spec: Spec = minio(options.minio, devices) if options.minio else trefoil(devices, work / "state")

        def lose() -> None:
            devices[1].rename(work / "lost")

        plan = KillPlan(options.seconds, options.every, options.seed, at_half=lose if options.lose_device else None)
        report = run(Daemon(spec, work / "daemon.log"), plan)
    print(report.sentence())
    for fault in report.faults:
        print(fault)
    sys.exit(1 if report.faults else 0)


if __name__ == "__main__":
    main()
