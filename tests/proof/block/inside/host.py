"""A stock kernel as the host of volumes: run in the guest, told what to do by a file, says each step's outcome in a line."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.proof.nfs.inside.steps import finish, must, run, say, shell, step

FILESYSTEMS = {
    "ext4": ("mkfs.ext4 -q -F", "e2fsck -fn"),
    "xfs": ("mkfs.xfs -q -f", "xfs_repair -n"),
    "btrfs": ("mkfs.btrfs -q -f", "btrfs check --readonly"),
}
"""How each is made, and checked when it is not mounted."""
MIXES = (("512-64k", 16), ("4k-4k", 32), ("128k-1m", 4))
"""Block sizes, and how many are under way."""
WAIT_SECONDS = 60
MOUNTPOINT = Path("/tmp/volume")


def main() -> None:
    todo: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    Path("/etc/nvme").mkdir(exist_ok=True)
    Path("/etc/nvme/hostnqn").write_text(todo["host"] + "\n")
    MOUNTPOINT.mkdir()
    step("discover", lambda: discover(todo))
    if step("connect with digests", lambda: connect(todo)):
        device = found(todo["uuid"])
        for name, (make, check) in FILESYSTEMS.items():
            step(f"{name}: made, filled, checked", partial(filesystem, device, name, make, check))
        step("fio verifies random sizes", lambda: fio(device, todo["fio_seconds"]))
        step("discard", lambda: discard(device))
        step("resize is seen", lambda: resize(device, todo))
        step("I/O goes on over restarts", lambda: restarts(device, todo))
        step("an image that S3 brought is mounted and changed", lambda: image(todo))
        step("a clone of a file system in use", lambda: clone(device))
        step("reservations of two hosts", lambda: reservations(todo))
    step("a host that may not is refused", lambda: refused(todo))
    finish()


def words(line: str) -> list[str]:
    return shlex.split(line)


def discover(todo: dict[str, Any]) -> str:
    text = run(*words(todo["discover"]), "--hostnqn", todo["host"])
    must(todo["nqn"] in text, f"discovery does not name the subsystem: {text}")
    return f"{text.count('subnqn:')} entries"


def connect(todo: dict[str, Any]) -> str:
    run(*words(todo["connect"]), "--hdr-digest", "--data-digest", "--ctrl-loss-tmo", "600")
    return found(todo["uuid"])


def waited(what: str, ask: Callable[[], Any]) -> Any:
    until = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < until:
        if answer := ask():
            return answer
        time.sleep(0.2)
    must(False, f"{what} did not come")
    return None


def found(uuid: str) -> str:
    def ask() -> str | None:
        for name in Path("/sys/block").glob("nvme*n*"):
            if (name / "uuid").is_file() and (name / "uuid").read_text().strip() == uuid:
                return f"/dev/{name.name}"
        return None

    return str(waited("the device", ask))


def filesystem(device: str, kind: str, make: str, check: str) -> str:
    run(*words(make), device)
    run("mount", "-t", kind, device, str(MOUNTPOINT))
    try:
        shell(f"cp -r /usr/lib/python3.11/json /usr/lib/python3.11/email {MOUNTPOINT}; sync; echo 3 > /proc/sys/vm/drop_caches")
        shell(f"diff -r /usr/lib/python3.11/email {MOUNTPOINT}/email")
        trimmed = run("fstrim", "-v", str(MOUNTPOINT)).strip()
        if kind == "btrfs":
            # Every block against its checksum; it fails if one is wrong.
            run("btrfs", "scrub", "start", "-B", str(MOUNTPOINT))
    finally:
        run("umount", str(MOUNTPOINT))
    run(*words(check), device)
    return trimmed


def fio(device: str, seconds: int, mixes: Sequence[tuple[str, int]] = MIXES) -> str:
    for sizes, depth in mixes:
        run(
            "fio",
            "--name=verify",
            f"--filename={device}",
            "--ioengine=libaio",
            "--direct=1",
            "--rw=randwrite",
            f"--bsrange={sizes}",
            "--blockalign=512" if sizes.startswith("512") else "--blockalign=4k",
            f"--iodepth={depth}",
            # Of two writes under way to one place nobody knows which is the last.
            "--serialize_overlap=1",
            "--verify=crc32c",
            "--verify_backlog=512",
            "--size=48m",
            f"--runtime={seconds}",
            "--time_based",
            "--do_verify=1",
        )
    return f"{len(mixes)} mixes"


def discard(device: str) -> str:
    shell(f"dd if=/dev/urandom of={device} bs=1M count=16 oflag=direct status=none")
    say(ask="allocated")
    run("blkdiscard", device)
    with Path(device).open("rb") as opened:
        must(set(opened.read(1 << 20)) == {0}, "what was discarded is not zeros")
    say(ask="freed")
    return "16 MiB"


def resize(device: str, todo: dict[str, Any]) -> str:
    say(ask="resize")
    size = Path("/sys/block") / Path(device).name / "size"
    waited("the new size", lambda: int(size.read_text()) * 512 == todo["new_size"])
    return f"{todo['new_size']} bytes"


def restarts(device: str, todo: dict[str, Any]) -> str:
    """The host waits and sends again; nothing is wrong afterwards."""
    say(ask="restarts")
    for round_number in range(todo["rounds"]):
        pattern = f"0x{round_number + 1:02x}"
        shell(
            f"fio --name=r --filename={device} --ioengine=libaio --direct=1 --rw=randwrite --bs=4k --iodepth=8 --size=8m --fsync=16 "
            f"--verify=pattern --verify_pattern={pattern} --do_verify=1 --verify_fatal=1"
        )
        say(rounds=round_number + 1)
    return f"{todo['rounds']} rounds"


def image(todo: dict[str, Any]) -> str:
    device = found(todo["image"])
    run("mount", device, str(MOUNTPOINT))
    try:
        tree = Path(todo["tree"])
        for path in filter(Path.is_file, tree.rglob("*")):
            must((MOUNTPOINT / path.relative_to(tree)).read_bytes() == path.read_bytes(), f"{path} is another in the image")
        (MOUNTPOINT / todo["from_host"]).write_text(todo["from_host"])
    finally:
        run("umount", str(MOUNTPOINT))
    say(ask="image")
    return device


def clone(device: str) -> str:
    """A snapshot while files are written: what was synced is in it, and it needs no more than its journal's replay."""
    run("mkfs.ext4", "-q", "-F", device)
    run("mount", device, str(MOUNTPOINT))
    load = subprocess.Popen(["sh", "-c", f"while :; do cp -r /usr/lib/python3.11/email {MOUNTPOINT}/$$; rm -r {MOUNTPOINT}/$$; done"])
    try:
        time.sleep(3)
        (MOUNTPOINT / "mark").write_text("synced")
        run("sync", str(MOUNTPOINT / "mark"))
        say(ask="clone")
        told = Path(sys.argv[1]).with_name("clone")
        uuid = str(waited("the clone", lambda: told.is_file() and told.read_text()))
    finally:
        load.kill()
        load.wait()
        run("umount", str(MOUNTPOINT))
    cloned = found(uuid)
    run("mount", cloned, str(MOUNTPOINT))
    kept = (MOUNTPOINT / "mark").read_text()
    run("umount", str(MOUNTPOINT))
    must(kept == "synced", f"the clone has {kept!r}")
    run("e2fsck", "-fn", cloned)
    return cloned


