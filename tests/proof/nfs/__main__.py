"""NFS proved by a stock Linux kernel in a virtual machine:

python -m tests.proof.nfs --guest DIRECTORY [--image DIRECTORY] [--fsx PROGRAM] [--operations 5000] [--only client|alone] [--work DIRECTORY]

`--guest`: where the program `guest` is (see `machine`). `client`: a kernel's client against this machine's daemon. `alone`: daemon, two clients
in network namespaces and the kernel's own NFS server, all in one guest, for locks and NFS version 4. One machine at a time; it is emulated, so slow.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.proof.nfs import alone, guest
from tests.proof.nfs.machine import Machine, MachineFailed, Result


def main() -> None:
    options = _options()
    program = options.guest / "guest" if options.guest.is_dir() else options.guest
    if not program.is_file():
        sys.exit(f"there is no {program}")
    machine = Machine(program, options.image)
    failures = 0
    for name in options.only or ("client", "alone"):
        with tempfile.TemporaryDirectory(prefix=f"nfs-{name}-", dir=options.work) as work:
            for result in _proof(name, machine, Path(work), options):
                print(f"{'ok    ' if result.passed else 'FAILED'} {result.seconds:7.1f} s  {result.name}: {result.detail}", flush=True)
                failures += not result.passed
    sys.exit(1 if failures else 0)


def _proof(name: str, machine: Machine, work: Path, options: argparse.Namespace) -> Iterator[Result]:
    try:
        if name == "client":
            yield from guest.client(machine, work, options.fsx, options.operations)
        else:
            yield from alone.alone(machine, work, options.fsx, options.operations)
    except MachineFailed as problem:
        yield Result(name, False, str(problem))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.proof.nfs", description="Prove NFS by a real kernel in a virtual machine.")
    parser.add_argument("--guest", type=Path, required=True, help="directory of the program `guest`")
    parser.add_argument("--image", type=Path, help="where its image is; its own default if not given")
    parser.add_argument("--fsx", type=Path, help="fsx of xfstests; without it that step is left out")
    parser.add_argument("--operations", type=int, default=5000, help="of fsx, in each mode")
    parser.add_argument("--only", action="append", choices=["client", "alone"])
    parser.add_argument("--work", type=Path, help="where to work; a temporary directory if not given")
    return parser.parse_args()


if __name__ == "__main__":
    main()
