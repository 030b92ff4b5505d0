"""A client whose server is the host's daemon: `client.py CONFIGURATION`, a JSON file with the line that mounts, and what to do.

Every program runs as on any file system, and none may see an error, whatever the daemon does meanwhile.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import stat
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.proof.nfs.inside.steps import Failed, finish, must, run, say, shell, step

MOUNT = Path("/m")
TREE = ["json", "email", "asyncio", "importlib", "unittest"]
"""Of Python's own library: some hundred files in a few directories."""
ENTRIES = 300
FSX_MODES = {"all": [], "without mmap": ["-R", "-W"], "O_DIRECT": ["-Z", "-R", "-W", "-r", "4096", "-w", "4096", "-t", "4096"]}
BIG_BYTES = 32 << 20


def forget_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


def copy_a_tree() -> str:
    for name in TREE:
        run("cp", "-a", f"/usr/lib/python3.11/{name}", str(MOUNT / "tree"))
    forget_caches()
    for name in TREE:
        run("diff", "-r", f"/usr/lib/python3.11/{name}", str(MOUNT / "tree" / name))
    content = os.urandom(BIG_BYTES)
    (MOUNT / "big").write_bytes(content)
    forget_caches()
    must((MOUNT / "big").read_bytes() == content, "the big file came back different")
    return f"{sum(len(files) for _, _, files in os.walk(MOUNT / 'tree'))} files"


