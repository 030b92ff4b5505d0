"""fsstress: several processes do everything at once in one tree.

It does not judge by itself (a mount that loses entries passes), so what is left is judged here: everything that is listed can be looked at,
directories count their directories, files that share an inode number agree on it, and everything can be removed.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.proof.posix.verdict import Verdict

FAULTS_SHOWN = 20


def run(suite: Path, mount: Path, operations: int = 2000, processes: int = 8, seed: int = 42, seconds: float = 0.0) -> Verdict:
    """`operations` of each process; with `seconds` again and again until they are over."""
    verdict = Verdict("fsstress")
    directory = Path(tempfile.mkdtemp(prefix="fsstress-", dir=mount))
    # Zero loops means: until it is told to end.
    loops = "0" if seconds else "1"
    command = [
        str(suite / "ltp" / "fsstress"),
        "-d",
        str(directory),
        "-n",
        str(operations),
        "-p",
        str(processes),
        "-s",
        str(seed),
        "-l",
        loops,
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True) as process:
        said = _wait(process, seconds)
    if process.returncode not in ((0, -15) if seconds else (0,)):
        verdict.failures.append(f"status {process.returncode}: {said}")
    verdict.failures += list(faults(directory))[:FAULTS_SHOWN]
    verdict.failures += list(_remove(directory))
    verdict.passed += not verdict.failures
    return verdict


def _wait(process: subprocess.Popen[bytes], seconds: float) -> str:
    try:
        return process.communicate(timeout=seconds or None)[1].decode(errors="replace")
    except subprocess.TimeoutExpired:
        process.terminate()
        return process.communicate()[1].decode(errors="replace")


def faults(directory: Path) -> Iterator[str]:
    """What cannot be so in any tree that nobody changes."""
    names: dict[int, int] = defaultdict(int)
    links: dict[int, int] = {}
    for path, node in _walk(directory):
        if isinstance(node, OSError):
            yield f"{path}: listed, but {node.strerror}"
        elif stat.S_ISDIR(node.st_mode):
            children = [entry for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
            if node.st_nlink != 2 + len(children):
                yield f"{path}: {node.st_nlink} links with {len(children)} directories"
        else:
            names[node.st_ino] += 1
            links[node.st_ino] = node.st_nlink
    for inode, count in names.items():
        if links[inode] != count:
            yield f"inode {inode}: {links[inode]} links, {count} names"


def _walk(directory: Path) -> Iterator[tuple[Path, os.stat_result | OSError]]:
    waiting = [directory]
    while waiting:
        path = waiting.pop()
        try:
            node = path.lstat()
            if stat.S_ISDIR(node.st_mode):
                waiting += list(path.iterdir())
        except OSError as error:
            yield path, error
        else:
            yield path, node


def _remove(directory: Path) -> Iterator[str]:
    try:
        shutil.rmtree(directory)
    except OSError as error:
        yield f"{directory} cannot be removed: {error}"
