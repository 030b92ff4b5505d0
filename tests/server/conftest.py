"""A running daemon for tests: a real process with the real command line, on the model store."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 30


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def clean_environment(**more: str) -> dict[str, str]:
    """Without what the developer's shell may say about another daemon."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TREFOIL_", "AWS_"))}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"} | more


@dataclass
class RunningDaemon:
    state: Path
    arguments: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    s3: str = field(default_factory=free_address)
    admin: str = field(default_factory=free_address)
    process: subprocess.Popen[str] | None = None

    def start(self) -> RunningDaemon:
        command = [
            sys.executable,
            "-m",
            "tests.server.model_daemon",
            "serve",
            "--json",
            "--state",
            str(self.state),
            "--data",
            str(self.state / "device"),
        ]
        command += ["--s3-listen", self.s3, "--admin-listen", self.admin, *self.arguments]
        self.state.parent.mkdir(exist_ok=True)
        self.log = (self.state.parent / "log").open("a+")
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=clean_environment(**self.environment), stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.wait()
        assert line, f"the daemon did not start: {self.log_text()}"
        json.loads(line)
        return self

    def log_text(self) -> str:
        return Path(self.log.name).read_text()

    def log_lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log_text().splitlines()]

    def signal(self, number: int = signal.SIGTERM) -> None:
        assert self.process
        self.process.send_signal(number)

    def wait(self) -> int:
        assert self.process
        code = self.process.wait(WAIT_SECONDS)
        assert self.process.stdout
        self.process.stdout.close()
        self.log.close()
        return code

    def stop(self) -> int:
        self.signal()
        return self.wait()

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.wait()

    def credentials(self) -> dict[str, str]:
        return json.loads((self.state / "root-credentials.json").read_text())

    def trefoil(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_trefoil(*arguments, TREFOIL_STATE=str(self.state), **environment)


def run_trefoil(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.server.model_daemon", *arguments]
    return subprocess.run(command, cwd=ROOT, env=clean_environment(**environment), capture_output=True, text=True, timeout=WAIT_SECONDS)


@pytest.fixture
def make_daemon(tmp_path: Path) -> Iterator[Callable[..., RunningDaemon]]:
    """Daemons of the test's own; what still runs at its end is killed."""
    made: list[RunningDaemon] = []

    def make(**environment: str) -> RunningDaemon:
        made.append(RunningDaemon(tmp_path / f"{len(made)}" / "state", environment=environment))
        return made[-1]

    yield make
    for one in made:
        one.kill()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """Shared by a module's tests: each uses names of its own."""
    running = RunningDaemon(tmp_path_factory.mktemp("daemon") / "state").start()
    yield running
    assert running.process and running.process.poll() is None, f"the daemon ended by itself: {running.log_text()}"
    assert running.stop() == 0
