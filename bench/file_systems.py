"""What bench/files.py measures: each a directory or an NFS export below one scratch directory, the processes that serve it, and their end.

All systems keep their data on the same filesystem and run all the time; the one that is not measured is idle. Nothing is tuned but what is said here.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from tests.proof.daemon import Daemon, free_port, session_cpu_seconds, trefoil

BUCKET = "bench"
READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
IDLE_SHARE_MAX = 0.05
"""Of one CPU: a server that uses less has done what it put off."""
IDLE_STEP_SECONDS = 0.4
IDLE_SECONDS_MAX = 30.0


@dataclass
class System:
    name: str
    load: Sequence[str]
    """The load generator, and what it must be run by."""
    at: str
    sessions: Sequence[int] = field(default_factory=list)
    """Leaders of the sessions that serve it."""

    def cpu_seconds(self) -> float:
        return sum(session_cpu_seconds(leader) for leader in self.sessions)

    def settle(self) -> float:
        """Waits until it does nothing more in the background; returns the CPU time that this took it."""
        first = last = self.cpu_seconds()
        deadline = time.monotonic() + IDLE_SECONDS_MAX
        while self.sessions and time.monotonic() < deadline:
            time.sleep(IDLE_STEP_SECONDS)
            before, last = last, self.cpu_seconds()
            if last - before <= IDLE_SHARE_MAX * IDLE_STEP_SECONDS:
                break
        return last - first


@dataclass(frozen=True)
class Place:
    """Where a system may work, and with what."""

    work: Path
    tools: Path
    devices: int

    @property
    def load(self) -> list[str]:
        return [str(self.tools / "fileload")]

    def directory(self, *names: str) -> Path:
        path = self.work.joinpath(*names)
        path.mkdir(parents=True)
        return path


Maker = Callable[[Place], AbstractContextManager[System]]


@contextmanager
def raw(place: Place) -> Iterator[System]:
    """The filesystem itself."""
    yield System("raw", place.load, str(place.directory("raw")))


@contextmanager
def _daemon(place: Place, name: str, engine: str | None, nfs_port: int | None = None) -> Iterator[Daemon]:
    base = place.directory(name)
    devices = [place.directory(name, f"device-{number}") for number in range(place.devices)]
    config = base / "trefoil.toml"
    text = f'[file]\nmount = "{place.directory(name, "mount")}"\nengine = "{engine}"\n' if engine else ""
    if nfs_port:
        text += f'[nfs]\nlisten = "127.0.0.1:{nfs_port}"\n[[nfs.export]]\npath = "/{BUCKET}"\nsquash = "none"\n'
    config.write_text(text)
    daemon = Daemon(trefoil(devices, base / "state", env={"TREFOIL_CONFIG": str(config), "TREFOIL_LOG__LEVEL": "warning"}), base / "log")
    daemon.start()
    try:
        yield daemon
    finally:
        daemon.stop()


def mounted(engine: str) -> Maker:
    """Our daemon with a mount by this engine; locks of the mount are the kernel's, as nothing is exported."""

    @contextmanager
    def make(place: Place) -> Iterator[System]:
        with _daemon(place, engine, engine) as daemon:
            bucket = place.work / engine / "mount" / BUCKET
            bucket.mkdir()
            yield System(engine, place.load, str(bucket), [daemon.pid])

    return make


def passthrough(command: str) -> Maker:
    """`command`: a FUSE server that stays in the foreground, with {source} and {mount} for its directories."""
    name = Path(shlex.split(command)[0]).name.removeprefix("passthrough_")

    @contextmanager
    def make(place: Place) -> Iterator[System]:
        source, mount = place.directory(f"c-{name}", "source"), place.directory(f"c-{name}", "mount")
        argv = [word.format(source=source, mount=mount) for word in shlex.split(command)]
        with _process(argv, place.work / f"c-{name}" / "log", lambda: mount.is_mount()) as process, _unmounting(mount):
            yield System(f"C-{name}", place.load, str(mount), [process.pid])

    return make


