"""Machines in the machine: the daemon here, and clients in network namespaces, each with a host name, a port mapper and a status monitor."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from tests.proof.nfs.inside.steps import Failed, run, shell

READY_SECONDS = 180.0
DEVICE_BYTES = 600 << 20
DEVICES = 2
NFS_PORT = 12049
MOUNTPOINT = Path("/srv/trefoil")
BUCKET = "proof"
CONFIG = f"""
[file]
mount = "{MOUNTPOINT}"
[nfs]
listen = "0.0.0.0:{NFS_PORT}"
portmapper = "0.0.0.0:111"
[[nfs.export]]
path = "/{BUCKET}"
clients = ["10.1.0.0/16"]
squash = "none"
"""
HOST_SETUP = "hostname {name}\n"
LOCK_SETUP = """
mount -t tmpfs run /run
mkdir -p /run/rpcbind /run/lock /run/sendsigs.omit.d
mount -t tmpfs nfs /var/lib/nfs
mkdir -p /var/lib/nfs/sm /var/lib/nfs/sm.bak
touch /var/lib/nfs/state
chown -R statd /var/lib/nfs
rpcbind -w
rpc.statd
"""
"""What version 3 needs for locks, and version 4 has by itself. A private /run hides its port mapper from the kernel's look-ups elsewhere."""


class Daemon:
    """Trefoil from the shared repository, with the guest's own Python, on files in the directory."""

    def __init__(self, repository: str, packages: str, directory: Path, config: str) -> None:
        self.environment = {
            **os.environ,
            "PYTHONPATH": f"{repository}:{packages}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "TREFOIL_STATE": str(directory / "state"),
        }
        self.config = directory / "trefoil.toml"
        self.log = directory / "log"
        self.arguments = ["serve", "--config", str(self.config)]
        for number in range(DEVICES):
            device = directory / f"device-{number}"
            with device.open("wb") as file:
                file.truncate(DEVICE_BYTES)
            self.arguments += ["--data", str(device)]
        self.process: subprocess.Popen[bytes] | None = None
        self.config.write_text(config)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", "from server.cli import main; main()", *arguments]

    def start(self) -> None:
        self.log.unlink(missing_ok=True)
        self.process = subprocess.Popen(self.command(*self.arguments), env=self.environment, stderr=self.log.open("wb"))
        deadline = time.monotonic() + READY_SECONDS
        while '"message": "ready"' not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the daemon is not ready: {self.log.read_text()[-500:]}")
            time.sleep(0.5)

    def stop(self) -> None:
        assert self.process
        self.process.terminate()
        if code := self.process.wait(120):
            raise Failed(f"the daemon stopped with {code}: {self.log.read_text()[-500:]}")

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def ask(self, *arguments: str) -> str:
        return run(*self.command(*arguments), environment=self.environment)


class Client:
    """A namespace; `server` is the daemon's address as it knows it."""

    def __init__(self, number: int) -> None:
        self.name = f"client{number}"
        self.server = f"10.1.{number}.1"
        shell(f"""
            ip netns add {self.name}
            ip link add veth{number} type veth peer name eth0 netns {self.name}
            ip address add {self.server}/24 dev veth{number}
            ip link set veth{number} up
            ip -n {self.name} address add 10.1.{number}.2/24 dev eth0
            ip -n {self.name} link set eth0 up
            ip -n {self.name} link set lo up""")

    def program(self, mount: str, *command: str, locks: bool) -> list[str]:
        """With what the line `mount` mounts, which no other program sees. `locks`: starts what version 3 needs for them, once for each client."""
        script = f'{HOST_SETUP.format(name=self.name)}{LOCK_SETUP if locks else ""}{mount}\nexec "$@"'
        inner = ["unshare", "--mount", "--uts", "sh", "-ec", script, "sh", *command]
        return ["ip", "netns", "exec", self.name, *inner]


class Locker:
    """A program that locks; see `locker`."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if not self._answer().get("ready"):
            raise Failed(f"{shlex.join(command)} did not start")

    def begin(self, do: str, start: int = 0, length: int = 0, seconds: int = 120) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"do": do, "start": start, "length": length, "seconds": seconds}) + "\n")
        self.process.stdin.flush()

    def end(self) -> tuple[int, float]:
        """The errno, and how long it took."""
        answer = self._answer()
        return int(str(answer["errno"])), float(str(answer["seconds"]))

    def do(self, do: str, start: int = 0, length: int = 0, seconds: int = 120) -> int:
        self.begin(do, start, length, seconds)
        return self.end()[0]

    def read(self, length: int) -> str:
        self.begin("read", 0, length)
        answer = self._answer()
        if answer["errno"]:
            raise Failed(f"reading answered {answer['text']}")
        return str(answer["text"])

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(60)

    def _answer(self) -> dict[str, object]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"a locker ended with {self.process.wait(10)}")
        answer: dict[str, object] = json.loads(line)
        return answer
