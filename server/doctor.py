"""Looks at the machine and the pool for what will hurt, and says what to do about it.

Each check is one function that returns findings; none changes anything but unnamed temporary files. Runs inside the daemon (with the pool's status) or
before it starts (without). Bounds: a probe of flush latency writes `FLUSHES` blocks per directory.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from element_store.types import PoolStatus
from protocols.block.nvmet import Nvmet, NvmetError
from server.config import BlockSection, NfsSection, Settings, TlsSection, address_parts
from server.errors import UserError
from server.listen import bind_tcp
from server.state import StateDirectory
from server.store import is_block_device

FLUSHES = 8
FLUSH_BYTES = 4096
FLUSH_SLOW_SECONDS = 0.025
"""A drive with power-loss protection flushes in well under 1 ms, a disk in about 10."""
FREE_BYTES_MIN = 1 << 30
MEMORY_BYTES_MIN = 1 << 30
POOL_FULL_SHARE = 0.9
OPEN_FILES_MIN = 4096
CERTIFICATE_DAYS_MIN = 14
CLOCK_EARLIEST = 1_767_225_600.0
"""2026-01-01: this version did not exist earlier."""
TIME_ERROR = 5
"""adjtimex(2): the kernel's clock is not disciplined by anything."""

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    level: Level
    message: str
    remedy: str = ""


def examine(settings: Settings, state: StateDirectory, pool: PoolStatus | None) -> list[Finding]:
    """All checks. `pool` is None while no daemon runs."""
    findings = [*check_state(state), *check_open_files(), *check_memory(), *check_clock()]
    findings += [*check_tls("s3", settings.s3), *check_tls("admin", settings.admin), *check_nfs(settings.nfs), *check_block(settings.block)]
    if pool is None:
        findings += [*check_ports(settings), *check_devices(settings)]
    else:
        findings += [*check_pool(pool)]
    findings += check_flush_latency(settings, state)
    return findings


def check_state(state: StateDirectory) -> Iterator[Finding]:
    path = next(parent for parent in (state.path, *state.path.absolute().parents) if parent.exists())
    if not os.access(path, os.W_OK | os.X_OK):
        yield Finding("state", "error", f"{path} is not writable", f"give it to the daemon's user: chown USER {path}, or set `state`")
        return
    free = shutil.disk_usage(path).free
    if free < FREE_BYTES_MIN:
        yield Finding(
            "state", "warning", f"{path} has {free >> 20} MiB left", "free some space, or move `state`: metadata tables live there"
        )
    else:
        yield Finding("state", "ok", f"{path} is writable, {free >> 30} GiB free")


def check_open_files() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES_MIN:
        yield Finding(
            "open-files", "warning", f"at most {soft} open files", f"ulimit -n {min(hard, 65536)}, or LimitNOFILE= in the systemd unit"
        )
    else:
        yield Finding("open-files", "ok", f"at most {soft} open files")


def check_memory() -> Iterator[Finding]:
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")) << 10
        if available < MEMORY_BYTES_MIN:
            yield Finding("memory", "warning", f"{available >> 20} MiB available", "free some memory: the daemon needs about 512 MiB")
        else:
            yield Finding("memory", "ok", f"{available >> 20} MiB available")


def check_clock() -> Iterator[Finding]:
    if time.time() < CLOCK_EARLIEST:
        yield Finding("clock", "error", "the clock is in the past", "set it: S3 clients and servers must agree within 15 minutes")
    elif (clock_state := _clock_state()) < 0:
        yield Finding("clock", "ok", "set; whether something keeps it right cannot be seen from here")
    elif clock_state == TIME_ERROR:
        yield Finding(
            "clock", "warning", "nothing keeps the clock right", "enable systemd-timesyncd or chrony: signatures fail at 15 minutes off"
        )
    else:
        yield Finding("clock", "ok", "synchronised")


