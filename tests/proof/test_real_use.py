"""What people do on a file system, on the mount: a repository is cloned, built and tested there; a tree with everything goes there and back by rsync."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.proof.daemon import Daemon, trefoil

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).parents[2]
TESTED = ("tests/protocols/auth", "tests/proof/test_files.py")


@pytest.fixture
def bucket(tmp_path: Path, devices: Sequence[Path]) -> Iterator[Path]:
    mountpoint = tmp_path / "mount"
    mountpoint.mkdir()
    daemon = Daemon(trefoil(devices, tmp_path / "state", env={"TREFOIL_FILE__MOUNT": str(mountpoint)}), tmp_path / "daemon.log")
    daemon.start()
    try:
        (mountpoint / "work").mkdir()
        yield mountpoint / "work"
        check = run([daemon.spec.argv[0], "check", "--state", tmp_path / "state"], cwd=tmp_path)
        assert check == "the metadata are whole\n"
        assert daemon.stop() == 0
    finally:
        daemon.kill()
        subprocess.run(["umount", "--lazy", mountpoint], stderr=subprocess.DEVNULL, check=False)


def run(command: Sequence[str | Path], cwd: Path) -> str:
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{command}: {ended.stdout[-2000:]}{ended.stderr[-2000:]}"
    return ended.stdout


def test_a_repository_is_cloned_packed_and_tested_there(bucket: Path) -> None:
    clone = bucket / "clone"
    run(["git", "clone", "--no-local", "--quiet", REPOSITORY, clone], bucket)
    for command in ("gc --quiet --prune=now", "fsck --full --strict", "diff --exit-code", "status --porcelain"):
        run(["git", *command.split()], clone)
    run(["tar", "-cf", bucket / "tree.tar", "-C", clone, "tests", "protocols", "element_store"], bucket)
    (bucket / "untarred").mkdir()
    run(["tar", "-xf", bucket / "tree.tar"], bucket / "untarred")
    run(["diff", "-r", clone / "tests", bucket / "untarred/tests"], bucket)
    # The built core is mapped from there too.
    for core in (REPOSITORY / "element_store").glob("_core*.so"):
        shutil.copy(core, clone / "element_store")
    # What tests import and write, cache and compiled files among it, lies on the mount.
    run([sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "--basetemp", bucket / "temporary", *TESTED], clone)
    run(["rm", "-r", clone, bucket / "untarred", bucket / "temporary"], bucket)
    assert [path.name for path in bucket.iterdir()] == ["tree.tar"]


def make_everything(tree: Path) -> None:
    """One of each thing that rsync -aHAX and --specials know."""
    (tree / "deep" / ("d" * 200) / "er").mkdir(parents=True)
    for number in range(300):
        path = tree / "deep" / f"file-{number}"
        path.write_bytes(os.urandom(number * 37 % 9000))
        path.chmod(0o600 | number % 0o100)
        os.utime(path, ns=(number * 1_000_000_007, number * 1_000_000_009))
    (tree / "large").write_bytes(os.urandom(5 << 20))
    with (tree / "holes").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
    os.link(tree / "large", tree / "deep/linked")
    (tree / "symlink").symlink_to("deep/file-3")
    (tree / "dangling").symlink_to("/no/such/thing")
    (tree / "ä–名前 'quoted\" \\ %").write_bytes(b"name")
    os.mkfifo(tree / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tree / "socket"))
    (tree / "setuid").write_bytes(b"#!")
    os.chown(tree / "setuid", 1234, 4321)
    (tree / "setuid").chmod(0o6755)
    os.setxattr(tree / "large", "user.note", b"\0binary\xff")
    os.setxattr(tree / "deep", "trusted.note", b"of root")
    os.mknod(tree / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    subprocess.run(["setfacl", "-m", "u:1234:rw,g:4321:r,m::rw", tree / "deep/file-5"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "u:1234:rwx", tree / "deep"], check=True)


def test_rsync_there_and_back_leaves_no_difference(bucket: Path, tmp_path: Path) -> None:
    source, back = tmp_path / "source", tmp_path / "back"
    source.mkdir()
    make_everything(source)
    copy = ["rsync", "-aHAXS", "--delete", "--numeric-ids"]
    run([*copy, f"{source}/", bucket / "there"], tmp_path)
    run([*copy, f"{bucket}/there/", back], tmp_path)
    for left, right in ((source, bucket / "there"), (bucket / "there", source), (source, back)):
        assert run([*copy, "--dry-run", "--itemize-changes", "--checksum", f"{left}/", f"{right}/"], tmp_path) == ""
    assert (bucket / "there/large").stat().st_nlink == 2
    assert (bucket / "there/holes").stat().st_blocks * 512 < 1 << 20
