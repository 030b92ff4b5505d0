"""The kernel's own target: daemon, target and host in one machine. `kernel.py CONFIGURATION` says each step's outcome in a line."""

from __future__ import annotations

import json
import shlex
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from tests.proof.block.inside.host import FILESYSTEMS, MOUNTPOINT, filesystem, fio, found, waited
from tests.proof.nfs.inside.machines import Daemon
from tests.proof.nfs.inside.steps import finish, must, run, shell, step

HOST = "nqn.2014-08.org.nvmexpress:uuid:9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"
CONFIG = """
[block]
listen = "127.0.0.1:4420"
target = "nvmet"
"""
VOLUME = "disk"
MIXES = (("4k-64k", 8),)
NEW_BYTES = 160 << 20
NVMET = Path("/sys/kernel/config/nvmet")
MARK = "written before the daemon was killed"


class Machine:
    def __init__(self, todo: dict[str, Any]) -> None:
        directory = Path("/var/tmp/trefoil")
        directory.mkdir()
        MOUNTPOINT.mkdir()
        Path("/etc/nvme").mkdir(exist_ok=True)
        Path("/etc/nvme/hostnqn").write_text(HOST + "\n")
        self.seconds = todo["fio_seconds"]
        self.daemon = Daemon(todo["repository"], todo["packages"], directory, CONFIG)
        self.device = ""
        self.uuid = ""

    def start(self) -> str:
        shell("mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config")
        self.daemon.start()
        self.daemon.ask("volume", "create", VOLUME, "128M")
        self.daemon.ask("host", "allow", HOST)
        waited("the kernel's subsystem", lambda: any((NVMET / "subsystems").iterdir()))
        return f"{len(list((NVMET / 'ports').iterdir()))} port"

    def connect(self) -> str:
        line = json.loads(self.daemon.ask("volume", "connect", VOLUME, "--host", HOST, "--json"))
        self.uuid = line["volume"]["uuid"]
        run(*shlex.split(line["connect"]), "--ctrl-loss-tmo", "600")
        self.device = found(self.uuid)
        return self.device

    def name(self) -> str:
        node = Path("/sys/block") / Path(self.device).name
        nguid = (node / "nguid").read_text().strip()
        must(nguid == self.uuid, f"NGUID {nguid}, uuid {self.uuid}")
        return f"blocks of {(node / 'queue/logical_block_size').read_text().strip()}"

    def allocated(self) -> int:
        return int(json.loads(self.daemon.ask("volume", "list", "--json"))[0]["allocated"])

    def discard(self) -> str:
        shell(f"blkdiscard {self.device}; dd if=/dev/urandom of={self.device} bs=1M count=16 oflag=direct conv=fsync status=none")
        held = self.allocated()
        must(held >= 16 << 20, f"{held} bytes are allocated after 16 MiB were written")
        run("blkdiscard", self.device)
        must(self.allocated() == 0, f"{self.allocated()} bytes are allocated after blkdiscard")
        return f"{held} bytes given back"

    def resize(self) -> str:
        self.daemon.ask("volume", "resize", VOLUME, str(NEW_BYTES))
        size = Path("/sys/block") / Path(self.device).name / "size"
        waited("the new size", lambda: int(size.read_text()) * 512 == NEW_BYTES)
        return f"{NEW_BYTES} bytes"

    def restart(self) -> str:
        """Planned: the host sees no error."""
        failures: list[BaseException] = []

        def write() -> None:
            try:
                shell(
                    f"fio --name=r --filename={self.device} --ioengine=libaio --direct=1 --rw=randwrite --bs=4k --iodepth=8 --size=8m "
                    "--fsync=16 --verify=crc32c --do_verify=1 --verify_fatal=1"
                )
            except BaseException as failure:
                failures.append(failure)

        load = threading.Thread(target=write)
        load.start()
        time.sleep(3)
        self.daemon.stop()
        must(not any((NVMET / "subsystems").iterdir()), "subsystems are left after the daemon ended")
        must(load.is_alive() or bool(failures), "the load ended before the restart: nothing was shown")
        self.daemon.start()
        load.join()
        must(not failures, f"the load failed: {failures}")
        return ""

    def kill(self) -> str:
        """Unplanned: errors are what hosts of this target see; what was flushed is there afterwards."""
        shell(f"mkfs.ext4 -q -F {self.device}; mount {self.device} {MOUNTPOINT}")
        try:
            (MOUNTPOINT / "mark").write_text(MARK)
            shell("sync")
        finally:
            self.daemon.kill()
            # Its last words cannot be written any more, or are once the host has found the target again.
            self.daemon.start()
            run("umount", "-l", str(MOUNTPOINT))
        waited("the host's connection", self.is_live)
        run("mount", self.device, str(MOUNTPOINT))
        kept = (MOUNTPOINT / "mark").read_text()
        run("umount", str(MOUNTPOINT))
        must(kept == MARK, f"of what was synced there is {kept!r}")
        run("e2fsck", "-fn", self.device)
        return f"{len(list((NVMET / 'subsystems').iterdir()))} subsystem"

    def is_live(self) -> bool:
        states = [path.read_text().strip() for path in Path("/sys/class/nvme").glob("nvme*/state")]
        return "live" in states and Path(self.device).exists()

    def end(self) -> str:
        run("nvme", "disconnect-all")
        faults = json.loads(self.daemon.ask("check", "--json"))["faults"]
        must(faults == 0, f"{faults} faults")
        self.daemon.stop()
        left = [path.name for kind in ("subsystems", "ports", "hosts") for path in (NVMET / kind).iterdir()]
        must(not left, f"left in the kernel: {left}")
        return "nothing is left in the kernel"


def main() -> None:
    todo: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    machine = Machine(todo)
    if step("the kernel's target serves a volume", machine.start) and step("connect", machine.connect):
        step("names", machine.name)
        step("ext4: made, filled, checked", lambda: filesystem(machine.device, "ext4", *FILESYSTEMS["ext4"]))
        step("fio verifies random sizes", partial(fio_of, machine))
        step("discard", machine.discard)
        step("resize is seen", machine.resize)
        step("a planned restart is no error", machine.restart)
        step("a killed daemon is found and replaced", machine.kill)
        step("end", machine.end)
    finish()


def fio_of(machine: Machine) -> str:
    return fio(machine.device, machine.seconds, MIXES)


if __name__ == "__main__":
    main()
