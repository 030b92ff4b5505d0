"""The whole daemon on recorded devices, over S3. The state directory is empty at each crash state: the devices alone must be enough."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.proof.daemon import DAMAGE_METRIC, JOURNAL_REPAIR_METRIC, Daemon, metric_sum, trefoil
from tests.proof.load import Client
from tests.proof.powerloss.store_subject import WORK_METRICS
from tests.proof.s3 import S3Client

BUCKET = "proof"


@dataclass(frozen=True)
class DaemonSubject:
    leave_out_flushes: bool = False
    """The control: once the bucket is made, flushes do nothing. While it is recorded only; crash states are opened by the daemon as it is."""

    def start(self, devices: Sequence[Path], state: Path, *, first: bool) -> DaemonSession:
        trigger = state.with_name("leave-out-flushes")
        env = leave_out_environment(trigger) if first and self.leave_out_flushes else {}
        daemon = Daemon(trefoil(devices, state, env=env), state.with_name(state.name + ".log"))
        # A few crash states are judged at a time; the judge's own CPU share must not look like a slow start.
        daemon.start(ready_seconds_max=120.0)
        session = DaemonSession(daemon)
        if first:
            with S3Client(daemon.spec.endpoint, BUCKET) as client:
                client.create_bucket()
            trigger.touch()
        return session


def leave_out_environment(trigger: Path) -> Mapping[str, str]:
    """Of a daemon whose flushes do nothing once `trigger` exists; needs the C compiler that the core's build needs too."""
    library = trigger.with_name("leave_out.so")
    source = Path(__file__).with_name("leave_out.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "PROOF_LEAVE_OUT": str(trigger)}


class DaemonSession:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def client(self) -> Client:
        return S3Client(self._daemon.spec.endpoint, BUCKET)

    def damage(self) -> Sequence[str]:
        """Payloads that failed their checksum: power loss alone must never make a referenced payload wrong, nor may recovery leave a mirror
        of the journal behind.
        """
        metrics = self._daemon.metrics()
        counts = {"payloads failed their checksum": DAMAGE_METRIC, "copies in the journal were wrong": JOURNAL_REPAIR_METRIC}
        return [f"{count:.0f} {what}" for what, name in counts.items() if (count := metric_sum(metrics, name))]

    def work(self) -> Mapping[str, float]:
        metrics = self._daemon.metrics()
        return {name: metric_sum(metrics, f"trefoil_{name}") for name in WORK_METRICS}

    def freeze(self) -> None:
        self._daemon.freeze()

    def thaw(self) -> None:
        self._daemon.thaw()

    def stop(self) -> None:
        """A kill: nothing that the judge saw may depend on a clean end, and it is quicker. Keeps the log of a run that failed."""
        self._daemon.kill()
