"""The virtual machine: a program `guest` that runs one command as root on a stock kernel, streams its output and throws the machine away.

Its image must hold git, gcc, make and libc6-dev besides what it has by itself:
`DIR/guest --cache IMAGE build --package git --package gcc --package make --package libc6-dev`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[3]
SYSTEM_LIBRARIES = ("libc.so", "ld-linux", "linux-vdso", "libm.so")
"""The guest has its own."""


class MachineFailed(Exception):
    """It ended without having said that it was done."""


@dataclass
class Result:
    name: str
    passed: bool
    detail: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Machine:
    program: Path
    image: Path | None = None
    timeout_seconds: int = 3600

    def run(self, command: str, shares: Sequence[str], *, memory: str = "1500M") -> Iterator[dict[str, Any]]:
        """What the command says in lines of JSON behind an "@"; other lines go to standard error. Raises MachineFailed."""
        argv = [str(self.program)]
        if self.image:
            argv += ["--cache", str(self.image)]
        argv += ["run", "--mem", memory, "--timeout", str(self.timeout_seconds)]
        for share in shares:
            argv += ["--share", share]
        with subprocess.Popen([*argv, "--", command], stdout=subprocess.PIPE, text=True, errors="replace") as process:
            assert process.stdout is not None
            try:
                if not (yield from _said(process.stdout)):
                    raise MachineFailed(f"the machine ended with {process.wait()}, and not because it was done")
            finally:
                process.terminate()


def _said(lines: Iterable[str]) -> Generator[dict[str, Any], None, bool]:
    """Returns whether the command said that it was done."""
    for line in lines:
        if not line.startswith("@"):
            sys.stderr.write(line)
            continue
        said = json.loads(line[1:])
        if said.get("finished"):
            return True
        yield said
    return False


def with_libraries(program: Path, directory: Path) -> Path:
    """A copy of it there, with the shared libraries that the guest may lack beside it."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        name, _, where = (part.strip() for part in line.partition("=>"))
        if where and not name.startswith(SYSTEM_LIBRARIES):
            shutil.copy(where.split()[0], directory / name)
    return Path(shutil.copy(program, directory))
