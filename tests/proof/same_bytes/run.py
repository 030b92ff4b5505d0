"""Does operations on all faces of one bucket in turn, and looks at all of it through each after every one."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from tests.proof.same_bytes.faces import Face, FilesFace, S3Face, first_difference
from tests.proof.same_bytes.model import Model, Refused
from tests.proof.same_bytes.operations import LONG_NAME, Generator, Operation

SETTLED_SECONDS_MAX = 3.0
"""What another face changed may show in a mount a second later; so long a difference is none."""
LOOK_SECONDS = 0.1
TRACE_MAX = 25


class Different(AssertionError):
    """A face shows something else than the model, or answers otherwise."""


@dataclass
class Subject:
    """One bucket, empty at first. `files`: as many faces of it as there are."""

    s3: S3Face
    files: Sequence[FilesFace]


def run(subject: Subject, steps: int, seed: int, model: Model | None = None) -> int:
    """The number of operations that succeeded. Raises Different."""
    model = model or Model()
    generator = Generator(seed, subject.s3, subject.files)
    trace: deque[str] = deque(maxlen=TRACE_MAX)
    done = 0
    for step in range(steps):
        operation = generator.next(model)
        try:
            outcome = _both(operation, model)
            trace.append(f"{step:>5}: {operation.text} -> {outcome}")
            done += outcome == "ok"
            _compare(subject, model)
        except AssertionError as wrong:
            trace.append(f"{step:>5}: {operation.text}")
            raise Different("\n".join([f"seed {seed}, step {step}: {wrong}", *trace]).replace(LONG_NAME, "n...")) from None
    return done


def _both(operation: Operation, model: Model) -> str:
    """Both succeed, or both fail."""
    wanted: int | None = None
    try:
        operation.model(model)
    except Refused as refused:
        wanted = refused.number
    deadline = time.monotonic() + SETTLED_SECONDS_MAX
    while True:
        got: int | None = None
        try:
            operation.face()
        except OSError as error:
            got = error.errno
        if (wanted is None) == (got is None):
            return "ok" if got is None else f"errno {got}"
        # A failed attempt changed nothing; a mount may not have heard yet of what another face did.
        if got is None or time.monotonic() > deadline:
            raise AssertionError(f"answered errno {got}, expected {wanted}")
        time.sleep(LOOK_SECONDS)


def _compare(subject: Subject, model: Model) -> None:
    faces: Sequence[Face] = (subject.s3, *subject.files)
    for face in faces:
        expected = face.expected(model)
        deadline = time.monotonic() + SETTLED_SECONDS_MAX
        while True:
            try:
                difference = first_difference(expected, face.look())
            except OSError as error:
                difference = str(error)
            if difference is None:
                break
            if isinstance(face, S3Face) or time.monotonic() > deadline:
                raise AssertionError(f"{type(face).__name__}: {difference}")
            time.sleep(LOOK_SECONDS)
