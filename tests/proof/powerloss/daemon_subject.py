"""The whole daemon on recorded devices, over S3. The state directory is empty at each crash state: the devices alone must be enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.proof.daemon import DAMAGE_METRIC, Daemon, metric_sum, trefoil
from tests.proof.load import Client
from tests.proof.s3 import S3Client

BUCKET = "proof"


@dataclass(frozen=True)
class DaemonSubject:
    def start(self, devices: Sequence[Path], state: Path, *, first: bool) -> DaemonSession:
        daemon = Daemon(trefoil(devices, state), state.with_name(state.name + ".log"))
        # A few crash states are judged at a time; the judge's own CPU share must not look like a slow start.
        daemon.start(ready_seconds_max=120.0)
        session = DaemonSession(daemon)
        if first:
            with S3Client(daemon.spec.endpoint, BUCKET) as client:
                client.create_bucket()
        return session


class DaemonSession:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def client(self) -> Client:
        return S3Client(self._daemon.spec.endpoint, BUCKET)

    def damage(self) -> Sequence[str]:
        """Payloads that failed their checksum: power loss alone must never make a referenced payload wrong."""
        count = metric_sum(self._daemon.metrics(), DAMAGE_METRIC)
        return [f"{count:.0f} payloads failed their checksum"] if count else []

    def freeze(self) -> None:
        self._daemon.freeze()

    def thaw(self) -> None:
        self._daemon.thaw()

    def stop(self) -> None:
        """A kill: nothing that the judge saw may depend on a clean end, and it is quicker. Keeps the log of a run that failed."""
        self._daemon.kill()
