"""Steps and their results: one line of JSON on standard output for each, which the host reads. Everything else that is printed is for people."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable

OUTPUT_CHARACTERS_MAX = 1500


class Failed(Exception):
    """What the step was to show does not hold."""


def say(**fields: object) -> None:
    print("@" + json.dumps(fields), flush=True)


def step(name: str, act: Callable[[], str]) -> bool:
    """`act` returns a figure or two for the report."""
    began = time.monotonic()
    try:
        detail, passed = act(), True
    except (Failed, OSError, subprocess.SubprocessError) as problem:
        detail, passed = f"{type(problem).__name__}: {problem}", False
    except Exception:
        detail, passed = traceback.format_exc(), False
    say(step=name, passed=passed, detail=detail, seconds=round(time.monotonic() - began, 1))
    return passed


def run(*command: str, cwd: str | None = None, environment: dict[str, str] | None = None, timeout: float = 3000.0) -> str:
    """Standard output. Raises Failed with the end of all output."""
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, errors="replace"
    )
    if done.returncode:
        raise Failed(f"{' '.join(command)} ended with {done.returncode}: {done.stdout[-OUTPUT_CHARACTERS_MAX:]}")
    return done.stdout


def shell(line: str, *, timeout: float = 3000.0) -> str:
    return run("sh", "-ec", line, timeout=timeout)


def must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)


def finish() -> None:
    say(finished=True)
    sys.exit(0)
