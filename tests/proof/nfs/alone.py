"""Daemon, clients and the kernel's own NFS server, all in one virtual machine: locks by NLM, whose calls go both ways, and NFS version 4."""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tests.proof.nfs.machine import PROJECT, Machine, Result, with_libraries


def alone(machine: Machine, work: Path, fsx: Path | None, operations: int) -> Iterator[Result]:
    """`work`: an empty directory. The guest's Python must be of the version that the project was built for."""
    share = work / "share"
    share.mkdir()
    packages = Path(sysconfig.get_path("purelib"))
    todo = {
        "repository": "/project",
        "packages": "/packages",
        "fsx": f"/share/{with_libraries(fsx, share).name}" if fsx else "",
        "operations": str(operations),
    }
    (share / "todo.json").write_text(json.dumps(todo))
    shares = [f"{share}:/share", f"{PROJECT}:/project", f"{packages}:/packages"]
    for said in machine.run("cd /project; python3 -B -m tests.proof.nfs.inside.alone /share/todo.json", shares):
        yield Result(said["step"], said["passed"], said["detail"], said["seconds"])
