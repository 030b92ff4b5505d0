"""Damage to devices: content of two of six deleted under load, flipped bytes in stored payloads, devices that must be refused.

Directories as devices; the daemon may keep what it likes in them. Damage is done from outside, while the daemon serves or while it is
down, and only then are the daemon's answers, advice and counters looked at.

    python -m tests.proof.devices [--seconds 20] [--minio PROGRAM]
"""

from __future__ import annotations

import argparse
import dataclasses
import errno
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.proof.content import content
from tests.proof.daemon import (
    DAMAGE_METRIC,
    MOVED_METRIC,
    REPAIR_METRIC,
    RESILVER_METRIC,
    Daemon,
    DaemonFailed,
    Spec,
    metric_sum,
    minio,
    trefoil,
)
from tests.proof.judge import judge
from tests.proof.load import Load, Mix
from tests.proof.s3 import S3Client

BUCKET = "proof"
NEEDLE_BYTES = 64
BLOCK_BYTES = 1 << 20
REFUSAL_SECONDS_MAX = 30.0
ADVICE_SECONDS_MAX = 20.0
FLIP_ATTEMPTS_MAX = 8
MOVE_SECONDS_MAX = 20.0


@dataclass
class DamageReport:
    acknowledged: int = 0
    judged_keys: int = 0
    faults: list[str] = field(default_factory=list)
    advice: Sequence[str] = ()

    def sentence(self) -> str:
        return (
            f"{self.acknowledged} operations acknowledged, {self.judged_keys} keys judged, {len(self.faults)} faults; "
            f"advice: {' '.join(self.advice) or 'none'}"
        )


def delete_content(device: Path) -> None:
    """As an operator's slip would: everything in the directory is gone, the directory stays. Open files live on until they are closed."""
    for entry in device.iterdir():
        # The daemon makes and removes files meanwhile.
        shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def zero_content(device: Path) -> None:
    """The same for files that stay open and keep their length: their bytes are gone, and no read or write fails."""
    for file in _files(device):
        with suppress(FileNotFoundError):
            length = str(file.stat().st_size)
            subprocess.run(["fallocate", "--punch-hole", "--offset", "0", "--length", length, str(file)], check=True)


