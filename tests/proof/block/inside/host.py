"""A stock kernel as the host of volumes: run in the guest, told what to do by a file, says each step's outcome in a line."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.proof.nfs.inside.steps import finish, must, run, say, shell, step

FILESYSTEMS = {"ext4": "mkfs.ext4 -q -F", "xfs": "mkfs.xfs -q -f"}
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
        for name, make in FILESYSTEMS.items():
            step(f"{name}: made, filled, checked", partial(filesystem, device, name, make))
        step("fio verifies random sizes", lambda: fio(device, todo["fio_seconds"]))
        step("discard", lambda: discard(device))
        step("resize is seen", lambda: resize(device, todo))
        step("I/O goes on over restarts", lambda: restarts(device, todo))
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


def filesystem(device: str, kind: str, make: str) -> str:
    run(*words(make), device)
    run("mount", "-t", kind, device, str(MOUNTPOINT))
    try:
        shell(f"cp -r /usr/lib/python3.11/json /usr/lib/python3.11/email {MOUNTPOINT}; sync; echo 3 > /proc/sys/vm/drop_caches")
        shell(f"diff -r /usr/lib/python3.11/email {MOUNTPOINT}/email")
        trimmed = run("fstrim", "-v", str(MOUNTPOINT)).strip()
    finally:
        run("umount", str(MOUNTPOINT))
    run(*(["e2fsck", "-fn", device] if kind == "ext4" else ["xfs_repair", "-n", device]))
    return trimmed


def fio(device: str, seconds: int) -> str:
    for sizes, depth in (("512-64k", 16), ("4k-4k", 32), ("128k-1m", 4)):
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
            "--do_verify=1",
        )
    return "three mixes"


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


def refused(todo: dict[str, Any]) -> str:
    other = "nqn.2014-08.org.nvmexpress:uuid:ffffffff-0000-4000-8000-000000000000"
    shell(f"! {todo['connect'].replace(todo['host'], other)}")
    return "Linux was told no"


if __name__ == "__main__":
    main()
