"""Stock tools other than the AWS CLI and boto3: rclone, restic and s3cmd, as a distribution packages them, with no settings but the address.

Each takes a tree up and back down and must give the same bytes; restic also reads its whole repository back and checks it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.proof.clients import JobFailed, tree_digests
from tests.proof.s3 import REGION, Endpoint

TOOL_SECONDS_MAX = 300.0


def rclone(endpoint: Endpoint, tree: Path, work: Path, bucket: str) -> None:
    """`sync` up, `check` against the tree by hash, `sync` down; then a second sync finds nothing to do and one less file is deleted."""
    names = {"TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": endpoint.url, "REGION": REGION}
    names |= {"ACCESS_KEY_ID": endpoint.access_key, "SECRET_ACCESS_KEY": endpoint.secret_key}
    env = {f"RCLONE_CONFIG_PROOF_{name}": value for name, value in names.items()} | {"RCLONE_CONFIG": os.devnull}
    remote = f"proof:{bucket}/rclone"
    _run("rclone", env, work, "sync", str(tree), remote)
    _run("rclone", env, work, "check", str(tree), remote)
    _run("rclone", env, work, "sync", remote, str(work / "rclone"))
    _compare("rclone", tree, work / "rclone")
    victim = next(path for path in sorted((work / "rclone").rglob("*")) if path.is_file())
    victim.unlink()
    _run("rclone", env, work, "sync", str(work / "rclone"), remote)
    listed = _run("rclone", env, work, "lsf", "-R", "--files-only", remote).splitlines()
    if sorted(listed) != sorted(tree_digests(work / "rclone")):
        raise JobFailed(f"rclone lists {len(listed)} files after a file was deleted")


def restic(endpoint: Endpoint, tree: Path, work: Path, bucket: str) -> None:
    """`init`, two backups, `forget --prune`, `check --read-data`, `restore`."""
    env = {"AWS_ACCESS_KEY_ID": endpoint.access_key, "AWS_SECRET_ACCESS_KEY": endpoint.secret_key, "RESTIC_PASSWORD": "proof"}
    env |= {"RESTIC_REPOSITORY": f"s3:{endpoint.url}/{bucket}/restic", "RESTIC_CACHE_DIR": str(work / "restic-cache")}
    _run("restic", env, tree, "init")
    (work / "restic-first").mkdir()
    (work / "restic-first" / "old").write_bytes(b"forgotten" * 100_000)
    _run("restic", env, work / "restic-first", "backup", ".")
    _run("restic", env, tree, "backup", ".")
    _run("restic", env, tree, "forget", "--keep-last", "1", "--group-by", "host", "--prune")
    _run("restic", env, tree, "check", "--read-data")
    _run("restic", env, tree, "restore", "latest", "--target", str(work / "restic"))
    _compare("restic", tree, work / "restic")


def s3cmd(endpoint: Endpoint, tree: Path, work: Path, bucket: str) -> None:
    """`sync` up and down (it compares MD5 on the way), `put` of a file in parts, `del`."""
    address = f"{endpoint.host}:{endpoint.port}"
    common = [f"--access_key={endpoint.access_key}", f"--secret_key={endpoint.secret_key}", f"--host={address}", f"--host-bucket={address}"]
    common += ["--no-ssl", "--config", os.devnull, "--quiet"]
    remote = f"s3://{bucket}/s3cmd/"
    (work / "s3cmd").mkdir()
    _run("s3cmd", {}, work, *common, "sync", f"{tree}/", remote)
    _run("s3cmd", {}, work, *common, "sync", remote, f"{work / 's3cmd'}/")
    _compare("s3cmd", tree, work / "s3cmd")
    large = work / "s3cmd-large"
    large.write_bytes(os.urandom(12 << 20))
    _run("s3cmd", {}, work, *common, "put", "--multipart-chunk-size-mb=5", str(large), f"s3://{bucket}/large")
    _run("s3cmd", {}, work, *common, "get", f"s3://{bucket}/large", str(work / "s3cmd-back"))
    if large.read_bytes() != (work / "s3cmd-back").read_bytes():
        raise JobFailed("s3cmd: a file put in parts comes back different")
    _run("s3cmd", {}, work, *common, "del", f"s3://{bucket}/large")
    if "large" in _run("s3cmd", {}, work, *common, "ls", f"s3://{bucket}/"):
        raise JobFailed("s3cmd: a deleted file is still listed")


TOOLS: Mapping[str, Callable[[Endpoint, Path, Path, str], None]] = {"rclone": rclone, "restic": restic, "s3cmd": s3cmd}


def _run(program: str, env: Mapping[str, str], directory: Path, *arguments: str) -> str:
    if shutil.which(program) is None:
        raise JobFailed(f"{program} is not installed; run: apt-get install {program}")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RCLONE_", "RESTIC_"))}
    command = [program, *arguments]
    done = subprocess.run(
        command, env=inherited | dict(env), cwd=directory, capture_output=True, text=True, timeout=TOOL_SECONDS_MAX, check=False
    )
    if done.returncode:
        raise JobFailed(f"{program} {' '.join(arguments)}: exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def _compare(program: str, tree: Path, back: Path) -> None:
    sent, received = tree_digests(tree), tree_digests(back)
    if sent != received:
        wrong = sorted(name for name in sent.keys() | received.keys() if sent.get(name) != received.get(name))
        raise JobFailed(f"{program}: {len(wrong)} of {len(sent)} files differ, first {wrong[0]}")
