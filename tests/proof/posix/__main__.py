"""Run one suite on a mount by hand:

python -m tests.proof.posix --suite pjdfstest --path DIRECTORY --mount DIRECTORY [--only chmod]
python -m tests.proof.posix --suite fsx --path DIRECTORY --mount DIRECTORY [--operations 1000000]
python -m tests.proof.posix --suite fsstress --path DIRECTORY --mount DIRECTORY [--seconds 600] [--processes 8]
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.proof.posix import fsstress, fsx, pjdfstest
from tests.proof.posix.verdict import Verdict

PROGRAMS = {"pjdfstest": "pjdfstest", "fsx": "ltp/fsx", "fsstress": "ltp/fsstress"}


def main() -> None:
    options = _options()
    if not (options.path / PROGRAMS[options.suite]).is_file():
        sys.exit(f"{options.path} holds no built {PROGRAMS[options.suite]}")
    if not os.path.ismount(options.mount):
        sys.exit(f"{options.mount} is not a mount")
    verdict = _run(options)
    for failure in verdict.failures:
        print(failure)
    print(verdict.sentence())
    sys.exit(0 if verdict.good else 1)


def _run(options: argparse.Namespace) -> Verdict:
    if options.suite == "pjdfstest":
        if os.geteuid() != 0:
            sys.exit("pjdfstest must be run by root")
        return pjdfstest.run(options.path, options.mount, options.jobs, options.only)
    if options.suite == "fsx":
        return fsx.run(options.path, options.mount, options.operations or 20_000, options.seed)
    return fsstress.run(options.path, options.mount, options.operations or 2000, options.processes, options.seed, options.seconds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.proof.posix", description="Run a public POSIX suite on a mount.")
    parser.add_argument("--suite", choices=sorted(PROGRAMS), required=True)
    parser.add_argument("--path", type=Path, required=True, help="where the suite is built")
    parser.add_argument("--mount", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2, help="files of pjdfstest at once")
    parser.add_argument("--only", default="", help="files of pjdfstest with this in their path")
    parser.add_argument("--operations", type=int, help="of fsx in each mode, or of each process of fsstress")
    parser.add_argument("--processes", type=int, default=8, help="of fsstress")
    parser.add_argument("--seconds", type=float, default=0.0, help="of fsstress: again and again until they are over")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