def truncate_content(device: Path) -> None:
    """Files end early: reads come back short, which is neither an I/O error nor wrong bytes."""
    for file in _files(device):
        with suppress(FileNotFoundError):
            os.truncate(file, file.stat().st_size // 2)


def lose_content(
    daemon: Daemon,
    devices: Sequence[Path],
    damage: Callable[[Path], None],
    *,
    seconds: float,
    restart: bool = True,
    expect_advice: bool = True,
) -> DamageReport:
    """Damage the given devices under load; read everything, write on; then kill the daemon, start it on what is left, and do it again."""
    report = DamageReport()
    daemon.start()
    try:
        with S3Client(daemon.spec.endpoint, BUCKET) as client:
            client.create_bucket()
        with Load(lambda: S3Client(daemon.spec.endpoint, BUCKET), threads=3, seed=7, mix=Mix()) as load:
            load.run_for(seconds)
            for device in devices:
                damage(device)
            load.run_for(seconds)
            _judge(daemon, load, report, "after the damage")
            if expect_advice and not _wait_for_advice(daemon):
                report.faults.append("status gives no advice after the damage")
            if restart and not report.faults:
                load.pause()
                daemon.kill()
                daemon.start()
                load.resume()
                load.run_for(seconds)
                _judge(daemon, load, report, "after a restart on what is left")
            if expect_advice:
                report.advice = _wait_for_advice(daemon)
                if not report.advice:
                    report.faults.append("status gives no advice after a restart on what is left")
        report.faults += load.history.errors
        report.acknowledged = load.history.acknowledged()
    finally:
        daemon.kill()
    return report


def _judge(daemon: Daemon, load: Load, report: DamageReport, when: str) -> None:
    load.pause()
    with S3Client(daemon.spec.endpoint, BUCKET) as client:
        verdict = judge(client, load.history)
    report.judged_keys += verdict.keys
    report.faults += [f"{when}: {fault}" for fault in verdict.faults]
    load.resume()


def _wait_for_advice(daemon: Daemon) -> Sequence[str]:
    deadline = time.monotonic() + ADVICE_SECONDS_MAX
    while not (advice := daemon.advice()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return advice


@dataclass(frozen=True)
class Keeping:
    """A way in which the store keeps content, from outside: how to get it there, where it is found, what counts its damage."""

    object_bytes: int
    mirrored: bool
    detected_metric: str
    repaired_metric: str


KEEPINGS = {
    "extents": Keeping(1 << 20, False, DAMAGE_METRIC, REPAIR_METRIC),
    "chunks": Keeping(32 << 10, False, DAMAGE_METRIC, REPAIR_METRIC),
    # Recovery puts mirrors right before anything is served.
    "journal": Keeping(32 << 10, True, RESILVER_METRIC, RESILVER_METRIC),
}


@dataclass(frozen=True)
class Flip:
    file: Path
    offset: int
    right: int


@dataclass
class FlipReport:
    flipped: int = 0
    """Objects of which a byte was flipped."""
    wrong_reads: list[str] = field(default_factory=list)
    detected: float = 0
    repaired: float = 0
    unrepaired: int = 0

    def sentence(self) -> str:
        return (
            f"{self.flipped} bytes flipped, {len(self.wrong_reads)} wrong reads, {self.detected:.0f} detected, "
            f"{self.repaired:.0f} repaired, {self.unrepaired} still wrong on the medium"
        )


def flip_bytes(daemon: Daemon, devices: Sequence[Path], kept: str = "extents", *, objects: int = 40, seed: int = 3) -> FlipReport:
    """Flip a byte of many objects' stored payloads while the daemon is down; then every read must be right, and repair the medium.

    The payload is found on the devices by its own bytes: the content is random, so no reduction changes it. Flips are on two devices only:
    objects share rows and records, of which the code 4+2 promises no more.
    """
    report, chance, keeping = FlipReport(), random.Random(seed), KEEPINGS[kept]
    if kept == "extents":
        # Reduction would move them while they are looked for; without it they stay where they landed.
        daemon = Daemon(dataclasses.replace(daemon.spec, env={**daemon.spec.env, "TREFOIL_REDUCTION__MODE": "off"}), daemon.log)
    daemon.start()
    try:
        payloads = {f"flip/{number:03}": chance.randbytes(keeping.object_bytes) for number in range(objects)}
        with S3Client(daemon.spec.endpoint, BUCKET) as client:
            client.create_bucket()
            for key, data in payloads.items():
                client.put(key, data)
        _end_keeping(daemon, kept, objects)
        stretches = _stretches(devices)
        flips = [flip for data in payloads.values() if (flip := _flip_one(stretches, devices[1:3], data, keeping, chance))]
        report.flipped = len(flips)
        daemon.start()
        # A counter of ours starts at zero with the daemon; recovery may already have met a flipped byte.
        with S3Client(daemon.spec.endpoint, BUCKET) as client:
            for key, data in payloads.items():
                try:
                    if client.get(key) != data:
                        report.wrong_reads.append(f"{key} reads back differently")
                except Exception as error:
                    report.wrong_reads.append(f"{key} cannot be read: {error}")
        metrics = daemon.metrics()
        report.detected, report.repaired = metric_sum(metrics, keeping.detected_metric), metric_sum(metrics, keeping.repaired_metric)
        report.unrepaired = sum(_byte_at(flip.file, flip.offset) != flip.right for found in flips for flip in found)
    finally:
        daemon.kill()
    return report


def _end_keeping(daemon: Daemon, kept: str, objects: int) -> None:
    """End the daemon while it keeps the objects in that way."""
    if kept == "journal":
        # Before it moves them elsewhere, which it does within a second.
        daemon.kill()
        return
    deadline = time.monotonic() + MOVE_SECONDS_MAX
    while kept == "chunks" and metric_sum(daemon.metrics(), MOVED_METRIC) < objects:
        if time.monotonic() > deadline:
            raise DaemonFailed(f"small objects are still in the journal after {MOVE_SECONDS_MAX:.0f} s")
        time.sleep(0.1)
    daemon.stop()


def _flip_one(
    stretches: Sequence[Stretch], damaged: Sequence[Path], data: bytes, keeping: Keeping, chance: random.Random
) -> Sequence[Flip]:
    """Find a random piece of the content and flip a byte of it on the damaged devices. Nothing if it is not kept so, or not there."""
    for _ in range(FLIP_ATTEMPTS_MAX):
        at = chance.randrange(len(data) - NEEDLE_BYTES)
        places = list(_find(stretches, data[at : at + NEEDLE_BYTES]))
        # Mirrors have it at the same offset; where small content was packed, its former copies in the journal are still there.
        same = [offset for _, offset in places]
        kept = [(file, offset) for file, offset in places if (same.count(offset) > 1) == keeping.mirrored]
        hit = [(file, offset) for file, offset in kept if any(file.is_relative_to(device) for device in damaged)]
        if hit and (keeping.mirrored or len(kept) == 1):
            bit = 1 << chance.randrange(8)
            return [_flip_at(file, offset, bit) for file, offset in hit]
    return []


def _flip_at(file: Path, offset: int, bit: int) -> Flip:
    byte = _byte_at(file, offset)
    with file.open("r+b") as target:
        target.seek(offset)
        target.write(bytes([byte ^ bit]))
        target.flush()
        os.fsync(target.fileno())
    return Flip(file, offset, byte)


@dataclass(frozen=True)
class Stretch:
    """Bytes of a device; zeros around it are left out, which most of it is."""

    file: Path
    start: int
    data: bytearray


def _stretches(devices: Sequence[Path]) -> Sequence[Stretch]:
    found: list[Stretch] = []
    for device in devices:
        for file in _files(device):
            with file.open("rb") as source:
                for start, end in _data_ranges(source.fileno()):
                    for at in range(start, end, BLOCK_BYTES):
                        block = os.pread(source.fileno(), min(BLOCK_BYTES, end - at), at)
                        if block.count(0) == len(block):
                            continue
                        last = found[-1] if found else None
                        if last is not None and last.file == file and last.start + len(last.data) == at:
                            last.data.extend(block)
                        else:
                            found.append(Stretch(file, at, bytearray(block)))
    return found


def _data_ranges(fd: int) -> Iterator[tuple[int, int]]:
    at, size = 0, os.fstat(fd).st_size
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, at


def _find(stretches: Sequence[Stretch], needle: bytes) -> Iterator[tuple[Path, int]]:
    for stretch in stretches:
        at = stretch.data.find(needle)
        while at >= 0:
            yield stretch.file, stretch.start + at
            at = stretch.data.find(needle, at + 1)


def _byte_at(file: Path, offset: int) -> int:
    with file.open("rb") as source:
        return os.pread(source.fileno(), 1, offset)[0]


def _files(device: Path) -> Sequence[Path]:
    if device.is_file():
        return [device]
    return sorted(Path(directory) / name for directory, _, names in os.walk(device) for name in names)


@dataclass(frozen=True)
class Refusal:
    exit_code: int | None
    """None: it did not end."""
    output: str

    def fault(self) -> str | None:
        """What is wrong with this refusal, or None."""
        if self.exit_code is None:
            return "it serves instead of refusing"
        if self.exit_code == 0:
            return "it ends with exit code 0"
        if "Traceback" in self.output or "panicked" in self.output:
            return f"it prints a traceback: {self.output[-400:]}"
        lines = [line for line in self.output.splitlines() if line.strip()]
        return None if len(lines) == 1 else f"it prints {len(lines)} lines, not one sentence: {self.output[-400:]}"


def try_to_serve(spec: Spec) -> Refusal:
    """Start a daemon that ought to refuse, and collect what a person would see."""
    process = subprocess.Popen(
        list(spec.argv), env={**os.environ, **spec.env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, text=True
    )
    try:
        output, _ = process.communicate(timeout=REFUSAL_SECONDS_MAX)
        return Refusal(process.returncode, output)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        return Refusal(None, output)


def foreign_file(path: Path, size: int, kind: str) -> None:
    """A file that some other program owns: random bytes, text, or a filesystem's magic in the right place."""
    if kind == "random":
        data = random.Random(kind).randbytes(1 << 20)
    elif kind == "text":
        data = b"These are somebody's notes.\n" * 4000
    else:
        data = bytes(1080) + b"\x53\xef" + bytes(3014)
    with path.open("wb") as file:
        file.write(data)
        file.truncate(size)


def fill(daemon: Daemon, count: int = 20) -> None:
    """Give a pool something to lose, and end the daemon cleanly."""
    daemon.start()
    try:
        with S3Client(daemon.spec.endpoint, BUCKET) as client:
            client.create_bucket()
            for number in range(count):
                client.put(f"filled/{number}", content(f"fill/{number}", 50_000))
        daemon.stop()
    finally:
        daemon.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description="Delete the content of two of six devices under load, and flip stored bytes.")
    parser.add_argument("--seconds", type=float, default=10.0, help="of load before and after each damage")
    parser.add_argument("--minio", type=Path, help="judge this MinIO program instead")
    options = parser.parse_args()
    faulty = False
    for damage in (delete_content, zero_content, truncate_content):
        with tempfile.TemporaryDirectory(prefix="proof-devices-") as scratch:
            daemon, devices = _daemon(Path(scratch), options.minio)
            ours = options.minio is None
            report = lose_content(daemon, devices[1:3], damage, seconds=options.seconds, expect_advice=ours)
            print(f"{damage.__name__}: {report.sentence()}")
            print(*report.faults, sep="\n")
            faulty |= bool(report.faults)
    for kept in KEEPINGS if options.minio is None else ["extents"]:
        with tempfile.TemporaryDirectory(prefix="proof-devices-") as scratch:
            daemon, devices = _daemon(Path(scratch), options.minio)
            flips = flip_bytes(daemon, devices, kept)
            print(f"{kept}: {flips.sentence()}", *flips.wrong_reads, sep="\n")
            faulty |= bool(flips.wrong_reads or flips.unrepaired or not flips.flipped)
    sys.exit(1 if faulty else 0)


def _daemon(work: Path, peer: Path | None) -> tuple[Daemon, Sequence[Path]]:
    devices = [work / f"device-{index}" for index in range(6)]
    for device in devices:
        device.mkdir()
    return Daemon(minio(peer, devices) if peer else trefoil(devices, work / "state"), work / "daemon.log"), devices


if __name__ == "__main__":
    main()