def check_tls(name: str, section: TlsSection) -> Iterator[Finding]:
    address: str = getattr(section, "listen")  # noqa: B009  only the sections of endpoints come here
    if section.certificate is None or section.private_key is None:
        if not _is_loopback(address):
            yield Finding(
                f"{name}-tls", "warning", f"{name} listens on {address} in clear", f"set {name}.certificate and {name}.private_key"
            )
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(section.certificate, section.private_key)
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or str(error)
        yield Finding(f"{name}-tls", "error", f"{section.certificate}: {reason}", "the daemon's user must read both files, and the key fit")
        return
    if _expires_soon(section.certificate):
        message = f"{section.certificate} expires in less than {CERTIFICATE_DAYS_MIN} days"
        yield Finding(f"{name}-tls", "warning", message, "renew it, then send the daemon SIGHUP")
    else:
        yield Finding(f"{name}-tls", "ok", f"{section.certificate} can be used")


def check_nfs(nfs: NfsSection) -> Iterator[Finding]:
    """Who could do what: NFS knows users by what clients say."""
    for export in nfs.export:
        wide = [client for client in export.clients if ipaddress.ip_network(client).prefixlen == 0]
        if wide:
            message = f"{export.path} is exported to everybody ({wide[0]}), who can claim to be any user"
            yield Finding("nfs", "warning", message, "name the networks of its clients in `clients`")
        elif export.squash == "none" and export.access == "rw" and not all(map(_is_local_network, export.clients)):
            message = f"root of any client of {export.path} is root here"
            yield Finding("nfs", "warning", message, 'set squash = "root" unless each of its clients is trusted like this machine')
        else:
            yield Finding("nfs", "ok", f"{export.path} is exported to {', '.join(export.clients)}")


def check_block(block: BlockSection) -> Iterator[Finding]:
    """Who could attach what: hosts are known by their word unless they have keys, and nothing is encrypted."""
    far = [address for address in block.listen if not _is_loopback(address)]
    if block.allow_any_host and far:
        message = f"anybody who reaches {far[0]} may attach every volume"
        yield Finding("block", "warning", message, "unset block.allow_any_host, and name hosts: trefoil host allow NQN --dhchap-key new")
    elif far:
        yield Finding(
            "block",
            "warning",
            f"volumes are served on {far[0]} in clear",
            "use a network of their own, and keys: trefoil host allow NQN --dhchap-key new",
        )
    if block.target == "nvmet":
        message = "the kernel serves volumes: if the daemon is killed, hosts get I/O errors and do not try again"
        yield Finding("block", "warning", message, 'prefer block.target = "embedded", to which hosts connect again by themselves')
        yield from _check_nvmet()
    elif not far:
        yield Finding("block", "ok", f"volumes are served on {', '.join(block.listen)}, once there are any")


def _check_nvmet() -> Iterator[Finding]:
    if os.geteuid() != 0:
        yield Finding(
            "nvmet", "error", "only root may drive the kernel's NVMe target", 'run the daemon as root, or set block.target = "embedded"'
        )
    try:
        Nvmet().check()
        yield Finding("nvmet", "ok", "the kernel's NVMe target is there")
    except NvmetError as error:
        yield Finding("nvmet", "error", str(error), "modprobe nvmet-tcp")


def check_ports(settings: Settings) -> Iterator[Finding]:
    addresses = {"s3.listen": settings.s3.listen, "admin.listen": settings.admin.listen}
    if settings.nfs.export:
        addresses["nfs.listen"] = settings.nfs.listen
        if settings.nfs.portmapper:
            addresses["nfs.portmapper"] = settings.nfs.portmapper
    for name, address in addresses.items():
        check = f"{name.removesuffix('.listen').replace('.', '-')}-port"
        try:
            bind_tcp(address).close()
            yield Finding(check, "ok", f"{address} is free")
        except UserError as error:
            yield Finding(check, "error", str(error), f"stop what listens there (ss -ltnp), or set {name}")


