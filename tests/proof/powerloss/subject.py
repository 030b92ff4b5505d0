"""What is put on recorded devices: anything that can be opened on device paths and spoken to as a `Client`.

A subject is a picklable recipe, because crash states are opened in worker processes. Five exist: the toy (proves the instrument), the
store through its Python API, the whole daemon by S3, by S3 and files, and by blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from tests.proof.files import Written
from tests.proof.load import Client


class Diary(Protocol):
    """Writes and syncs nothing, from entering to leaving."""

    written: Written

    def __enter__(self) -> object: ...

    def __exit__(self, *exc: object) -> None: ...


class Session(Protocol):
    """A subject that runs on devices."""

    def client(self) -> Client:
        """A connection for one thread."""
        ...

    def damage(self) -> Sequence[str]:
        """What the subject's own check finds wrong, one sentence each."""
        ...

    def work(self) -> Mapping[str, float]:
        """What it did in the background so far, by name: states of a store that was only appended to prove little."""
        ...

    def freeze(self) -> None:
        """Stop it where it is, so that its state directory can be copied; only asked for by plans that keep state."""
        ...

    def thaw(self) -> None: ...

    def stop(self) -> None:
        """End it; gracefully or not, the recording does not care."""
        ...


@runtime_checkable
class Diarist(Protocol):
    """A session that also has something to write that it does not sync."""

    def diary(self) -> Diary: ...

    def diary_faults(self, written: Written, before_ns: int, after_ns: int) -> Sequence[str]:
        """What is wrong with what a crash between the two moments left of it, one sentence each."""
        ...


class Subject(Protocol):
    def start(self, devices: Sequence[Path], state: Path, *, first: bool) -> Session:
        """Open the devices (`first`: they are empty, format them). Raises if it refuses them. `state` is a directory of its own."""
        ...
