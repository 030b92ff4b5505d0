"""The main job at full size, by stock clients, on a daemon of its own: what the README promises, on real input.

    python -m bench.main_job --work /var/tmp/main-job [--https] [--minio PROGRAM] [--tree DIRECTORY]

Needs about 20 GiB of free space below --work at full size; every size can be made smaller.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from tests.proof import clients
from tests.proof.daemon import Daemon, minio, trefoil

BUCKET = "main-job"
RSS_BYTES_MAX = 512 << 20
DEVICES = 6


def main() -> None:
    options = _options()
    work: Path = options.work
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        _run(options, work)
    except clients.JobFailed as error:
        sys.exit(f"main_job: {error}")
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _run(options: argparse.Namespace, work: Path) -> None:
    devices = [work / f"device-{index}" for index in range(DEVICES)]
    for device in devices:
        device.mkdir()
    tls = clients.make_tls(work / "tls") if options.https else None
    spec = minio(options.minio, devices) if options.minio else trefoil(devices, work / "state", tls=tls)
    daemon, report = Daemon(spec, work / "daemon.log"), clients.JobReport()
    daemon.start()
    try:
        size = clients.make_tree(work / "tree", options.files, options.tree)
        print(f"tree of {options.files} files, {size >> 20} MiB", flush=True)
        clients.sync_tree(spec.endpoint, work / "tree", work, BUCKET, report)
        print(report.sentence(), flush=True)
        clients.make_file(work / "file", options.file_bytes)
        clients.copy_file(spec.endpoint, work / "file", work, BUCKET, report)
        (work / "file").unlink()
        print(report.sentence(), flush=True)
        clients.upload_stream(daemon, options.stream_bytes, BUCKET, report, read_back=not options.no_read_back)
        print(report.sentence(), flush=True)
        # MinIO refuses empty path components.
        keys = [key for key in clients.key_names(options.keys) if not (options.minio and "//" in key)]
        clients.boto(spec.endpoint).create_bucket(Bucket=f"{BUCKET}-keys")
        clients.put_keys(spec.endpoint, f"{BUCKET}-keys", keys, report)
        clients.check_listings(spec.endpoint, f"{BUCKET}-keys", keys, report)
    finally:
        daemon.stop()
    print(report.sentence())
    if report.rss_bytes_max > RSS_BYTES_MAX:
        raise clients.JobFailed(f"resident memory rose to {report.rss_bytes_max >> 20} MiB")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the main job with the AWS CLI and boto3.")
    parser.add_argument("--work", type=Path, required=True, help="scratch directory; removed afterwards")
    parser.add_argument("--https", action="store_true")
    parser.add_argument("--tree", type=Path, action="append", help="take the files from here (repeatable)")
    parser.add_argument("--files", type=int, default=6000)
    parser.add_argument("--file-bytes", type=int, default=2 << 30)
    parser.add_argument("--stream-bytes", type=int, default=10 << 30)
    parser.add_argument("--no-read-back", action="store_true", help="only upload the stream")
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--minio", type=Path, help="run it on this MinIO program instead")
    return parser.parse_args()


if __name__ == "__main__":
    main()
