"""Record a load, cut it at sampled moments, rebuild crash states of each, and judge them all.

`explore` is the whole experiment for one subject. States of one sample are built and judged in parallel by worker processes; each gets
its own copies of the devices, starts the subject on them and compares it with the history. The control is the same recording with drives
that lied: what they said was flushed since the previous sample is treated as unflushed, so a correct subject must be seen to lose data.
"""

from __future__ import annotations

import multiprocessing
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from tests.proof.files import Written
from tests.proof.history import History
from tests.proof.judge import Verdict, judge
from tests.proof.load import Load, Mix
from tests.proof.powerloss.blklog import NOTHING, SURVIVALS, Recording, Survival, crash_state
from tests.proof.powerloss.rig import Cut, Drives
from tests.proof.powerloss.subject import Diarist, Session, Subject

SETTLE_SECONDS = 0.3
STATE_SECONDS_MAX = 120.0
RECORDED_STATE = "state-recorded"


@dataclass(frozen=True)
class Plan:
    """One experiment. `devices` decide the subject's code (6: 4+2, 3: 2+1); `states` are judged over all samples."""

    devices: int = 6
    device_bytes: int = 256 << 20
    seconds: float = 8.0
    samples: int = 10
    states: int = 40
    threads: int = 4
    seed: int = 1
    mix: Mix = field(default_factory=Mix)
    lying_states: int = 6
    liars: int | None = None
    """How many drives lie in the control; None: all of them. With m or fewer, a store that mirrors on m+1 must lose nothing."""
    lost_devices: int = 0
    """So many devices are emptied in each crash state: power loss and drive loss together. At most m."""
    keep_state: bool = False
    """Crash states get, in turn, an empty state directory, the one of the same moment, and the one of the sample before."""
    workers: int = 2


@dataclass
class Report:
    states: int = 0
    faulty: int = 0
    faults: list[str] = field(default_factory=list)
    lying_states: int = 0
    lying_faulty: int = 0
    acknowledged: int = 0
    unsynced: int = 0
    undecided_writes: int = 0
    flushes: int = 0
    recorded_bytes: int = 0
    load_errors: list[str] = field(default_factory=list)
    work: dict[str, float] = field(default_factory=dict)
    """What the subject did in the background while it was recorded."""
    seconds: dict[str, float] = field(default_factory=dict)

    def sentence(self) -> str:
        work = ", ".join(f"{count:.0f} {name}" for name, count in self.work.items()) or "no background work"
        times = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in self.seconds.items())
        return (
            f"{self.states} crash states, {self.faulty} faulty; lying drives: {self.lying_faulty} of {self.lying_states} caught; "
            f"{self.acknowledged} operations acknowledged, {self.unsynced} not synced, {self.flushes} flushes, {self.undecided_writes} undecided writes, "
            f"{self.recorded_bytes >> 20} MiB recorded; {work}; {times}"
        )


@dataclass(frozen=True)
class _Job:
    """Everything a worker process needs for one state."""

    subject: Subject
    directory: Path
    sources: Sequence[tuple[Path, Path, int, int]]
    """Per device: log, durable image, position it is durable at, position of the cut."""
    size: int
    survival: Survival
    seed: str
    before_ns: int
    after_ns: int
    lost: tuple[int, ...]
    state: Path | None
    """State directory to start with; None: an empty one."""


@dataclass(frozen=True)
class _Outcome:
    verdict: Verdict
    undecided: int
    build_seconds: float
    start_seconds: float
    judge_seconds: float


def explore(subject: Subject, plan: Plan, directory: Path) -> Report:
    """Run the experiment in an empty directory. The devices' recordings stay there for a closer look; states are removed."""
    report = Report()
    started = time.monotonic()
    drives = Drives(directory / "drives", plan.devices, plan.device_bytes)
    with drives:
        history, written, cuts = _record(subject, plan, drives, directory / RECORDED_STATE, report)
        report.recorded_bytes = drives.recorded_bytes()
    report.seconds["record"] = time.monotonic() - started
    if not report.load_errors:
        _judge_all(subject, plan, drives, (history, written), cuts, directory, report)
    report.seconds["total"] = time.monotonic() - started
    return report


def _record(subject: Subject, plan: Plan, drives: Drives, state: Path, report: Report) -> tuple[History, Written, Sequence[Cut]]:
    """Run the load and cut it at even distances. The formatted, idle subject comes before the first cut."""
    state.mkdir(parents=True)
    session = subject.start(drives.paths, state, first=True)
    cuts: list[Cut] = []
    diary = session.diary() if isinstance(session, Diarist) else None
    try:
        time.sleep(SETTLE_SECONDS)
        with diary or nullcontext(), Load(session.client, threads=plan.threads, seed=plan.seed, mix=plan.mix) as load:
            for _ in range(plan.samples):
                load.run_for(plan.seconds / plan.samples)
                cuts.append(_cut(plan, drives, session, state, len(cuts)))
            report.work = dict(session.work())
        history = load.history
    finally:
        session.stop()
    written = diary.written if diary else Written()
    report.load_errors = history.errors + written.errors
    report.acknowledged = history.acknowledged()
    report.unsynced = len(written.entries)
    return history, written, cuts


def _cut(plan: Plan, drives: Drives, session: Session, state: Path, number: int) -> Cut:
    """One moment of all devices and, if wanted, of the state directory. A frozen subject asks nothing more of its devices."""
    if not plan.keep_state:
        return drives.cut() if number % 4 == 0 else drives.cut_between_flushes()
    session.freeze()
    try:
        cut = drives.cut()
        shutil.copytree(state, _state_copy(state, number), ignore=_sockets)
        return cut
    finally:
        session.thaw()


