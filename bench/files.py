"""Trefoil's files beside their peers: one machine, one filesystem, one load generator, interleaved rounds.

    bench/peer_files.sh /var/tmp/peer
    python -m bench.files --tools /var/tmp/peer --work /var/tmp/files --passthrough 'PROGRAM -f -o source={source},cache=auto {mount}'
    python -m bench.files --tools /var/tmp/peer --work /var/tmp/files --face nfs

Every case runs on all systems one after the other, round after round; printed are medians of the rounds, CPU time of the server per operation,
and the median of the rounds' ratios. Ratios of one run are what may be quoted. As root: what must not come from the kernel's caches is
measured after they were dropped. By default the pool is one device without redundancy, as the peers have none; `--devices 6` has code 4+2.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.file_cases import MOUNT_CASES, NFS_CASES, Case
from bench.file_systems import Maker, Place, System, ganesha, juicefs, mounted, needed, passthrough, raw, trefoil_nfs

LOAD_SECONDS_MAX = 300.0
CLIENT_SHARE_MAX = 0.7
"""If the generator takes more than this share of all CPU time used, the case says little about the server."""


@dataclass(frozen=True)
class Sample:
    system: str
    case: str
    round: int
    operations: int
    per_second: float
    server_cpu_us: float
    """Per operation, while it ran."""
    later_cpu_us: float
    """Per operation, of what the server did afterwards."""
    client_cpu_us: float


def main() -> None:
    options = _options()
    if os.geteuid() != 0:
        sys.exit("files: must be run by root")
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    cases = [case for case in (NFS_CASES if options.face == "nfs" else MOUNT_CASES) if options.only in case.name]
    samples: list[Sample] = []
    try:
        with ExitStack() as stack:
            place = Place(options.work, options.tools, options.devices)
            systems = [stack.enter_context(make(place)) for make in _makers(options)]
            for number in range(options.rounds):
                for case in cases:
                    for system in systems:
                        samples.append(_measure(system, case, number))
                        print(f"round {number + 1} {_line(case, samples[-1])}", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(options.work, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps([asdict(sample) for sample in samples], indent=1))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs; {options.devices} devices; medians of {options.rounds} rounds")
    print("\n".join(table(cases, samples)))


def _makers(options: argparse.Namespace) -> list[Maker]:
    if options.face == "nfs":
        needed(["ganesha.nfsd", "rpcbind", "unshare", "nsenter"])
        return [trefoil_nfs, ganesha]
    known: dict[str, Maker] = {"raw": raw, "native": mounted("native"), "pyfuse3": mounted("pyfuse3"), "juicefs": juicefs}
    makers = [known[name] for name in options.systems.split(",")]
    if "juicefs" in options.systems:
        needed(["redis-server"])
    return makers + [passthrough(command) for command in options.passthrough]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.files", description="Compare mounts and NFS with their peers on one filesystem.")
    parser.add_argument("--tools", type=Path, required=True, help="directory that bench/peer_files.sh filled")
    parser.add_argument(
        "--work", type=Path, required=True, help="scratch directory on the filesystem to measure; removed before and afterwards"
    )
    parser.add_argument("--face", choices=["mount", "nfs"], default="mount")
    parser.add_argument("--systems", default="native,pyfuse3,raw,juicefs", help="of the mount, in this order within each case")
    parser.add_argument(
        "--passthrough", action="append", default=[], help="a passthrough in C to measure too; see the head of bench/files.py"
    )
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="cases with this in their name; those that need what others left fail alone")
    parser.add_argument("--json", type=Path, help="write all samples here")
    return parser.parse_args()


def _measure(system: System, case: Case, number: int) -> Sample:
    if case.is_cold:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    cpu = system.cpu_seconds()
    argv = [*system.load, case.operation, system.at, *case.arguments(number)]
    run = subprocess.run(argv, capture_output=True, text=True, timeout=LOAD_SECONDS_MAX, check=False)
    if run.returncode:
        sys.exit(f"{system.name}: {case.name} failed: {run.stderr.strip()}")
    found = json.loads(run.stdout)
    spent = system.cpu_seconds() - cpu
    count = found["operations"]
    return Sample(
        system=system.name,
        case=case.name,
        round=number,
        operations=count,
        per_second=count / found["seconds"],
        server_cpu_us=spent * 1e6 / count,
        later_cpu_us=system.settle() * 1e6 / count,
        client_cpu_us=found["client_cpu_seconds"] * 1e6 / count,
    )


def _line(case: Case, sample: Sample) -> str:
    return (
        f"{sample.system:10} {case.name:32} {_rate(case, sample.per_second)}  server CPU {sample.server_cpu_us:9.1f} us/op, later "
        f"{sample.later_cpu_us:9.1f}, client {sample.client_cpu_us:8.1f}"
    )


def _rate(case: Case, per_second: float) -> str:
    return f"{per_second * case.block / 1e6:8.0f} MB/s" if case.is_stream else f"{per_second:8.0f} op/s"


def table(cases: Sequence[Case], samples: Sequence[Sample]) -> list[str]:
    """Our first system is compared with each other one."""
    lines: list[str] = []
    for case in cases:
        own = [sample for sample in samples if sample.case == case.name]
        names = list(dict.fromkeys(sample.system for sample in own))
        lines += ["", case.name]
        for name in names:
            of = [sample for sample in own if sample.system == name]
            rates = [sample.per_second for sample in of]
            spread = f"[{_rate(case, min(rates)).strip()} - {_rate(case, max(rates)).strip()}]"
            cpu = statistics.median(sample.server_cpu_us for sample in of)
            later = statistics.median(sample.later_cpu_us for sample in of)
            compared = "" if name == names[0] else f"  {names[0]}/{name} {_ratio(own, names[0], name):.2f}x"
            lines.append(
                f"  {name:10} {_rate(case, statistics.median(rates))}  CPU {cpu:8.1f} us/op (later {later:.1f})  {spread}{compared}"
            )
    return lines


def _ratio(samples: Sequence[Sample], ours: str, other: str) -> float:
    """The median of the ratios of each round: what disturbs the machine for minutes disturbs both of one round."""
    rates = {(sample.system, sample.round): sample.per_second for sample in samples}
    rounds = sorted({sample.round for sample in samples})
    return statistics.median(rates[ours, number] / rates[other, number] for number in rounds)


if __name__ == "__main__":
    main()
