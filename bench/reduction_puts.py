"""Acknowledged PUTs with reduction on and off: two daemons of one device each on one filesystem, loaded in turns, medians of the ratios within rounds.

    (cd bench/loadgen && go build -o LOADGEN .)
    python -m bench.reduction_puts --loadgen LOADGEN --work SCRATCH

All bodies of a size are the same noise: what lands is all the same, and reduction finds it again later. Before a daemon is loaded the other one has come to
rest; what it does later on does not count, nor is it hidden: its processor time until then is printed beside.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path

from bench.faces import BUCKET, Served, served

SIZES = {"64 KiB": 64 << 10, "1 MiB": 1 << 20, "16 MiB": 16 << 20}
REST_SECONDS = 1.0
REST_SHARE = 0.1
"""Of a processor: a daemon that uses less rests."""


def rest(at: Served) -> None:
    while True:
        before = at.daemon.cpu_seconds()
        time.sleep(REST_SECONDS)
        if at.daemon.cpu_seconds() - before < REST_SHARE * REST_SECONDS:
            return


def load(at: Served, loadgen: Path, size: int, clients: int, seconds: float) -> float:
    """MiB a second."""
    to = at.daemon.spec.endpoint
    command = [str(loadgen), "-address", f"{to.host}:{to.port}", "-access-key", to.access_key, "-secret-key", to.secret_key]
    command += [
        "-bucket",
        BUCKET,
        "-operation",
        "put",
        "-size",
        str(size),
        "-clients",
        str(clients),
        "-keys",
        "100",
        "-seconds",
        str(seconds),
    ]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert not found["errors"], found["first_error"]
    return float(found["mebibytes_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description="PUT throughput with reduction on against off.")
    parser.add_argument("--loadgen", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="scratch; emptied")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args()
    with served(options.work / "off", "off") as off, served(options.work / "on", "balanced") as on:
        for name, size in SIZES.items():
            rows = []
            for _ in range(options.rounds):
                pair = []
                for at in (off, on):
                    rest(off)
                    rest(on)
                    pair.append(load(at, options.loadgen, size, options.clients, options.seconds))
                rows.append(pair)
            before = on.daemon.cpu_seconds()
            rest(on)
            medians = [round(statistics.median(column), 1) for column in zip(*rows, strict=True)]
            row = {"size": name, "off_mib_s": medians[0], "on_mib_s": medians[1]}
            row["ratio"] = round(statistics.median(pair[1] / pair[0] for pair in rows), 3)
            print(json.dumps({**row, "later_cpu_seconds": round(on.daemon.cpu_seconds() - before, 1)}), flush=True)


if __name__ == "__main__":
    main()
