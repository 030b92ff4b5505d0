"""The mixed load: PUT of 0 B to 3 MiB, overwrite, delete, copy, multipart, abort, from several threads.

Each thread owns its keys, so one operation per key is under way at a time; sizes cluster around the bounds where a store changes its way
of keeping data. Seeded: the same seed asks the same operations of each thread.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from tests.proof.content import content, digest
from tests.proof.history import ABSENT, History, Operation

PART_BYTES = 5 << 20
PAUSE_SECONDS_MAX = 120.0
SIZES: Sequence[int] = (0, 1, 100, 4095, 4096, 4097, 20_000, 65_536, 131_071, 131_072, 131_073, 262_144, 700_001, 1 << 20, 3 << 20)
SIZE_WEIGHTS: Sequence[int] = (3, 3, 12, 5, 12, 5, 12, 8, 4, 6, 4, 5, 3, 2, 1)


class Client(Protocol):
    """What the load and the judge need of a store. Calls return when the store acknowledged, and raise otherwise."""

    def put(self, key: str, data: bytes) -> None: ...

    def get(self, key: str) -> bytes | None: ...

    def delete(self, key: str) -> None: ...

    def copy(self, source: str, key: str) -> None: ...

    def multipart(self, key: str, parts: Sequence[bytes], *, complete: bool) -> None:
        """Upload parts and complete, or abort."""
        ...

    def list(self) -> Sequence[tuple[str, int]]:
        """All keys with their sizes, in order."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Mix:
    """Relative frequency of operations, and how many keys each thread owns."""

    put: int = 70
    delete: int = 14
    copy: int = 10
    multipart: int = 2
    abort: int = 1
    keys_per_thread: int = 16
    size_max: int = 3 << 20
    size: int | None = None
    """Of every PUT, instead of sizes by chance."""
    pause_seconds: float = 0.0
    """Rest after each operation; bounds how much the recording grows."""


class Worker(threading.Thread):
    """One thread of the load. Ends when told to, or at an error that `on_error` does not forgive."""

    def __init__(self, number: int, seed: int, mix: Mix, connect: Callable[[], Client], history: History, prefix: str = "") -> None:
        super().__init__(daemon=True, name=f"load-{number}")
        self._chance = random.Random(f"{seed}/{number}")
        self._mix = mix
        self._connect = connect
        self._history = history
        self._keys = [f"{prefix}t{number}/{'deep/' * (index % 3)}k{index:03}" for index in range(mix.keys_per_thread)]
        self._generation = 0
        self._seed = f"{seed}/{number}"
        self.stopping = threading.Event()
        self.forgiven = False
        """While true, a failed operation is not an error (the judge is killing the daemon)."""
        self.gate = threading.Event()
        self.gate.set()
        self.resting = threading.Event()
        """Set while the worker waits at the closed gate: it has nothing under way."""

    def run(self) -> None:
        client: Client | None = None
        while not self.stopping.is_set():
            if self._waited_at_gate():
                # The daemon may have been restarted meanwhile; a connection that it closed is no failure of the next operation.
                _close(client)
                client = None
            try:
                client = client or self._connect()
                self._step(client)
            except Exception as error:
                _close(client)
                client = None
                if not self.forgiven:
                    self._history.errors.append(f"{self.name}: {type(error).__name__}: {error}")
                    break
                self.stopping.wait(0.05)
            if self._mix.pause_seconds:
                self.stopping.wait(self._mix.pause_seconds)
        self.resting.set()
        _close(client)

    def _waited_at_gate(self) -> bool:
        if self.gate.is_set():
            return False
        self.resting.set()
        self.gate.wait()
        return True

    def _step(self, client: Client) -> None:
        mix = self._mix
        kind = self._chance.choices(
            ("put", "delete", "copy", "multipart", "abort"), (mix.put, mix.delete, mix.copy, mix.multipart, mix.abort)
        )[0]
        key = self._chance.choice(self._keys)
        self._generation += 1
        tag = f"{self._seed}/{key}/{self._generation}"
        {"put": self._do_put, "delete": self._do_delete, "copy": self._do_copy, "multipart": self._do_multipart, "abort": self._do_abort}[
            kind
        ](client, key, tag)

    def _do_put(self, client: Client, key: str, tag: str) -> None:
        chosen = min(self._chance.choices(SIZES, SIZE_WEIGHTS)[0], self._mix.size_max) if self._mix.size is None else self._mix.size
        data = content(tag, chosen)
        with self._history.operation(key, "put", digest(data), len(data)):
            client.put(key, data)

    def _do_delete(self, client: Client, key: str, tag: str) -> None:
        with self._history.operation(key, "delete", ABSENT, 0):
            client.delete(key)

    def _do_copy(self, client: Client, key: str, tag: str) -> None:
        source = self._chance.choice(self._keys)
        state = self._settled(source)
        if source == key or state is None or state.state == ABSENT:
            self._do_put(client, key, tag)
            return
        with self._history.operation(key, "copy", state.state, state.size):
            client.copy(source, key)

    def _do_multipart(self, client: Client, key: str, tag: str) -> None:
        parts = self._parts(tag)
        whole = b"".join(parts)
        with self._history.operation(key, "multipart", digest(whole), len(whole)):
            client.multipart(key, parts, complete=True)

    def _do_abort(self, client: Client, key: str, tag: str) -> None:
        client.multipart(key, self._parts(tag)[-1:], complete=False)

    def _parts(self, tag: str) -> list[bytes]:
        return [content(f"{tag}/1", PART_BYTES), content(f"{tag}/2", self._chance.choice((1, 4096, 300_000)))]

    def _settled(self, key: str) -> Operation | None:
        """The key's state if it is certain: its newest operation was acknowledged."""
        last = self._history.last_state(key)
        return last if last is not None and last.acknowledged_ns is not None else None


class Load:
    """Several workers over one history. A context manager: leaving it stops them."""

    def __init__(
        self, connect: Callable[[], Client], *, threads: int, seed: int, mix: Mix, history: History | None = None, prefix: str = ""
    ) -> None:
        self.history = history if history is not None else History()
        self.workers = [Worker(number, seed, mix, connect, self.history, prefix) for number in range(threads)]

    def __enter__(self) -> Self:
        for worker in self.workers:
            worker.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self.workers:
            worker.stopping.set()
            worker.gate.set()
        for worker in self.workers:
            worker.join(PAUSE_SECONDS_MAX)

    def forgive(self, forgiven: bool) -> None:
        """Whether failed operations are expected from now on."""
        for worker in self.workers:
            worker.forgiven = forgiven

    def pause(self) -> None:
        """Close the gate and wait until no operation is under way."""
        for worker in self.workers:
            worker.gate.clear()
        for worker in self.workers:
            if worker.is_alive():
                worker.resting.wait(PAUSE_SECONDS_MAX)

    def resume(self) -> None:
        for worker in self.workers:
            # Cleared here and not by the worker: a pause right after this must not take its earlier rest for a new one.
            if worker.is_alive():
                worker.resting.clear()
            worker.gate.set()

    def run_for(self, seconds: float) -> None:
        """Let it run; returns early when every worker has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and any(worker.is_alive() for worker in self.workers):
            time.sleep(min(0.1, max(0.0, deadline - time.monotonic())))


def _close(client: Client | None) -> None:
    if client is not None:
        try:
            client.close()
        except Exception:
            # The connection is broken already; what matters was recorded by the operation.
            return
