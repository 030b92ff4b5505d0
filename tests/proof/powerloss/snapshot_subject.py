"""Snapshots on recorded devices: beside the load, somebody takes, deletes, restores, clones and splits in a view of his own, one step after another.

Each step leaves the whole of that view, of all its snapshots and of its clones in one state, of which the history keeps a copy. What a crash leaves must be
one of them in full: the state after a step that may have been the last. So each step is there before or after, never in part, and what was acknowledged is.
The store's own check must find nothing, whatever background work the crash interrupted.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from element_store import Store
from element_store.snapshots import ALIAS
from element_store.types import Attributes
from tests.proof.files import Written
from tests.proof.powerloss.store_subject import StoreSession, opened

VIEW = "snaps"
KEYS = ("a/one", "a/two", "b/three", "four")
SNAPSHOTS_MAX = 5
CLONES_MAX = 3
SIZE_MAX = 9000
PAUSE_SECONDS = 0.002
KINDS = frozenset({"put", "take", "delete", "clone", "restore", "restore a part", "split", "remove a view"})

Tree = Mapping[str, bytes]
"""Content by key."""


@dataclass(frozen=True)
class State:
    """All of it: trees by the name of their view or snapshot."""

    trees: Mapping[str, Tree] = field(default_factory=dict)
    snapshots: Mapping[str, Tree] = field(default_factory=dict)

    def with_tree(self, view: str, tree: Tree | None) -> State:
        trees = {name: one for name, one in self.trees.items() if name != view}
        return State(trees | ({view: tree} if tree is not None else {}), self.snapshots)

    def with_snapshot(self, name: str, tree: Tree | None) -> State:
        snapshots = {known: one for known, one in self.snapshots.items() if known != name}
        return State(self.trees, snapshots | ({name: tree} if tree is not None else {}))


@dataclass
class Step:
    what: str
    began_ns: int
    state: State
    """After it."""
    ended_ns: int | None = None


@dataclass
class Steps(Written):
    steps: list[Step] = field(default_factory=list)
    """The first is there before anything is recorded."""


class Snapshotter(threading.Thread):
    """`copies_late`, the control: what a snapshot is said to hold is what was there a change later."""

    def __init__(self, session: StoreSession, copies_late: bool) -> None:
        super().__init__(daemon=True, name="snapshotter")
        self._session = session
        self._copies_late = copies_late
        self._chance = random.Random(5)
        self._number = 0
        self._parts: set[str] = set()
        """Snapshots of a directory alone."""
        self.written = Steps()
        self.stopping = threading.Event()

    def __enter__(self) -> Snapshotter:
        self._session.call(self._store.create_view(VIEW, Attributes(mode=0o755)))
        self.written.steps.append(Step("begin", 0, State({VIEW: {}}), 0))
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stopping.set()
        self.join()
        missing = KINDS - {step.what for step in self.written.steps}
        if missing and not self._copies_late:
            self.written.errors.append(f"snapshots: too little to judge anything, nothing of {', '.join(sorted(missing))}")

    @property
    def _store(self) -> Store:
        assert isinstance(self._session.store, Store)
        return self._session.store

    @property
    def _state(self) -> State:
        return self.written.steps[-1].state

    def run(self) -> None:
        try:
            while not self.stopping.wait(PAUSE_SECONDS):
                kinds = (self._put, self._take, self._delete, self._clone, self._restore, self._restore_part, self._split, self._drop)
                self._chance.choices(kinds, (12, 4, 3, 2, 2, 2, 1, 1))[0]()
        except Exception as error:  # What failed in a thread must fail the experiment.
            self.written.errors.append(f"snapshots: {self.written.steps[-1].what}: {type(error).__name__}: {error}")

    def _do(self, what: str, state: State, work: Coroutine[Any, Any, object]) -> None:
        step = Step(what, time.monotonic_ns(), state)
        self.written.steps.append(step)
        self._session.call(work)
        step.ended_ns = time.monotonic_ns()

    def _fresh(self, what: str) -> str:
        self._number += 1
        return f"{what}-{self._number:05}"

    def _put(self) -> None:
        view = self._chance.choice(sorted(self._state.trees))
        key, size = self._chance.choice(KEYS), self._chance.randrange(1, SIZE_MAX)
        data = (self._fresh("content").encode() * (size // 13 + 1))[:size]
        state = self._state.with_tree(view, {**self._state.trees[view], key: data})
        self._do("put", state, self._store.put(view, key.encode(), data, Attributes(mode=0o644)))

    def _take(self) -> None:
        if len(self._state.snapshots) >= SNAPSHOTS_MAX:
            self._delete()
            return
        name = self._fresh("s")
        tree = self._state.trees[VIEW]
        if self._copies_late:
            tree = {**tree, "four": b"never there"}
        self._do("take", self._state.with_snapshot(name, tree), self._store.snapshots.create(f"/{VIEW}".encode(), name))

    def _delete(self) -> None:
        if self._state.snapshots:
            name = self._chance.choice(sorted(self._state.snapshots))
            path = f"/{VIEW}/a" if name in self._parts else f"/{VIEW}"
            self._do("delete", self._state.with_snapshot(name, None), self._store.snapshots.delete(path.encode(), name))

    def _whole(self) -> str | None:
        names = sorted(self._state.snapshots.keys() - self._parts)
        return self._chance.choice(names) if names else None

    def _clone(self) -> None:
        name = self._whole()
        if name is None or len(self._state.trees) > CLONES_MAX:
            return
        view = self._fresh("clone")
        state = self._state.with_tree(view, self._state.snapshots[name])
        self._do("clone", state, self._store.snapshots.clone(f"/{VIEW}".encode(), f"/{view}".encode(), snapshot=name))

    def _restore(self) -> None:
        name = self._whole()
        if name is None or len(self._state.snapshots) >= SNAPSHOTS_MAX:
            return
        undo = self._fresh("undo")
        state = self._state.with_snapshot(undo, self._state.trees[VIEW]).with_tree(VIEW, self._state.snapshots[name])
        self._do("restore", state, self._store.snapshots.restore(f"/{VIEW}".encode(), name, undo=undo))

    def _restore_part(self) -> None:
        name = self._whole()
        below = {key: data for key, data in self._state.snapshots[name].items() if key.startswith("a/")} if name else {}
        now = self._state.trees[VIEW]
        if not name or not below or not any(key.startswith("a/") for key in now) or len(self._state.snapshots) >= SNAPSHOTS_MAX:
            return
        undo = self._fresh("undo")
        self._parts.add(undo)
        beside = {key: data for key, data in now.items() if not key.startswith("a/")}
        kept = {key.removeprefix("a/"): data for key, data in now.items() if key.startswith("a/")}
        state = self._state.with_snapshot(undo, kept).with_tree(VIEW, {**beside, **below})
        self._do("restore a part", state, self._store.snapshots.restore(f"/{VIEW}/a".encode(), name, undo=undo))

    def _clones(self) -> list[str]:
        return sorted(self._state.trees.keys() - {VIEW})

    def _split(self) -> None:
        """Nothing is seen of it; the second time there is nothing to split."""
        for view in self._clones()[:1]:
            if view not in self._parts:
                self._parts.add(view)
                self._do("split", self._state, self._store.snapshots.split(f"/{view}".encode()))

    def _drop(self) -> None:
        """Key by key, then the view."""
        for view in self._clones()[:1]:
            for key in sorted(self._state.trees[view]):
                tree = {known: data for known, data in self._state.trees[view].items() if known != key}
                self._do("remove", self._state.with_tree(view, tree), self._store.delete(view, key.encode()))
            self._do("remove a view", self._state.with_tree(view, None), self._removed(view))

    async def _removed(self, view: str) -> None:
        """With directories that a restore made, which stay when their last key goes."""
        files = self._store.files()

        def clear() -> None:
            root = files.lookup(1, view.encode()).inode
            for name in (b"a", b"b"):
                with suppress(FileNotFoundError):
                    files.remove_directory(root, name)

        await asyncio.to_thread(clear)
        await self._store.delete_view(view)


class SnapshotSession(StoreSession):
    def __init__(self, scrub: bool, copies_late: bool) -> None:
        super().__init__(scrub)
        self._copies_late = copies_late

    def diary(self) -> Snapshotter:
        return Snapshotter(self, self._copies_late)

    def diary_faults(self, written: Written, before_ns: int, after_ns: int) -> Sequence[str]:
        assert isinstance(written, Steps)
        begun = [step for step in written.steps if step.began_ns <= after_ns]
        newest = max(index for index, step in enumerate(begun) if step.ended_ns is not None and step.ended_ns <= before_ns)
        found = self.call(self._seen())
        if any(step.state == found for step in begun[newest:]):
            return []
        if any(step.state == found for step in begun):
            return [f"older: the snapshots are as before {begun[newest].what}"]
        expected = begun[-1].state
        differing = [name for name in {**expected.trees, **found.trees} if expected.trees.get(name) != found.trees.get(name)]
        differing += [
            name for name in {**expected.snapshots, **found.snapshots} if expected.snapshots.get(name) != found.snapshots.get(name)
        ]
        return [f"torn: the snapshots are as after no step; last was {begun[-1].what}; different are {', '.join(sorted(differing))}"]

    async def _seen(self) -> State:
        store = self.store
        assert isinstance(store, Store)
        trees = {
            view.name: await self._tree(view.name) for view in await store.views() if view.name == VIEW or view.name.startswith("clone-")
        }
        snapshots: dict[str, Tree] = {}
        for one in await store.snapshots.list():
            whole = one.path == f"/{VIEW}".encode()
            snapshots[one.name] = await (self._tree(f"{VIEW}{ALIAS}{one.name}") if whole else self._part(one.name))
        return State(trees, snapshots)

    async def _tree(self, view: str) -> Tree:
        assert self.store is not None
        page = await self.store.list(view)
        tree = {}
        for element in page.elements:
            async with await self.store.open(view, element.key) as content:
                tree[element.key.decode()] = b"".join([piece async for piece in content.chunks(0, content.element.size)])
        return tree

    async def _part(self, name: str) -> Tree:
        """A snapshot of a directory has no bucket: it is read from a clone, which is gone before anybody looks again."""
        store, view = self.store, f"read-{name}"
        assert isinstance(store, Store)
        await store.snapshots.clone(f"/{VIEW}/a".encode(), f"/{view}".encode(), snapshot=name)
        tree = await self._tree(view)
        for key in tree:
            await store.delete(view, key.encode())
        await store.delete_view(view)
        return tree

    def damage(self) -> Sequence[str]:
        assert isinstance(self.store, Store)
        found = self.call(self.store.check())
        return [*super().damage(), *found.sentences]


@dataclass(frozen=True)
class SnapshotSubject:
    scrub: bool = True
    copies_late: bool = False

    def start(self, devices: Sequence[Path], state: Path, *, first: bool) -> SnapshotSession:
        return opened(SnapshotSession(self.scrub, self.copies_late), devices, state, first=first)
