"""Linux's own NVMe target, by configfs: what is wanted, what is there, and the steps between them.

Owns the subsystems whose namespaces lie under one directory, a mount of the daemon's: they are found again by that after a crash, whatever
the daemon that made them knew. All else in the kernel's target is somebody else's and left alone. Files are written as nvmetcli writes
them, and `to_json` and `from_json` are its format; it knows no `buffered_io`, which is set besides.

Facts that this rests on: a namespace opened with `buffered_io` 0 has no second cache; its block size is `st_blksize`; a namespace without NGUID has
no name that lasts; `enable` waits for whoever serves the file, so a file nobody serves must fail first (`server.block` sees to that). Every call blocks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path("/sys/kernel/config/nvmet")
MODEL = "Trefoil"
NSID = 1
PORT_ID_MAX = 65535
DHCHAP_KEY, DHCHAP_CTRL_KEY = "dhchap_key", "dhchap_ctrl_key"


class NvmetError(Exception):
    """The kernel has no target, or refuses a setting: one sentence."""


@dataclass(frozen=True, slots=True)
class Namespace:
    path: str
    """The file that holds it."""
    uuid: str
    """NGUID too."""
    nsid: int = NSID
    enable: bool = True


@dataclass(frozen=True, slots=True)
class Subsystem:
    nqn: str
    serial: str
    namespaces: Sequence[Namespace]
    hosts: Sequence[str] = ()
    """NQNs that may connect."""
    allow_any_host: bool = False


@dataclass(frozen=True, slots=True)
class Port:
    address: str
    service: int
    subsystems: Sequence[str] = ()
    port_id: int | None = None
    """None: a free one."""

    @property
    def family(self) -> str:
        return "ipv6" if ":" in self.address else "ipv4"


@dataclass(frozen=True, slots=True)
class Host:
    nqn: str
    key: str | None = None
    controller_key: str | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    subsystems: Sequence[Subsystem] = ()
    ports: Sequence[Port] = ()
    hosts: Sequence[Host] = ()


class Nvmet:
    """`root`: where configfs is, or what stands in for it."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root

    def check(self) -> None:
        """Raises NvmetError."""
        if not (self._root / "subsystems").is_dir():
            raise NvmetError("this kernel's NVMe target is not there: modprobe nvmet-tcp, and mount configfs on /sys/kernel/config")

    def can_authenticate(self) -> bool:
        """Has the kernel DH-HMAC-CHAP? It shows with a host, so one is made for a moment."""
        probe = self._root / "hosts" / "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-0000-0000-000000000000"
        self._make(probe)
        try:
            return (probe / DHCHAP_KEY).exists()
        finally:
            self._remove(probe)

    # What is there
    def read(self) -> Configuration:
        return Configuration(
            [self._subsystem(path) for path in self._children("subsystems")],
            [self._port(path) for path in self._children("ports")],
            [self._host(path) for path in self._children("hosts")],
        )

    def ours(self, directory: Path) -> Sequence[Subsystem]:
        """Those that serve files in the directory."""
        inside = f"{directory}/"
        return [one for one in self.read().subsystems if any(space.path.startswith(inside) for space in one.namespaces)]

    def _subsystem(self, path: Path) -> Subsystem:
        namespaces = [
            Namespace(_text(space / "device_path"), _text(space / "device_uuid"), int(space.name), _text(space / "enable") == "1")
            for space in _sorted(path / "namespaces")
        ]
        hosts = [host.name for host in _sorted(path / "allowed_hosts")]
        return Subsystem(path.name, _text(path / "attr_serial"), namespaces, hosts, _text(path / "attr_allow_any_host") == "1")

    def _port(self, path: Path) -> Port:
        service = _text(path / "addr_trsvcid")
        subsystems = [linked.name for linked in _sorted(path / "subsystems")]
        return Port(_text(path / "addr_traddr"), int(service) if service.isdigit() else 0, subsystems, int(path.name))

    def _host(self, path: Path) -> Host:
        return Host(path.name, _text(path / DHCHAP_KEY) or None, _text(path / DHCHAP_CTRL_KEY) or None)

    # The steps
    def apply(self, wanted: Configuration, directory: Path) -> None:
        """Makes what is ours as wanted. What stays is not disturbed: hosts keep their connections. Raises NvmetError."""
        self.check()
        keep, before = {subsystem.nqn for subsystem in wanted.subsystems}, self.ours(directory)
        for subsystem in before:
            if subsystem.nqn not in keep:
                self._remove_subsystem(subsystem)
        for host in wanted.hosts:
            self._set_host(host)
        for subsystem in wanted.subsystems:
            self._set_subsystem(subsystem)
        for port in wanted.ports:
            self._set_port(port)
        self._forget_hosts(before)

    def clear(self, directory: Path) -> None:
        """Nothing of ours is left, also what a crashed daemon left. Hosts lose the connection first, and try again until it is back: they
        meet no error of a file that nobody serves."""
        before = self.ours(directory)
        for subsystem in before:
            self._remove_subsystem(subsystem)
        self._forget_hosts(before)

    def resized(self, nqn: str) -> None:
        """Hosts are told of another size."""
        self._write(self._space(nqn, NSID) / "revalidate_size", "1")

    def _space(self, nqn: str, nsid: int) -> Path:
        return self._root / "subsystems" / nqn / "namespaces" / str(nsid)

    def _set_host(self, host: Host) -> None:
        path = self._root / "hosts" / host.nqn
        self._make(path)
        for name, key in ((DHCHAP_KEY, host.key), (DHCHAP_CTRL_KEY, host.controller_key)):
            if key and not (path / name).exists():
                raise NvmetError(f"this kernel cannot make {host.nqn} prove its key: it has no DH-HMAC-CHAP (NVME_TARGET_AUTH)")
            if key and _text(path / name) != key:
                self._write(path / name, key)

    def _set_subsystem(self, wanted: Subsystem) -> None:
        path = self._root / "subsystems" / wanted.nqn
        if not path.is_dir():
            self._make(path)
            self._write(path / "attr_serial", wanted.serial)
            self._write_if_there(path / "attr_model", MODEL)
        allowed = {entry.name for entry in _sorted(path / "allowed_hosts")}
        for nqn in allowed - set(wanted.hosts):
            self._unlink(path / "allowed_hosts" / nqn)
        # The kernel takes no names while anybody may come.
        any_host = "1" if wanted.allow_any_host and not wanted.hosts else "0"
        if _text(path / "attr_allow_any_host") != any_host:
            self._write(path / "attr_allow_any_host", any_host)
        for nqn in set(wanted.hosts) - allowed:
            self._link(path / "allowed_hosts" / nqn, self._root / "hosts" / nqn)
        for space in wanted.namespaces:
            self._set_namespace(self._space(wanted.nqn, space.nsid), space)

    def _set_namespace(self, path: Path, wanted: Namespace) -> None:
        self._make(path)
        is_same = (_text(path / "device_path"), _text(path / "device_uuid")) == (wanted.path, wanted.uuid)
        if is_same and _text(path / "enable") == ("1" if wanted.enable else "0"):
            return
        self._write(path / "enable", "0")
        self._write(path / "device_path", wanted.path)
        self._write(path / "device_uuid", wanted.uuid)
        self._write(path / "device_nguid", wanted.uuid)
        self._write(path / "buffered_io", "0")
        if wanted.enable:
            self._write(path / "enable", "1")

    def _set_port(self, wanted: Port) -> None:
        ports = [port for port in self.read().ports if (port.address, port.service) == (wanted.address, wanted.service)]
        if ports:
            port_id, linked = ports[0].port_id, set(ports[0].subsystems)
        else:
            port_id, linked = self._new_port(wanted), set()
        for nqn in set(wanted.subsystems) - linked:
            self._link(self._root / "ports" / str(port_id) / "subsystems" / nqn, self._root / "subsystems" / nqn)

    def _new_port(self, wanted: Port) -> int:
        used = {port.port_id for port in self.read().ports}
        port_id = wanted.port_id or next(number for number in range(1, PORT_ID_MAX) if number not in used)
        path = self._root / "ports" / str(port_id)
        self._make(path)
        for name, value in (
            ("addr_trtype", "tcp"),
            ("addr_adrfam", wanted.family),
            ("addr_traddr", wanted.address),
            ("addr_trsvcid", str(wanted.service)),
        ):
            self._write(path / name, value)
        return port_id

    def _remove_subsystem(self, subsystem: Subsystem) -> None:
        path = self._root / "subsystems" / subsystem.nqn
        # Hosts are let go first: then nothing waits for what is inside.
        for port in self.read().ports:
            if subsystem.nqn in port.subsystems:
                self._unlink(self._root / "ports" / str(port.port_id) / "subsystems" / subsystem.nqn)
                if len(port.subsystems) == 1:
                    self._remove(self._root / "ports" / str(port.port_id))
        for space in subsystem.namespaces:
            self._write(self._space(subsystem.nqn, space.nsid) / "enable", "0")
            self._remove(self._space(subsystem.nqn, space.nsid))
        for nqn in subsystem.hosts:
            self._unlink(path / "allowed_hosts" / nqn)
        self._remove(path)

    def _forget_hosts(self, before: Sequence[Subsystem]) -> None:
        """Those that subsystems of ours named, and none does now."""
        named = {nqn for subsystem in self.read().subsystems for nqn in subsystem.hosts}
        for nqn in {nqn for subsystem in before for nqn in subsystem.hosts} - named:
            self._remove(self._root / "hosts" / nqn)

    # Files
    def _children(self, name: str) -> Sequence[Path]:
        return _sorted(self._root / name)

    def _make(self, path: Path) -> None:
        try:
            path.mkdir(exist_ok=True)
        except OSError as error:
            raise _refused(path, error) from None

    def _remove(self, path: Path) -> None:
        try:
            path.rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise _refused(path, error) from None

    def _link(self, path: Path, to: Path) -> None:
        try:
            path.symlink_to(to)
        except OSError as error:
            raise _refused(path, error) from None

    def _unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def _write(self, path: Path, value: str) -> None:
        try:
            # One write without a newline, and never a new file: configfs has those that it has.
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(descriptor, value.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _refused(path, error) from None

    def _write_if_there(self, path: Path, value: str) -> None:
        if path.exists():
            self._write(path, value)


def _refused(path: Path, error: OSError) -> NvmetError:
    return NvmetError(f"the kernel's NVMe target refuses {path}: {error.strerror}")


def _sorted(path: Path) -> Sequence[Path]:
    return sorted(path.iterdir(), key=lambda entry: entry.name) if path.is_dir() else []


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def to_json(configuration: Configuration) -> dict[str, Any]:
    """As `nvmetcli save` writes it."""
    return {
        "hosts": [{"nqn": host.nqn} for host in configuration.hosts],
        "ports": [
            {
                "addr": {
                    "adrfam": port.family,
                    "traddr": port.address,
                    "treq": "not specified",
                    "trsvcid": str(port.service),
                    "trtype": "tcp",
                },
                "portid": port.port_id or 1,
                "referrals": [],
                "subsystems": list(port.subsystems),
            }
            for port in configuration.ports
        ],
        "subsystems": [_subsystem_json(subsystem) for subsystem in configuration.subsystems],
    }


def _subsystem_json(subsystem: Subsystem) -> dict[str, Any]:
    return {
        "allowed_hosts": list(subsystem.hosts),
        "attr": {"allow_any_host": "1" if subsystem.allow_any_host else "0", "model": MODEL, "serial": subsystem.serial},
        "namespaces": [
            {
                "device": {"nguid": space.uuid, "path": space.path, "uuid": space.uuid},
                "enable": int(space.enable),
                "nsid": space.nsid,
            }
            for space in subsystem.namespaces
        ],
        "nqn": subsystem.nqn,
    }


def from_json(text: Mapping[str, Any]) -> Configuration:
    """Raises NvmetError for what is no such file."""
    try:
        return Configuration(
            [_subsystem_from(one) for one in _listed(text, "subsystems")],
            [
                Port(str(one["addr"]["traddr"]), int(one["addr"]["trsvcid"]), [str(nqn) for nqn in one["subsystems"]], int(one["portid"]))
                for one in _listed(text, "ports")
            ],
            [Host(str(one["nqn"])) for one in _listed(text, "hosts")],
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise NvmetError("that is no configuration as nvmetcli saves it") from None


def _listed(text: Mapping[str, Any], name: str) -> Iterable[Any]:
    found = text.get(name, [])
    if not isinstance(found, list):
        raise TypeError(name)
    return found


def _subsystem_from(one: Mapping[str, Any]) -> Subsystem:
    spaces = [
        Namespace(str(space["device"]["path"]), str(space["device"]["uuid"]), int(space["nsid"]), bool(int(space.get("enable", 0))))
        for space in one["namespaces"]
    ]
    attributes = one.get("attr", {})
    hosts = [str(nqn) for nqn in one.get("allowed_hosts", [])]
    return Subsystem(str(one["nqn"]), str(attributes.get("serial", "")), spaces, hosts, str(attributes.get("allow_any_host", "0")) == "1")