@contextmanager
def juicefs(place: Place) -> Iterator[System]:
    """Metadata in a redis that syncs its log before it answers, objects in files of the same filesystem; no writeback, no trash."""
    base, mount, port = place.directory("juicefs"), place.directory("juicefs", "mount"), free_port()
    program = str(place.tools / "juicefs")
    redis = f"redis-server --port {port} --bind 127.0.0.1 --dir {place.directory('juicefs', 'redis')} --save '' --appendonly yes --appendfsync always"
    url = f"redis://127.0.0.1:{port}/1"
    with _process(shlex.split(redis), base / "redis.log", lambda: _says(base / "redis.log", "Ready to accept")) as server:
        made = [program, "format", "--storage", "file", "--bucket", f"{base}/objects/", "--trash-days", "0", url, BUCKET]
        subprocess.run(made, check=True, capture_output=True)
        argv = [
            program,
            "mount",
            "--no-usage-report",
            "--no-syslog",
            "--cache-dir",
            f"{base}/cache",
            "--cache-size",
            "4096",
            url,
            str(mount),
        ]
        with _process(argv, base / "mount.log", lambda: mount.is_mount()) as client, _unmounting(mount):
            yield System("juicefs", place.load, str(mount), [server.pid, client.pid])


@contextmanager
def trefoil_nfs(place: Place) -> Iterator[System]:
    port = free_port()
    with _daemon(place, "trefoil", "native", port) as daemon:
        (place.work / "trefoil/mount" / BUCKET).mkdir()
        yield System("trefoil", [f"{place.tools}/fileload-nfs"], _export(f"/{BUCKET}", port, port), [daemon.pid])


GANESHA_PORT, GANESHA_MOUNT_PORT = 2049, 20048
GANESHA = """NFS_CORE_PARAM {{ Protocols = 3; NFS_Port = {port}; MNT_Port = {mount_port}; Enable_NLM = false; Enable_RQUOTA = false; }}
EXPORT {{
    Export_Id = 1; Path = "{path}"; Pseudo = "/{bucket}"; Protocols = 3; Transports = TCP;
    Access_Type = RW; Squash = None; SecType = sys; FSAL {{ Name = VFS; }}
}}
LOG {{ Default_Log_Level = WARN; }}
"""
GANESHA_INSIDE = """set -e
mount -t tmpfs none /run
mkdir -p /run/rpcbind /run/ganesha
ip link set lo up
rpcbind -f &
until [ -S /run/rpcbind.sock ]; do sleep 0.1; done
exec ganesha.nfsd -F -f {config} -L {log} -p {config}.pid
"""


@contextmanager
def ganesha(place: Place) -> Iterator[System]:
    """NFS-Ganesha with FSAL_VFS, with the rpcbind that it needs in a network of its own; its load runs there too."""
    base, exported = place.directory("ganesha"), place.directory("ganesha", "export")
    config, log = base / "ganesha.conf", base / "ganesha.log"
    config.write_text(GANESHA.format(port=GANESHA_PORT, mount_port=GANESHA_MOUNT_PORT, path=exported, bucket=BUCKET))
    inside = GANESHA_INSIDE.format(config=config, log=log)
    argv = ["unshare", "--net", "--mount", "sh", "-c", inside]
    with _process(argv, base / "log", lambda: _listens(base / "ganesha.conf.pid")) as server:
        load = ["nsenter", "--target", str(server.pid), "--net", f"{place.tools}/fileload-nfs"]
        yield System("ganesha", load, _export(str(exported), GANESHA_PORT, GANESHA_MOUNT_PORT), [server.pid])


def _export(path: str, port: int, mount_port: int) -> str:
    return f"nfs://127.0.0.1{quote(path)}?version=3&nfsport={port}&mountport={mount_port}"


def _listens(pid_file: Path) -> bool:
    if not pid_file.exists() or not (words := pid_file.read_text().split()):
        return False
    return any(f":{GANESHA_PORT:04X} " in Path(f"/proc/{words[0]}/net/{name}").read_text() for name in ("tcp", "tcp6"))


def _says(log: Path, words: str) -> bool:
    return log.exists() and words in log.read_text(errors="replace")


@contextmanager
def _process(argv: Sequence[str], log: Path, is_ready: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """In a session of its own, which ends with it."""
    with log.open("wb") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        deadline = time.monotonic() + READY_SECONDS_MAX
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{argv[0]} does not serve: {log.read_text(errors='replace')[-500:]}")
            time.sleep(0.05)
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(STOP_SECONDS_MAX)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def _unmounting(mount: Path) -> Iterator[None]:
    try:
        yield
    finally:
        if subprocess.run(["umount", str(mount)], check=False).returncode:
            subprocess.run(["umount", "--lazy", str(mount)], check=False)


def needed(programs: Sequence[str]) -> None:
    if missing := [program for program in programs if shutil.which(program) is None]:
        sys.exit(f"files: needs {', '.join(missing)}; see bench/peer_files.sh")
