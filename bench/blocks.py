"""A block target beside qemu-storage-daemon and nbdkit: one machine, one kind of client, interleaved rounds.

    cargo build --release -p trefoil-nvme --example nvme_loadgen
    python -m bench.blocks --loadgen target/release/examples/nvme_loadgen --work /var/tmp/blocks \\
        --target nvme://127.0.0.1:4420/NQN/1 --pid PID

The peers export a raw file in `--work`, on the disk that the target's pool should be on too, by NBD over loopback TCP: neither speaks NVMe/TCP, so
the generator speaks both. Durable writes carry FUA. Every case runs in rounds over all systems; medians are printed with the ratio to the better peer,
and the server's CPU time for each command. A case in which the generator used more CPU time than the server is marked: the client bounds it. Quote
ratios of one run only.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXPORT = "bench"
START_SECONDS = 20


@dataclass(frozen=True)
class Case:
    mode: str
    bytes: int
    depth: int
    durable: bool = False

    @property
    def name(self) -> str:
        return f"{self.mode}{' durable' if self.durable else ''} {self.bytes >> 10} KiB qd {self.depth}"

    @property
    def flags(self) -> list[str]:
        flags = ["--mode", self.mode, "--bytes", str(self.bytes), "--depth", str(self.depth)]
        return [*flags, "--durable"] if self.durable else flags


CASES = (
    Case("randread", 4096, 1),
    Case("randread", 4096, 32),
    Case("randwrite", 4096, 1, durable=True),
    Case("randwrite", 4096, 32, durable=True),
    Case("randwrite", 4096, 32),
    Case("seqread", 128 << 10, 8),
    Case("seqwrite", 128 << 10, 8),
)


@dataclass(frozen=True)
class System:
    name: str
    target: str
    pid: int

    def run(self, loadgen: Path, *flags: str) -> dict[str, Any]:
        command = [str(loadgen), "--target", self.target, "--pid", str(self.pid), "--json", *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"bench: {self.name}: {done.stderr.strip()}")
        result: dict[str, Any] = json.loads(done.stdout)
        return result


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def served(name: str, command: Sequence[str], port: int) -> Iterator[System]:
    """The command, until its port answers; ended with the block."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        sys.exit(f"bench: {name} did not start")
                    time.sleep(0.05)
            yield System(name, f"nbd://127.0.0.1:{port}/{EXPORT}", process.pid)
        finally:
            process.terminate()


@contextmanager
def peers(work: Path, size: int) -> Iterator[list[System]]:
    file = work / "peer.raw"
    with file.open("wb") as raw:
        raw.truncate(size)
    qemu_port, nbdkit_port = free_port(), free_port()
    with ExitStack() as stack:
        systems = []
        if program := shutil.which("qemu-storage-daemon"):
            command = [program, "--blockdev", f"file,node-name=raw,filename={file},aio=threads"]
            command += ["--nbd-server", f"addr.type=inet,addr.host=127.0.0.1,addr.port={qemu_port}"]
            command += ["--export", f"nbd,id=e,node-name=raw,name={EXPORT},writable=on"]
            systems.append(stack.enter_context(served("qemu-storage-daemon", command, qemu_port)))
        if program := shutil.which("nbdkit"):
            command = [program, "-f", "-i", "127.0.0.1", "-p", str(nbdkit_port), "file", str(file)]
            systems.append(stack.enter_context(served("nbdkit", command, nbdkit_port)))
        try:
            yield systems
        finally:
            file.unlink()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.blocks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loadgen", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="a directory for the peers' file")
    parser.add_argument("--target", required=True, help="nvme://HOST:PORT/NQN/NAMESPACE; what it holds is overwritten")
    parser.add_argument("--pid", type=int, required=True, help="the target's process")
    parser.add_argument("--span", type=int, default=256 << 20, help="bytes of each that are used (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="every sample, one a line")
    return parser.parse_args()


def line(case: Case, samples: dict[str, list[dict[str, Any]]], ours: str) -> str:
    def median(name: str, field: str) -> float:
        return statistics.median(sample[field] or 0.0 for sample in samples[name])

    better = max((name for name in samples if name != ours), key=lambda name: median(name, "iops"), default=None)
    parts = [f"{case.name:28}"]
    for name in samples:
        bound = " CLIENT-BOUND" if all(sample["client_bound"] for sample in samples[name]) else ""
        figures = f"{median(name, 'iops'):8.0f}/s {median(name, 'megabytes_per_second'):7.1f} MB/s p99 {median(name, 'p99_us'):7.0f} µs"
        parts.append(f"{name} {figures} {median(name, 'server_cpu_us'):5.1f} µs CPU{bound}")
    if better:
        parts.append(f"ratio {median(ours, 'iops') / max(median(better, 'iops'), 1.0):.2f} to {better}")
    return " | ".join(parts)


def main() -> None:
    options = arguments()
    options.work.mkdir(parents=True, exist_ok=True)
    with peers(options.work, options.span) as others:
        ours = System("target", options.target, options.pid)
        systems = [ours, *others]
        for system in systems:
            system.run(options.loadgen, "--span", str(options.span), "--seconds", "1", "--fill")
        for case in CASES:
            samples: dict[str, list[dict[str, Any]]] = {system.name: [] for system in systems}
            for _ in range(options.rounds):
                for system in systems:
                    sample = system.run(options.loadgen, "--span", str(options.span), "--seconds", str(options.seconds), *case.flags)
                    samples[system.name].append(sample)
                    if options.json:
                        print(json.dumps({"system": system.name, **sample}), flush=True)
            print(line(case, samples, ours.name), file=sys.stderr if options.json else sys.stdout, flush=True)


if __name__ == "__main__":
    main()
