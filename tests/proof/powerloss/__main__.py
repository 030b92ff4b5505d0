"""Run one experiment by hand:

python -m tests.proof.powerloss --subject store|snapshots|daemon|files|blocks|toy --states 100 --seed 7 [--devices 3] [--lost 1] [--keep DIRECTORY]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from tests.proof.load import Mix
from tests.proof.powerloss.block_subject import DATA_BYTES_MAX, BlockSubject
from tests.proof.powerloss.daemon_subject import DaemonSubject
from tests.proof.powerloss.explore import Plan, explore
from tests.proof.powerloss.file_subject import FileSubject
from tests.proof.powerloss.snapshot_subject import SnapshotSubject
from tests.proof.powerloss.store_subject import StoreSubject
from tests.proof.powerloss.subject import Subject
from tests.proof.powerloss.toy import Toy


def main() -> None:
    options = _options()
    subjects: dict[str, Subject] = {
        "store": StoreSubject(),
        "snapshots": SnapshotSubject(),
        "daemon": DaemonSubject(),
        "files": FileSubject(),
        "blocks": BlockSubject(),
        "toy": Toy(),
    }
    sizes = {"toy": 262_144, "blocks": DATA_BYTES_MAX}
    mix = Mix(multipart=0, abort=0, size_max=sizes[options.subject]) if options.subject in sizes else Mix()
    plan = Plan(
        devices=options.devices,
        device_bytes=options.device_mib << 20,
        seconds=options.seconds,
        samples=options.samples,
        states=options.states,
        seed=options.seed,
        mix=mix,
        lost_devices=options.lost,
        liars=options.liars,
        keep_state=options.subject in ("daemon", "files", "blocks"),
    )
    directory = options.keep or Path(tempfile.mkdtemp(prefix="powerloss-"))
    try:
        report = explore(subjects[options.subject], plan, directory)
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)
    print(report.sentence())
    for line in report.load_errors + report.faults:
        print(line)
    sys.exit(1 if report.load_errors or report.faults else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.proof.powerloss", description="Judge a store by the crash states of recorded devices.")
    parser.add_argument("--subject", choices=("store", "snapshots", "daemon", "files", "blocks", "toy"), default="store")
    parser.add_argument("--devices", type=int, default=6)
    parser.add_argument("--device-mib", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=8.0, help="of load")
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--states", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lost", type=int, default=0, help="devices emptied in each state")
    parser.add_argument("--liars", type=int, help="drives that lie in the control; default all")
    parser.add_argument("--keep", type=Path, help="an empty directory to keep the recording in")
    return parser.parse_args()


if __name__ == "__main__":
    main()