def check_devices(settings: Settings) -> Iterator[Finding]:
    if not settings.data:
        yield Finding("devices", "error", "no devices are configured", "name them with --data, or `data` in the configuration")
    for device in settings.data:
        path = Path(device)
        there = path if path.exists() else path.parent
        if not there.exists() or not os.access(there, os.R_OK | os.W_OK):
            yield Finding(
                "devices", "error", f"{device} is absent or not writable", "connect or mount it, and let the daemon's user write it"
            )
        else:
            yield Finding("devices", "ok", f"{device} can be used")


def check_pool(pool: PoolStatus) -> Iterator[Finding]:
    for device in pool.devices:
        if device.state != "live":
            message = f"device {device.index} ({device.name}) is {device.state}: {device.reason}"
            yield Finding("pool", "error", message, "see `trefoil status`; replace the drive if it stays so")
    if not pool.protected:
        k, m = pool.code
        remedy = "use more devices: two give 1+1" if m == 0 else "bring the missing devices back, or replace them"
        yield Finding("pool", "warning", f"not protected (code {k}+{m}): the next loss of a device may lose data", remedy)
    if pool.bytes_total and pool.bytes_used > POOL_FULL_SHARE * pool.bytes_total:
        yield Finding("pool", "warning", f"{pool.bytes_used / pool.bytes_total:.0%} full", "delete something")
    if pool.protected and all(device.state == "live" for device in pool.devices):
        yield Finding("pool", "ok", f"all {len(pool.devices)} devices live")


def check_flush_latency(settings: Settings, state: StateDirectory) -> Iterator[Finding]:
    """Of the state directory and each device that lives in a file system; a raw device's is in the metrics."""
    probed: set[int] = set()
    for path in [state.path, *(Path(device) for device in settings.data if not is_block_device(device))]:
        directory = path if path.is_dir() else path.parent
        with suppress(OSError):
            if directory.stat().st_dev in probed:
                continue
            probed.add(directory.stat().st_dev)
            seconds = _flush_seconds(directory)
            message = f"{directory} flushes {FLUSH_BYTES} bytes in {seconds * 1000:.2f} ms (median of {FLUSHES})"
            slow = seconds > FLUSH_SLOW_SECONDS
            remedy = "every write waits for this: use a drive with power-loss protection" if slow else ""
            yield Finding("flush", "warning" if slow else "ok", message, remedy)


def _flush_seconds(directory: Path) -> float:
    """In a file without a name, so that no listing of a device's directory ever shows it."""
    descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        taken = []
        for index in range(FLUSHES):
            started = time.perf_counter()
            os.pwrite(descriptor, os.urandom(FLUSH_BYTES), index * FLUSH_BYTES)
            os.fdatasync(descriptor)
            taken.append(time.perf_counter() - started)
        return statistics.median(taken)
    finally:
        os.close(descriptor)


def _clock_state() -> int:
    """-1 where the question is not allowed, as under systemd's ProtectClock."""
    timex = ctypes.create_string_buffer(512)  # `struct timex` has 208 bytes; modes = 0 only reads
    try:
        return int(ctypes.CDLL(None).adjtimex(timex))
    except (OSError, AttributeError):
        return -1


def _is_local_network(network: str) -> bool:
    return ipaddress.ip_network(network).is_loopback


def _is_loopback(address: str) -> bool:
    host, port = address_parts(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(str(where[0]).startswith(("127.", "::1")) for *_, where in found)


def _expires_soon(certificate: Path) -> bool:
    """Asks openssl, which is there wherever certificates are made; without it nothing is said."""
    if shutil.which("openssl") is None:
        return False
    seconds = CERTIFICATE_DAYS_MIN * 86400
    command = ["openssl", "x509", "-checkend", str(seconds), "-noout", "-in", str(certificate)]
    return subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 1
