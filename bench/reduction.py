"""What reduction makes of a corpus, beside borg, restic and zstd per 32 KiB: ratio of logical bytes that are not zeros to what is kept.

    python -m bench.reduction --corpus DIRECTORY --work SCRATCH [--mode balanced] [--peers] [--together] [--face s3|files|volume [--then FACE]]

Each directory in the corpus is one set, written in order of names through the store's Python API to a pool of its own on one device (`--together`: all
to one pool). With `--face` a whole daemon is written to by S3, by files on its FUSE mount, or as the content of a volume by NVMe/TCP; with `--then`
the same sets once more by another face, and `again` is what that adds, as a share of the first. Ours counts stored chunks and all rows of extents, chunks
and index; parity is left out. Peers (`borg`, `restic`, `zstd` on the PATH) count what their repository takes. Ratios repeat; seconds depend on the machine
and on what else it does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench import faces
from element_store import Store
from element_store.types import Attributes

VIEW = "bench"
INCOMPRESSIBLE = frozenset({"packed", "random", "bf16"})
"""Sets that the geometric mean leaves out: they are there to show that nothing grows."""
PROTOTYPE = {
    "django_tar": 15.97,
    "kernel_ko": 8.30,
    "kernel_src": 10.61,
    "so_wheels": 3.98,
    "vm_ext4": 7.00,
    "pgdata": 6.57,
    "sqlite": 5.04,
    "logs": 4.83,
    "packed": 1.08,
    "random": 1.00,
    "bf16": 1.35,
}
"""Of the prototype that the parameters come from, on its corpus; rows and headers not counted."""
BLOCK_BYTES = 32 << 10
PIECE_BYTES = 1 << 20


def files(directory: Path) -> Sequence[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def nonzero_bytes(directory: Path) -> int:
    """In blocks of 4 KiB, as holes are counted."""
    zero, total = bytes(4096), 0
    for path in files(directory):
        with path.open("rb") as file:
            while block := file.read(4096):
                total += len(block) if block != zero[: len(block)] else 0
    return total


async def ingest(store: Store, directory: Path) -> None:
    attributes = Attributes(uid=0, gid=0, mode=0o644, xattrs={})
    for path in files(directory):
        staged = store.stage()
        with path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                await staged.write(piece)
        digests = await staged.finish()
        await store.publish(VIEW, str(path.relative_to(directory.parent)).encode(), staged, attributes, digests=digests)


async def reduced(store: Store) -> Mapping[str, int]:
    while True:
        found = await store.reduction()
        if not found["landed_bytes"]:
            return found
        await asyncio.sleep(0.2)


async def ours(sets: Sequence[Path], work: Path, mode: str) -> tuple[Mapping[str, int], float, Mapping[str, float]]:
    """What the rows say, seconds of the reducer's thread, and its metrics."""
    shutil.rmtree(work, ignore_errors=True)
    (work / "device").mkdir(parents=True)
    store = await Store.open([str(work / "device")], state=work / "state", reduction=mode)
    try:
        await store.create_view(VIEW, Attributes(uid=0, gid=0, mode=0o755, xattrs={}))
        for directory in sets:
            await ingest(store, directory)
            found = await reduced(store)
        metrics = store.metrics()
        stages = {name: value for name, value in metrics.items() if name.startswith("reduction_stage_seconds_total")}
        return found, sum(stages.values()), metrics
    finally:
        await store.close()
        shutil.rmtree(work, ignore_errors=True)


def by_face(
    sets: Sequence[Path], work: Path, mode: str, face: Sequence[str]
) -> tuple[Mapping[str, int], float, Mapping[str, float], float | None]:
    """As `ours`, of a whole daemon; and what writing the same by another face added, as a share."""
    found = faces.measured(work, mode, face, sets, files)
    kept = [row["stored_bytes"] + row["held_bytes"] for row in found["rows"]]
    again = kept[1] / kept[0] - 1 if len(kept) > 1 else None
    return found["rows"][0], sum(found["stages"].values()), {"reduction_bytes_total": found["bytes"], **found["stages"]}, again


def kept_bytes(repository: Path) -> int:
    return sum(path.stat().st_size for path in files(repository))


