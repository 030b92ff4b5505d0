"""What the kernel holds of each inode: how often it has it open, and the version of the content that its page cache may show.

The rules are those of the native engine (`engine/src/known.rs`): a page cache is kept at the next open only if the content is of the version that
the kernel saw last; a write through this mount continues that version when it is exactly the next one. What is not open may be forgotten, which
costs one dropped cache; what is open is never. The loop and the thread that tells news use it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

INODES_MAX = 65_536
"""Beyond these, inodes that are not open are forgotten."""


@dataclass(slots=True)
class Held:
    seen: int
    """The highest version that was heard of."""
    whole: bool
    """The kernel's page cache shows that version and no other."""
    opens: int


class Known:
    def __init__(self) -> None:
        self._held: dict[int, Held] = {}
        self._lock = threading.Lock()

    def opened(self, inode: int, version: int) -> bool:
        """Counts an open; whether the kernel's page cache may be kept."""
        with self._lock:
            held = self._held.get(inode) or self._first(inode, version)
            same = held.whole and held.seen == version
            held.seen, held.whole = version, True
            held.opens += 1
            return same

    def _first(self, inode: int, version: int) -> Held:
        if len(self._held) >= INODES_MAX:
            self._held = {each: kept for each, kept in self._held.items() if kept.opens}
        held = self._held[inode] = Held(version, False, 0)
        return held

    def closed(self, inode: int) -> None:
        held = self._held.get(inode)
        if held and held.opens:
            held.opens -= 1

    def wrote(self, inode: int, version: int) -> None:
        """Content was written through this mount, so that the kernel's cache shows it too; `version` is what it has now."""
        held = self._held.get(inode)
        if held:
            held.whole = held.whole and version - held.seen in (0, 1)
            held.seen = max(held.seen, version)

    def stale(self, inode: int, version: int) -> bool:
        """Whether somebody else changed the content of what the kernel has open. Says so once for each change."""
        held = self._held.get(inode)
        if held is None or not held.opens or held.seen >= version:
            return False
        held.seen, held.whole = version, False
        return True

    def forget_versions(self) -> None:
        """Every later open drops the kernel's cache."""
        with self._lock:
            for held in self._held.values():
                held.whole = False

    def open(self) -> list[tuple[int, int]]:
        """What the kernel has open, and how often."""
        with self._lock:
            return [(inode, held.opens) for inode, held in self._held.items() if held.opens]
