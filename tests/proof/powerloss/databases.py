"""PostgreSQL under pgbench and SQLite on the mount of a daemon whose devices are recorded: after power loss both must start and lack nothing.

python -m tests.proof.powerloss.databases [--states 6] [--seconds 20] [--work DIRECTORY]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.proof.databases import Acknowledged, Postgres, PostgresWitness, SqliteWitness, Witness, row_faults, sqlite_faults
from tests.proof.powerloss.blklog import SURVIVALS, Recording, crash_state
from tests.proof.powerloss.daemon_subject import BUCKET
from tests.proof.powerloss.file_subject import FileSubject
from tests.proof.powerloss.rig import Cut, Drives

DEVICES = 3
DEVICE_BYTES = 1 << 30
CLIENTS = 3
SQLITE_MODES = ("delete", "wal")


@dataclass
class Outcome:
    states: int = 0
    faults: list[str] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    bench: str = ""

    def sentence(self) -> str:
        rows = ", ".join(f"{count} rows by {name}" for name, count in self.rows.items())
        return f"{self.states} crash states, {len(self.faults)} faults; acknowledged: {rows}; pgbench: {self.bench}"


def explore(directory: Path, states: int, seconds: float, *, leave_out_flushes: bool = False) -> Outcome:
    """The whole experiment in an empty directory that every user may enter."""
    outcome = Outcome()
    drives = Drives(directory / "drives", DEVICES, DEVICE_BYTES)
    with drives:
        witnesses, cuts = _record(drives, directory, states, seconds, leave_out_flushes, outcome)
    notes = {name: witness.acknowledged for name, witness in witnesses.items()}
    outcome.rows = {name: len(note.at_ns) for name, note in notes.items()}
    recordings = [Recording(log, directory / f"durable-{index}", DEVICE_BYTES) for index, log in enumerate(drives.logs)]
    for number, cut in enumerate(cuts):
        place = directory / f"crash-{number}"
        place.mkdir()
        devices = [place / f"device-{index}" for index in range(DEVICES)]
        for index, (recording, position) in enumerate(zip(recordings, cut.positions, strict=True)):
            recording.advance(position)
            survival = SURVIVALS[number % len(SURVIVALS)]
            crash_state(drives.logs[index], recording.image, recording.durable_at, position, survival, f"{number}/{index}", devices[index])
        outcome.faults += [f"state {number}: {fault}" for fault in _judge(devices, place, notes, cut)]
        outcome.states += 1
        shutil.rmtree(place, ignore_errors=True)
    for recording in recordings:
        recording.close()
    return outcome


def _record(
    drives: Drives, directory: Path, states: int, seconds: float, leave_out: bool, outcome: Outcome
) -> tuple[dict[str, Witness], Sequence[Cut]]:
    state = directory / "state"
    state.mkdir()
    session = FileSubject(leave_out_flushes=leave_out).start(drives.paths, state, first=True)
    root = directory / "state-mount" / BUCKET
    server = Postgres(root / "pg")
    witnesses: dict[str, Witness] = {}
    cuts: list[Cut] = []
    try:
        server.make()
        witnesses = {f"SQLite {mode}": SqliteWitness(root / f"{mode}.db", mode) for mode in SQLITE_MODES}
        witnesses |= {"PostgreSQL": PostgresWitness(server)}
        bench = server.bench(seconds, CLIENTS)
        for witness in witnesses.values():
            witness.start()
        for _ in range(states):
            time.sleep(seconds / (states + 1))
            cuts.append(drives.cut_between_flushes())
        said = bench.communicate(timeout=seconds + 60)[0].decode()
        outcome.bench = next((line for line in said.splitlines() if line.startswith("tps")), said.strip()[-200:])
        for witness in witnesses.values():
            witness.end()
            outcome.faults += witness.acknowledged.errors
    finally:
        server.stop()
        session.stop()
    return witnesses, cuts


def _judge(devices: Sequence[Path], place: Path, notes: dict[str, Acknowledged], cut: Cut) -> list[str]:
    state = place / "state"
    state.mkdir()
    try:
        session = FileSubject().start(devices, state, first=False)
    except Exception as error:
        return [f"the daemon does not start: {error}"]
    root = place / "state-mount" / BUCKET
    server = Postgres(root / "pg")
    try:
        server.forget_process()
        server.start()
        rows = [int(row) for row in server.ask("SELECT number FROM witness ORDER BY number").split()]
        faults = server.faults() + row_faults("PostgreSQL", rows, notes["PostgreSQL"].by(cut.before_ns))
        for mode in SQLITE_MODES:
            faults += sqlite_faults(root / f"{mode}.db", notes[f"SQLite {mode}"], cut.before_ns)
        return faults
    except Exception as error:
        return [f"a database does not come back: {type(error).__name__}: {error}"]
    finally:
        server.stop()
        session.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.proof.powerloss.databases", description="PostgreSQL and SQLite on a mount, cut off.")
    parser.add_argument("--states", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--leave-out-flushes", action="store_true", help="the control: must be faulty")
    parser.add_argument("--work", type=Path, help="an empty directory that stays")
    options = parser.parse_args()
    directory = options.work or Path(tempfile.mkdtemp(prefix="databases-"))
    directory.chmod(0o755)
    try:
        outcome = explore(directory, options.states, options.seconds, leave_out_flushes=options.leave_out_flushes)
    finally:
        if not options.work:
            shutil.rmtree(directory, ignore_errors=True)
    print(outcome.sentence())
    for fault in outcome.faults:
        print(fault)
    sys.exit(1 if outcome.faults else 0)


if __name__ == "__main__":
    main()
