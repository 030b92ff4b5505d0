"""News for the kernel: what another face changed, so that no cache shows what was. What the store tells is heard by a thread too.

The kernel waits for page locks while it drops pages, and those may need an answer from the loop; so news is queued here and told by a thread of
its own. The queue is bounded: when it is full, everything open is dropped from the kernel's cache and every later open drops its own.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable

import pyfuse3

from element_store.files import FileSystem

NEWS_MAX = 65_536
HEAR_SECONDS = 60.0

News = Callable[[], None]


class Invalidations:
    """Where other faces say what they changed, from any thread; never waits for the kernel. Inodes are the store's."""

    def __init__(self, files: FileSystem, outward: Callable[[int], int], overflowed: Callable[[], list[int]]) -> None:
        """`overflowed`: forgets all versions and returns what is open; called on the telling thread."""
        self._files = files
        self._outward = outward
        self._overflowed = overflowed
        self._news: queue.Queue[News | None] = queue.Queue(NEWS_MAX)
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="fuse-news", daemon=True)
        self._thread.start()
        self._ear = threading.Thread(target=self._hear, name="fuse-hear", daemon=True)
        if files.listen():
            # Without news, what others changed shows after a timeout.
            self._ear.start()

    def content(self, inode: int) -> None:
        """The bytes of a file changed, and its attributes with them."""
        self._push(lambda: pyfuse3.invalidate_inode(self._outward(inode)))

    def attributes(self, inode: int) -> None:
        """Mode, owner, links, times or xattrs changed, not the bytes."""
        self._push(lambda: pyfuse3.invalidate_inode(self._outward(inode), attr_only=True))

    def entry(self, directory: int, name: bytes) -> None:
        """A directory's entry came, went or names something else now."""
        self._push(lambda: pyfuse3.invalidate_entry(self._outward(directory), name))

    def close(self, seconds_max: float) -> bool:
        """Whether nothing is being told any more: only then may the session be closed."""
        self._files.stop_listening()
        if self._ear.ident is not None:
            self._ear.join(seconds_max)
        with contextlib.suppress(queue.Empty):
            while True:
                self._news.get_nowait()
        self._lost.clear()
        self._news.put(None)
        self._thread.join(seconds_max)
        return not self._thread.is_alive()

    def _hear(self) -> None:
        """Until `close`."""
        while (heard := self._files.hear(HEAR_SECONDS)) is not None:
            for kind, inode, name in heard[0]:
                self._told(kind, inode, name)
            if heard[1]:
                self._lost.set()
                self._push(lambda: None)

    def _told(self, kind: str, inode: int, name: bytes) -> None:
        if kind == "content":
            self.content(inode)
        elif kind == "attributes":
            self.attributes(inode)
        else:
            self.entry(inode, name)

    def _push(self, news: News) -> None:
        try:
            self._news.put_nowait(news)
        except queue.Full:
            self._lost.set()

    def _tell(self) -> None:
        while news := self._news.get():
            self._say(news)
            if self._lost.is_set():
                self._lost.clear()
                for inode in self._overflowed():
                    number = self._outward(inode)
                    self._say(lambda number=number: pyfuse3.invalidate_inode(number))  # type: ignore[misc]

    def _say(self, news: News) -> None:
        # ENOENT: the kernel does not know it. Anything else: the mount is ending, and its caches with it.
        with contextlib.suppress(OSError):
            news()
