"""What lies in deploy/ is what the daemon is: configuration, dashboard, unit and compose file against the running thing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from server.config import setting_names
from server.config_text import annotated
from tests.server.conftest import ROOT

DEPLOY = ROOT / "deploy"
EXPOSURE_MAX = 2.5
"""`systemd-analyze security` rates 0 (closed) to 10 (open); below 2.5 it says OK."""


def exposed_names(text: str) -> set[str]:
    """Families with and without samples yet: `# TYPE name kind`, and what a histogram adds."""
    kinds = dict(re.findall(r"(?m)^# TYPE (\S+) (\S+)$", text))
    suffixes = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + suffix for name, kind in kinds.items() for suffix in ("", *suffixes.get(kind, ()))}


def dashboard_names() -> set[str]:
    dashboard = json.loads((DEPLOY / "grafana/dashboards/trefoil.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return {name for expression in expressions for name in re.findall(r"\btrefoil_\w+", expression)}


def test_every_metric_of_the_dashboard_exists(daemon):
    names = dashboard_names()
    assert len(names) > 10
    assert names - exposed_names(httpx.get(f"http://{daemon.admin}/metrics").text) == set()


def test_an_absent_metric_would_be_noticed(daemon):
    assert "trefoil_no_such_total" not in exposed_names(httpx.get(f"http://{daemon.admin}/metrics").text)


def test_the_panels_have_places_and_the_provisioned_datasource():
    dashboard = json.loads((DEPLOY / "grafana/dashboards/trefoil.json").read_text())
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]["uid"]
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source}
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)


def test_the_annotated_configuration_is_the_printed_one():
    assert (DEPLOY / "trefoil.toml").read_text() == annotated(), "trefoil config init > deploy/trefoil.toml"


def test_compose_names_what_exists():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    known = {"TREFOIL_" + "__".join(path).upper() for path in setting_names()} | {"TREFOIL_ROOT_ACCESS_KEY", "TREFOIL_ROOT_SECRET_KEY"}
    assert set(compose["services"]["trefoil"]["environment"]) <= known
    for service in compose["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (ROOT / source).exists(), volume
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_the_image_is_given_settings_that_exist():
    known = {"TREFOIL_" + "__".join(path).upper() for path in setting_names()}
    assert set(re.findall(r"(TREFOIL_\w+)=", (DEPLOY / "Dockerfile").read_text())) <= known


def test_prometheus_scrapes_the_admin_port():
    scrape = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"][0]
    assert scrape["static_configs"][0]["targets"] == ["trefoil:9001"]


needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def unit_to_examine(tmp_path: Path) -> Path:
    """With a program that exists here: `verify` looks for it."""
    unit = tmp_path / "trefoil.service"
    unit.write_text((DEPLOY / "trefoil.service").read_text().replace("/opt/trefoil/bin/trefoil", "/bin/true"))
    return unit


@needs_systemd
def test_the_unit_is_valid(tmp_path):
    command = ["systemd-analyze", "verify", "--man=no", str(unit_to_examine(tmp_path))]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    complaints = [line for line in ended.stderr.splitlines() if "trefoil.service" in line]
    assert (ended.returncode, complaints) == (0, [])


@needs_systemd
def test_the_unit_is_closed(tmp_path):
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        f"--threshold={int(EXPOSURE_MAX * 10)}",
        "--no-pager",
        str(unit_to_examine(tmp_path)),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout[-400:] + ended.stderr


@pytest.mark.skipif(shutil.which("docker") is None, reason="docker compose is not installed")
def test_compose_reads_its_file():
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("docker compose is not installed")
    ended = subprocess.run(
        ["docker", "compose", "-f", str(ROOT / "docker-compose.yml"), "config", "-q"], capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
