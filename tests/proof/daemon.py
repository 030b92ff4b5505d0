"""Starts, waits for, kills and measures a daemon under judgement; the only place that knows how one is started.

A daemon is its own session, so that a kill reaches its worker processes too, and it is ended by the ids that were started here. Its
output goes to a file; an early end raises with the last lines of it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.proof import ptrace
from tests.proof.s3 import Endpoint

READY_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 60.0
ACCESS_KEY = "proofproofproof"
SECRET_KEY = "proof-secret-proof-secret"
DAMAGE_METRIC = "trefoil_segment_checksum_errors_total"
REPAIR_METRIC = "trefoil_segment_repaired_total"
RESILVER_METRIC = "trefoil_journal_resilvered_total"
MOVED_METRIC = "trefoil_reducer_extents_moved_total"
JOURNAL_REPAIR_METRIC = "trefoil_journal_repaired_total"
JOURNAL_USED_METRIC = "trefoil_journal_used_bytes"
JOURNAL_SIZE_METRIC = "trefoil_journal_size_bytes"
FLUSHES_METRIC = "trefoil_device_flushes_total"
WRITE_BYTES_METRIC = "trefoil_device_write_bytes_total"
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class DaemonFailed(Exception):
    """It ended or did not get ready; carries the last lines of its output."""


@dataclass
class Spec:
    """How to start one daemon and how to know that it serves."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    ready_url: str
    endpoint: Endpoint
    admin_url: str | None = None
    token_file: Path | None = None
    devices: Sequence[Path] = field(default_factory=list)


