from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from element_store.types import DeviceStatus, PoolStatus
from server.telemetry.collector import StoreCollector, split_name

DEVICES = (DeviceStatus(0, "a", "live", 100, 10, ""), DeviceStatus(1, "b", "dead", 100, 10, "flush failed"))
STATUS = PoolStatus("u", (1, 1), True, 3, DEVICES, 100, 10, ())


class Metered:
    def __init__(self, samples):
        self.samples = samples

    def metrics(self):
        return self.samples


def scrape(samples, status=STATUS) -> dict[tuple[str, tuple], float]:
    registry = CollectorRegistry()
    collector = StoreCollector(Metered(samples))  # type: ignore[arg-type]
    collector.status = status
    registry.register(collector)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for family in families for sample in family.samples}


def test_counters_gauges_and_labels_come_through():
    found = scrape({'device_flushes_total{device="0"}': 5, 'device_flushes_total{device="1"}': 7, "landing_bytes": 3})
    assert found["trefoil_device_flushes_total", (("device", "1"),)] == 7
    assert found["trefoil_landing_bytes", ()] == 3


def test_status_becomes_gauges():
    found = scrape({})
    assert found["trefoil_device_up", (("device", "1"),)] == 0
    assert found["trefoil_pool_devices", (("state", "dead"),)] == 1
    assert found["trefoil_pool_protected", ()] == 1


def test_the_stores_own_figure_wins():
    found = scrape({"pool_used_bytes": 42})
    assert [value for (name, _), value in found.items() if name == "trefoil_pool_used_bytes"] == [42]


def test_without_status_the_store_is_still_scraped():
    assert scrape({"x_total": 1}, status=None) == {("trefoil_x_total", ()): 1}


def test_names_are_split_and_unescaped():
    assert split_name(r'a{b="x\"y",c="\\"}') == ("a", {"b": 'x"y', "c": "\\"})
    with pytest.raises(ValueError, match="not a metric name"):
        split_name("9 lives")
