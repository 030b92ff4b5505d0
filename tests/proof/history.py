"""What was asked and what was acknowledged, per key, and what a store may therefore hold at a moment.

One operation per key is under way at a time. Let `a` be the last operation on a key that was acknowledged by `before`, and `s` the last
one that began by `after`: the store may show the key as any of the operations a..s left it, and in no other state. An operation that
failed without an answer counts as begun and never acknowledged.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

ABSENT = "absent"


@dataclass(slots=True)
class Operation:
    """One change of one key. `state`: the content's SHA-256 that it leaves, or `ABSENT`."""

    kind: str
    state: str
    size: int
    began_ns: int
    acknowledged_ns: int | None = None


@dataclass
class History:
    """Operations of all keys, in the order in which each key saw them."""

    keys: dict[str, list[Operation]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __getstate__(self) -> tuple[dict[str, list[Operation]], list[str]]:
        return self.keys, self.errors

    def __setstate__(self, state: tuple[dict[str, list[Operation]], list[str]]) -> None:
        self.keys, self.errors = state
        self._lock = threading.Lock()

    @contextmanager
    def operation(self, key: str, kind: str, state: str, size: int) -> Iterator[None]:
        """Record an operation around the call that performs it; acknowledged when the call returns."""
        entry = Operation(kind, state, size, time.monotonic_ns())
        with self._lock:
            self.keys.setdefault(key, []).append(entry)
        yield
        entry.acknowledged_ns = time.monotonic_ns()

    def observe(self, key: str, state: str, size: int) -> None:
        """A judge saw the key in this state while nothing was under way: from now on it may not change by itself."""
        now = time.monotonic_ns()
        with self._lock:
            self.keys[key].append(Operation("observed", state, size, now, now))

    def acknowledged(self, before_ns: int | None = None) -> int:
        """Changes acknowledged by `before_ns` (or at all)."""
        return sum(1 for ops in self.keys.values() for op in ops if op.kind != "observed" and _acknowledged(op, before_ns))

    def allowed(self, key: str, before_ns: int | None = None, after_ns: int | None = None) -> Mapping[str, Operation | None]:
        """States that the key may be in, each with the operation that leads to it; None stands for 'never written'."""
        allowed: dict[str, Operation | None] = {ABSENT: None}
        for operation in self.keys.get(key, []):
            if after_ns is not None and operation.began_ns > after_ns:
                break
            if _acknowledged(operation, before_ns):
                allowed = {}
            allowed[operation.state] = operation
        return allowed

    def known_states(self) -> Mapping[str, str]:
        """Every content ever written, with the key it was written to: tells old content from torn content."""
        return {op.state: key for key, ops in self.keys.items() for op in ops if op.state != ABSENT}

    def last_state(self, key: str) -> Operation | None:
        ops = self.keys.get(key)
        return ops[-1] if ops else None


def _acknowledged(operation: Operation, before_ns: int | None) -> bool:
    return operation.acknowledged_ns is not None and (before_ns is None or operation.acknowledged_ns <= before_ns)
