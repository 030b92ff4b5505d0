"""A real kernel's client against the host's daemon: programs on the mount, restarts under load, and S3's view of what they left."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.proof.daemon import Daemon, free_port, trefoil, trefoil_program
from tests.proof.nfs import source
from tests.proof.nfs.machine import PROJECT, Machine, Result, with_libraries
from tests.proof.s3 import S3Client

HOST_IN_GUEST = "10.0.2.2"
BUCKET = "proof"
RESTARTS = 3
"""Of each kind."""
ROUNDS_BETWEEN = 15
"""Of the load, done between two restarts."""


@dataclass
class Restarts:
    """Restarts the daemon whenever a load did some more rounds, in the way that is the load's name, then says that it is enough."""

    daemon: Daemon
    share: Path
    done: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def rounds(self, load: str, count: int) -> None:
        if count < self.seen.get(load, 0) + ROUNDS_BETWEEN:
            return
        self.seen[load] = count
        if self.done.get(load, 0) == RESTARTS:
            (self.share / f"enough-{load}").touch()
            return
        if load == "kill":
            self.daemon.kill()
        elif (code := self.daemon.stop()) != 0:
            self.problems.append(f"the daemon stopped with {code}")
        self.daemon.start()
        self.done[load] = self.done.get(load, 0) + 1


def client(machine: Machine, work: Path, fsx: Path | None, operations: int) -> Iterator[Result]:
    """`work`: an empty directory."""
    share = work / "share"
    share.mkdir()
    repository = source.make(share / "source")
    daemon = _daemon(work)
    daemon.start()
    try:
        todo = {
            "mount": _mount_line(daemon),
            "fsx": f"/share/{with_libraries(fsx, share).name}" if fsx else None,
            "libraries": "/share",
            "operations": operations,
            "source": "/share/source",
            "enough": "/share/enough",
        }
        (share / "todo.json").write_text(json.dumps(todo))
        restarts = Restarts(daemon, share)
        command = "git config --global safe.directory '*'; cd /project; python3 -B -m tests.proof.nfs.inside.client /share/todo.json"
        for said in machine.run(command, [f"{share}:/share:rw", f"{PROJECT}:/project"]):
            if "rounds" in said:
                restarts.rounds(said["load"], said["rounds"])
            else:
                yield Result(said["step"], said["passed"], said["detail"], said["seconds"])
        complete = restarts.done == {"stop": RESTARTS, "kill": RESTARTS} and not restarts.problems
        yield Result("restarts", complete, f"{restarts.done} {' '.join(restarts.problems)}")
        yield _seen_by_s3(daemon, repository)
        yield Result("the daemon stops", daemon.stop() == 0, "")
    finally:
        daemon.kill()


def _daemon(work: Path) -> Daemon:
    devices = [work / f"device-{number}" for number in range(3)]
    for device in devices:
        device.mkdir()
    config = work / "trefoil.toml"
    config.write_text(f'[nfs]\nlisten = "127.0.0.1:{free_port()}"\n[[nfs.export]]\npath = "/{BUCKET}"\nsquash = "none"\n')
    return Daemon(trefoil(devices, work / "state", env={"TREFOIL_CONFIG": str(config)}), work / "daemon.log")


def _mount_line(daemon: Daemon) -> str:
    """The one that `trefoil export` prints, with the host as the guest knows it."""
    with S3Client(daemon.spec.endpoint, BUCKET) as s3:
        s3.create_bucket()
    environment = {**os.environ, **daemon.spec.env}
    told = subprocess.run([trefoil_program(), "export", "--json"], env=environment, capture_output=True, text=True, check=True).stdout
    line = str(json.loads(told)["exports"][0]["mount"])
    assert " 127.0.0.1:/" in line
    return line.replace(" 127.0.0.1:/", f" {HOST_IN_GUEST}:/")


def _seen_by_s3(daemon: Daemon, repository: Path) -> Result:
    """What was cloned, key by key."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=True).stdout
    names = [name for name in listed.split("\0") if name]
    with S3Client(daemon.spec.endpoint, BUCKET) as s3:
        wrong = [name for name in names if s3.get(f"clone/{name}") != (repository / name).read_bytes()]
        program = s3.get("clone/program") or b""
    passed = not wrong and program.startswith(b"\x7fELF")
    return Result("S3 sees the clone and what was built", passed, f"{len(names)} objects" if passed else f"wrong: {wrong[:5]}")
