"""Run one suite by hand, on a mount that is there, or on one of a daemon that is started for it on six directories and checked afterwards:

python -m tests.proof.posix --suite pjdfstest --path DIRECTORY --engine native|pyfuse3 [--work DIRECTORY]
python -m tests.proof.posix --suite pjdfstest --path DIRECTORY --mount DIRECTORY [--only chmod]
python -m tests.proof.posix --suite fsx --path DIRECTORY --mount DIRECTORY [--operations 1000000] [--only O_DIRECT]
python -m tests.proof.posix --suite fsstress --path DIRECTORY --mount DIRECTORY [--seconds 600] [--processes 8]
python -m tests.proof.posix --suite xfstests --path DIRECTORY --work DIRECTORY --server target/release/examples/store_mount [-- generic/001 ...]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.proof.daemon import Daemon, trefoil, trefoil_program
from tests.proof.posix import fsstress, fsx, pjdfstest, xfstests
from tests.proof.posix.verdict import Verdict
from tests.proof.posix.xfstests_explained import EXPLAINED

DEVICES = 6
PROGRAMS = {"pjdfstest": "pjdfstest", "fsx": "ltp/fsx", "fsstress": "ltp/fsstress", "xfstests": "ltp/fsstress"}


def main() -> None:
    options = _options()
    if not (options.path / PROGRAMS[options.suite]).is_file():
        sys.exit(f"{options.path} holds no built {PROGRAMS[options.suite]}")
    if options.suite == "xfstests":
        verdict = _xfstests(options)
        _say(verdict)
    elif options.engine is not None:
        with _daemon(options.engine, options.work) as options.mount:
            verdict = _run(options)
            # What the daemon may complain of at its end does not hide it.
            _say(verdict)
    elif options.mount is not None and os.path.ismount(options.mount):
        verdict = _run(options)
        _say(verdict)
    else:
        sys.exit(f"{options.mount} is not a mount")
    sys.exit(0 if verdict.good else 1)


def _say(verdict: Verdict) -> None:
    for failure in verdict.failures:
        print(failure)
    print(verdict.sentence(), flush=True)


@contextmanager
def _daemon(engine: str, work: Path | None) -> Iterator[Path]:
    """A bucket of a daemon that ends with the suite. Its log is left where it complained."""
    with tempfile.TemporaryDirectory(prefix=f"posix-{engine}-", dir=work) as directory:
        base = Path(directory)
        # Other users must reach the mount.
        base.chmod(0o755)
        devices = [base / f"device-{index}" for index in range(DEVICES)]
        for path in (*devices, base / "mount"):
            path.mkdir()
        env = {"TREFOIL_FILE__MOUNT": str(base / "mount"), "TREFOIL_FILE__ENGINE": engine, "TREFOIL_LOG__LEVEL": "warning"}
        daemon = Daemon(trefoil(devices, base / "state", env=env), base / "log")
        daemon.start()
        try:
            (base / "mount/bucket").mkdir()
            yield base / "mount/bucket"
            print(f"CPU of the daemon: {daemon.cpu_seconds():.1f} s")
            check = subprocess.run([trefoil_program(), "check", "--state", base / "state"], capture_output=True, text=True, check=False)
            print(f"trefoil check: {check.stdout.strip()}")
            if check.returncode != 0:
                sys.exit(f"trefoil check ended with {check.returncode}: {check.stdout}{check.stderr}")
            if daemon.stop() != 0:
                sys.exit(f"the daemon did not stop well: {daemon.tail()}")
        finally:
            daemon.kill()
        if daemon.log.stat().st_size:
            sys.exit(f"the daemon complained: {daemon.tail(60)}")


def _xfstests(options: argparse.Namespace) -> Verdict:
    if os.geteuid() != 0 or options.work is None or options.server is None:
        sys.exit("xfstests must be run by root, with --work and --server")
    if not options.server.is_file():
        sys.exit(f"{options.server} is not there: cargo build --release -p trefoil-fuse --example store_mount")
    try:
        verdict, done = xfstests.run(options.path, options.work, options.server, options.tests or ("-g", "generic/quick"))
    except FileExistsError as error:
        sys.exit(str(error))
    for name, reason in sorted(done.failed.items()):
        print(f"failed {name}: {EXPLAINED.get(name, reason)}")
    print(f"{len(done.not_run)} not run")
    return verdict


def _run(options: argparse.Namespace) -> Verdict:
    if options.suite == "pjdfstest":
        if os.geteuid() != 0:
            sys.exit("pjdfstest must be run by root")
        return pjdfstest.run(options.path, options.mount, options.jobs, options.only)
    if options.suite == "fsx":
        return fsx.run(options.path, options.mount, options.operations or 20_000, options.seed, options.only)
    return fsstress.run(options.path, options.mount, options.operations or 2000, options.processes, options.seed, options.seconds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.proof.posix", description="Run a public POSIX suite on a mount.")
    parser.add_argument("--suite", choices=sorted(PROGRAMS), required=True)
    parser.add_argument("--path", type=Path, required=True, help="where the suite is built")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--mount", type=Path, help="of which this directory is the root; xfstests mounts by itself")
    where.add_argument("--engine", choices=["native", "pyfuse3"], help="of a daemon's mount that is made for the suite")
    parser.add_argument(
        "--work",
        type=Path,
        help="where the devices of that mount are; of xfstests: an empty directory for two stores of 9 GiB at most and what the suite leaves",
    )
    parser.add_argument("--server", type=Path, help="of xfstests: the engine's example store_mount")
    parser.add_argument("tests", nargs="*", help="of xfstests: its own arguments; all of generic/quick without them")
    parser.add_argument("--jobs", type=int, default=2, help="files of pjdfstest at once")
    parser.add_argument("--only", default="", help="files of pjdfstest, or modes of fsx, with this in their name")
    parser.add_argument("--operations", type=int, help="of fsx in each mode, or of each process of fsstress")
    parser.add_argument("--processes", type=int, default=8, help="of fsstress")
    parser.add_argument("--seconds", type=float, default=0.0, help="of fsstress: again and again until they are over")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
