"""NFS beside S3 and the mount, on a real daemon: one namespace, handles that outlive it, nothing called stable before it is, locks of all faces."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.proof.daemon import Daemon, free_port, metric_sum, trefoil, trefoil_program
from tests.proof.nfs.client import FILE_SYNC, NLM_DENIED, NLM_GRANTED, NOENT, ROFS, STALE, UNSTABLE, NfsClient, NfsError
from tests.proof.s3 import S3Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BUCKET = "shared"


@dataclass(frozen=True)
class Served:
    daemon: Daemon
    port: int
    mountpoint: Path

    def client(self, **who: int | str) -> NfsClient:
        return NfsClient("127.0.0.1", self.port, **who)  # type: ignore[arg-type]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [trefoil_program(), *arguments],
            env={**os.environ, **self.daemon.spec.env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def served(tmp_path: Path, devices: Sequence[Path]) -> Iterator[Served]:
    """Root is trusted in the bucket, and squashed in a directory of it that may only be read."""
    port, mountpoint, config = free_port(), tmp_path / "mount", tmp_path / "trefoil.toml"
    mountpoint.mkdir()
    config.write_text(f"""
[file]
mount = "{mountpoint}"
[nfs]
listen = "127.0.0.1:{port}"
[[nfs.export]]
path = "/{BUCKET}"
squash = "none"
[[nfs.export]]
path = "/{BUCKET}/read/only"
access = "ro"
""")
    daemon = Daemon(trefoil(devices, tmp_path / "state", env={"TREFOIL_CONFIG": str(config)}), tmp_path / "daemon.log")
    daemon.start()
    yield Served(daemon, port, mountpoint)
    try:
        assert not daemon.is_running() or daemon.stop() == 0
    finally:
        daemon.kill()
        subprocess.run(["umount", "--lazy", mountpoint], stderr=subprocess.DEVNULL, check=False)


@pytest.fixture
def s3(served: Served) -> Iterator[S3Client]:
    with S3Client(served.daemon.spec.endpoint, BUCKET) as client:
        client.create_bucket()
        yield client


def test_what_one_face_does_the_others_see(served: Served, s3: S3Client) -> None:
    with served.client() as nfs:
        root = nfs.mount(f"/{BUCKET}")
        s3.put("a/b/object", b"by S3")
        assert nfs.read_all(nfs.walk(root, "a/b/object")) == b"by S3"
        file = nfs.create(nfs.lookup(root, "a"), "file")
        content = os.urandom(3 << 20)
        for offset in range(0, len(content), 1 << 20):
            nfs.write(file, offset, content[offset : offset + (1 << 20)], UNSTABLE)
        nfs.commit(file)
        assert s3.get("a/file") == content
        assert (served.mountpoint / BUCKET / "a/file").read_bytes() == content
        nfs.write(nfs.walk(root, "a/b/object"), 3, b"NFS", FILE_SYNC)
        assert s3.get("a/b/object") == b"by NFS"
        nfs.mkdir(root, "empty")
        nfs.symlink(root, "symlink", "a/file")
        nfs.rename(root, "a", root, "z")
        assert dict(s3.list()) == {"z/b/object": 6, "z/file": len(content)}
        s3.delete("z/b/object")
        with pytest.raises(NfsError) as gone:
            nfs.walk(root, "z/b/object")
        assert gone.value.status == NOENT
        assert sorted(nfs.names(root)) == sorted(os.listdir(served.mountpoint / BUCKET)) == ["empty", "symlink", "z"]


def test_every_directory_has_its_snapshots(served: Served, s3: S3Client) -> None:
    with served.client() as nfs:
        root = nfs.mount(f"/{BUCKET}")
        s3.put("a/b/object", b"old")
        assert served.command("snapshot", "create", f"/{BUCKET}", "one").returncode == 0
        nfs.write(nfs.walk(root, "a/b/object"), 0, b"NEW", FILE_SYNC)
        shown = nfs.walk(root, ".snapshot/one/a/b/object")
        assert nfs.read_all(shown) == b"old" and s3.get("a/b/object") == b"NEW"
        assert nfs.walk(root, "a/b/.snapshot/one/object") == shown, "one handle, whatever the way"
        assert list(nfs.names(root)) == ["a"] and list(nfs.names(nfs.lookup(root, ".snapshot"))) == ["one"]
        directory = nfs.walk(root, ".snapshot/one/a/b")
        for change in (
            lambda: nfs.write(shown, 0, b"x", FILE_SYNC),
            lambda: nfs.truncate(shown, 0),
            lambda: nfs.create(directory, "new"),
            lambda: nfs.remove(directory, "object"),
            lambda: nfs.rename(directory, "object", directory, "other"),
            lambda: nfs.mkdir(nfs.lookup(root, ".snapshot"), "two"),
        ):
            with pytest.raises(NfsError) as refused:
                change()
            assert refused.value.status == ROFS
        served.daemon.kill()
        s3.close()
        served.daemon.start()
        assert nfs.read_all(shown) == b"old", "its handle outlives the daemon"
        assert served.command("snapshot", "delete", f"/{BUCKET}", "one").returncode == 0
        with pytest.raises(NfsError) as gone:
            nfs.getattr(shown)
        assert gone.value.status == STALE


def test_a_killed_daemon_comes_back_to_the_same_handles(served: Served, s3: S3Client) -> None:
    with served.client() as nfs:
        root = nfs.mount(f"/{BUCKET}")
        directory = nfs.mkdir(root, "directory")
        file = nfs.create(directory, "file")
        stable = nfs.write(file, 0, b"stable" * 50_000, FILE_SYNC)
        assert stable.stable == FILE_SYNC
        unstable = nfs.write(file, 300_000, b"unstable", UNSTABLE)
        assert unstable == type(unstable)(8, UNSTABLE, stable.verifier)
        doomed = nfs.create(directory, "doomed")
        for number in range(100):
            nfs.create(directory, f"file-{number}")
        nfs.rename(directory, "file-0", root, "renamed")
        nfs.remove(directory, "doomed")
        served.daemon.kill()
        s3.close()
        served.daemon.start()
        assert nfs.commit(file) != stable.verifier, "whoever wrote unstably learns that it may be lost"
        assert nfs.mount(f"/{BUCKET}") == root
        assert nfs.lookup(root, "directory") == directory
        assert nfs.read(file, 0, 300_000) == b"stable" * 50_000
        assert sorted(nfs.names(directory, 1024)) == sorted(["file", *(f"file-{number}" for number in range(1, 100))])
        assert nfs.getattr(nfs.lookup(root, "renamed")).size == 0
        with pytest.raises(NfsError) as gone:
            nfs.getattr(doomed)
        assert gone.value.status == STALE
        assert nfs.reconnections > 0


def test_a_restart_under_load_is_not_seen(served: Served, s3: S3Client) -> None:
    """Names are changed all the while: what the daemon began it answers before it ends, what it did not begin it leaves to the next one."""
    stop = threading.Event()
    problems: list[str] = []
    rounds = [0, 0]

    def work(worker: int) -> None:
        try:
            with served.client() as nfs:
                root = nfs.mount(f"/{BUCKET}")
                directory = nfs.mkdir(root, f"worker-{worker}")
                while not stop.is_set():
                    number = rounds[worker]
                    file = nfs.create(directory, "new")
                    content = b"%d" % number * 4000
                    nfs.write(file, 0, content, FILE_SYNC)
                    nfs.rename(directory, "new", directory, "file")
                    assert nfs.read_all(nfs.lookup(directory, "file")) == content
                    nfs.rmdir(directory, "sub") if number % 2 else nfs.mkdir(directory, "sub")
                    nfs.remove(directory, "file")
                    rounds[worker] += 1
        except Exception as problem:
            problems.append(f"worker {worker}: {problem!r}")

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(2)]
    for worker in workers:
        worker.start()
    s3.close()
    for _ in range(3):
        before = sum(rounds)
        while sum(rounds) < before + 20 and not problems:
            stop.wait(0.05)
        assert served.daemon.stop() == 0
        served.daemon.start()
    before = sum(rounds)
    while sum(rounds) < before + 20 and not problems:
        stop.wait(0.05)
    stop.set()
    for worker in workers:
        worker.join()
    assert not problems


def test_locks_are_one_table_for_nfs_and_the_mount(served: Served, s3: S3Client) -> None:
    s3.put("locked", b"x" * 100)
    with (
        served.client(machine="one") as one,
        served.client(machine="two") as two,
        (served.mountpoint / BUCKET / "locked").open("r+b") as file,
    ):
        handle = one.lookup(one.mount(f"/{BUCKET}"), "locked")
        assert one.lock(handle, 0, 10) == NLM_GRANTED
        assert two.lock(handle, 5, 10) == NLM_DENIED
        with pytest.raises(BlockingIOError):
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 50)
        assert two.lock(handle, 55, 1) == NLM_DENIED
        assert one.unlock(handle, 0, 10) == NLM_GRANTED
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
        assert metric_sum(served.daemon.metrics(), "trefoil_file_locks_held") == 2
        fcntl.lockf(file, fcntl.LOCK_UN)
        assert two.lock(handle, 0, 0) == NLM_GRANTED


def test_rules_hold_and_the_commands_tell_them(served: Served, s3: S3Client, tmp_path: Path) -> None:
    s3.put("read/only/file", b"content")
    with served.client() as nfs:
        inside = nfs.mount(f"/{BUCKET}/read/only")
        assert nfs.read_all(nfs.lookup(inside, "file")) == b"content"
        with pytest.raises(NfsError, match="CREATE answered 30"):
            nfs.create(inside, "new")
        with pytest.raises(NfsError, match="MNT answered 13"):
            nfs.mount("/")
        calls = served.daemon.metrics()
        assert calls['trefoil_nfs_calls_total{procedure="create"}'] == 1
        assert calls["trefoil_nfs_read_bytes_total"] == len(b"content")
        assert calls["trefoil_nfs_connections"] == 1
    told = json.loads(served.command("export", "--json", "--host", "server").stdout)
    assert told["address"] == f"127.0.0.1:{served.port}"
    assert told["exports"][0]["mount"].endswith(f"nolock 127.0.0.1:/{BUCKET} /mnt")
    written = tmp_path / "etc" / "trefoil.exports"
    ended = served.command("export", "--nfsd", "--output", str(written), "--host", "server")
    assert f"mount -t nfs -o vers=4.2 server:{served.mountpoint}/{BUCKET} /mnt" in ended.stdout, ended.stderr
    lines = written.read_text().splitlines()[1:]
    assert [line.split()[0] for line in lines] == [f"{served.mountpoint}/{BUCKET}", f"{served.mountpoint}/{BUCKET}/read/only"]
    assert "NFS at 127.0.0.1" in served.command("status").stdout
    assert "nfs" in {finding["check"] for finding in json.loads(served.command("doctor", "--json").stdout)}
