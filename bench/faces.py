"""A whole daemon that a corpus is written to by one of its faces, for `bench.reduction`: S3, files on the FUSE mount, or a volume by NVMe/TCP."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server.client import AdminClient, connect
from tests.proof.block.host import Host
from tests.proof.daemon import Daemon, free_port, metric_sum, trefoil
from tests.proof.s3 import S3Client

BUCKET = "bench"
VOLUME = f"{BUCKET}/disk"
NQN = "nqn.2014-08.org.nvmexpress:uuid:5a1f3a0c-3f77-4f43-9a0e-3a1b7a1f2d11"
PIECE_BYTES = 128 << 10
ALIGNED_BYTES = 32 << 10
REDUCED_SECONDS_MAX = 1800.0


class Served:
    """A daemon on one device."""

    def __init__(self, work: Path, env: Mapping[str, str]) -> None:
        for name in ("device", "mount"):
            (work / name).mkdir(parents=True)
        self.mount, self.state = work / "mount", work / "state"
        settings = {"TREFOIL_BLOCK__LISTEN": f"127.0.0.1:{free_port()}", "TREFOIL_FILE__MOUNT": str(self.mount), **env}
        self.daemon = Daemon(trefoil([work / "device"], self.state, env=settings), work / "log")
        self.daemon.start()
        with self.s3() as client:
            client.create_bucket()

    @property
    def admin(self) -> AdminClient:
        return connect(self.state, None)

    def s3(self) -> S3Client:
        return S3Client(self.daemon.spec.endpoint, BUCKET)

    def stages(self) -> Mapping[str, float]:
        return {name: value for name, value in self.daemon.metrics().items() if "reduction_stage_seconds_total" in name}

    def reduced(self) -> Mapping[str, int]:
        """What the rows say once nothing waits any more."""
        limit = time.monotonic() + REDUCED_SECONDS_MAX
        while True:
            moved = metric_sum(self.daemon.metrics(), "trefoil_reducer_extents_moved_total")
            time.sleep(1)
            if moved == metric_sum(self.daemon.metrics(), "trefoil_reducer_extents_moved_total"):
                found: Mapping[str, int] = self.admin.get("/api/v1/reduction")
                if not found["landed_bytes"]:
                    return found
            if time.monotonic() > limit:
                raise TimeoutError("the reducer does not get done")


def by_s3(served: Served, root: Path, files: Sequence[Path]) -> None:
    with served.s3() as client:
        for path in files:
            client.put(str(path.relative_to(root.parent)), path.read_bytes())


def by_files(served: Served, root: Path, files: Sequence[Path]) -> None:
    for path in files:
        target = served.mount / BUCKET / "by-files" / path.relative_to(root.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        with path.open("rb") as source, target.open("wb", buffering=0) as written:
            shutil.copyfileobj(source, written, PIECE_BYTES)
            os.fsync(written.fileno())


def by_volume(served: Served, root: Path, files: Sequence[Path]) -> None:
    """One volume for each set, each file from the next multiple of 32 KiB on."""
    places, end = [], 0
    for path in files:
        places.append((end, path))
        end += -(-path.stat().st_size // ALIGNED_BYTES) * ALIGNED_BYTES
    name = f"{VOLUME}-{root.name}"
    served.admin.post("/api/v1/volumes", {"name": name, "size": max(end, ALIGNED_BYTES)})
    served.admin.post("/api/v1/hosts", {"nqn": NQN, "volumes": [name]})
    line = served.admin.get("/api/v1/volumes/connect", name=name)
    with Host(line["address"], line["nqn"], host_nqn=NQN) as host:
        nsid = host.namespaces()[-1]
        for at, path in places:
            _write(host, nsid, at, path)
        host.flush(nsid)
    served.admin.delete("/api/v1/hosts", nqn=NQN)


def _write(host: Host, nsid: int, at: int, path: Path) -> None:
    block = host.namespace(nsid).block_bytes
    with path.open("rb") as source:
        while piece := source.read(PIECE_BYTES):
            padded = piece.ljust(-(-len(piece) // block) * block, b"\0")
            host.write(nsid, at, padded)
            at += len(padded)


FACES: Mapping[str, Callable[[Served, Path, Sequence[Path]], None]] = {"s3": by_s3, "files": by_files, "volume": by_volume}


@contextmanager
def served(work: Path, mode: str, **env: str) -> Iterator[Served]:
    shutil.rmtree(work, ignore_errors=True)
    found = Served(work, {"TREFOIL_REDUCTION__MODE": mode, **env})
    try:
        yield found
    finally:
        found.daemon.stop()
        shutil.rmtree(work, ignore_errors=True)


def measured(work: Path, mode: str, faces: Sequence[str], sets: Sequence[Path], files: Callable[[Path], Sequence[Path]]) -> dict[str, Any]:
    """What one pool keeps of these sets, written by each of the faces in turn; after each face, what the rows say."""
    with served(work, mode) as at:
        rows: list[Mapping[str, int]] = []
        for face in faces:
            for root in sets:
                FACES[face](at, root, files(root))
            rows.append(at.reduced())
        metrics = at.daemon.metrics()
        return {
            "rows": rows,
            "stages": at.stages(),
            "bytes": metric_sum(metrics, "trefoil_reduction_bytes_total"),
            "merged": metric_sum(metrics, "trefoil_reduction_blocks_merged_total"),
            "cpu_seconds": at.daemon.cpu_seconds(),
        }
