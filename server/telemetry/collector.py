"""Turns the store's counters and the pool's status into Prometheus families, at the moment of a scrape.

Owns the names of the `trefoil_pool_*` and `trefoil_device_*` families that come from the status. Never keeps a sample between scrapes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from element_store.interface import ElementStore
from element_store.types import PoolStatus

_NAME = re.compile(r"([a-zA-Z_][a-zA-Z0-9_]*)(?:\{(.*)\})?\Z")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)",?')


def split_name(name: str) -> tuple[str, dict[str, str]]:
    """`a_total{b="c"}` → ("a_total", {"b": "c"}). Raises ValueError on anything else."""
    match = _NAME.match(name)
    if match is None:
        raise ValueError(f"not a metric name: {name!r}")
    labels = {key: re.sub(r"\\(.)", r"\1", value) for key, value in _LABEL.findall(match[2] or "")}
    return match[1], labels


def families(samples: Iterable[tuple[str, float]], help_of: Mapping[str, str]) -> Iterator[Metric]:
    """One family per name; names that end in `_total` are counters, others gauges."""
    grouped: dict[str, list[tuple[dict[str, str], float]]] = {}
    for full_name, value in samples:
        name, labels = split_name(full_name)
        grouped.setdefault(name, []).append((labels, value))
    for name, points in grouped.items():
        label_names = sorted({label for labels, _ in points for label in labels})
        family_class = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        family = family_class(f"trefoil_{name}", help_of.get(name, "Of the element store."), labels=label_names)
        for labels, value in points:
            family.add_metric([labels.get(label, "") for label in label_names], value)
        yield family


HELP = {
    "pool_protected": "1 while as many further devices may be lost as the code promises.",
    "pool_size_bytes": "Usable space, after parity.",
    "pool_used_bytes": "Space in use.",
    "pool_membership_epoch": "Raised by every change of the pool's devices.",
    "pool_devices": "Devices by state.",
    "device_up": "1 while the device is live.",
    "device_size_bytes": "The device's space.",
    "device_used_bytes": "The device's space in use.",
    "snapshot_images": "Spaces that snapshots show: one a snapshot, and one more for each clone inside of what it was taken of.",
    "clones": "Clones and restored views, each reading an origin for what it has not changed.",
    "snapshot_backlog_jobs": "Deleted snapshots, removed or replaced trees and split clones that background work has begun and not ended.",
    "snapshot_backlog_rows": "Rows that it has to look at still; of each job at most a hundred thousand are counted ahead.",
    "snapshot_backlog_bytes": "Content that goes with them, as its elements had it.",
    "snapshot_epoch": "Raised by every snapshot, and by every clone of what lives.",
}
NFS_HELP = {
    "nfs_calls_total": "Calls answered, by procedure; `other` are those of MOUNT, locks and the port mapper.",
    "nfs_call_seconds_total": "Time from a call's arrival to its answer, making it durable included.",
    "nfs_errors_total": "Answers other than OK; `other` are mostly what programs ask for, such as names that are not there.",
    "nfs_read_bytes_total": "Content read.",
    "nfs_write_bytes_total": "Content written.",
    "nfs_repetitions_total": "Calls that came again and were not done again.",
    "nfs_syncs_total": "Times that changes were made durable; several calls share one.",
    "nfs_connections": "Connections of clients.",
    "nfs_connections_refused_total": "Connections beyond a bound.",
    "file_locks_held": "Ranges locked by programs on the mount and by NFS clients.",
    "file_locks_waiting": "Locks that wait for others.",
}
BLOCK_HELP = {
    "volume_size_bytes": "What hosts see.",
    "volume_allocated_bytes": "Of it, what is no hole.",
    "volume_attached": "1 while a host has it attached, and no other face may change it.",
    "volume_operations_total": "Commands of hosts, by what they ask.",
    "volume_operation_errors_total": "Of them, those that failed; a comparison that was not equal is one.",
    "volume_operation_seconds_bucket": "Commands that took at most so long, from when their data had come until the answer.",
    "volume_operation_seconds_count": "Commands that were timed.",
    "volume_operation_seconds_sum": "Time that they took.",
    "volume_read_bytes_total": "Content read by hosts.",
    "volume_write_bytes_total": "Content written by hosts.",
    "nvme_connections": "Connections of hosts: one for each queue.",
    "nvme_controllers": "Hosts that are connected, each as often as it connected.",
    "nvme_connections_total": "Connections since the start.",
    "nvme_connections_refused_total": "Connections beyond a bound.",
    "nvme_protocol_errors_total": "Connections ended because the peer broke the protocol.",
    "nvme_digest_errors_total": "Units whose digest was wrong.",
    "nvme_authentication_failures_total": "Hosts that did not prove who they are.",
    "nvme_hosts_refused_total": "Hosts that may not connect, and tried.",
    "nvme_keep_alive_timeouts_total": "Hosts that fell silent.",
    "nvme_timeouts_total": "Connections that were too slow.",
    "nvme_memory_waits_total": "Commands that waited for memory.",
}
STATES = ("live", "dead", "missing")


def status_samples(status: PoolStatus) -> Iterator[tuple[str, float]]:
    yield "pool_protected", float(status.protected)
    yield "pool_size_bytes", float(status.bytes_total)
    yield "pool_used_bytes", float(status.bytes_used)
    yield "pool_membership_epoch", float(status.membership_epoch)
    for state in STATES:
        yield f'pool_devices{{state="{state}"}}', float(sum(device.state == state for device in status.devices))
    for device in status.devices:
        label = f'{{device="{device.index}"}}'
        yield f"device_up{label}", float(device.state == "live")
        yield f"device_size_bytes{label}", float(device.bytes_total)
        yield f"device_used_bytes{label}", float(device.bytes_used)


class StoreCollector(Collector):
    """`status` must be set just before a scrape: asking for it is asynchronous, collecting is not."""

    def __init__(self, store: ElementStore) -> None:
        self._store = store
        self.status: PoolStatus | None = None

    def collect(self) -> Iterator[Metric]:
        samples = dict(status_samples(self.status)) if self.status else {}
        # The store's own figure wins where it keeps one of the same name.
        own = self._store.metrics()
        names = {split_name(name)[0] for name in own}
        samples = {name: value for name, value in samples.items() if split_name(name)[0] not in names}
        yield from families([*samples.items(), *own.items()], HELP)


class ServerCollector(Collector):
    """Of a native server that counts for itself."""

    def __init__(self, metrics: Callable[[], Mapping[str, float]]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from families(self._metrics().items(), NFS_HELP | BLOCK_HELP)
