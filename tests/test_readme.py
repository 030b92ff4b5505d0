"""The README's quick start, word for word, against a demo pool in a temporary directory and on free ports."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.conftest import ROOT, clean_environment, free_address

BUILD_SECONDS = 1500
"""If nothing is built yet, `./up` builds; else it starts within a second or two."""


def code_blocks() -> list[str]:
    text = (ROOT / "README.md").read_text()
    return re.findall(r"```sh\n(.*?)```", text.split("## Quick start")[1].split("\n## ")[0], re.DOTALL)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    addresses = {"TREFOIL_S3__LISTEN": free_address(), "TREFOIL_ADMIN__LISTEN": free_address()}
    path = f"{ROOT / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
    foreign = ("PYTHONPATH", "PYTHONWARNINGS", "RCLONE_")
    kept = {name: value for name, value in clean_environment().items() if not name.startswith(foreign)}
    return kept | addresses | {"UP_DATA_DIR": str(tmp_path / "data"), "PATH": path, "AWS_CONFIG_FILE": "/dev/null", "HOME": str(tmp_path)}


@pytest.fixture
def started(environment, tmp_path) -> Iterator[str]:
    """The daemon as the first block starts it; yields what it prints once it is ready."""
    start = code_blocks()[0].strip()
    rust = {"HOME": os.environ["HOME"]}  # the toolchain is found there
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {start}"], cwd=ROOT, env=environment | rust, stdout=subprocess.PIPE, stderr=log, text=True
        )
        overdue = threading.Timer(BUILD_SECONDS, process.kill)
        overdue.start()
        assert process.stdout
        printed = ""
        for line in process.stdout:
            printed += line
            if "Ctrl-C" in line:
                break
        overdue.cancel()
        assert "Trefoil is ready" in printed, (tmp_path / "log").read_text()
        yield printed
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        process.stdout.close()


def blocks_after_start() -> list[str]:
    """As one shell sees them; without rclone's where rclone is not installed."""
    return [block for block in code_blocks()[1:] if "rclone" not in block or shutil.which("rclone")]


def test_the_quick_start_shows_the_clients_that_people_have():
    text = "".join(code_blocks()[1:])
    assert [client for client in ("aws s3", "boto3", "rclone") if client not in text] == []


@pytest.mark.timeout(BUILD_SECONDS + 300)
def test_the_quick_start_works_as_written(started, environment, tmp_path):
    script = "".join(blocks_after_start()).replace("data/state", str(tmp_path / "data/state"))
    ended = subprocess.run(["bash", "-euc", script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert re.search(r"\d+ docs/README\.md\n", ended.stdout), ended.stdout
    assert "Next: trefoil" in ended.stdout
    assert "b'world'" in ended.stdout
    assert environment["TREFOIL_S3__LISTEN"] in started


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target
