"""The main job by stock clients, at a size for the slow suite. `bench/main_job.py` runs it in full."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.proof import clients
from tests.proof.daemon import Daemon, trefoil

BUCKET = "main-job"
FILES = 400
FILE_BYTES = (96 << 20) + 1
STREAM_BYTES = (768 << 20) + 1
KEYS = 3000
RSS_BYTES_MAX = 512 << 20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_tree_and_a_big_file_come_back_equal(scheme: str, tmp_path: Path, devices: Sequence[Path]) -> None:
    tls = clients.make_tls(tmp_path / "tls") if scheme == "https" else None
    daemon, report = Daemon(trefoil(devices, tmp_path / "state", tls=tls), tmp_path / "daemon.log"), clients.JobReport()
    clients.make_tree(tmp_path / "tree", FILES)
    clients.make_file(tmp_path / "file", FILE_BYTES)
    daemon.start()
    try:
        clients.sync_tree(daemon.spec.endpoint, tmp_path / "tree", tmp_path, BUCKET, report)
        clients.copy_file(daemon.spec.endpoint, tmp_path / "file", tmp_path, BUCKET, report)
    finally:
        daemon.kill()
    print(report.sentence())


def test_a_streamed_multipart_upload_needs_little_memory(daemon: Daemon) -> None:
    """Larger than the bound by half, so that a daemon that keeps the stream in memory fails."""
    report = clients.JobReport()
    daemon.start()
    clients.boto(daemon.spec.endpoint).create_bucket(Bucket=BUCKET)
    clients.upload_stream(daemon, STREAM_BYTES, BUCKET, report)
    print(report.sentence())
    assert 0 < report.rss_bytes_max < RSS_BYTES_MAX


def test_listings_equal_the_model(daemon: Daemon) -> None:
    report, keys = clients.JobReport(), clients.key_names(KEYS)
    daemon.start()
    clients.boto(daemon.spec.endpoint).create_bucket(Bucket=BUCKET)
    clients.put_keys(daemon.spec.endpoint, BUCKET, keys, report)
    clients.check_listings(daemon.spec.endpoint, BUCKET, keys, report)
    print(report.sentence())