class Daemon:
    def __init__(self, spec: Spec, log: Path) -> None:
        self.spec = spec
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped: list[int] = []

    def start(self, *, ready_seconds_max: float = READY_SECONDS_MAX) -> float:
        """Returns the seconds from start to ready."""
        began = time.monotonic()
        with self.log.open("ab") as output:
            environment = {**os.environ, **self.spec.env}
            self._process = subprocess.Popen(
                list(self.spec.argv), env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        while not _answers(self.spec.ready_url):
            if self._process.poll() is not None:
                raise DaemonFailed(f"{self.spec.name} ended with {self._process.returncode}: {self.tail()}")
            if time.monotonic() - began > ready_seconds_max:
                self.kill()
                raise DaemonFailed(f"{self.spec.name} was not ready after {ready_seconds_max:.0f} s: {self.tail()}")
            time.sleep(0.02)
        return time.monotonic() - began

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> int:
        """SIGTERM and wait; returns the exit code. One that does not drain in time is killed, and that is an error."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired as error:
                self.kill()
                raise DaemonFailed(f"{self.spec.name} did not end within {STOP_SECONDS_MAX:.0f} s of SIGTERM") from error
        code, self._process = self._process.returncode, None
        return code

    def kill(self) -> None:
        """kill -9 of the daemon and all its processes."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            for thread in self._stopped:
                ptrace.reap(thread)
        self._stopped.clear()
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def stop_thread(self, name: str) -> None:
        """This thread of the daemon does nothing more until the daemon is killed. Raises LookupError."""
        thread = ptrace.thread_named(self.pid, name)
        ptrace.stop(thread)
        self._stopped.append(thread)

    def tail(self, lines: int = 12) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def rss_bytes(self) -> int:
        """Resident memory of the daemon and its children."""
        return sum(int(_proc(pid, "statm").split()[1]) * _PAGE_BYTES for pid in self._pids())

    def cpu_seconds(self) -> float:
        """User and system time of the daemon and its children."""
        return session_cpu_seconds(self.pid)

    def metrics(self) -> Mapping[str, float]:
        """Samples of /metrics by their full name with labels; empty for a daemon without."""
        if self.spec.admin_url is None:
            return {}
        lines = self._admin("/metrics").decode().splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        found = {name: float(value) for name, value in samples}
        if not found:
            raise DaemonFailed(f"{self.spec.name} has no metrics at /metrics")
        return found

    def advice(self) -> Sequence[str]:
        """What `trefoil status` tells the operator to do; empty for a daemon without."""
        if self.spec.admin_url is None:
            return []
        status = json.loads(self._admin("/api/v1/status"))
        return [str(sentence) for sentence in status["pool"]["advice"]]

    def _admin(self, path: str) -> bytes:
        assert self.spec.admin_url is not None
        request = urllib.request.Request(self.spec.admin_url + path)
        if self.spec.token_file is not None and self.spec.token_file.exists():
            request.add_header("Authorization", f"Bearer {self.spec.token_file.read_text().strip()}")
        with urllib.request.urlopen(request, timeout=60) as response:
            body: bytes = response.read()
            return body

    def _pids(self) -> list[int]:
        return _session(self.pid)


def session_cpu_seconds(leader: int) -> float:
    """User and system time of the processes of a session."""
    total = 0
    for pid in _session(leader):
        fields = _proc(pid, "stat").rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS_PER_SECOND


def _session(leader: int) -> list[int]:
    """Its processes."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat_fields(int(entry.name))) and int(fields[3]) == leader:
            found.append(int(entry.name))
    return found


def metric_sum(metrics: Mapping[str, float], name: str) -> float:
    """Sum of a metric over its labels; 0 for a daemon without metrics. Raises KeyError for a name that there is not: 0 would acquit."""
    if not metrics:
        return 0.0
    values = [value for sample, value in metrics.items() if sample == name or sample.startswith(name + "{")]
    if not values:
        raise KeyError(f"/metrics has no {name}")
    return sum(values)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def trefoil_program() -> str:
    """The `trefoil` command: PROOF_TREFOIL, beside this Python, or on the PATH."""
    named = os.environ.get("PROOF_TREFOIL")
    beside = Path(sys.executable).parent / "trefoil"
    found = named or (str(beside) if beside.exists() else shutil.which("trefoil"))
    if not found:
        raise DaemonFailed("no trefoil command; run ./up --build, or set PROOF_TREFOIL")
    return found


@dataclass(frozen=True)
class Tls:
    certificate: Path
    private_key: Path
    ca: Path


def trefoil(devices: Sequence[Path], state: Path, *, tls: Tls | None = None, env: Mapping[str, str] | None = None) -> Spec:
    """Our daemon on these devices, with its default settings but for addresses and credentials."""
    s3_port, admin_port = free_port(), free_port()
    settings = {
        "TREFOIL_STATE": str(state),
        "TREFOIL_S3__LISTEN": f"127.0.0.1:{s3_port}",
        "TREFOIL_ADMIN__LISTEN": f"127.0.0.1:{admin_port}",
        "TREFOIL_LOG__ACCESS": "false",
        "TREFOIL_ROOT_ACCESS_KEY": ACCESS_KEY,
        "TREFOIL_ROOT_SECRET_KEY": SECRET_KEY,
    }
    if tls:
        settings |= {"TREFOIL_S3__CERTIFICATE": str(tls.certificate), "TREFOIL_S3__PRIVATE_KEY": str(tls.private_key)}
    argv = [trefoil_program(), "serve"]
    for device in devices:
        argv += ["--data", str(device)]
    admin = f"http://127.0.0.1:{admin_port}"
    endpoint = Endpoint("127.0.0.1", s3_port, ACCESS_KEY, SECRET_KEY, str(tls.ca) if tls else None)
    return Spec("trefoil", argv, {**settings, **(env or {})}, f"{admin}/readyz", endpoint, admin, state / "admin-token", devices)


def minio(program: Path, devices: Sequence[Path]) -> Spec:
    """The peer, with the same code (4+2 on six directories) on one filesystem."""
    port = free_port()
    argv = [str(program), "server", "--address", f"127.0.0.1:{port}", "--console-address", f"127.0.0.1:{free_port()}", "--quiet"]
    env = {
        "MINIO_ROOT_USER": ACCESS_KEY,
        "MINIO_ROOT_PASSWORD": SECRET_KEY,
        "MINIO_STORAGE_CLASS_STANDARD": "EC:2",
        "MINIO_UPDATE": "off",
        "MINIO_CALLHOME_ENABLE": "off",
        # Directories on the root filesystem are refused otherwise. Not MINIO_CI_CD: it shrinks the buffer pool and slows overwriting.
        "MINIO_ROOTDRIVE_THRESHOLD_SIZE": "1MiB",
        "CI": "",
    }
    endpoint = Endpoint("127.0.0.1", port, ACCESS_KEY, SECRET_KEY)
    ready = f"http://127.0.0.1:{port}/minio/health/cluster"
    return Spec("minio", argv + [str(device) for device in devices], env, ready, endpoint, devices=devices)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _proc(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return "0 " * 7 if name == "statm" else "0 (gone) " + "0 " * 50


def _stat_fields(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
