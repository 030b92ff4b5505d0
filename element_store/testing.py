"""Devices in memory that lose power, rot and fail on command: for tests of what is built on the store."""

from __future__ import annotations

from pathlib import Path

from element_store import Store, _core

LENGTH = 256 * 1024 * 1024
"""Bytes of a device. Only what is written takes memory."""


class MemoryDevices:
    """The drives of one machine, numbered from 0; they outlast the stores that are opened on them, one at a time.

    Raises Invalid for a drive, byte or bit that there is not.
    """

    __slots__ = ("_core",)

    def __init__(self, count: int, length: int = LENGTH) -> None:
        """At most 64."""
        self._core = _core.MemoryDevices(count, length)

    async def open(self, *, state: Path, code: tuple[int, int] | None = None, allow_degraded: bool = False) -> Store:
        """As `Store.open`. Use another `state` for another machine's drives. Raises Refused."""
        return Store(await _core.Store.open_memory(self._core, state, code, allow_degraded))

    def script(self, index: int, text: str) -> None:
        """What goes wrong from now on, in place of an earlier script: steps `OPERATION NTH EFFECT` separated by `;`.

        OPERATION is read, write or flush; NTH counts them from 1, `*` is every one. EFFECT is `fail`, `tear` (half a write, then an error),
        `full`, `lose` (the drive is gone), `lie` (success, but nothing becomes durable), `slow MILLISECONDS` or `flip OFFSET BIT`.
        Raises Invalid for anything else, LimitExceeded beyond 4,096 steps.
        """
        self._core.script(index, text)

    def lose(self, index: int) -> None:
        """Every operation fails until `restore`."""
        self._core.lose(index)

    def restore(self, index: int) -> None:
        self._core.restore(index)

    def wipe(self, index: int) -> None:
        """All content is gone."""
        self._core.wipe(index)

    def flip(self, index: int, offset: int, bit: int) -> None:
        """Bit rot."""
        self._core.flip(index, offset, bit)

    def cut_power(self, *, after: int = 0) -> None:
        """The machine goes down once so many more writes and flushes succeeded; its store then raises Closed, also when it is closed."""
        self._core.cut_power(after)

    def restore_power(self, *, seed: int) -> None:
        """Of what was not flushed, a random part is there: sector by sector, out of order, torn."""
        self._core.restore_power(seed)
