"""Dashboard and documents are tested against the real daemon on the real store: only that one has all metrics."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from server.client import connect
from tests.proof.daemon import Daemon, trefoil

DEVICES = 6


@pytest.fixture(scope="package")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`/metrics` of a daemon that exports something, has a volume and has answered one S3 request: a histogram with labels has no sample before."""
    directory = tmp_path_factory.mktemp("real")
    devices = [directory / f"device-{index}" for index in range(DEVICES)]
    for device in devices:
        device.mkdir()
    exported = {"TREFOIL_NFS__LISTEN": "127.0.0.1:0", "TREFOIL_NFS__EXPORT": "/", "TREFOIL_BLOCK__LISTEN": "127.0.0.1:0"}
    daemon = Daemon(trefoil(devices, directory / "state", env=exported), directory / "log")
    daemon.start()
    try:
        endpoint = daemon.spec.endpoint
        connect(directory / "state", None).post("/api/v1/volumes", {"name": "disk", "size": 1 << 20})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://{endpoint.host}:{endpoint.port}/absent", timeout=30)
        refused.value.close()
        with urllib.request.urlopen(f"{daemon.spec.admin_url}/metrics", timeout=30) as answer:
            yield answer.read().decode()
    finally:
        daemon.kill()