def _state_copy(state: Path, number: int) -> Path:
    return state.with_name(f"{state.name}-{number}")


def _sockets(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(directory) / name).is_socket()]


def _judge_all(
    subject: Subject, plan: Plan, drives: Drives, histories: tuple[History, Written], cuts: Sequence[Cut], directory: Path, report: Report
) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(plan.workers, mp_context=context, initializer=_adopt, initargs=histories) as pool:
        for lying in (False, True):
            wanted = plan.lying_states if lying else plan.states
            jobs_per_cut = _share(wanted, len(cuts))
            recordings = [
                Recording(log, directory / f"durable-{'lying' if lying else 'true'}-{index}", plan.device_bytes)
                for index, log in enumerate(drives.logs)
            ]
            for number, (cut, count) in enumerate(zip(cuts, jobs_per_cut, strict=True)):
                # A lying drive's cache holds everything since the previous sample; nothing can be caught at the first one.
                liars = (plan.devices if plan.liars is None else plan.liars) if lying and number else 0
                for index, recording in enumerate(recordings):
                    recording.advance(cuts[number - 1 if index < liars else number].positions[index])
                if lying and not number:
                    continue
                jobs = [_job(subject, plan, drives, recordings, cut, number, variant, directory, lying) for variant in range(count)]
                for outcome in pool.map(_judge_state, jobs, timeout=STATE_SECONDS_MAX * (len(jobs) + 1)):
                    _count(report, outcome, lying, f"sample {number}")
            if not lying:
                report.flushes = sum(
                    recording.counts(4096, position)[1] for recording, position in zip(recordings, cuts[-1].positions, strict=True)
                )
            for recording in recordings:
                recording.close()


def _share(total: int, parts: int) -> list[int]:
    return [total // parts + (1 if index < total % parts else 0) for index in reversed(range(parts))]


def _job(
    subject: Subject,
    plan: Plan,
    drives: Drives,
    recordings: Sequence[Recording],
    cut: Cut,
    number: int,
    variant: int,
    directory: Path,
    lying: bool,
) -> _Job:
    sources = [
        (log, recording.image, recording.durable_at, position)
        for log, recording, position in zip(drives.logs, recordings, cut.positions, strict=True)
    ]
    # Emptied devices differ from state to state; the first ones would always be the journal's mirrors.
    lost = tuple((number + variant + index * 2) % plan.devices for index in range(plan.lost_devices))
    seed = f"{plan.seed}/{number}/{variant}/{lying}"
    age = variant % 3 if plan.keep_state else 0
    state = _state_copy(directory / RECORDED_STATE, max(0, number + 1 - age)) if age else None
    name = "crash-" + seed.replace("/", "-")
    survival = NOTHING if lying else SURVIVALS[variant % len(SURVIVALS)]
    return _Job(subject, directory / name, sources, plan.device_bytes, survival, seed, cut.before_ns, cut.after_ns, lost, state)


def _count(report: Report, outcome: _Outcome, lying: bool, where: str) -> None:
    faulty = bool(outcome.verdict.faults)
    if lying:
        report.lying_states += 1
        report.lying_faulty += faulty
        return
    report.states += 1
    report.faulty += faulty
    report.undecided_writes += outcome.undecided
    report.faults += [f"{where}: {fault}" for fault in outcome.verdict.faults]
    for name, seconds in (("build", outcome.build_seconds), ("start", outcome.start_seconds), ("judge", outcome.judge_seconds)):
        report.seconds[name] = report.seconds.get(name, 0.0) + seconds


_history: History | None = None
_written = Written()


def _adopt(history: History, written: Written) -> None:
    """Runs once per worker process; the history is large and the same for all states."""
    global _history, _written
    _history, _written = history, written


def _judge_state(job: _Job) -> _Outcome:
    """Build one crash state, start the subject on it, judge it, remove it."""
    assert _history is not None
    job.directory.mkdir(parents=True)
    try:
        began = time.monotonic()
        devices = [job.directory / f"device-{index}" for index in range(len(job.sources))]
        undecided = 0
        for index, (log, image, durable_at, position) in enumerate(job.sources):
            undecided += crash_state(log, image, durable_at, position, job.survival, f"{job.seed}/{index}", devices[index])
        for index in job.lost:
            _empty(devices[index], job.size)
        built = time.monotonic()
        verdict = Verdict()
        started_at = _start_and_judge(job, devices, verdict)
        verdict.observed.clear()
        return _Outcome(verdict, undecided, built - began, started_at - built, time.monotonic() - started_at)
    finally:
        shutil.rmtree(job.directory, ignore_errors=True)


def _start_and_judge(job: _Job, devices: Sequence[Path], verdict: Verdict) -> float:
    assert _history is not None
    state = job.directory / "state"
    if job.state is None:
        state.mkdir()
    else:
        shutil.copytree(job.state, state)
    try:
        session = job.subject.start(devices, state, first=False)
    except Exception as error:
        verdict.add("unusable", f"the subject does not start: {type(error).__name__}: {error}")
        return time.monotonic()
    started_at = time.monotonic()
    try:
        client = session.client()
        found = judge(client, _history, job.before_ns, job.after_ns)
        client.close()
        verdict.keys, verdict.faults = found.keys, found.faults
        if isinstance(session, Diarist):
            verdict.faults += session.diary_faults(_written, job.before_ns, job.after_ns)
        for sentence in session.damage():
            verdict.add("damaged", sentence)
    finally:
        session.stop()
    return started_at


def _empty(device: Path, size: int) -> None:
    with device.open("wb") as file:
        file.truncate(size)
