"""A mounted store for tests of what programs see: both engines in turn, each in a process of its own. Needs root and /dev/fuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.protocols.fuse.server import VIEW

ENGINES = ("native", "pyfuse3")
ROOT = Path(__file__).resolve().parents[3]
END_SECONDS_MAX = 60
NOBODY = 65534


class Refused(Exception):
    pass


class Rig:
    """The process that mounts, and where."""

    def __init__(self, directory: Path, engine: str) -> None:
        self.engine = engine
        self.mountpoint = directory / "mount"
        self.mountpoint.mkdir()
        self._log = (directory / "log").open("w+")
        state = directory / "state"
        command = [sys.executable, "-m", "tests.protocols.fuse.server", str(state)]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, start_new_session=True
        )

    def do(self, command: str, **arguments: Any) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the server ended: {self.log()}"
        answer = json.loads(line)
        if "refused" in answer:
            raise Refused(answer["refused"])
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
        return answer["ok"]

    def mount(self, path: Path | None = None, **options: Any) -> None:
        self.do("mount", path=str(path or self.mountpoint), engine=self.engine, **{"view": VIEW, **options})

    def end(self) -> None:
        self.do("end", path=str(self.mountpoint))

    def call(self, name: str, *args: Any) -> Any:
        """By another face of the store."""
        return self.do(
            "call", name=name, args=[argument.decode("latin-1") if isinstance(argument, bytes) else argument for argument in args]
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(END_SECONDS_MAX)

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def close(self) -> None:
        """The mount ends with its server, which has nothing to complain about."""
        if self.process.poll() is None:
            assert self.process.stdin
            self.process.stdin.close()
            assert self.process.wait(END_SECONDS_MAX) == 0, self.log()
            assert self.log() == ""
        subprocess.run(["umount", "--lazy", self.mountpoint], stderr=subprocess.DEVNULL, check=False)
        for stream in (self.process.stdin, self.process.stdout, self._log):
            assert stream
            stream.close()


@contextmanager
def rig_of(directory: Path, engine: str) -> Iterator[Rig]:
    rig = Rig(directory, engine)
    try:
        yield rig
    except BaseException:
        rig.kill()
        raise
    finally:
        rig.close()


@pytest.fixture(scope="module", params=ENGINES)
def shared_rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """Mounted; shared by a module's tests."""
    directory = tmp_path_factory.mktemp("rig")
    # Other users must reach the mount.
    for parent in (directory, *directory.parents[:3]):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/tmp"):
            parent.chmod(0o755)
    with rig_of(directory, request.param) as rig:
        rig.mount()
        yield rig


@pytest.fixture
def place(shared_rig: Rig, request: pytest.FixtureRequest) -> Path:
    """A directory on the mount for one test."""
    path = shared_rig.mountpoint / request.node.name.replace("/", "-")
    path.mkdir()
    return path


@pytest.fixture(params=ENGINES)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """A test's own, not mounted yet."""
    with rig_of(tmp_path, request.param) as rig:
        yield rig


@contextmanager
def user(uid: int = NOBODY) -> Iterator[None]:
    """As somebody without privileges."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
