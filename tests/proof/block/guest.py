"""A real kernel's host against this machine's daemon: filesystems, verified writes, discard, a resize, restarts under load, hosts that may not, an image that
S3 brought, a clone of a file system that is in use, two hosts and their reservations."""

from __future__ import annotations

import json
import subprocess
import sysconfig
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from server.client import AdminClient, connect
from tests.proof.clients import boto
from tests.proof.daemon import Daemon, free_port, trefoil
from tests.proof.nfs.machine import PROJECT, Machine, Result

HOST_IN_GUEST = "10.0.2.2"
HOST = "nqn.2014-08.org.nvmexpress:uuid:9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"
OTHER_HOST = "nqn.2014-08.org.nvmexpress:uuid:1c2f0f6a-87bd-4f4e-9c0a-5a3b2f1d7e11"
VOLUME = "disk"
IMAGE, CLONE = "images/disk.img", "clones/live"
IMAGE_BYTES = 24 << 20
TREE = "docs"
"""Of the project, in the image."""
FROM_HOST = "from the host"
"""File and content that the guest adds."""
SIZE, NEW_SIZE = 320 << 20, 384 << 20
"""mkfs.xfs wants 300 MiB."""
RESTARTS = 3
SECONDS_BETWEEN = 4.0


class Answers:
    """What the guest asks of this side while it works."""

    def __init__(self, daemon: Daemon, admin: AdminClient, share: Path) -> None:
        self._daemon, self._admin, self._share = daemon, admin, share
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

        elif asked == "image":
            self.problems += _faults_of_image(self._daemon, self._share.parent)
        elif asked == "clone":
            self._admin.post("/api/v1/snapshots", {"path": f"/volumes/{VOLUME}", "name": "live"})
            self._admin.post("/api/v1/clones", {"source": f"/volumes/{VOLUME}", "snapshot": "live", "target": f"/{CLONE}"})
            made = self._admin.post("/api/v1/volumes/from-file", {"name": CLONE, "block_size": 512})
            self._admin.post("/api/v1/hosts", {"nqn": HOST, "volumes": [VOLUME, IMAGE, CLONE]})
            (self._share / "clone").write_text(made["uuid"])

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
        volumes = self._admin.get("/api/v1/volumes")
        return int(next(volume for volume in volumes if volume["path"].endswith(f"/{VOLUME}"))["allocated"])


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
        image = _upload_image(daemon, admin, work)
        admin.post("/api/v1/hosts", {"nqn": HOST, "volumes": [VOLUME, IMAGE]})
        admin.post("/api/v1/hosts", {"nqn": OTHER_HOST, "volumes": [VOLUME]})
        (share / "todo.json").write_text(json.dumps({**_todo(admin, fio_seconds), "image": image, "tree": f"/project/{TREE}"}))
        answers = Answers(daemon, admin, share)
        command = "cd /project; python3 -B -m tests.proof.block.inside.host /share/todo.json"
        for said in machine.run(command, [f"{share}:/share:rw", f"{PROJECT}:/project"]):
            if "ask" in said:
                answers.answer(said["ask"])
            elif "step" in said:
                yield Result(said["step"], said["passed"], said["detail"], said["seconds"])
        answers.finish()
        yield Result("what this side saw", not answers.problems and answers.allocated > 0, "; ".join(answers.problems))
        yield Result("restarts", answers.restarts == RESTARTS, f"{answers.restarts}")
        faults = admin.post("/api/v1/check", {})["faults"]
        yield Result("the store is sound", faults == 0, f"{faults} faults")
        yield Result("the daemon stops", daemon.stop() == 0, "")
    finally:
        daemon.kill()


def _upload_image(daemon: Daemon, admin: AdminClient, work: Path) -> str:
    """A raw image of a file system, put by S3 and made a volume where it is; its uuid."""
    image = work / "image"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", PROJECT / TREE, image, str(IMAGE_BYTES >> 10)], check=True)
    s3, (bucket, key) = boto(daemon.spec.endpoint), IMAGE.split("/")
    for name in (bucket, CLONE.split("/")[0]):
        s3.create_bucket(Bucket=name)
    s3.upload_file(str(image), bucket, key)
    return str(admin.post("/api/v1/volumes/from-file", {"name": IMAGE, "block_size": 512}, patient=True)["uuid"])


def _faults_of_image(daemon: Daemon, work: Path) -> list[str]:
    """The image as S3 reads it, by ranges, after the guest changed it."""
    s3, (bucket, key) = boto(daemon.spec.endpoint), IMAGE.split("/")
    image, step = work / "read-back", 1 << 20
    with image.open("wb") as file:
        for start in range(0, IMAGE_BYTES, step):
            file.write(s3.get_object(Bucket=bucket, Key=key, Range=f"bytes={start}-{start + step - 1}")["Body"].read())
    checked = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True, check=False)
    shown = subprocess.run(["debugfs", "-R", f'cat "/{FROM_HOST}"', image], capture_output=True, text=True, check=False)
    faults = [f"S3 reads another file system: {checked.stdout[-300:]}"] if checked.returncode else []
    return faults + ([f"S3 reads {shown.stdout!r} of what the guest wrote"] if shown.stdout != FROM_HOST else [])


def _todo(admin: AdminClient, fio_seconds: int) -> dict[str, Any]:
    """The lines that `trefoil volume connect` prints, with this machine as the guest knows it."""
    line = admin.get("/api/v1/volumes/connect", name=VOLUME, host=HOST, address=HOST_IN_GUEST)
    return {
        "connect": line["connect"].replace("127.0.0.1", HOST_IN_GUEST),
        "discover": line["discover"].replace("127.0.0.1", HOST_IN_GUEST),
        "nqn": line["nqn"],
        "host": HOST,
        "other_host": OTHER_HOST,
        "from_host": FROM_HOST,
        "uuid": line["volume"]["uuid"],
        "new_size": NEW_SIZE,
        "fio_seconds": fio_seconds,
        "rounds": 6,
    }


def kernel(machine: Machine, work: Path, fio_seconds: int) -> Iterator[Result]:
    """The kernel's target, in the guest with daemon and host. The guest's Python must be of the version that the project was built for."""
    share = work / "share"
    share.mkdir()
    (share / "todo.json").write_text(json.dumps({"repository": "/project", "packages": "/packages", "fio_seconds": fio_seconds}))
    shares = [f"{share}:/share", f"{PROJECT}:/project", f"{sysconfig.get_path('purelib')}:/packages"]
    for said in machine.run("cd /project; python3 -B -m tests.proof.block.inside.kernel /share/todo.json", shares):
        yield Result(said["step"], said["passed"], said["detail"], said["seconds"])
