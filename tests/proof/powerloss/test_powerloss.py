"""The instrument on toys: it must pass what is right and catch what is wrong. The product's own run is in `test_product.py`."""

from __future__ import annotations

import mmap
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.proof.load import Mix
from tests.proof.powerloss import blklog
from tests.proof.powerloss.explore import Plan, Report, explore
from tests.proof.powerloss.rig import Drives, missing_tools
from tests.proof.powerloss.toy import Toy

TOY_MIX = Mix(multipart=0, abort=0, size_max=262_144, pause_seconds=0.005)
TOY_PLAN = Plan(devices=3, device_bytes=256 << 20, seconds=2.0, samples=4, states=12, threads=3, mix=TOY_MIX, lying_states=3)

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def tools() -> None:
    problem = missing_tools()
    if problem:
        pytest.fail(problem)


def run(toy: Toy, directory: Path, plan: Plan = TOY_PLAN) -> Report:
    report = explore(toy, plan, directory)
    print(report.sentence())
    assert not report.load_errors
    assert report.acknowledged > 50
    assert report.states == plan.states
    return report


def test_a_flush_on_the_exported_file_reaches_the_log_and_a_write_alone_does_not(tmp_path: Path) -> None:
    """Without this every verdict below would be worthless: page cache or qemu could swallow flushes, or invent them."""
    with Drives(tmp_path, 2, 16 << 20) as drives:
        fd = os.open(drives.paths[0], os.O_RDWR)
        os.pwrite(fd, b"a" * 8192, 4096)
        written = drives.cut().positions
        os.fdatasync(fd)
        synced = drives.cut().positions
        os.close(fd)
        dsync = os.open(drives.paths[0], os.O_RDWR | os.O_DSYNC)
        os.pwrite(dsync, b"b" * 4096, 65536)
        os.close(dsync)
        ended = drives.cut().positions
    recording = blklog.Recording(drives.logs[0], tmp_path / "durable", 16 << 20)
    assert recording.counts(4096, written[0]) == (1, 0)
    assert recording.counts(written[0], synced[0]) == (0, 1)
    assert recording.counts(synced[0], ended[0]) == (1, 1)
    assert ended[1] == blklog.first_entry(), "the other device saw nothing"
    recording.advance(written[0])
    assert recording.image.read_bytes() == bytes(16 << 20), "what was not flushed is not durable"
    recording.advance(synced[0])
    assert recording.image.read_bytes()[4096:12288] == b"a" * 8192
    recording.close()


def test_parallel_direct_writes_arrive_as_they_were(tmp_path: Path) -> None:
    """QEMU 7.2 mixed up the buffers of direct writes that were under way together, and the product was blamed for the damage."""
    length, count = (1 << 20) + 4096, 24
    chance = random.Random(1)
    contents = [chance.randbytes(length) for _ in range(count)]
    with Drives(tmp_path, 1, 64 << 20) as drives:
        direct = os.open(drives.paths[0], os.O_RDWR | os.O_DIRECT)

        def write(number: int) -> None:
            # Memory of a mapping is aligned as direct writes want it.
            with mmap.mmap(-1, length) as buffer:
                buffer[:] = contents[number]
                assert os.pwrite(direct, buffer, number * length) == length

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(count)))
        os.fsync(direct)
        os.close(direct)
        end = drives.cut().positions[0]
    recording = blklog.Recording(drives.logs[0], tmp_path / "durable", 64 << 20)
    recording.advance(end)
    with recording.image.open("rb") as image:
        assert [number for number in range(count) if image.read(length) != contents[number]] == []
    recording.close()


WRITES_FOR_EVER = """
import mmap, os, sys, threading
buffer = mmap.mmap(-1, 65536)
def write(path):
    device = os.open(path, os.O_RDWR | os.O_DIRECT)
    while True:
        os.pwrite(device, buffer, 0)
for path in 3 * sys.argv[1:]:
    threading.Thread(target=write, args=[path]).start()
print(flush=True)
"""


def test_killing_who_writes_leaves_the_devices_answering(tmp_path: Path) -> None:
    """A request that was there when QEMU polled and gone when it read left QEMU waiting, and with it the writer who was to die."""
    with Drives(tmp_path, 6, 1 << 20) as drives:
        for _ in range(60):
            with subprocess.Popen([sys.executable, "-c", WRITES_FOR_EVER, *drives.paths], stdout=subprocess.PIPE) as writer:
                assert writer.stdout and writer.stdout.readline()
                writer.kill()
                writer.wait(timeout=60)


def test_a_correct_store_loses_nothing_and_lying_drives_are_caught(tmp_path: Path) -> None:
    report = run(Toy(), tmp_path)
    assert report.faults == []
    assert report.undecided_writes > 0
    assert report.lying_faulty == report.lying_states > 0


def test_a_store_that_never_flushes_is_caught(tmp_path: Path) -> None:
    report = run(Toy(flush=False), tmp_path)
    assert report.flushes == 0
    assert any("lost: " in fault or "older: " in fault for fault in report.faults)


def test_a_store_that_believes_torn_writes_is_caught(tmp_path: Path) -> None:
    report = run(Toy(flush=False, checksum=False), tmp_path, replace(TOY_PLAN, states=40))
    assert any("torn: " in fault for fault in report.faults), report.faults
