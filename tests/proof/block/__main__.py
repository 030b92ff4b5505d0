"""Volumes proved by a stock Linux kernel in a virtual machine:

python -m tests.proof.block --guest DIRECTORY [--image DIRECTORY] [--fio-seconds 200] [--work DIRECTORY] [--only host|kernel]

`--guest`: where the program `guest` is (see `tests.proof.nfs.machine`); its image must hold btrfs-progs too (`build --package btrfs-progs`).
One machine at a time; it is emulated, so slow.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.proof.block import guest
from tests.proof.nfs.machine import Machine, MachineFailed, Result

PROOFS = {"host": guest.host, "kernel": guest.kernel}


def main() -> None:
    options = _options()
    program = options.guest / "guest" if options.guest.is_dir() else options.guest
    if not program.is_file():
        sys.exit(f"there is no {program}")
    failures = 0
    with tempfile.TemporaryDirectory(prefix="block-", dir=options.work) as work:
        for name in options.only or PROOFS:
            directory = Path(work) / name
            directory.mkdir()
            for result in _proof(name, Machine(program, options.image), directory, options.fio_seconds):
                print(
                    f"{'ok    ' if result.passed else 'FAILED'} {result.seconds:7.1f} s  {name}: {result.name}: {result.detail}", flush=True
                )
                failures += not result.passed
    sys.exit(1 if failures else 0)


def _proof(name: str, machine: Machine, work: Path, fio_seconds: int) -> Iterator[Result]:
    try:
        yield from PROOFS[name](machine, work, fio_seconds)
    except MachineFailed as problem:
        yield Result(name, False, str(problem))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.proof.block", description="Prove volumes by a real kernel in a virtual machine.")
    parser.add_argument("--guest", type=Path, required=True, help="directory of the program `guest`")
    parser.add_argument("--image", type=Path, help="where its image is; its own default if not given")
    parser.add_argument("--fio-seconds", type=int, default=200, help="of each of three mixes")
    parser.add_argument(
        "--only", action="append", choices=PROOFS, help="host: against this machine's daemon; kernel: all in the guest, by nvmet"
    )
    parser.add_argument("--work", type=Path, help="where to work; a temporary directory if not given")
    return parser.parse_args()


if __name__ == "__main__":
    main()
