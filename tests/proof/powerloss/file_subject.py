"""The whole daemon on recorded devices, through its mount: what is synced must be there, and of what is not, the beginning.

S3 clients and files change keys of one bucket side by side, so that a sync of either face bears on both.
"""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.proof.daemon import Daemon, trefoil
from tests.proof.files import Diary, FileClient, Written, judge_diary
from tests.proof.load import Client
from tests.proof.powerloss.daemon_subject import BUCKET, DaemonSession, leave_out_environment
from tests.proof.s3 import S3Client


@dataclass(frozen=True)
class FileSubject:
    leave_out_flushes: bool = False
    """As in `DaemonSubject`."""

    def start(self, devices: Sequence[Path], state: Path, *, first: bool) -> FileSession:
        mount = state.with_name(state.name + "-mount")
        mount.mkdir()
        trigger = state.with_name("leave-out-flushes")
        env = {"TREFOIL_FILE__MOUNT": str(mount)}
        if first and self.leave_out_flushes:
            env |= leave_out_environment(trigger)
        daemon = Daemon(trefoil(devices, state, env=env), state.with_name(state.name + ".log"))
        try:
            daemon.start(ready_seconds_max=120.0)
            if first:
                with S3Client(daemon.spec.endpoint, BUCKET) as client:
                    client.create_bucket()
                trigger.touch()
        except BaseException:
            daemon.kill()
            raise
        return FileSession(daemon, mount)


class FileSession:
    def __init__(self, daemon: Daemon, mount: Path) -> None:
        self._daemon, self._mount = daemon, mount
        self._inner = DaemonSession(daemon)
        self._numbers = itertools.count()

    def client(self) -> Client:
        """Files first, then by turns."""
        if next(self._numbers) % 2 == 0:
            return FileClient(self._mount / BUCKET)
        return self._inner.client()

    def diary(self) -> Diary:
        return Diary(self._mount / BUCKET)

    def diary_faults(self, written: Written, before_ns: int, after_ns: int) -> Sequence[str]:
        return judge_diary(self._mount / BUCKET, written, before_ns, after_ns)

    def damage(self) -> Sequence[str]:
        return self._inner.damage()

    def work(self) -> Mapping[str, float]:
        return self._inner.work()

    def freeze(self) -> None:
        self._inner.freeze()

    def thaw(self) -> None:
        self._inner.thaw()

    def stop(self) -> None:
        self._daemon.kill()
        subprocess.run(["umount", "--lazy", str(self._mount)], stderr=subprocess.DEVNULL, check=False)
