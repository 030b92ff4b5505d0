"""One instant for all faces: while S3, a mount and a host write, each snapshot reads alike by all three and holds what was acknowledged before it.

Needs root and /dev/fuse. PROOF_SNAPSHOTS: how many, 30 if it is not set.
"""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from server.client import AdminClient
from tests.proof.block.host import Host
from tests.proof.daemon import Daemon, free_port, trefoil
from tests.proof.s3 import S3Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BUCKET = "shared"
SNAPSHOTS = int(os.environ.get("PROOF_SNAPSHOTS", "30"))
SLOTS = 20
WRITES_BETWEEN = 2
"""Of each face, from one snapshot to the next."""
WAIT_SECONDS_MAX = 60.0
VOLUME = f"{BUCKET}/disk"
BLOCK = 4096
NQN = "nqn.2014-08.org.nvmexpress:uuid:5fa11b4e-28ba-41d2-883f-0016d3cca427"


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    path = tmp_path / "mount"
    path.mkdir()
    return path


@pytest.fixture
def mounted(tmp_path: Path, devices: Sequence[Path], mountpoint: Path) -> Iterator[Daemon]:
    daemon = Daemon(
        trefoil(
            devices, tmp_path / "state", env={"TREFOIL_FILE__MOUNT": str(mountpoint), "TREFOIL_BLOCK__LISTEN": f"127.0.0.1:{free_port()}"}
        ),
        tmp_path / "daemon.log",
    )
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
        self._went_on = threading.Condition()

    def run(self) -> None:
        try:
            while not self._stopped.is_set():
                assert callable(self.write)
                self.write(self.done)
                with self._went_on:
                    self.done += 1
                    self._went_on.notify_all()
        except Exception as error:  # What failed in a thread must fail the test.
            self.failed = error

    def wait_for(self, count: int) -> None:
        with self._went_on:
            assert self._went_on.wait_for(lambda: self.done >= count, WAIT_SECONDS_MAX), self.failed

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


def block(number: int) -> bytes:
    return content(number)[:8] * (BLOCK // 8)


def newest(slot: int, count: int) -> int:
    """Of the numbers below `count` that went to a slot, the last."""
    return count - 1 - (count - 1 - slot) % SLOTS


def check_slots(found: Mapping[int, bytes], before: int, after: int, make: Callable[[int], bytes], *, opens: bool = False) -> None:
    """What was acknowledged before is there, or something newer that had begun by the end. `opens`: what is being written may be there in part."""
    for slot in range(min(SLOTS, before)):
        last = newest(slot, before)
        possible = [make(number) for number in range(last, after + 2, SLOTS)]
        begun = possible[1:] if opens else []
        assert found[slot] in possible or any(one.startswith(found[slot]) for one in begun), slot


def attach(admin: AdminClient, name: str) -> Host:
    line = admin.get("/api/v1/volumes/connect", name=name)
    return Host(line["address"], line["nqn"], host_nqn=NQN)


def test_each_snapshot_reads_alike_and_holds_what_was_acknowledged(mounted: Daemon, mountpoint: Path, admin: AdminClient, s3: S3Client):
    files = mountpoint / BUCKET / "files"
    files.mkdir()
    admin.post("/api/v1/volumes", {"name": VOLUME, "size": SLOTS * BLOCK})
    admin.post("/api/v1/hosts", {"nqn": NQN})

    def by_file(number: int) -> None:
        with (files / f"{number % SLOTS:02}").open("wb") as file:
            file.write(content(number))
            file.flush()
            os.fsync(file.fileno())

    seen = []
    with S3Client(mounted.spec.endpoint, BUCKET) as other, attach(admin, VOLUME) as host:
        (nsid,) = host.namespaces()

        def by_host(number: int) -> None:
            host.write(nsid, number % SLOTS * BLOCK, block(number))
            host.flush(nsid)

        writers = [
            Writer(lambda number: other.put(f"keys/{number % SLOTS:02}", content(number))),
            Writer(by_file),
            Writer(by_host),
        ]
        with writers[0], writers[1], writers[2]:
            for snapshot in range(SNAPSHOTS):
                before = [writer.done for writer in writers]
                admin.post("/api/v1/snapshots", {"path": f"/{BUCKET}", "name": f"s-{snapshot:03}"})
                seen.append((before, [writer.done for writer in writers]))
                for writer, done in zip(writers, before, strict=True):
                    writer.wait_for(done + WRITES_BETWEEN)
        assert min(seen[-1][0]) > SLOTS, "each face wrote more than once to each of its places"
        host.say_goodbye()
    for snapshot in range(SNAPSHOTS):
        admin.post("/api/v1/volumes/show", {"name": f"{VOLUME}@s-{snapshot:03}"})
    numbers = {volume["path"]: volume["id"] for volume in admin.get("/api/v1/volumes")}
    with attach(admin, VOLUME) as host:
        for snapshot, (before, after) in enumerate(seen):
            name = f"s-{snapshot:03}"
            by_mount = tree(mountpoint / BUCKET / ".snapshot" / name)
            with S3Client(mounted.spec.endpoint, f"{BUCKET}--at--{name}") as alias:
                by_s3 = {key: alias.get(key) for key, _ in alias.list()}
            by_block = host.read(numbers[f"{VOLUME}@{name}"], 0, SLOTS * BLOCK)
            # A file that was just opened for writing is empty, and a key like others.
            assert by_mount == by_s3 and by_mount["disk"] == by_block, name
            check_slots({slot: by_mount.get(f"keys/{slot:02}", b"") for slot in range(SLOTS)}, before[0], after[0], content)
            check_slots({slot: by_mount.get(f"files/{slot:02}", b"") for slot in range(SLOTS)}, before[1], after[1], content, opens=True)
            check_slots({slot: by_block[slot * BLOCK : (slot + 1) * BLOCK] for slot in range(SLOTS)}, before[2], after[2], block)
        host.say_goodbye()


@pytest.mark.parametrize("wrong", [b"older", b"torn"])
def test_what_a_snapshot_lacks_is_found(wrong: bytes):
    """The judge itself: an older write, or half of one, is no snapshot of what was acknowledged."""
    count = 3 * SLOTS
    found = {slot: content(newest(slot, count)) for slot in range(SLOTS)}
    check_slots(found, count, count, content)
    found[7] = content(newest(7, count) - SLOTS) if wrong == b"older" else found[7][:-1]
    with pytest.raises(AssertionError):
        check_slots(found, count, count, content)


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
