"""Trefoil beside MinIO: one machine, one filesystem, six directories each, code 4+2, one load generator, interleaved rounds.

    bench/peer_minio.sh /var/tmp/peer
    python -m bench.compare --peer /var/tmp/peer --work /var/tmp/compare

Every case runs in rounds A B A B; medians over the rounds and their ratio are printed, with server CPU per operation and bytes written to
storage per operation (from /proc/PID/io), and for Trefoil device flushes per operation (from its /metrics). Absolute numbers depend on
the machine and on what else it does; ratios of one run are what may be quoted. `--syncs` reports what each server syncs for one PUT.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import syncs
from tests.proof.daemon import FLUSHES_METRIC, WRITE_BYTES_METRIC, Daemon, Spec, metric_sum, minio, trefoil
from tests.proof.s3 import S3Client

BUCKET = "bench"
LARGE_BYTES = 64 << 20
SMALL_BYTES = 4096
LARGE_KEYS = 32
SMALL_KEYS = 2000
DEVICES = 6
CLIENT_SHARE_MAX = 0.35
"""If the generator takes more than this share of all CPU time used, the client bounds the result, and the table says so."""


@dataclass(frozen=True)
class Case:
    operation: str
    size: int
    clients: int

    @property
    def name(self) -> str:
        return f"{self.operation.upper()} {'64 MiB' if self.size == LARGE_BYTES else '4 KiB'} x{self.clients}"


@dataclass(frozen=True)
class Sample:
    system: str
    case: str
    per_second: float
    mebibytes_per_second: float
    p50_ms: float
    p99_ms: float
    server_cpu_ms: float
    client_cpu_ms: float
    storage_bytes: float
    flushes: float
    device_bytes: float


@dataclass
class System:
    daemon: Daemon
    loadgen: Path
    signed: bool

    @property
    def name(self) -> str:
        return self.daemon.spec.name

    def generate(self, operation: str, size: int, clients: int, prefix: str, keys: int, *flags: str) -> dict[str, Any]:
        endpoint = self.daemon.spec.endpoint
        command = [str(self.loadgen), "-address", f"{endpoint.host}:{endpoint.port}", "-access-key", endpoint.access_key]
        command += ["-secret-key", endpoint.secret_key, "-bucket", BUCKET, "-operation", operation, "-size", str(size)]
        command += ["-clients", str(clients), "-prefix", prefix, "-keys", str(keys), *flags]
        if self.signed:
            command.append("-signed")
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise SystemExit(f"{self.name}: {operation} of {size} bytes failed: {run.stdout}{run.stderr}")
        found: dict[str, Any] = json.loads(run.stdout)
        return found

    def preload(self) -> None:
        """What GETs read."""
        with S3Client(self.daemon.spec.endpoint, BUCKET) as client:
            client.create_bucket()
        self.generate("put", SMALL_BYTES, 8, "small", SMALL_KEYS, "-once")
        self.generate("put", LARGE_BYTES, 2, "large", LARGE_KEYS, "-once")

    def measure(self, case: Case, round_number: int, seconds: float) -> Sample:
        large = case.size == LARGE_BYTES
        if case.operation == "get":
            prefix, keys = ("large", LARGE_KEYS) if large else ("small", SMALL_KEYS)
        else:
            # Small PUTs always make new keys; large ones overwrite after a while, or the disk would fill.
            prefix, keys = ("large-put", LARGE_KEYS) if large else (f"put-{round_number}-{case.clients}", 2_000_000)
        before, cpu, written = self.daemon.metrics(), self.daemon.cpu_seconds(), _written(self.daemon.pid)
        found = self.generate(case.operation, case.size, case.clients, prefix, keys, "-seconds", str(seconds))
        after, count = self.daemon.metrics(), found["operations"]
        return Sample(
            system=self.name,
            case=case.name,
            per_second=found["per_second"],
            mebibytes_per_second=found["mebibytes_per_second"],
            p50_ms=found["p50_ms"],
            p99_ms=found["p99_ms"],
            server_cpu_ms=(self.daemon.cpu_seconds() - cpu) * 1000 / count,
            client_cpu_ms=found["client_cpu_seconds"] * 1000 / count,
            storage_bytes=(_written(self.daemon.pid) - written) / count,
            flushes=(metric_sum(after, FLUSHES_METRIC) - metric_sum(before, FLUSHES_METRIC)) / count,
            device_bytes=(metric_sum(after, WRITE_BYTES_METRIC) - metric_sum(before, WRITE_BYTES_METRIC)) / count,
        )


def main() -> None:
    options = _options()
    work: Path = options.work
    shutil.rmtree(work, ignore_errors=True)
    cases = [
        Case(operation, size, clients)
        for size, many in ((LARGE_BYTES, options.large_clients), (SMALL_BYTES, options.small_clients))
        for clients in many
        for operation in ("put", "get")
    ]
    samples: list[Sample] = []
    try:
        with _systems(options, work) as systems:
            for system in systems:
                system.preload()
            for number in range(options.rounds):
                for case in cases:
                    for system in systems:
                        samples.append(system.measure(case, number, options.seconds))
                        print(f"round {number + 1} {system.name:8} {_line(samples[-1])}", file=sys.stderr, flush=True)
            print(_table(systems, cases, samples))
            if options.syncs:
                for system in systems:
                    print(syncs.report(system.daemon, BUCKET, work / f"strace-{system.name}"))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(sample) for sample in samples], indent=1))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare Trefoil with MinIO on the same directories layout.")
    parser.add_argument("--peer", type=Path, required=True, help="directory that bench/peer_minio.sh filled")
    parser.add_argument("--work", type=Path, required=True, help="scratch directory on the filesystem to measure; removed afterwards")
    parser.add_argument("--systems", default="trefoil,minio", help="in this order within each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="per case, system and round")
    parser.add_argument("--small-clients", type=_numbers, default=[1, 32])
    parser.add_argument("--large-clients", type=_numbers, default=[1, 32])
    parser.add_argument("--signed", action="store_true", help="sign payloads (servers verify a SHA-256) instead of UNSIGNED-PAYLOAD")
    parser.add_argument("--syncs", action="store_true", help="also report what each server syncs for one PUT (needs strace)")
    parser.add_argument("--json", type=Path, help="write all samples here")
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


@contextmanager
def _systems(options: argparse.Namespace, work: Path) -> Iterator[Sequence[System]]:
    """All servers run all the time; the one that is not measured is idle."""
    started: list[System] = []
    try:
        for name in options.systems.split(","):
            daemon = Daemon(_spec(name, options.peer, work / name), work / f"{name}.log")
            daemon.start()
            started.append(System(daemon, options.peer / "loadgen", options.signed))
        yield started
    finally:
        for system in started:
            system.daemon.stop()


def _spec(name: str, peer: Path, directory: Path) -> Spec:
    devices = [directory / f"device-{index}" for index in range(DEVICES)]
    for device in devices:
        device.mkdir(parents=True)
    if name == "minio":
        return minio(peer / "minio", devices)
    if name == "trefoil":
        return trefoil(devices, directory / "state")
    raise SystemExit(f"compare: no system is called {name}")


def _written(pid: int) -> int:
    """Bytes that the process caused to be sent to storage, page cache and O_DIRECT alike."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    return 0


