from __future__ import annotations

import dataclasses

import pytest

from element_store.types import DeviceStatus, PoolStatus
from server import doctor
from server.config import NfsSection, Settings
from server.state import StateDirectory

ANY = {"listen": "127.0.0.1:0"}
LIVE = DeviceStatus(0, "a", "live", 100, 10, "")
DEAD = DeviceStatus(1, "b", "dead", 100, 10, "flush failed")
POOL = PoolStatus("u", (1, 1), True, 1, (LIVE, dataclasses.replace(LIVE, index=1)), 100, 10, ())


def levels(findings) -> list[tuple[str, str]]:
    return [(finding.check, finding.level) for finding in findings]


def test_a_healthy_pool_is_ok():
    assert levels(doctor.check_pool(POOL)) == [("pool", "ok")]


@pytest.mark.parametrize(
    ("change", "level", "words"),
    [
        ({"devices": (LIVE, DEAD)}, "error", "device 1 (b) is dead: flush failed"),
        ({"protected": False, "code": (1, 0)}, "warning", "not protected (code 1+0)"),
        ({"bytes_used": 95}, "warning", "95% full"),
    ],
)
def test_a_pool_in_trouble_is_named_with_a_remedy(change, level, words):
    found = [finding for finding in doctor.check_pool(dataclasses.replace(POOL, **change)) if finding.level == level]
    assert words in found[0].message
    assert found[0].remedy


def test_every_problem_has_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "OPEN_FILES_MIN", 1 << 40)
    monkeypatch.setattr(doctor, "MEMORY_BYTES_MIN", 1 << 60)
    monkeypatch.setattr(doctor, "FREE_BYTES_MIN", 1 << 60)
    monkeypatch.setattr(doctor, "FLUSH_SLOW_SECONDS", 0.0)
    monkeypatch.setattr(doctor, "CLOCK_EARLIEST", 1e12)
    monkeypatch.setattr(doctor, "POOL_FULL_SHARE", 0.0)
    findings = doctor.examine(Settings(state=tmp_path, data=[]), StateDirectory(tmp_path), POOL)
    problems = [finding for finding in findings if finding.level != "ok"]
    assert {finding.check for finding in problems} == {"state", "open-files", "memory", "clock", "flush", "pool"}
    assert all(finding.remedy for finding in problems)


@pytest.mark.parametrize(
    ("export", "level"),
    [
        ({}, "ok"),
        ({"clients": ["10.0.0.0/8"]}, "ok"),
        ({"clients": ["0.0.0.0/0"]}, "warning"),
        ({"squash": "none"}, "ok"),
        ({"squash": "none", "clients": ["127.0.0.1", "10.0.0.1"]}, "warning"),
        ({"squash": "none", "clients": ["10.0.0.1"], "access": "ro"}, "ok"),
    ],
)
def test_an_export_that_trusts_too_much_is_named(export, level):
    (finding,) = doctor.check_nfs(NfsSection.model_validate({"export": [{"path": "/a", **export}]}))
    assert (finding.level, bool(finding.remedy)) == (level, level == "warning")


def test_ports_of_nfs_count_where_something_is_exported(tmp_path):
    def checks(nfs) -> set[str]:
        settings = Settings.model_validate({"state": tmp_path, "s3": ANY, "admin": ANY, "nfs": nfs})
        return {finding.check for finding in doctor.check_ports(settings)}

    assert checks({}) == {"s3-port", "admin-port"}
    served = {"export": [{"path": "/"}], "portmapper": ANY["listen"], **ANY}
    assert checks(served) == {"s3-port", "admin-port", "nfs-port", "nfs-portmapper-port"}


def test_flush_probe_leaves_nothing_behind(tmp_path):
    device = tmp_path / "device"
    device.mkdir()
    list(doctor.check_flush_latency(Settings(state=tmp_path, data=[str(device)]), StateDirectory(tmp_path)))
    assert list(device.iterdir()) == []


def test_tls_files_that_do_not_load_are_an_error(tmp_path):
    (tmp_path / "x").write_text("no certificate")
    settings = Settings(state=tmp_path, s3={"certificate": tmp_path / "x", "private_key": tmp_path / "x"})
    assert levels(doctor.check_tls("s3", settings.s3)) == [("s3-tls", "error")]


def test_clear_text_beyond_loopback_is_a_warning():
    assert levels(doctor.check_tls("s3", Settings(s3={"listen": "0.0.0.0:9000"}).s3)) == [("s3-tls", "warning")]
    assert levels(doctor.check_tls("s3", Settings().s3)) == []
