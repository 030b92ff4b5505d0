"""pjdfstest: system calls and their errors, as root and as others, in the Test Anything Protocol."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.proof.posix.verdict import Verdict

FILE_SECONDS_MAX = 600.0
PLAN = re.compile(r"^1\.\.(\d+)")
RESULT = re.compile(r"^(not )?ok\b\s*(\d*)\s*(.*)$")


def run(suite: Path, mount: Path, jobs: int = 1, only: str = "") -> Verdict:
    """Each file of the suite works in a directory of its own below `mount`; the calling user must be root."""
    files = [file for file in sorted((suite / "tests").rglob("*.t")) if only in str(file)]
    with tempfile.TemporaryDirectory(prefix="pjdfstest-", dir=mount) as directory, ThreadPoolExecutor(jobs) as pool:
        Path(directory).chmod(0o755)
        verdict = Verdict("pjdfstest")
        for part in pool.map(lambda file: _run_file(file, suite, Path(directory)), files):
            verdict.passed += part.passed
            verdict.expected_failures += part.expected_failures
            verdict.failures += part.failures
    return verdict


def _run_file(file: Path, suite: Path, directory: Path) -> Verdict:
    name = str(file.relative_to(suite / "tests"))
    place = directory / name.replace("/", "-")
    place.mkdir(mode=0o755)
    try:
        done = subprocess.run(
            ["sh", str(file)],
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=FILE_SECONDS_MAX,
            check=False,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return Verdict(name, failures=[f"{name}: not done within {FILE_SECONDS_MAX:.0f} s"])
    return judge(name, done.stdout.decode(errors="replace"))


def judge(name: str, text: str) -> Verdict:
    """A test that is missing from the output has failed, and so has a file that planned none."""
    verdict = Verdict(name)
    planned: int | None = None
    for line in text.splitlines():
        if plan := PLAN.match(line):
            planned = int(plan[1])
        elif result := RESULT.match(line):
            _count(verdict, name, failed=bool(result[1]), number=result[2], said=result[3])
    seen = verdict.passed + verdict.expected_failures + len(verdict.failures)
    if planned is None:
        verdict.failures.append(f"{name}: planned nothing: {text[:200]!r}")
    elif seen != planned:
        verdict.failures.append(f"{name}: {seen} results of {planned} planned")
    return verdict


def _count(verdict: Verdict, name: str, *, failed: bool, number: str, said: str) -> None:
    if not failed:
        verdict.passed += 1
    elif said.startswith("# TODO"):
        verdict.expected_failures += 1
    else:
        verdict.failures.append(f"{name} {number}: {said.removeprefix('- ')}")


def files_failed(verdict: Verdict) -> Iterator[str]:
    yield from sorted({failure.split(" ", 1)[0].rstrip(":") for failure in verdict.failures})