def _line(sample: Sample) -> str:
    rate = f"{sample.mebibytes_per_second:8.0f} MiB/s" if "64 MiB" in sample.case else f"{sample.per_second:8.0f} op/s "
    return (
        f"{sample.case:15} {rate}  p50 {sample.p50_ms:8.2f}  p99 {sample.p99_ms:8.2f} ms  server CPU {sample.server_cpu_ms:8.3f} ms/op"
        f"  client {sample.client_cpu_ms:7.3f}  written {sample.storage_bytes:12.0f} B/op  flushes {sample.flushes:6.2f}/op"
    )


def _table(systems: Sequence[System], cases: Sequence[Case], samples: Sequence[Sample]) -> str:
    lines = [
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs; medians of {len(samples) // max(1, len(systems) * len(cases))} rounds"
    ]
    for case in cases:
        rates = []
        for system in systems:
            own = [sample for sample in samples if sample.system == system.name and sample.case == case.name]
            middle = Sample(system.name, case.name, *(statistics.median(column) for column in zip(*map(_numeric, own), strict=True)))
            spread = f"[{min(s.per_second for s in own):.1f}-{max(s.per_second for s in own):.1f} op/s]"
            share = middle.client_cpu_ms / (middle.client_cpu_ms + middle.server_cpu_ms or 1)
            bounded = "  CLIENT-BOUND" if share > CLIENT_SHARE_MAX else ""
            lines.append(f"{system.name:8} {_line(middle)}  {spread}{bounded}")
            rates.append((middle.per_second, middle.server_cpu_ms))
        if len(rates) == 2:
            lines.append(
                f"{'':8} {case.name:15} rate {rates[0][0] / rates[1][0]:.2f}x, CPU per operation {rates[0][1] / (rates[1][1] or 1):.2f}x"
            )
    return "\n".join(lines)


def _numeric(sample: Sample) -> Sequence[float]:
    return list(asdict(sample).values())[2:]


if __name__ == "__main__":
    main()
