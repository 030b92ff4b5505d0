"""Commands that run before and after a snapshot, so that an application's content is whole in it.

A hook is the name of an executable in the one directory that the configuration names: whoever has the admin API can choose among what the machine's
owner put there, and run nothing else. No shell, no arguments; what it is about is in its environment. Invariants: if `before` fails there is no
snapshot; `after` runs whenever `before` was to run, whatever became of it, also when the daemon ends meanwhile; each has a bound on its time, past
which its whole process group is killed; one application is held at a time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import stat
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, TypeVar

from prometheus_client import CollectorRegistry, Counter
from pydantic import BaseModel, ConfigDict, Field

from element_store.types import Conflict, Invalid

log = logging.getLogger("trefoil.snapshots")

NAME_PATTERN: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
SECONDS_DEFAULT: Final = 60
SECONDS_MAX: Final = 3600
OUTPUT_BYTES_MAX: Final = 4096
"""Of what a hook prints, how much of the end is told."""
READ_BYTES: Final = 64 * 1024

Phase = Literal["before", "after"]
Result = Literal["taken", "failed", "refused"]
T = TypeVar("T")


class Hooks(BaseModel):
    """What runs around a snapshot; empty: nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    before: str = Field("", pattern=rf"^({NAME_PATTERN})?$")
    after: str = Field("", pattern=rf"^({NAME_PATTERN})?$")
    seconds: int = Field(SECONDS_DEFAULT, ge=1, le=SECONDS_MAX)
    """The bound of each."""

    def __bool__(self) -> bool:
        return bool(self.before or self.after)


class HookFailed(Conflict):
    """`before` failed, and no snapshot was taken."""


class HookRunner:
    """Of one daemon. `directory`: None where the configuration names none."""

    def __init__(self, directory: Path | None, registry: CollectorRegistry | None = None) -> None:
        self._directory = directory
        self._one = asyncio.Lock()
        self._runs = Counter(
            "trefoil_snapshot_hooks_total", "Commands run around snapshots.", ["phase", "result"], registry=registry or CollectorRegistry()
        )
        self._seconds = Counter(
            "trefoil_snapshot_hook_seconds_total", "Time that they took.", ["phase"], registry=registry or CollectorRegistry()
        )

        for phase in ("before", "after"):
            self._seconds.labels(phase)
            for result in ("ok", "failed"):
                self._runs.labels(phase, result)

    def check(self, hooks: Hooks) -> None:
        """Could they run now? Raises Invalid."""
        for name in (hooks.before, hooks.after):
            if name:
                self._program(name)

    def _program(self, name: str) -> Path:
        """Raises Invalid."""
        if self._directory is None:
            raise Invalid("this daemon runs no commands around snapshots: name their directory in snapshot.hooks of its configuration")
        if not re.fullmatch(NAME_PATTERN, name):
            raise Invalid(f"{name!r} is no name of a command")
        path = self._directory / name
        for what in (self._directory, path):
            _check_trusted(what)
        if not path.is_file() or not os.access(path, os.X_OK):
            raise Invalid(f"{path} is no program that the daemon may run")
        return path

    async def around(self, hooks: Hooks, about: Mapping[str, str], take: Callable[[], Awaitable[T]]) -> T:
        """What `take` returns or raises. Raises HookFailed, Invalid before anything ran."""
        if not hooks:
            return await take()
        self.check(hooks)
        async with self._one:
            result: Result = "refused"
            try:
                if hooks.before:
                    await self._before(hooks, about)
                result = "failed"
                taken = await take()
                result = "taken"
                return taken
            finally:
                if hooks.after:
                    await self._run("after", hooks.after, hooks.seconds, {**about, "TREFOIL_RESULT": result})

    async def _before(self, hooks: Hooks, about: Mapping[str, str]) -> None:
        trouble = await self._run("before", hooks.before, hooks.seconds, about)
        if trouble:
            raise HookFailed(f"no snapshot was taken: {hooks.before} {trouble}")

    async def _run(self, phase: Phase, name: str, seconds: int, about: Mapping[str, str]) -> str:
        """What went wrong, in words that follow its name; empty: nothing."""
        began, trouble = time.monotonic(), "was cut off"
        try:
            trouble = await self._ended(self._program(name), seconds, {**about, "TREFOIL_PHASE": phase})
        except (Invalid, OSError) as error:
            trouble = f"did not run: {error}"
        finally:
            taken = time.monotonic() - began
            self._runs.labels(phase, "failed" if trouble else "ok").inc()
            self._seconds.labels(phase).inc(taken)
            what = {**_for_log(about), "phase": phase, "command": name, "seconds": round(taken, 3)}
            if trouble:
                log.error("a command around a snapshot failed", extra={**what, "reason": trouble})
            else:
                log.info("ran a command around a snapshot", extra=what)
        return trouble

    async def _ended(self, program: Path, seconds: int, about: Mapping[str, str]) -> str:
        environment = {"PATH": os.defpath, "LANG": "C.UTF-8", **about}
        process = await asyncio.create_subprocess_exec(
            program,
            cwd="/",
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        said = asyncio.create_task(_last_said(process))
        try:
            async with asyncio.timeout(seconds):
                code = await process.wait()
        except TimeoutError:
            return f"had not ended after {seconds} s, and was killed"
        finally:
            # Also what it left running, which may hold the pipe.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            words = await said
        ended = f"ended with {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
        return "" if code == 0 else f"{ended}: {words}".removesuffix(": ")


async def _last_said(process: asyncio.subprocess.Process) -> str:
    said = b""
    assert process.stdout
    while piece := await process.stdout.read(READ_BYTES):
        said = (said + piece)[-OUTPUT_BYTES_MAX:]
    return " ".join(said.decode("utf-8", "replace").split())


def _check_trusted(path: Path) -> None:
    """Nobody but root and the daemon's own user can change it. Raises Invalid."""
    try:
        found = path.stat()
    except OSError as error:
        raise Invalid(f"{path}: {error.strerror}") from None
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Invalid(f"{path} could be changed by others than root and the daemon's user")


def _for_log(about: Mapping[str, str]) -> dict[str, str]:
    return {name.removeprefix("TREFOIL_").lower(): value for name, value in about.items()}


def about(path: str, name: str) -> dict[str, str]:
    """The environment of the commands around a snapshot, which `TREFOIL_PHASE` and, after it, `TREFOIL_RESULT` go with."""
    return {"TREFOIL_PATH": path, "TREFOIL_SNAPSHOT": name}
