"""The diary's judge must find what it is for, and nothing in what is right."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.proof.files import DIARY, DURABLE_NS, Diary, FileClient, Written, judge_diary

ENTRIES = 60


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Written]:
    root = tmp_path_factory.mktemp("diary")
    with Diary(root) as diary:
        while len(diary.written.entries) < ENTRIES:
            diary.join(0.05)
    assert diary.written.errors == []
    return root, diary.written


@pytest.fixture
def root(original: tuple[Path, Written], tmp_path: Path) -> Path:
    shutil.copytree(original[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_what_was_written_is_faultless_in_whole_and_up_to_any_entry(original: tuple[Path, Written], root: Path) -> None:
    _, written = original
    assert judge_diary(root, written) == []
    index = root / DIARY / "index"
    for left in (40, 17, 0):
        index.write_bytes(index.read_bytes()[: left * 7])
        for path in (root / DIARY).rglob("0*"):
            # The next entry's file is there already: its line is what was lost.
            if path.is_file() and int(path.name) > left:
                path.unlink()
        cut = written.entries[left].began_ns
        assert judge_diary(root, written, cut, written.entries[-1].began_ns) == []


def _lose_old(diary: Path) -> None:
    (diary / "index").write_bytes(b"")


def _lose_middle(diary: Path) -> None:
    (diary / "0000" / "000020").unlink()


def _tear(diary: Path) -> None:
    path = diary / "0000" / "000004"
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def _swap_lines(diary: Path) -> None:
    lines = (diary / "index").read_bytes().splitlines(keepends=True)
    lines[3], lines[4] = lines[4], lines[3]
    (diary / "index").write_bytes(b"".join(lines))


def _keep_late_files(diary: Path) -> None:
    (diary / "index").write_bytes((diary / "index").read_bytes()[: 7 * 30])


@pytest.mark.parametrize("harm", [_lose_old, _lose_middle, _tear, _swap_lines, _keep_late_files])
def test_what_a_crash_must_not_leave_is_found(original: tuple[Path, Written], root: Path, harm: Callable[[Path], None]) -> None:
    harm(root / DIARY)
    end = original[1].entries[-1].began_ns + DURABLE_NS
    assert judge_diary(root, original[1], end + DURABLE_NS, end + DURABLE_NS)


def test_a_client_of_files_keeps_what_it_says(tmp_path: Path) -> None:
    client = FileClient(tmp_path)
    client.put("a/b", b"one")
    client.copy("a/b", "c")
    client.multipart("d", [b"x" * 10, b"y"], complete=True)
    client.multipart("e", [b"x" * 10, b"y"], complete=False)
    client.put("a/b", b"another")
    assert (client.get("a/b"), client.get("c"), client.get("d"), client.get("e")) == (b"another", b"one", b"x" * 10 + b"y", None)
    assert client.list() == [("a/b", 7), ("c", 3), ("d", 11)]
    client.delete("a/b")
    client.delete("never")
    assert client.list() == [("c", 3), ("d", 11)]
