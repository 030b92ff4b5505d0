"""What snapshots and clones cost: taking one of few and of many elements, cloning, overwriting under none and under many.

    python -m bench.snapshots [--elements 1,1000,100000] [--work DIRECTORY]

Everything runs in one store on four files, through the Python API, in interleaved rounds; figures are medians. Bytes are those that the journal took
for it (rows, as the store counts them), so they do not depend on the machine. Overwriting writes 4 KiB objects under so many snapshots, each taken
after every object was overwritten once, and prints the time of one overwrite beside that without snapshots in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from element_store import Store
from element_store.types import Attributes

DEVICE_BYTES = 4 << 30
ROUNDS = 15
SNAPSHOTS = (0, 1, 10, 100)
OVERWRITTEN = 200
CONTENT = os.urandom(4096)
ATTRIBUTES = Attributes(mode=0o644)
THIN_BYTES = 100 << 30


async def fill(store: Store, view: str, count: int) -> None:
    await store.create_view(view, Attributes(mode=0o755))
    for first in range(0, count, 500):
        keys = [f"{number // 1000:04}/{number:08}".encode() for number in range(first, min(first + 500, count))]
        await asyncio.gather(*(store.put(view, key, b"x", ATTRIBUTES) for key in keys))


def row_bytes(store: Store) -> float:
    return store.metrics()["commit_row_bytes_total"]


async def measured(store: Store, work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """(milliseconds, bytes of rows)."""
    before, start = row_bytes(store), time.perf_counter()
    await work()
    return (time.perf_counter() - start) * 1e3, row_bytes(store) - before


def shown(what: str, figures: Sequence[tuple[float, float]]) -> None:
    times, sizes = zip(*figures, strict=True)
    print(f"{what:72} {statistics.median(times):8.2f} ms {statistics.median(sizes):10.0f} B", flush=True)


async def creation(store: Store, counts: Sequence[int]) -> None:
    views = {count: f"elements-{count}" for count in counts}
    for count, view in views.items():
        await fill(store, view, count)
    taken: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    cloned: dict[int, list[tuple[float, float]]] = {count: [] for count in counts}
    for number in range(ROUNDS):
        for count, view in views.items():
            path, name = f"/{view}".encode(), f"s-{number}"
            taken[count].append(await measured(store, lambda path=path, name=name: store.snapshots.create(path, name)))
            target = f"/clone-{count}-{number}".encode()
            cloned[count].append(
                await measured(store, lambda path=path, name=name, target=target: store.snapshots.clone(path, target, snapshot=name))
            )
    for count in counts:
        shown(f"snapshot of a bucket with {count} keys", taken[count])
    for count in counts:
        shown(f"clone of a bucket with {count} keys", cloned[count])


async def thin(store: Store) -> None:
    await store.create_view("thin", Attributes(mode=0o755))
    files = store.files()
    directory = files.lookup(1, b"thin").inode
    volume = files.create(directory, b"volume", 0o100644, 0, 0, 0).inode
    files.change(volume, size=THIN_BYTES)
    figures = []
    for number in range(ROUNDS):
        target = f"/thin/clone-{number}".encode()
        figures.append(await measured(store, lambda target=target: store.snapshots.clone(b"/thin/volume", target)))
    shown(f"clone of a thin file of {THIN_BYTES >> 30} GiB", figures)


async def overwriting(store: Store) -> None:
    keys = [f"{number:05}".encode() for number in range(OVERWRITTEN)]
    base = base_bytes = 0.0
    for wanted in SNAPSHOTS:
        view = f"overwritten-{wanted}"
        await store.create_view(view, Attributes(mode=0o755))
        figures = []
        rounds = max(wanted, 3)
        for number in range(rounds):
            for key in keys:
                await store.put(view, key, CONTENT, ATTRIBUTES)
            if number >= rounds - wanted:
                await store.snapshots.create(f"/{view}".encode(), f"s-{number:04}")
        for key in keys:
            figures.append(await measured(store, lambda view=view, key=key: store.put(view, key, CONTENT, ATTRIBUTES)))
        milliseconds, size = (statistics.median(column) for column in zip(*figures, strict=True))
        base, base_bytes = base or milliseconds, base_bytes or size
        shown(f"first overwrite of 4 KiB under {wanted} snapshots ({milliseconds / base:.2f}x, {size / base_bytes:.2f}x rows)", figures)


async def idle(store: Store) -> None:
    """Background work is done."""
    while True:
        if not await store.snapshots.backlog():
            return
        await asyncio.sleep(0.02)


async def deletion(store: Store) -> None:
    """Against rows that died since: each overwrite leaves some."""
    for count in (100, 1000, 10_000):
        view = f"deleted-{count}"
        await fill(store, view, count)
        await store.snapshots.create(f"/{view}".encode(), "s")
        for first in range(0, count, 500):
            keys = [f"{number // 1000:04}/{number:08}".encode() for number in range(first, min(first + 500, count))]
            await asyncio.gather(*(store.put(view, key, b"y", ATTRIBUTES) for key in keys))
        await idle(store)
        before, start = row_bytes(store), time.perf_counter()
        await store.snapshots.delete(f"/{view}".encode(), "s")
        answered = time.perf_counter() - start
        dead = sum(job.rows for job in await store.snapshots.backlog())
        await idle(store)
        print(
            f"deletion after {count} overwrites, {dead} rows of history: answered in {answered * 1e3:.1f} ms, freed in "
            f"{time.perf_counter() - start:.2f} s, {row_bytes(store) - before:.0f} B of rows",
            flush=True,
        )


async def run(work: Path, counts: Sequence[int]) -> None:
    devices = [work / f"device-{number}" for number in range(4)]
    for device in devices:
        device.touch()
        os.truncate(device, DEVICE_BYTES)
    store = await Store.open([str(device) for device in devices], state=work / "state")
    try:
        await creation(store, counts)
        await thin(store)
        await overwriting(store)
        await deletion(store)
    finally:
        await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--elements", default="1,1000,100000", help="how many keys the buckets have")
    parser.add_argument("--work", type=Path, help="a directory for the pool; default: a temporary one")
    given = parser.parse_args()
    counts = [int(count) for count in given.elements.split(",")]
    with tempfile.TemporaryDirectory(dir=given.work) as work:
        asyncio.run(run(Path(work), counts))


if __name__ == "__main__":
    main()
