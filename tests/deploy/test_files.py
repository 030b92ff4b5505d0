"""What lies in deploy/ is what the daemon is: configuration, dashboard, unit and compose file against the running thing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from server.config import setting_names
from server.config_text import annotated
from tests.server.conftest import ROOT

DEPLOY = ROOT / "deploy"
EXPOSURE_MAX = 2.5
"""`systemd-analyze security` rates 0 (closed) to 10 (open); below 2.5 it says OK."""
GRID_COLUMNS = 24
"""Of a Grafana dashboard."""


def dashboard_panels() -> list[dict[str, Any]]:
    """Without the rows that only head them."""
    dashboard = json.loads((DEPLOY / "grafana/dashboards/trefoil.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\btrefoil_\w+", text))


def labels_by_name(metrics: str) -> dict[str, set[str]]:
    """Names of the samples (not only of the families) and the labels that they carry."""
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


def labels_wanted(target: dict[str, str]) -> set[str]:
    """What a query selects and groups by, and its legend shows."""
    selected = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", target["expr"])
    grouped = [name.strip() for names in re.findall(r"\bby \(([^)]*)\)", target["expr"]) for name in names.split(",")]
    return {*selected, *grouped, *re.findall(r"{{(\w+)}}", target["legendFormat"])}


def absent(target: dict[str, str], labels: dict[str, set[str]]) -> set[str]:
    """Metrics and labels of a dashboard's target that the daemon does not have."""
    names, wanted = names_in(target["expr"]), labels_wanted(target)
    return {name for name in names if name not in labels} | {
        label for label in wanted for name in names if label not in labels.get(name, ())
    }


def test_every_metric_of_the_dashboard_exists(metrics):
    labels = labels_by_name(metrics)
    targets = [target for panel in dashboard_panels() for target in panel["targets"]]
    assert len(set().union(*(names_in(target["expr"]) for target in targets))) > 40
    assert {target["expr"]: missing for target in targets if (missing := absent(target, labels))} == {}


def test_an_absent_metric_or_label_would_be_noticed(metrics):
    labels = labels_by_name(metrics)
    for expression in (
        "rate(trefoil_no_such_total[5m])",
        "sum by (no_such) (trefoil_device_up)",
        'trefoil_device_up{no_such="1"}',
        "trefoil_s3_request_seconds",
    ):
        assert absent({"expr": expression, "legendFormat": ""}, labels), expression
    assert absent({"expr": "trefoil_device_up", "legendFormat": "{{no_such}}"}, labels) == {"no_such"}


def test_every_metric_that_operators_are_told_of_exists(metrics):
    told = names_in((ROOT / "docs/OPERATIONS.md").read_text())
    assert len(told) > 10
    assert told - labels_by_name(metrics).keys() == set()


def test_the_panels_have_places_and_the_provisioned_datasource():
    panels = dashboard_panels()
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]["uid"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source}
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells), "panels overlap"
    assert max(x for x, _ in cells) < GRID_COLUMNS


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
