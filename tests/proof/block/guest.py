"""A real kernel's host against this machine's daemon: filesystems, verified writes, discard, a resize, restarts under load, hosts that may not."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from server.client import AdminClient, connect
from tests.proof.daemon import Daemon, free_port, trefoil
from tests.proof.nfs.machine import PROJECT, Machine, Result

HOST_IN_GUEST = "10.0.2.2"
HOST = "nqn.2014-08.org.nvmexpress:uuid:9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"
VOLUME = "disk"
SIZE, NEW_SIZE = 320 << 20, 384 << 20
"""mkfs.xfs wants 300 MiB."""
RESTARTS = 3
SECONDS_BETWEEN = 4.0


class Answers:
    """What the guest asks of this side while it works."""

    def __init__(self, daemon: Daemon, admin: AdminClient) -> None:
        self._daemon, self._admin = daemon, admin
        self._restarting: threading.Thread | None = None
        self.allocated = 0
        self.restarts = 0
        self.problems: list[str] = []

    def answer(self, asked: str) -> None:
        if asked == "allocated":
            self.allocated = self._used()
        elif asked == "freed":
            if self._used() > 0:
                self.problems.append(f"{self._used()} of {self.allocated} bytes are still allocated after blkdiscard")
        elif asked == "resize":
            self._admin.post("/api/v1/volumes/resize", {"name": VOLUME, "size": NEW_SIZE})
        elif asked == "restarts":
            self._restarting = threading.Thread(target=self._restart, daemon=True)
            self._restarting.start()

    def finish(self) -> None:
        if self._restarting:
            self._restarting.join()

    def _restart(self) -> None:
        for number in range(RESTARTS):
            time.sleep(SECONDS_BETWEEN)
            if number % 2:
                self._daemon.stop()
            else:
                self._daemon.kill()
            self._daemon.start()
            self.restarts += 1

    def _used(self) -> int:
        return int(self._admin.get("/api/v1/volumes")[0]["allocated"])


def host(machine: Machine, work: Path, fio_seconds: int) -> Iterator[Result]:
    """`work`: an empty directory."""
    share = work / "share"
    share.mkdir()
    devices = [work / f"device-{number}" for number in range(3)]
    for device in devices:
        device.mkdir()
    env = {"TREFOIL_BLOCK__LISTEN": f"127.0.0.1:{free_port()}"}
    daemon = Daemon(trefoil(devices, work / "state", env=env), work / "daemon.log")
    daemon.start()
    try:
        admin = connect(work / "state", None)
        admin.post("/api/v1/volumes", {"name": VOLUME, "size": SIZE})
        admin.post("/api/v1/hosts", {"nqn": HOST, "volumes": [VOLUME]})
        (share / "todo.json").write_text(json.dumps(_todo(admin, fio_seconds)))
        answers = Answers(daemon, admin)
        command = "cd /project; python3 -B -m tests.proof.block.inside.host /share/todo.json"
        for said in machine.run(command, [f"{share}:/share:rw", f"{PROJECT}:/project"]):
            if "ask" in said:
                answers.answer(said["ask"])
            elif "step" in said:
                yield Result(said["step"], said["passed"], said["detail"], said["seconds"])
        answers.finish()
        yield Result("discard gives space back", not answers.problems and answers.allocated > 0, "; ".join(answers.problems))
        yield Result("restarts", answers.restarts == RESTARTS, f"{answers.restarts}")
        faults = admin.post("/api/v1/check", {})["faults"]
        yield Result("the store is sound", faults == 0, f"{faults} faults")
        yield Result("the daemon stops", daemon.stop() == 0, "")
    finally:
        daemon.kill()


def _todo(admin: AdminClient, fio_seconds: int) -> dict[str, Any]:
    """The lines that `trefoil volume connect` prints, with this machine as the guest knows it."""
    line = admin.get("/api/v1/volumes/connect", name=VOLUME, host=HOST, address=HOST_IN_GUEST)
    return {
        "connect": line["connect"].replace("127.0.0.1", HOST_IN_GUEST),
        "discover": line["discover"].replace("127.0.0.1", HOST_IN_GUEST),
        "nqn": line["nqn"],
        "host": HOST,
        "uuid": line["volume"]["uuid"],
        "new_size": NEW_SIZE,
        "fio_seconds": fio_seconds,
        "rounds": 6,
    }
