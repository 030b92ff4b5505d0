"""One namespace: what files do S3 sees, what S3 does files see, and a killed daemon loses nothing of either. Needs root and /dev/fuse."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.proof.clients import boto
from tests.proof.daemon import Daemon, trefoil
from tests.proof.s3 import S3Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BUCKET = "shared"
NEWS_SECONDS_MAX = 5.0
"""What another face changed shows in the mount by then; without news of it, not for an hour."""
DURABLE_SECONDS = 1.0
"""What files changed is durable after that, synced or not."""


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    path = tmp_path / "mount"
    path.mkdir()
    return path


@pytest.fixture(params=["native", "pyfuse3"])
def mounted(request: pytest.FixtureRequest, tmp_path: Path, devices: Sequence[Path], mountpoint: Path) -> Iterator[Daemon]:
    env = {"TREFOIL_FILE__MOUNT": str(mountpoint), "TREFOIL_FILE__ENGINE": request.param}
    daemon = Daemon(trefoil(devices, tmp_path / "state", env=env), tmp_path / "daemon.log")
    daemon.start()
    yield daemon
    try:
        assert not daemon.is_running() or daemon.stop() == 0
        assert not os.path.ismount(mountpoint)
    finally:
        daemon.kill()
        subprocess.run(["umount", "--lazy", mountpoint], stderr=subprocess.DEVNULL, check=False)


@pytest.fixture
def s3(mounted: Daemon) -> Iterator[S3Client]:
    with S3Client(mounted.spec.endpoint, BUCKET) as client:
        client.create_bucket()
        yield client


def holds(path: Path, content: bytes) -> bool:
    return path.read_bytes() == content


def has_size(path: Path, size: int) -> bool:
    return path.stat().st_size == size


def is_gone(path: Path) -> bool:
    return not path.exists()


def keys(s3: S3Client) -> dict[str, int]:
    return dict(s3.list())


def test_files_are_objects_and_objects_are_files(mountpoint: Path, s3: S3Client) -> None:
    bucket = mountpoint / BUCKET
    s3.put("a/b/object", b"by S3")
    assert (bucket / "a/b/object").read_bytes() == b"by S3"
    (bucket / "a/file").write_bytes(b"by a file")
    assert s3.get("a/file") == b"by a file"
    (bucket / "a/b/object").write_bytes(b"changed in place")
    assert s3.get("a/b/object") == b"changed in place"
    os.link(bucket / "a/file", bucket / "linked")
    (bucket / "empty/inside").mkdir(parents=True)
    (bucket / "symlink").symlink_to("linked")
    assert keys(s3) == {"a/b/object": 16, "a/file": 9, "linked": 9}
    s3.put("linked", b"another")
    assert (bucket / "a/file").read_bytes() == b"by a file"
    (bucket / "a").rename(bucket / "z")
    assert keys(s3) == {"linked": 7, "z/b/object": 16, "z/file": 9}
    s3.delete("z/b/object")
    assert sorted(os.listdir(bucket)) == ["empty", "linked", "symlink", "z"]
    # Keys implied it, but files renamed what is above it: that one stays, this one went with its key.
    assert os.listdir(bucket / "z") == ["file"]
    seconds_until(lambda: not (bucket / "z/b").exists())


def seconds_until(holds: Callable[[], bool]) -> float:
    begun = time.perf_counter()
    while not holds():
        assert time.perf_counter() - begun < NEWS_SECONDS_MAX
    return time.perf_counter() - begun


def test_what_s3_changes_the_mount_shows_at_once(mountpoint: Path, s3: S3Client) -> None:
    """The kernel has it all cached: names, attributes, pages, and that a name is not there."""
    bucket, waits = mountpoint / BUCKET, []
    for number in range(200):
        old, new = b"%d" % number * 500, b"%d" % (number + 1) * 700
        s3.put("a/cached", old)
        waits.append(seconds_until(partial(holds, bucket / "a/cached", old)))
        fresh = bucket / f"a/fresh-{number}"
        assert not fresh.exists()
        assert (bucket / "a/cached").stat().st_size == len(old)
        s3.put("a/cached", new)
        waits.append(seconds_until(partial(has_size, bucket / "a/cached", len(new))))
        assert (bucket / "a/cached").read_bytes() == new
        s3.put(f"a/fresh-{number}", b"x")
        waits.append(seconds_until(fresh.exists))
        s3.delete(f"a/fresh-{number}")
        waits.append(seconds_until(partial(is_gone, fresh)))
    waits.sort()
    print(f"after the answer of S3 it took {waits[len(waits) // 2] * 1e3:.2f} ms (median), {waits[-1] * 1e3:.2f} ms (longest)")


def test_caches_are_right_after_many_changes(mountpoint: Path, s3: S3Client) -> None:
    """S3 puts and deletes what the mount looks at all the while; when it is over, the mount shows what S3 has."""
    bucket, names = mountpoint / BUCKET, [f"d{number % 5}/k{number}" for number in range(50)]
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for name in names:
                try:
                    (bucket / name).read_bytes()
                except FileNotFoundError:
                    pass
                except OSError as error:
                    # S3 replaced it between the kernel's lookup and its open, twice in a row: docs/OPERATIONS.md.
                    assert error.errno == errno.ESTALE, error

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    held: dict[str, bytes] = {}
    rng = random.Random(3)
    for step in range(2000):
        name = rng.choice(names)
        if rng.random() < 0.7:
            held[name] = b"%d" % step * rng.randrange(1, 2000)
            s3.put(name, held[name])
        elif held.pop(name, None) is not None:
            s3.delete(name)
    over.set()
    for looker in lookers:
        looker.join()

    def shown(name: str) -> bytes | None:
        try:
            return (bucket / name).read_bytes()
        except FileNotFoundError:
            return None

    seconds_until(lambda: {name: shown(name) for name in names} == {name: held.get(name) for name in names})


def test_an_object_on_its_way_out_is_not_changed_by_a_file(mounted: Daemon, mountpoint: Path, s3: S3Client) -> None:
    content = os.urandom(48 << 20)
    s3.put("large", content)
    answer = boto(mounted.spec.endpoint).get_object(Bucket=BUCKET, Key="large")["Body"]
    begun = answer.read(1 << 20)
    with (mountpoint / BUCKET / "large").open("r+b") as file:
        for offset in range(0, len(content), 4 << 20):
            file.seek(offset)
            file.write(b"overwritten" * 1000)
        file.truncate(20 << 20)
    assert begun + answer.read() == content
    changed = s3.get("large")
    assert changed is not None
    assert len(changed) == 20 << 20
    assert changed.startswith(b"overwritten")


def test_a_killed_daemon_loses_nothing_that_was_synced(mounted: Daemon, mountpoint: Path, s3: S3Client) -> None:
    bucket = mountpoint / BUCKET
    for number in range(40):
        (bucket / f"dir-{number % 4}").mkdir(exist_ok=True)
        (bucket / f"dir-{number % 4}/file-{number}").write_bytes(b"%d" % number * 1000)
    (bucket / "dir-0").rename(bucket / "renamed")
    unlinked = os.open(bucket / "unlinked", os.O_CREAT | os.O_RDWR)
    os.write(unlinked, b"x" * 300_000)
    os.unlink(bucket / "unlinked")
    os.fsync(unlinked)
    mounted.kill()
    with pytest.raises(OSError, match="not connected"):
        os.listdir(bucket)
    os.close(unlinked)
    s3.close()
    mounted.start()
    assert sorted(os.listdir(bucket)) == ["dir-1", "dir-2", "dir-3", "renamed"]
    for number in range(40):
        name = "renamed" if number % 4 == 0 else f"dir-{number % 4}"
        assert (bucket / name / f"file-{number}").read_bytes() == b"%d" % number * 1000
    assert len(keys(s3)) == 40


def test_a_killed_daemon_loses_only_the_last_second_and_in_order(tmp_path: Path, mounted: Daemon, mountpoint: Path, s3: S3Client) -> None:
    bucket = mountpoint / BUCKET
    made: list[float] = []
    stop = time.monotonic() + 3
    while time.monotonic() < stop:
        (bucket / f"{len(made):06}").write_bytes(b"%06d" % len(made))
        made.append(time.monotonic())
    mounted.kill()
    killed = time.monotonic()
    s3.close()
    mounted.start()
    found = sorted(os.listdir(bucket))
    assert found == [f"{number:06}" for number in range(len(found))]
    # The last one may have lost its content, which is a change of its own.
    assert all((bucket / name).read_bytes() == name.encode() for name in found[:-1])
    check = subprocess.run([mounted.spec.argv[0], "check", "--state", tmp_path / "state"], capture_output=True, text=True, check=False)
    assert check.stdout == "the metadata are whole\n", check.stderr
    assert len(found) >= sum(killed - at > DURABLE_SECONDS for at in made)


def test_a_strict_mount_is_durable_at_once(tmp_path: Path, devices: Sequence[Path], mountpoint: Path) -> None:
    env = {"TREFOIL_FILE__MOUNT": str(mountpoint), "TREFOIL_FILE__STRICT": "true"}
    daemon = Daemon(trefoil(devices, tmp_path / "state", env=env), tmp_path / "daemon.log")
    daemon.start()
    try:
        with S3Client(daemon.spec.endpoint, BUCKET) as client:
            client.create_bucket()
            for number in range(20):
                (mountpoint / BUCKET / f"{number:02}").write_bytes(b"%02d" % number)
            daemon.kill()
        daemon.start()
        found = {path.name: path.read_bytes() for path in (mountpoint / BUCKET).iterdir()}
        assert found == {f"{number:02}": b"%02d" % number for number in range(20)}
    finally:
        daemon.kill()
        subprocess.run(["umount", "--lazy", mountpoint], stderr=subprocess.DEVNULL, check=False)
