"""bench/files.py: its load generator does what its cases say, and its table compares within rounds."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.file_cases import MOUNT_CASES, NFS_CASES, SMALL, STREAM_BLOCK, Case
from bench.files import Sample, table

SOURCE = Path(__file__).parents[2] / "bench/fileload/fileload.c"


@pytest.fixture(scope="module")
def fileload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("fileload") / "fileload"
    subprocess.run(["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", program, SOURCE], check=True)
    return program


def run(program: Path, operation: str, at: Path, **options: str | float) -> dict[str, Any]:
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    found: dict[str, Any] = json.loads(subprocess.run([program, operation, at, *words], check=True, capture_output=True, text=True).stdout)
    return found


def test_content_is_written_and_read_as_often_as_is_said(fileload: Path, tmp_path: Path) -> None:
    sizes = {"bytes": 4 << 20, "block": 1 << 20, "threads": 2}
    for operation in ("write", "read"):
        found = run(fileload, operation, tmp_path, **sizes)
        assert (found["operations"], found["bytes"]) == (8, 8 << 20)
    contents = [(tmp_path / f"load-{thread}").read_bytes() for thread in range(2)]
    assert [len(content) for content in contents] == [4 << 20] * 2
    # Each of another content, of which nothing repeats.
    assert len({content[at : at + SMALL] for content in contents for at in range(0, len(content), SMALL)}) == 2 << 10
    for operation in ("random-read", "random-write"):
        assert run(fileload, operation, tmp_path, bytes=4 << 20, seconds=0.01, sync="each")["operations"] > 0
    assert (tmp_path / "load-0").stat().st_size == 4 << 20


def test_names_are_made_looked_at_and_removed(fileload: Path, tmp_path: Path) -> None:
    sizes = {"count": 50, "threads": 2, "bytes": 100}
    directory = tmp_path / "load-names-1"
    for operation, expected in (("create", 100), ("stat", 100), ("read-small", 100), ("rename", 200), ("list", 104)):
        assert run(fileload, operation, tmp_path, **sizes)["operations"] == expected
        assert {path.stat().st_size for path in directory.iterdir()} == {100} and len(list(directory.iterdir())) == 50
    assert run(fileload, "unlink", tmp_path, **sizes)["operations"] == 100
    assert list(directory.iterdir()) == []


def test_what_fails_ends_it_with_a_sentence(fileload: Path, tmp_path: Path) -> None:
    for words in (["read", tmp_path], ["nothing", tmp_path], ["write", tmp_path, "--threads", "0"], ["write"]):
        ended = subprocess.run([fileload, *words], capture_output=True, text=True, check=False)
        assert ended.returncode == 1
        assert ended.stderr.startswith("fileload: ") and ended.stderr.count("\n") == 1


def sample(system: str, number: int, per_second: float) -> Sample:
    return Sample(system, "a case", number, 100, per_second, 10.0 * (number + 1), 1.0, 2.0)


def test_ratios_are_of_one_round() -> None:
    # In the second round the machine did something else half of the time.
    samples = [sample("ours", 0, 100), sample("theirs", 0, 50), sample("ours", 1, 40), sample("theirs", 1, 20)]
    samples += [sample("ours", 2, 90), sample("theirs", 2, 100)]
    lines = "\n".join(table([Case("a case", "stat")], samples))
    assert "ours/theirs 2.00x" in lines
    assert "CPU     20.0 us/op" in lines


def test_every_case_can_be_told_to_the_generator(fileload: Path, tmp_path: Path) -> None:
    for cases in (MOUNT_CASES, NFS_CASES):
        assert len({case.name for case in cases}) == len(cases)
    for case in {case.operation: case for case in [*MOUNT_CASES, *NFS_CASES]}.values():
        place = tmp_path / case.operation
        place.mkdir()
        size = min(case.bytes, STREAM_BLOCK)
        if case.operation in ("random-read", "random-write", "read"):
            run(fileload, "write", place, name="case", bytes=size)
        elif case.operation not in ("write", "create"):
            run(fileload, "create", place, name="case", count=5, threads=case.threads, bytes=size)
        # What comes last counts: smaller, but with the words of the case.
        words = [*case.arguments(0), "--name", "case", "--bytes", str(size), "--count", "5", "--seconds", "0.01"]
        subprocess.run([fileload, case.operation, place, *words], check=True, capture_output=True)