def reservations(todo: dict[str, Any]) -> str:
    """Each host has a device of its own only if the kernel does not take them for two paths of one."""
    shell("nvme disconnect-all; modprobe -r nvme-tcp nvme-fabrics nvme nvme-core; modprobe nvme-core multipath=N; modprobe nvme-tcp")
    nodes = []
    for number, host in enumerate((todo["host"], todo["other_host"]), 1):
        before = set(Path("/dev").glob("nvme*n*"))
        connect_as(todo, host, f"00000000-0000-4000-8000-{number:012d}")
        nodes.append(str(waited("a device", partial(_new, todo["uuid"], before))))
    one, two = nodes
    write = "dd if=/dev/zero of={} bs=4k count=1 oflag=direct status=none"
    run("nvme", "resv-register", one, "--nrkey=0x11", "--rrega=0")
    run("nvme", "resv-register", two, "--nrkey=0x22", "--rrega=0")
    run("nvme", "resv-acquire", one, "--crkey=0x11", "--rtype=1", "--racqa=0")
    shell(write.format(one))
    shell(f"! {write.format(two)} 2>/dev/null")
    run("nvme", "resv-acquire", two, "--crkey=0x22", "--prkey=0x11", "--rtype=1", "--racqa=1")
    shell(write.format(two))
    shell(f"! {write.format(one)} 2>/dev/null")
    run("nvme", "resv-release", two, "--crkey=0x22", "--rtype=1", "--rrela=0")
    shell(write.format(one))
    return f"{one} and {two}"


def connect_as(todo: dict[str, Any], host: str, host_id: str) -> None:
    """By the kernel's own interface: nvme-cli takes a second host of one machine for a connection that is there."""
    line = words(todo["connect"])
    told = {
        name: line[line.index(option) + 1] for name, option in (("transport", "-t"), ("traddr", "-a"), ("trsvcid", "-s"), ("nqn", "-n"))
    }
    told |= {"hostnqn": host, "hostid": host_id}
    with Path("/dev/nvme-fabrics").open("w") as fabrics:
        fabrics.write(",".join(f"{name}={value}" for name, value in told.items()))


def _new(uuid: str, before: set[Path]) -> Path | None:
    """The node of this volume that was not there before."""
    nodes = set(Path("/dev").glob("nvme*n*")) - before
    return next((node for node in nodes if (Path("/sys/block") / node.name / "uuid").read_text().strip() == uuid), None)


def refused(todo: dict[str, Any]) -> str:
    other = "nqn.2014-08.org.nvmexpress:uuid:ffffffff-0000-4000-8000-000000000000"
    shell(f"! {todo['connect'].replace(todo['host'], other)}")
    return "Linux was told no"


if __name__ == "__main__":
    main()
