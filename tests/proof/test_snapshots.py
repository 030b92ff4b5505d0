"""One instant for all faces: while S3 and a mount write, each snapshot reads alike by both and holds what was acknowledged before it.

Needs root and /dev/fuse.
"""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from server.client import AdminClient
from tests.proof.daemon import Daemon, trefoil
from tests.proof.s3 import S3Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BUCKET = "shared"
SNAPSHOTS = 20


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    path = tmp_path / "mount"
    path.mkdir()
    return path


@pytest.fixture
def mounted(tmp_path: Path, devices: Sequence[Path], mountpoint: Path) -> Iterator[Daemon]:
    daemon = Daemon(trefoil(devices, tmp_path / "state", env={"TREFOIL_FILE__MOUNT": str(mountpoint)}), tmp_path / "daemon.log")
    daemon.start()
    yield daemon
    try:
        assert not daemon.is_running() or daemon.stop() == 0
    finally:
        daemon.kill()
        subprocess.run(["umount", "--lazy", mountpoint], stderr=subprocess.DEVNULL, check=False)


@pytest.fixture
def admin(mounted: Daemon, tmp_path: Path) -> AdminClient:
    return AdminClient(tmp_path / "state" / "admin.sock")


@pytest.fixture
def s3(mounted: Daemon) -> Iterator[S3Client]:
    with S3Client(mounted.spec.endpoint, BUCKET) as client:
        client.create_bucket()
        yield client


class Writer(threading.Thread):
    """Writes numbered keys until it is stopped; `done` of them were acknowledged."""

    def __init__(self, write: object) -> None:
        super().__init__(daemon=True)
        self.write = write
        self.done = 0
        self.failed: Exception | None = None
        self._stopped = threading.Event()

    def run(self) -> None:
        try:
            while not self._stopped.is_set():
                assert callable(self.write)
                self.write(self.done)
                self.done += 1
        except Exception as error:  # What failed in a thread must fail the test.
            self.failed = error

    def __enter__(self) -> Writer:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()
        self.join()
        assert self.failed is None


def content(number: int) -> bytes:
    return f"{number:08}".encode() * (1 + number % 700)


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_each_snapshot_reads_alike_and_holds_what_was_acknowledged(mounted: Daemon, mountpoint: Path, admin: AdminClient, s3: S3Client):
    files = mountpoint / BUCKET / "files"
    files.mkdir()

    def by_file(number: int) -> None:
        with (files / f"{number % 40:02}").open("wb") as file:
            file.write(content(number))
            file.flush()
            os.fsync(file.fileno())

    seen = []
    with S3Client(mounted.spec.endpoint, BUCKET) as other:
        by_key = Writer(lambda number: other.put(f"keys/{number % 40:02}", content(number)))
        with by_key, Writer(by_file) as by_path:
            for snapshot in range(SNAPSHOTS):
                before = (by_key.done, by_path.done)
                admin.post("/api/v1/snapshots", {"path": f"/{BUCKET}", "name": f"s-{snapshot:02}"})
                seen.append((before, (by_key.done, by_path.done)))
    for snapshot, (before, after) in enumerate(seen):
        name = f"s-{snapshot:02}"
        by_mount = tree(mountpoint / BUCKET / ".snapshot" / name)
        with S3Client(mounted.spec.endpoint, f"{BUCKET}--at--{name}") as alias:
            by_s3 = {key: alias.get(key) for key, _ in alias.list()}
        # A file that was just opened for writing is empty, and a key like others.
        assert by_mount == by_s3
        for kind, low, high in (("keys", before[0], after[0]), ("files", before[1], after[1])):
            for slot in range(min(40, low)):
                newest = low - 1 - (low - 1 - slot) % 40
                possible = [content(number) for number in range(newest, high + 2, 40)]
                found = by_mount[f"{kind}/{slot:02}"]
                assert found in possible or (kind == "files" and high + 1 >= newest + 40 and content(high + 1).startswith(found)), (
                    name,
                    kind,
                    slot,
                )


def test_a_mount_finds_snapshots_and_cannot_change_them(mountpoint: Path, admin: AdminClient, s3: S3Client):
    bucket = mountpoint / BUCKET
    (bucket / "a").mkdir()
    (bucket / "a/file").write_bytes(b"old")
    at = {"path": f"/{BUCKET}", "name": "one"}
    assert not (bucket / ".snapshot/one").exists()
    admin.post("/api/v1/snapshots", at)
    (bucket / "a/file").write_bytes(b"newer")
    shown = bucket / ".snapshot/one/a/file"
    assert shown.read_bytes() == b"old" and sorted(os.listdir(bucket)) == ["a"]
    assert os.listdir(bucket / "a/.snapshot") == ["one"] and (bucket / "a/.snapshot/one/file").stat().st_ino == shown.stat().st_ino
    for change in (lambda: shown.write_bytes(b"x"), shown.unlink, lambda: (bucket / ".snapshot/x").mkdir(), lambda: os.utime(shown)):
        with pytest.raises(OSError) as refused:
            change()
        assert refused.value.errno == errno.EROFS
    subprocess.run(["cp", "--reflink=auto", shown, bucket / "back"], check=True)
    assert s3.get("back") == b"old"
    admin.post("/api/v1/clones", {"source": f"/{BUCKET}/a", "snapshot": "one", "target": f"/{BUCKET}/clone"})
    assert s3.get("clone/file") == b"old"
    with pytest.raises(OSError) as refused:
        os.link(bucket / "a/file", bucket / "clone/linked")
    assert refused.value.errno == errno.EXDEV
    kept = admin.post("/api/v1/snapshots/restore", at)
    assert (bucket / "a/file").read_bytes() == b"old" and not (bucket / "clone").exists()
    admin.post("/api/v1/snapshots/restore", {"path": f"/{BUCKET}", "name": kept["name"]})
    assert (bucket / "a/file").read_bytes() == b"newer" and (bucket / "clone/file").read_bytes() == b"old"
    admin.delete("/api/v1/snapshots", path=f"/{BUCKET}", name="one")
    assert not (bucket / ".snapshot/one").exists()


def test_a_killed_daemon_keeps_its_snapshots(mounted: Daemon, mountpoint: Path, admin: AdminClient, s3: S3Client):
    s3.put("key", b"old")
    admin.post("/api/v1/snapshots", {"path": f"/{BUCKET}", "name": "one"})
    s3.put("key", b"new")
    mounted.kill()
    subprocess.run(["umount", "--lazy", mountpoint], stderr=subprocess.DEVNULL, check=False)
    mounted.start()
    assert (mountpoint / BUCKET / ".snapshot/one/key").read_bytes() == b"old"
    assert (mountpoint / BUCKET / "key").read_bytes() == b"new"
    with S3Client(mounted.spec.endpoint, f"{BUCKET}--at--one") as alias:
        assert alias.get("key") == b"old"
    assert admin.post("/api/v1/check", {})["faults"] == 0
