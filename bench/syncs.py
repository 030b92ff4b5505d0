"""What a server makes durable before it acknowledges one PUT: its sync system calls, and files opened with O_DIRECT or O_SYNC, by strace.

Durability is part of a comparison of speed: a server that syncs less is not simply faster.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

from tests.proof.content import content
from tests.proof.daemon import Daemon
from tests.proof.s3 import S3Client

CALLS = "fsync,fdatasync,sync_file_range,sync,syncfs,msync,openat,renameat,renameat2,rename,pwritev2,io_uring_enter"
SIZES = (4096, 64 << 20)
ATTACH_SECONDS = 1.0
_PATTERN = re.compile(r"^\d+\s+(?:<\.\.\. )?(\w+)(?:\(| resumed)(.*)$")


def report(daemon: Daemon, bucket: str, trace: Path) -> str:
    """One paragraph per object size."""
    if shutil.which("strace") is None:
        return f"{daemon.spec.name}: strace is not installed"
    lines = []
    for size in SIZES:
        calls = _traced_put(daemon, bucket, size, trace.with_suffix(f".{size}"))
        found = ", ".join(f"{count} x {name}" for name, count in sorted(calls.items())) or "nothing"
        lines.append(f"{daemon.spec.name}: one PUT of {size} bytes: {found}")
    return "\n".join(lines)


def _traced_put(daemon: Daemon, bucket: str, size: int, trace: Path) -> Counter[str]:
    with S3Client(daemon.spec.endpoint, bucket) as client:
        client.put(f"traced-warm-up-{size}", content("warm-up", 4096))
        tracer = subprocess.Popen(
            ["strace", "-f", "-y", "-s", "200", "-e", f"trace={CALLS}", "-o", str(trace), "-p", str(daemon.pid)], stderr=subprocess.DEVNULL
        )
        try:
            time.sleep(ATTACH_SECONDS)
            client.put(f"traced-{size}", content("traced", size))
        finally:
            tracer.terminate()
            tracer.wait(30)
    return _count(trace)


def _count(trace: Path) -> Counter[str]:
    calls: Counter[str] = Counter()
    for line in trace.read_text(errors="replace").splitlines():
        match = _PATTERN.match(line)
        if match is None or "resumed" in line.split("(")[0]:
            continue
        name, rest = match.groups()
        if name in ("openat",):
            flags = [flag for flag in ("O_DIRECT", "O_DSYNC", "O_SYNC") if flag in rest]
            if not flags or "O_CREAT" not in rest:
                continue
            name = f"file created with {'|'.join(flags)}"
        elif name == "io_uring_enter":
            continue
        calls[name] += 1
    return calls
