"""A daemon with a mount, and buckets on it to be judged."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.proof.daemon import Daemon, trefoil
from tests.proof.s3 import S3Client
from tests.proof.same_bytes.faces import FilesFace, S3Face
from tests.proof.same_bytes.run import Subject

DEVICES = 6


@contextmanager
def subjects(directory: Path) -> Iterator[Callable[[str], Subject]]:
    """Makes a bucket of the name. Needs root or fusermount3, and /dev/fuse."""
    mountpoint, devices = directory / "mount", [directory / f"device-{index}" for index in range(DEVICES)]
    for path in (mountpoint, *devices):
        path.mkdir(parents=True)
    daemon = Daemon(trefoil(devices, directory / "state", env={"TREFOIL_FILE__MOUNT": str(mountpoint)}), directory / "daemon.log")
    clients: list[S3Client] = []

    def subject(bucket: str) -> Subject:
        client = S3Client(daemon.spec.endpoint, bucket)
        clients.append(client)
        client.create_bucket()
        return Subject(S3Face(client), [FilesFace(mountpoint / bucket)])

    daemon.start()
    try:
        yield subject
    finally:
        for client in clients:
            client.close()
        daemon.kill()
        subprocess.run(["umount", "--lazy", mountpoint], stderr=subprocess.DEVNULL, check=False)
