"""fsx: one file, random operations, every read compared with what must be there."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.proof.posix.verdict import Verdict

SECONDS_MAX = 4 * 3600.0
LINES_SHOWN = 12
"""Of what fsx says when it finds a difference; its own log of operations is much longer."""


@dataclass(frozen=True)
class Mode:
    name: str
    seed: int
    arguments: tuple[str, ...] = ()


MODES = (
    Mode("all", 1),
    Mode("without mmap", 2, ("-R", "-W")),
    Mode("O_DIRECT", 3, ("-Z", "-R", "-W", "-r", "4096", "-w", "4096", "-t", "4096")),
)


def run(suite: Path, mount: Path, operations: int = 20_000, seed: int = 0, only: str = "") -> Verdict:
    verdict = Verdict("fsx")
    for mode in (mode for mode in MODES if only in mode.name):
        with tempfile.TemporaryDirectory(prefix="fsx-", dir=mount) as directory:
            failure = _run_mode(suite / "ltp" / "fsx", Path(directory), mode, operations, seed + mode.seed)
        if failure:
            verdict.failures.append(failure)
        else:
            verdict.passed += 1
    return verdict


def _run_mode(program: Path, directory: Path, mode: Mode, operations: int, seed: int) -> str:
    """Empty if all was as it must be."""
    command = [str(program), "-N", str(operations), "-S", str(seed), "-q", *mode.arguments, str(directory / "file")]
    with tempfile.TemporaryDirectory(prefix="fsx-log-") as logs:
        try:
            done = subprocess.run(
                [*command[:-1], "-P", logs, command[-1]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS_MAX, check=False
            )
        except subprocess.TimeoutExpired:
            return f"{mode.name}, seed {seed}: not done within {SECONDS_MAX:.0f} s"
    if done.returncode == 0:
        return ""
    said = done.stdout.decode(errors="replace").splitlines()
    return f"{mode.name}, seed {seed}, status {done.returncode}: " + " | ".join(said[:LINES_SHOWN])
