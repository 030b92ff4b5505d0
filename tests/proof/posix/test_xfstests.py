"""The reader of xfstests' output can say no, and its excuses are those of the documentation."""

from __future__ import annotations

import re
from pathlib import Path

from tests.proof.posix import xfstests
from tests.proof.posix.xfstests_explained import EXPLAINED

SAID = """\
generic/001         18s
generic/002        [not run] xfs_io fiemap failed
generic/003        - output mismatch (see generic/003.out.bad)
    --- tests/generic/003.out
generic/004        [failed, exit status 1]- output mismatch
generic/005        umount: busy
Ran: generic/001 generic/003 generic/004 generic/005
"""
TESTING = Path(__file__).parents[3] / "docs" / "TESTING.md"


def test_each_line_is_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "generic").mkdir()
    (tmp_path / "generic/003.out.bad").write_text("QA output created by 003\nERROR: no\n\nmore\n")
    done = xfstests.read(tmp_path, SAID)
    assert done.passed == ["generic/001"]
    assert done.not_run == {"generic/002": "xfs_io fiemap failed"}
    assert done.failed == {"generic/003": "ERROR: no | more", "generic/004": "no output", "generic/005": "unclear: umount: busy"}


def test_only_what_is_explained_is_excused_and_no_longer_than_it_fails() -> None:
    done = xfstests.Run(["generic/001", "generic/002"], {"generic/003": "x", "generic/004": "y"}, {})
    verdict = xfstests.judge(done, {"generic/003": "because", "generic/002": "once"})
    assert (verdict.passed, verdict.expected_failures) == (2, 1)
    assert verdict.failures == ["generic/004: y", "generic/002: passes, but is explained: once"]


def test_the_documentation_says_the_same() -> None:
    rows = dict(re.findall(r"^\| (generic/\d+) \| (.+) \|$", TESTING.read_text(), re.MULTILINE))
    assert rows == EXPLAINED
