"""Volumes of a whole daemon, by a host of our own: one namespace with S3 and the mount, and restarts that cost a host nothing that it flushed."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from server.client import AdminClient, connect
from server.errors import UserError
from tests.proof.block.host import Host, Refused
from tests.proof.daemon import Daemon, free_port, trefoil
from tests.proof.s3 import S3Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

BUCKET = "images"
NQN = "nqn.2014-08.org.nvmexpress:uuid:2fa11b4e-28ba-41d2-883f-0016d3cca427"
BLOCK = 4096
WRITE_PROTECTED = 0x20
RESTARTS = 3
SECONDS_BETWEEN = 1.0
RECONNECT_SECONDS_MAX = 90.0


class Place:
    def __init__(self, directory: Path) -> None:
        devices = [directory / f"device-{number}" for number in range(3)]
        for device in devices:
            device.mkdir()
        self.mount = directory / "mount"
        self.mount.mkdir()
        self.state = directory / "state"
        env = {"TREFOIL_BLOCK__LISTEN": f"127.0.0.1:{free_port()}", "TREFOIL_FILE__MOUNT": str(self.mount)}
        self.daemon = Daemon(trefoil(devices, self.state, env=env), directory / "log")
        self.daemon.start()

    @property
    def admin(self) -> AdminClient:
        return connect(self.state, None)

    def volume(self, path: str) -> dict[str, Any]:
        return next(volume for volume in self.admin.get("/api/v1/volumes") if volume["path"] == path)

    def attach(self, path: str) -> Host:
        line = self.admin.get("/api/v1/volumes/connect", name=path)
        return Host(line["address"], line["nqn"], host_nqn=NQN)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.daemon.stop()


def until(is_so: Callable[[], bool], seconds_max: float = RECONNECT_SECONDS_MAX) -> None:
    limit = time.monotonic() + seconds_max
    while not is_so():
        assert time.monotonic() < limit, "it never came to be"
        time.sleep(0.05)


def test_one_volume_by_host_s3_and_mount(place: Place):
    image = random.Random(1).randbytes(3 << 20)
    with S3Client(place.daemon.spec.endpoint, BUCKET) as s3:
        s3.create_bucket()
        s3.put("disk.img", image)
        path = f"{BUCKET}/disk.img"
        place.admin.post("/api/v1/volumes/from-file", {"name": path})
        place.admin.post("/api/v1/hosts", {"nqn": NQN, "volumes": [path]})
        file = place.mount / path
        with place.attach(path) as host:
            (nsid,) = host.namespaces()
            assert b"".join(host.read(nsid, at, 1 << 17) for at in range(0, len(image), 1 << 17)) == image
            expected = bytearray(image)
            for step in range(40):
                at, length = (step * 97 * 512) % (2 << 20), 512 * (1 + step % 16)
                data = random.Random(step).randbytes(length)
                host.write(nsid, at, data, durable=step % 5 == 0)
                expected[at : at + length] = data
            # What is written last is what everybody reads, while it is attached.
            assert file.read_bytes() == expected
            assert s3.get("disk.img") == bytes(expected)
            with pytest.raises(OSError, match="busy"), file.open("r+b", buffering=0) as opened:
                opened.write(b"x")
            with pytest.raises(OSError, match="busy"):
                file.unlink()
            before = place.volume(path)["allocated"]
            host.deallocate(nsid, 0, 1 << 20)
            expected[: 1 << 20] = bytes(1 << 20)
            assert place.volume(path)["allocated"] == before - (1 << 20)
            place.admin.post("/api/v1/volumes/resize", {"name": path, "size": 4 << 20})
            until(lambda: host.namespace(nsid, fresh=True).size_bytes == 4 << 20)
            host.write(nsid, (4 << 20) - 512, b"e" * 512)
            expected += bytes((1 << 20) - 512) + b"e" * 512
            assert host.compare_and_write(nsid, 1 << 20, bytes(expected[1 << 20 : (1 << 20) + 512]), b"c" * 512)
            assert not host.compare_and_write(nsid, 1 << 20, b"d" * 512, b"f" * 512)
            expected[1 << 20 : (1 << 20) + 512] = b"c" * 512
            host.flush(nsid)
        until(lambda: place.volume(path)["handles"] == 0)
        assert s3.get("disk.img") == bytes(expected)
        assert file.read_bytes() == expected
        with file.open("r+b", buffering=0) as opened:
            opened.write(b"by the mount")
        assert s3.get("disk.img") == b"by the mount" + bytes(expected)[12:]
    assert place.admin.post("/api/v1/check", {})["faults"] == 0


def test_a_snapshot_of_a_volume_is_a_namespace_that_only_reads(place: Place):
    place.admin.post("/api/v1/volumes", {"name": "disk", "size": 8 << 20})
    place.admin.post("/api/v1/hosts", {"nqn": NQN})
    with place.attach("disk") as host:
        (nsid,) = host.namespaces()
        old, new = b"o" * 4096, b"n" * 4096
        host.write(nsid, 4096, old)
        host.flush(nsid)
        place.admin.post("/api/v1/snapshots", {"path": "/volumes", "name": "one"})
        host.write(nsid, 4096, new, durable=True)
        shown = place.admin.post("/api/v1/volumes/show", {"name": "disk@one"})
        assert (shown["path"], shown["read_only"], shown["size"]) == ("volumes/disk@one", True, 8 << 20)
        # A host that may see everything is told of the namespace that came.
        until(lambda: shown["id"] in host.namespaces())
        assert host.log(4, 4096)[:4] == shown["id"].to_bytes(4, "little")
        image = shown["id"]
        assert host.identify(0, image)[99] == 1 and host.identify(0, nsid)[99] == 0
        assert host.namespace(image).nguid != host.namespace(nsid).nguid
        for change in (
            lambda: host.write(image, 4096, new),
            lambda: host.zero(image, 4096, 4096),
            lambda: host.deallocate(image, 0, 4096),
            lambda: host.compare_and_write(image, 4096, old, new),
        ):
            with pytest.raises(Refused) as refused:
                change()
            assert refused.value.status == WRITE_PROTECTED
        host.flush(image)
        assert (host.read(image, 4096, 4096), host.read(nsid, 4096, 4096)) == (old, new)
        with pytest.raises(UserError, match="attached"):
            place.admin.delete("/api/v1/snapshots", path="/volumes", name="one")
        host.say_goodbye()
    until(lambda: place.volume("volumes/disk@one")["handles"] == 0)
    place.daemon.kill()
    place.daemon.start()
    with place.attach("disk@one") as host:
        assert host.read(image, 4096, 4096) == old
        place.admin.delete("/api/v1/volumes?name=disk%40one&force=true")
        # By force: it is cut off, and finds it gone when it comes back.
        with pytest.raises(OSError):
            until(lambda: not host.namespaces())
    with place.attach("disk") as host:
        assert image not in host.namespaces()
        with pytest.raises(Refused):
            host.read(image, 4096, 4096)
    place.admin.delete("/api/v1/snapshots", path="/volumes", name="one")
    assert place.admin.post("/api/v1/check", {})["faults"] == 0


def test_a_daemon_that_is_killed_costs_a_host_nothing_that_it_flushed(place: Place):
    place.admin.post("/api/v1/volumes", {"name": "disk", "size": 16 << 20})
    place.admin.post("/api/v1/hosts", {"nqn": NQN})
    writer = Writer(place)
    writer.start()
    for _ in range(RESTARTS):
        time.sleep(SECONDS_BETWEEN)
        place.daemon.kill()
        place.daemon.start()
    time.sleep(SECONDS_BETWEEN)
    writer.stopping.set()
    writer.join(RECONNECT_SECONDS_MAX)
    assert not writer.is_alive() and writer.error is None, writer.error
    assert writer.reconnects >= RESTARTS and writer.flushed > 50
    with place.attach("disk") as host:
        (nsid,) = host.namespaces()
        for block, number in writer.blocks.items():
            assert host.read(nsid, block * BLOCK, BLOCK) == content(number), f"block {block}"


def content(number: int) -> bytes:
    return number.to_bytes(8, "little") * (BLOCK // 8)


class Writer(threading.Thread):
    """Writes and flushes; what failed with the connection is sent again over the next, as Linux does."""

    def __init__(self, place: Place) -> None:
        super().__init__(daemon=True)
        self._place = place
        self._chance = random.Random(3)
        self.blocks: dict[int, int] = {}
        self.flushed = self.reconnects = 0
        self.stopping = threading.Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            host = self._connected()
            while not self.stopping.is_set():
                block, number = self._chance.randrange(512), self.flushed + 1
                try:
                    (nsid,) = host.namespaces()
                    host.write(nsid, block * BLOCK, content(number))
                    host.flush(nsid)
                except (OSError, Refused):
                    host.close()
                    host = self._connected()
                    self.reconnects += 1
                    (nsid,) = host.namespaces()
                    host.write(nsid, block * BLOCK, content(number))
                    host.flush(nsid)
                self.blocks[block], self.flushed = number, number
            host.close()
        except BaseException as error:
            self.error = error

    def _connected(self) -> Host:
        limit = time.monotonic() + RECONNECT_SECONDS_MAX
        while True:
            try:
                return self._place.attach("disk")
            except Exception:
                if time.monotonic() > limit:
                    raise
                time.sleep(0.05)
