"""Daemon and clients in one machine: `alone.py CONFIGURATION`. Locks by NLM with calls in both directions, and the kernel's own NFS server."""

from __future__ import annotations

import errno
import json
import os
import shlex
import sys
import time
from pathlib import Path

from tests.proof.nfs.inside.machines import BUCKET, CONFIG, MOUNTPOINT, Client, Daemon, Locker
from tests.proof.nfs.inside.steps import Failed, finish, must, run, shell, step

REFUSED = (errno.EAGAIN, errno.EACCES)
CALLED_BACK_SECONDS_MAX = 15.0
"""The kernel's client looks by itself only every 30 seconds."""
LOCKER = str(Path(__file__).with_name("locker.py"))
NFSD_START = """
echo 10 > /proc/fs/nfsd/nfsv4leasetime
echo 10 > /proc/fs/nfsd/nfsv4gracetime
exportfs -ra
rpc.nfsd --no-nfs-version 3 --nfs-version 4.2 4"""
CONTENT = "written by version 4"


class Machines:
    def __init__(self, todo: dict[str, str]) -> None:
        self.todo = todo
        directory = Path("/var/tmp/trefoil")
        directory.mkdir()
        MOUNTPOINT.mkdir(parents=True)
        self.daemon = Daemon(todo["repository"], todo["packages"], directory, CONFIG)
        self.clients = [Client(1), Client(2)]
        self.lockers: list[Locker] = []
        self.local: Locker | None = None

    def start(self) -> str:
        self.daemon.start()
        bucket = MOUNTPOINT / BUCKET
        bucket.mkdir()
        (bucket / "locked").write_text("x" * 100)
        return ""

    def locker(self, client: Client) -> Locker:
        told = json.loads(self.daemon.ask("export", "--json", "--host", client.server))
        must(told["locks"], "no locks are served")
        return Locker(client.program(told["exports"][0]["mount"], sys.executable, LOCKER, "/mnt/locked", locks=True))

    def mount(self) -> str:
        self.lockers = [self.locker(client) for client in self.clients]
        return "two clients"

    def exclude(self) -> str:
        one, two = self.lockers
        here = Locker([sys.executable, LOCKER, str(MOUNTPOINT / BUCKET / "locked")])
        must(one.do("try", 0, 10) == 0, "the first lock was refused")
        must(two.do("try", 5, 10) in REFUSED, "two clients hold one byte")
        must(two.do("try", 10, 10) == 0, "a lock beside was refused")
        must(here.do("try", 0, 1) in REFUSED, "a client and a program on the mount hold one byte")
        must(here.do("try", 50, 10) == 0, "a free range was refused on the mount")
        must(one.do("try", 50, 1) in REFUSED, "a program on the mount and a client hold one byte")
        for locker in (one, two, here):
            must(locker.do("unlock") == 0, "unlocking failed")
        here.close()
        return ""

    def call_back(self) -> str:
        one, two = self.lockers
        must(one.do("try") == 0, "the first lock was refused")
        two.begin("wait")
        time.sleep(3)
        must(one.do("unlock") == 0, "unlocking failed")
        began = time.monotonic()
        number, seconds = two.end()
        late = time.monotonic() - began
        must(number == 0, f"waiting ended with errno {number}")
        must(seconds >= 3 and late < CALLED_BACK_SECONDS_MAX, f"granted {late:.1f} s after it was free, {seconds} s after it was asked for")
        must(two.do("unlock") == 0, "unlocking failed")
        return f"told {late:.2f} s after it was free"

    def give_up_waiting(self) -> str:
        one, two = self.lockers
        must(one.do("try") == 0, "the first lock was refused")
        must(two.do("wait", seconds=3) == errno.EINTR, "waiting was not interrupted")
        must(one.do("unlock") == 0, "unlocking failed")
        time.sleep(1)
        must(one.do("try") == 0, "who gave up waiting holds the lock")
        must(one.do("unlock") == 0, "unlocking failed")
        return ""

    def reclaim(self) -> str:
        """Only its holder has it again: the other one asks while locks are reclaimed, and is refused when that time is over."""
        one, two = self.lockers
        must(one.do("try", 0, 10) == 0, "the first lock was refused")
        self.daemon.kill()
        self.daemon.start()
        number = two.do("try", 0, 10, seconds=180)
        must(number in REFUSED, f"after a restart the other client got errno {number} for a lock that is held")
        must(one.do("unlock") == 0, "unlocking failed")
        must(two.do("try", 0, 10) == 0, "what was given back is refused")
        must(two.do("unlock") == 0, "unlocking failed")
        return ""

    def end_lockers(self) -> str:
        for locker in self.lockers:
            locker.close()
        return ""

    def serve_by_kernel(self) -> str:
        said = self.daemon.ask("export", "--nfsd", "--host", self.clients[0].server)
        self.line = next(line.strip() for line in said.splitlines() if line.strip().startswith("mount "))
        shell("""
            mkdir -p /run/rpc_pipefs /var/lib/nfs/nfsdcld
            mount -t rpc_pipefs pipes /run/rpc_pipefs
            nfsdcld
            rpc.mountd --no-nfs-version 3""")
        shell(NFSD_START)
        return run("exportfs", "-s").strip()

    def use_version_4(self) -> str:
        commands = [
            f"echo {shlex.quote(CONTENT)} > /mnt/by-4",
            "mkdir /mnt/directory",
            "cp -a /usr/lib/python3.11/json /mnt/directory/",
            "diff -r /usr/lib/python3.11/json /mnt/directory/json",
            "ln /mnt/by-4 /mnt/linked; mv /mnt/linked /mnt/directory/moved",
            "grep -q vers=4.2 /proc/mounts",
        ]
        if program := self.todo["fsx"]:
            operations = self.todo["operations"]
            commands += [f"LD_LIBRARY_PATH=/share {program} -N {operations} -S 4 -q -P /tmp /mnt/fsx", "rm /mnt/fsx"]
        run(*self.clients[0].program(self.line, "sh", "-ec", "\n".join([*commands, "umount /mnt"]), locks=False))
        bucket = MOUNTPOINT / BUCKET
        must((bucket / "directory/moved").read_text() == f"{CONTENT}\n", "the mount shows something else")
        return f"fsx: {self.todo['operations']} operations" if self.todo["fsx"] else ""

    def restart_below_kernel(self) -> str:
        """A client's open file outlives the daemon: its handle is good for the next mount, once the kernel's server let go of the last one."""
        locker = Locker(
            self.clients[1].program(self.line.replace("10.1.1.1", "10.1.2.1"), sys.executable, LOCKER, "/mnt/by-4", locks=False)
        )
        must(locker.read(len(CONTENT)) == CONTENT, "the file has something else in it")
        shell("rpc.nfsd 0; exportfs -f")
        self.daemon.kill()
        self.daemon.start()
        shell(NFSD_START)
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        must(locker.read(len(CONTENT)) == CONTENT, "after a restart the file has something else in it")
        locker.close()
        return ""

    def stop(self) -> str:
        shell("rpc.nfsd 0; exportfs -ua; exportfs -f")
        self.daemon.stop()
        must(not os.path.ismount(MOUNTPOINT), "it is still mounted")
        return ""


def main() -> None:
    machines = Machines(json.loads(Path(sys.argv[1]).read_text()))
    needed = step("the daemon starts", machines.start) and step("two clients mount with locks", machines.mount)
    if not needed:
        print(machines.daemon.log.read_text(), flush=True)
        finish()
    step("locks of clients and programs exclude each other", machines.exclude)
    step("who waits for a lock is called", machines.call_back)
    step("who gives up waiting gets nothing", machines.give_up_waiting)
    step("locks are reclaimed after a restart", machines.reclaim)
    step("clients end", machines.end_lockers)
    if step("the kernel exports the mount", machines.serve_by_kernel):
        step("version 4 by the kernel", machines.use_version_4)
        step("a handle of version 4 outlives the daemon", machines.restart_below_kernel)
    step("the daemon stops", machines.stop)
    finish()


if __name__ == "__main__":
    try:
        main()
    except Failed as problem:
        sys.exit(str(problem))
