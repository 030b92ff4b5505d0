from __future__ import annotations

from protocols.fuse.pyfuse3_engine import known
from protocols.fuse.pyfuse3_engine.known import Known


def test_a_cache_is_kept_only_for_the_version_seen_last():
    table = Known()
    assert not table.opened(5, 1)
    table.closed(5)
    assert table.opened(5, 1)
    table.wrote(5, 2)
    assert table.opened(5, 2)
    assert not table.opened(5, 3), "another face wrote"
    table.wrote(5, 6)
    assert not table.opened(5, 6), "another face wrote between"


def test_a_change_by_others_is_told_once_and_only_of_what_is_open():
    table = Known()
    assert not table.stale(5, 9)
    table.opened(5, 1)
    assert [table.stale(5, version) for version in (1, 2, 2, 3)] == [False, True, False, True]
    table.closed(5)
    table.opened(5, 3)
    table.closed(5)
    assert not table.stale(5, 4), "the next open drops the cache anyway"


def test_it_forgets_what_is_closed_and_keeps_what_is_open(monkeypatch):
    monkeypatch.setattr(known, "INODES_MAX", 10)
    table = Known()
    table.opened(0, 1)
    for inode in range(1, 12):
        table.opened(inode, 1)
        table.closed(inode)
    assert table.open() == [(0, 1)]
    assert table.opened(0, 1)


def test_forgotten_versions_drop_the_cache_once():
    table = Known()
    table.opened(5, 1)
    table.forget_versions()
    assert not table.opened(5, 1)
    assert table.opened(5, 1)