def borg(directory: Path, work: Path) -> int:
    run = {"env": {**os.environ, "BORG_BASE_DIR": str(work), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}, "check": True}
    subprocess.run(["borg", "init", "-e", "none", str(work / "repository")], **run)
    subprocess.run(["borg", "create", "-C", "zstd,3", f"{work / 'repository'}::a", str(directory)], **run)
    return kept_bytes(work / "repository" / "data")


def restic(directory: Path, work: Path) -> int:
    run = {
        "env": {**os.environ, "RESTIC_PASSWORD": "bench", "RESTIC_CACHE_DIR": str(work / "cache")},
        "check": True,
        "stdout": subprocess.DEVNULL,
    }
    at = ["restic", "-r", str(work / "repository")]
    subprocess.run([*at, "init", "--repository-version", "2"], **run)
    subprocess.run([*at, "backup", "--compression", "max", str(directory)], **run)
    return kept_bytes(work / "repository" / "data")


def zstd(directory: Path, work: Path) -> int:
    """Each 32 KiB alone, at level 3, by zstd's own benchmark of blocks; zeros are not left out."""
    archive = work / "all"
    with archive.open("wb") as target:
        for path in files(directory):
            with path.open("rb") as source:
                shutil.copyfileobj(source, target)
    found = subprocess.run(["zstd", "-b3", "-e3", "-i0", f"-B{BLOCK_BYTES}", str(archive)], check=True, capture_output=True, text=True)
    return int((found.stdout + found.stderr).split("->")[-1].split("(")[0].strip())


PEERS = {"borg": borg, "restic": restic, "zstd": zstd}


def measured_peers(directory: Path, work: Path) -> Iterator[tuple[str, int]]:
    for name, keep in PEERS.items():
        if shutil.which(name):
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            yield name, keep(directory, work)
            shutil.rmtree(work)


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values)) if values else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Ratios of reduction on a corpus, beside peers.")
    parser.add_argument("--corpus", type=Path, required=True, help="a directory of directories")
    parser.add_argument("--work", type=Path, required=True, help="scratch; emptied")
    parser.add_argument("--mode", default="balanced")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--together", action="store_true", help="all sets in one pool")
    parser.add_argument("--face", choices=sorted(faces.FACES), help="of a whole daemon; the store's own calls otherwise")
    parser.add_argument("--then", choices=sorted(faces.FACES), help="the same once more by another face")
    parser.add_argument("--stages", action="store_true", help="megabytes a second of each stage")
    parser.add_argument("--only", nargs="*", help="names of sets")
    options = parser.parse_args()
    sets = sorted(path for path in options.corpus.iterdir() if path.is_dir() and (not options.only or path.name in options.only))
    rows, means = [], {}
    for group in [sets] if options.together else [[directory] for directory in sets]:
        started = time.monotonic()
        again = None
        if options.face:
            face = [options.face, *([options.then] if options.then else [])]
            found, seconds, metrics, again = by_face(group, options.work / "pool", options.mode, face)
        else:
            found, seconds, metrics = asyncio.run(ours(group, options.work / "pool", options.mode))
        plain = sum(map(nonzero_bytes, group))
        stored = found["stored_bytes"] + found["held_bytes"]
        name = "together" if options.together else group[0].name
        row = {
            "set": name,
            "megabytes": round(found["logical_bytes"] / 1e6, 1),
            "payload": round(plain / stored, 3),
            "ratio": round(plain / (stored + found["row_bytes"]), 3),
            "prototype": PROTOTYPE.get(name),
            "megabytes_per_second": round(metrics["reduction_bytes_total"] / 1e6 / max(seconds, 1e-9), 1),
            "seconds": round(time.monotonic() - started, 1),
            "stored_bytes": stored + found["row_bytes"],
        }
        if again is not None:
            row["again"] = round(again, 4)
        if options.stages:
            row["stages"] = {
                name.split('"')[1]: round(metrics["reduction_bytes_total"] / 1e6 / value)
                for name, value in metrics.items()
                if "stage" in name and value
            }
        if options.peers and not options.together:
            row |= {peer: round(plain / kept, 3) for peer, kept in measured_peers(group[0], options.work / "peer")}
        print(json.dumps(row), flush=True)
        rows.append(row)
    for column in ("ratio", "payload", *PEERS):
        values = [float(row[column]) for row in rows if column in row and row["set"] not in INCOMPRESSIBLE]
        means[column] = round(geometric_mean(values), 3)
    print(json.dumps({"set": "geometric mean", **means}))
    sys.exit(0)


if __name__ == "__main__":
    main()
