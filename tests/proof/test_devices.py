"""Damaged and wrong devices: two of six lose their content under load, stored bytes flip, devices must be refused in one sentence."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.proof.daemon import Daemon, trefoil
from tests.proof.devices import (
    KEEPINGS,
    delete_content,
    fill,
    flip_bytes,
    foreign_file,
    lose_content,
    truncate_content,
    try_to_serve,
    zero_content,
)

DEVICE_BYTES = 256 << 20
FLIPPED_MIN = 6

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("damage", [delete_content, zero_content, truncate_content])
def test_two_of_six_devices_lose_their_content(damage: Callable[[Path], None], daemon: Daemon, devices: Sequence[Path]) -> None:
    report = lose_content(daemon, devices[1:3], damage, seconds=4.0)
    print(report.sentence())
    assert report.faults == []
    assert report.acknowledged > 50
    assert report.advice


@pytest.mark.parametrize("kept", KEEPINGS)
def test_a_flipped_byte_is_detected_repaired_and_counted(kept: str, daemon: Daemon, devices: Sequence[Path]) -> None:
    report = flip_bytes(daemon, devices, kept)
    print(report.sentence())
    assert report.flipped >= FLIPPED_MIN, "the payloads were not found on the devices"
    assert report.wrong_reads == []
    assert report.detected >= report.flipped
    assert report.repaired >= report.flipped
    assert report.unrepaired == 0


@pytest.mark.parametrize("kind", ["random", "text", "ext4"])
def test_a_foreign_device_is_refused_in_one_sentence(kind: str, tmp_path: Path) -> None:
    devices = [tmp_path / f"file-{index}" for index in range(3)]
    for device in devices:
        device.touch()
        os.truncate(device, DEVICE_BYTES)
    foreign_file(devices[1], DEVICE_BYTES, kind)
    before = devices[1].read_bytes()
    refusal = try_to_serve(trefoil(devices, tmp_path / "state"))
    assert refusal.fault() is None
    assert str(devices[1]) in refusal.output
    assert devices[1].read_bytes() == before, "a refused device must stay as it is"


def test_a_device_of_another_pool_is_refused_in_one_sentence(tmp_path: Path) -> None:
    pools = []
    for name in ("one", "two"):
        devices = [tmp_path / name / f"device-{index}" for index in range(3)]
        for device in devices:
            device.mkdir(parents=True)
        fill(Daemon(trefoil(devices, tmp_path / name / "state"), tmp_path / f"{name}.log"))
        pools.append(devices)
    refusal = try_to_serve(trefoil([pools[0][0], pools[0][1], pools[1][2]], tmp_path / "one" / "state"))
    assert refusal.fault() is None


@pytest.mark.parametrize("length", [0, 100, 4096, 1 << 20, DEVICE_BYTES // 2])
def test_a_truncated_only_device_is_refused_in_one_sentence(length: int, tmp_path: Path) -> None:
    device = tmp_path / "file"
    device.touch()
    os.truncate(device, DEVICE_BYTES)
    fill(Daemon(trefoil([device], tmp_path / "state"), tmp_path / "daemon.log"))
    os.truncate(device, length)
    refusal = try_to_serve(trefoil([device], tmp_path / "state"))
    assert refusal.fault() is None