def make_everything() -> str:
    """Kinds of files, links, modes, and the promises of open, rename and unlink."""
    os.chdir(MOUNT / "things")
    Path("file").write_text("x")
    os.link("file", "link")
    os.symlink("file", "symlink")
    os.mkfifo("fifo")
    os.mknod("device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.chown("link", 5, 6)
    os.chmod("file", 0o4711)
    seen = os.stat("link")
    must((seen.st_nlink, seen.st_uid, seen.st_gid, seen.st_mode & 0o7777) == (2, 5, 6, 0o4711), f"link is {seen}")
    must(os.stat("device").st_rdev == os.makedev(1, 3) and stat.S_ISFIFO(os.stat("fifo").st_mode), "special files changed")
    os.rename("file", "link2")
    must(os.readlink("symlink") == "file" and not os.path.exists("symlink"), "the symlink changed")
    os.close(os.open("new", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    refused(lambda: os.open("new", os.O_CREAT | os.O_EXCL | os.O_WRONLY), errno.EEXIST)
    os.truncate("new", 5 << 30)
    must((os.stat("new").st_size, os.stat("new").st_blocks) == (5 << 30, 0), "a hole has blocks")
    with open("open", "w+") as file:
        file.write("still here")
        os.unlink("open")
        file.seek(0)
        must(file.read() == "still here", "what was open lost its content")
    os.utime("new", ns=(1_000_000_001, 2_000_000_002))
    must(os.stat("new").st_mtime_ns == 2_000_000_002, "times are rounded")
    os.chdir("/")
    return ""


def refused(act: Callable[[], object], number: int) -> None:
    try:
        act()
    except OSError as error:
        must(error.errno == number, f"errno {error.errno} instead of {number}")
        return
    raise Failed(f"done instead of errno {number}")


def list_while_removing() -> str:
    for number in range(ENTRIES):
        (MOUNT / "many" / f"entry-{number:04}").touch()
    forget_caches()
    seen = set()
    with os.scandir(MOUNT / "many") as entries:
        for entry in entries:
            must(entry.name not in seen, f"{entry.name} is listed twice")
            seen.add(entry.name)
            os.unlink(entry.path)
    must(len(seen) == ENTRIES, f"{len(seen)} of {ENTRIES} entries were listed")
    must(not os.listdir(MOUNT / "many"), "some entries are left")
    return f"{ENTRIES} entries"


def fsx(program: str, libraries: str, operations: int) -> str:
    for number, (mode, arguments) in enumerate(FSX_MODES.items()):
        file = MOUNT / "fsx" / f"file-{number}"
        environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
        command = [program, "-N", str(operations), "-S", str(number + 1), "-q", *arguments, "-P", "/tmp", str(file)]
        try:
            run(*command, environment=environment)
        except Failed as problem:
            raise Failed(f"{mode}: {problem}") from None
    return f"{operations} operations in each of {len(FSX_MODES)} modes"


def clone_and_build(source: str) -> str:
    clone = MOUNT / "clone"
    run("git", "clone", "-q", "--no-local", source, str(clone))
    forget_caches()
    run("git", "fsck", "--strict", cwd=str(clone))
    must(run("git", "status", "--porcelain", cwd=str(clone)) == "", "the clone differs from what was cloned")
    run("make", "-j2", "CC=gcc", cwd=str(clone))
    said = run(str(clone / "program"))
    must(said == (clone / "expected").read_text(), f"the program says {said!r}")
    run("make", "-q", "CC=gcc", cwd=str(clone))
    return f"{len(run('git', 'ls-files', cwd=str(clone)).splitlines())} files"


class Load:
    """Programs that work on files of their own, each in a directory, until they are told to end."""

    def __init__(self, name: str, one_round: Callable[[Path, bytes], None]) -> None:
        self.name = name
        self.one_round = one_round
        self.rounds = 0
        self.problems: list[str] = []
        self.stop = threading.Event()

    def work(self, worker: int) -> None:
        directory = MOUNT / "load" / f"{self.name}-{worker}"
        directory.mkdir()
        try:
            while not self.stop.is_set():
                self.one_round(directory, f"{worker} {self.rounds} ".encode() * 3000)
                self.rounds += 1
        except Exception as problem:
            self.problems.append(f"worker {worker}, round {self.rounds}: {problem!r}")


def do_everything(directory: Path, content: bytes) -> None:
    with open(directory / "new", "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.link(directory / "new", directory / "linked")
    os.rename(directory / "new", directory / "file")
    (directory / "sub").mkdir()
    os.symlink("../file", directory / "sub" / "link")
    must((directory / "sub" / "link").read_bytes() == content, "what was read was not written")
    with open(directory / "file", "ab") as file:
        file.write(b"more")
    must((directory / "linked").stat().st_size == len(content) + 4, "the size is wrong")
    (directory / "sub" / "link").unlink()
    (directory / "sub").rmdir()
    (directory / "linked").unlink()


def rewrite(directory: Path, content: bytes) -> None:
    """What may be done twice: a killed server does not know any more what it has answered, and version 3 has nothing to tell it by."""
    with open(directory / "file", "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    with open(directory / "file", "r+b") as file:
        file.write(b"again")
    os.utime(directory / "file", (1, 2))
    must((directory / "file").read_bytes() == b"again" + content[5:], "what was read was not written")


def work_through_restarts(name: str, one_round: Callable[[Path, bytes], None], enough: str) -> str:
    """The host ends its daemon and starts it again as it sees rounds go by, and makes a file when that is enough."""
    load = Load(name, one_round)
    workers = [threading.Thread(target=load.work, args=(worker,)) for worker in range(3)]
    for worker in workers:
        worker.start()
    while not os.path.exists(enough) and not load.problems:
        say(load=name, rounds=load.rounds)
        time.sleep(1)
    load.stop.set()
    for worker in workers:
        worker.join()
    must(not load.problems, "; ".join(load.problems))
    return f"{load.rounds} rounds"


def main() -> None:
    todo = json.loads(Path(sys.argv[1]).read_text())
    MOUNT.mkdir(exist_ok=True)
    if not step("mount", lambda: shell(todo["mount"].replace(" /mnt", f" {shlex.quote(str(MOUNT))}"))):
        finish()
    for directory in ("tree", "things", "many", "fsx", "load"):
        (MOUNT / directory).mkdir()
    step("a tree comes back equal", copy_a_tree)
    step("every kind of file", make_everything)
    step("a listing goes on while entries go", list_while_removing)
    if todo["fsx"]:
        step("fsx", lambda: fsx(todo["fsx"], todo["libraries"], todo["operations"]))
    step("git clone and a build", lambda: clone_and_build(todo["source"]))
    for name, one_round in (("stop", do_everything), ("kill", rewrite)):
        step(f"the daemon restarts under load: {name}", lambda: work_through_restarts(name, one_round, f"{todo['enough']}-{name}"))  # noqa: B023
    step("everything can be removed", lambda: remove_all())
    step("unmount", lambda: run("umount", str(MOUNT)))
    finish()


def remove_all() -> str:
    """But the clone, which the host looks at."""
    for directory in ("tree", "things", "many", "fsx", "load"):
        shutil.rmtree(MOUNT / directory)
    must(sorted(os.listdir(MOUNT)) == ["big", "clone"], f"left: {os.listdir(MOUNT)}")
    return ""


if __name__ == "__main__":
    main()
