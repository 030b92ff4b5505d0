"""The main job by stock clients, at a size for the slow suite. `bench/main_job.py` runs it in full."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.proof import clients, tools
from tests.proof.daemon import Daemon, trefoil

BUCKET = "main-job"
FILES = 400
TOOL_FILES = 150
FILE_BYTES = (96 << 20) + 1
STREAM_BYTES = (768 << 20) + 1
KEYS = 3000
RSS_BYTES_MAX = 512 << 20
EXPECT_SECONDS_MAX = 20.0

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


@pytest.mark.parametrize("tool", tools.TOOLS)
def test_a_tree_comes_back_equal_by_other_tools(tool: str, daemon: Daemon, tmp_path: Path) -> None:
    clients.make_tree(tmp_path / "tree", TOOL_FILES)
    daemon.start()
    clients.boto(daemon.spec.endpoint).create_bucket(Bucket=BUCKET)
    tools.TOOLS[tool](daemon.spec.endpoint, tmp_path / "tree", tmp_path, BUCKET)


@pytest.mark.parametrize("kind", ["empty", "refused"])
def test_a_client_that_expects_100_continue_is_never_left_waiting(kind: str, daemon: Daemon, tmp_path: Path) -> None:
    """botocore sends `Expect: 100-continue` with every PUT over HTTP, also of an empty body. After a final answer without a 100 it
    misreads the next such answer on the connection, and hangs until its read timeout (60 s); MinIO lets it. So a server must
    send 100 before it accepts even an empty body, and close the connection when it refuses without one.
    """
    daemon.start()
    clients.boto(daemon.spec.endpoint).create_bucket(Bucket=BUCKET)
    began = time.monotonic()
    if kind == "empty":
        tree = tmp_path / "tree"
        tree.mkdir()
        for number in range(60):
            (tree / f"{number:03}").write_bytes(b"content" * (number % 2))
        clients.aws(daemon.spec.endpoint, "s3", "sync", "--cli-read-timeout", "25", str(tree), f"s3://{BUCKET}/tree")
    else:
        client = clients.boto(daemon.spec.endpoint)
        client.put_object(Bucket=BUCKET, Key="taken", Body=b"first")
        for _ in range(3):
            with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
                client.put_object(Bucket=BUCKET, Key="taken", Body=b"second", IfNoneMatch="*")
            client.put_object(Bucket=BUCKET, Key="free", Body=b"third")
        assert client.get_object(Bucket=BUCKET, Key="free")["Body"].read() == b"third"
    assert time.monotonic() - began < EXPECT_SECONDS_MAX


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
