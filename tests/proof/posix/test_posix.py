"""The judges of the public suites can say no: what they make of bad output and of a broken tree."""

from __future__ import annotations

import os
from pathlib import Path

from tests.proof.posix import fsstress, pjdfstest
from tests.proof.posix.verdict import Verdict


def test_results_are_counted_and_failures_named():
    verdict = pjdfstest.judge(
        "chmod/00.t", "1..4\nok 1\nnot ok 2 - tried 'chmod x', expected 0, got EPERM\nok 3\nnot ok 4 # TODO only here\n"
    )
    assert (verdict.passed, verdict.expected_failures) == (2, 1)
    assert verdict.failures == ["chmod/00.t 2: tried 'chmod x', expected 0, got EPERM"]
    assert not verdict.good
    assert list(pjdfstest.files_failed(verdict)) == ["chmod/00.t"]


def test_missing_results_are_failures():
    assert pjdfstest.judge("a.t", "1..3\nok 1\nok 2\n").failures == ["a.t: 2 results of 3 planned"]
    assert not pjdfstest.judge("a.t", "sh: not found\n").good
    assert pjdfstest.judge("a.t", "1..1\nok 1\n").good


def test_nothing_tried_proves_nothing():
    assert not Verdict("fsx").good


def test_a_whole_tree_has_no_faults(tmp_path: Path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "f").write_text("x")
    os.link(tmp_path / "a" / "f", tmp_path / "g")
    os.mkfifo(tmp_path / "p")
    (tmp_path / "s").symlink_to("nowhere")
    assert list(fsstress.faults(tmp_path)) == []


def test_a_link_that_is_not_listed_is_a_fault(tmp_path: Path):
    (tmp_path / "seen").mkdir()
    (tmp_path / "seen" / "f").write_text("x")
    os.link(tmp_path / "seen" / "f", tmp_path / "g")
    faults = list(fsstress.faults(tmp_path / "seen"))
    assert len(faults) == 1
    assert "2 links, 1 names" in faults[0]
