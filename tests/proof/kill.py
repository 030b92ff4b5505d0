"""kill -9 under load, restart, verify; how long recovery takes; the same with a device gone at half time.

    python -m tests.proof.kill --seconds 120 [--every 4] [--lose-device] [--minio PROGRAM]

After each restart the load rests while every key is judged, and the store is held to what was found then. This shows that recovery is
right and quick; that nothing is lost with the power as well is for `tests.proof.powerloss` to show.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.proof.daemon import Daemon, Spec, minio, trefoil
from tests.proof.judge import judge
from tests.proof.load import Load, Mix
from tests.proof.s3 import S3Client

BUCKET = "proof"
FILL_OBJECT_BYTES = 64 << 10


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


def recovery_with_full_journal(daemon: Daemon, bytes_written: int) -> float:
    """Seconds from start to ready after a kill -9 in the middle of as many small writes as fill the journal to its bound."""
    daemon.start()
    try:
        with S3Client(daemon.spec.endpoint, BUCKET) as client:
            client.create_bucket()
            data = random.Random(1).randbytes(FILL_OBJECT_BYTES)
            for number in range(bytes_written // FILL_OBJECT_BYTES):
                client.put(f"fill/{number:06}", number.to_bytes(8, "big") + data[8:])
        daemon.kill()
        return daemon.start()
    finally:
        daemon.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description="kill -9 under load, restart, verify.")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--every", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--devices", type=int, default=6)
    parser.add_argument("--lose-device", action="store_true", help="take one device away at half time")
    parser.add_argument("--minio", type=Path, help="judge this MinIO program instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="proof-kill-") as scratch:
        work = Path(scratch)
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
