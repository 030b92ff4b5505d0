"""A directory that behaves as the kernel's configfs of nvmet does (Linux 6.1, as tried in a guest): what a `mkdir` brings with it, and what is refused."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from protocols.block.nvmet import Nvmet, NvmetError

FILES = {
    "hosts": {"dhchap_key": "", "dhchap_ctrl_key": ""},
    "ports": {"addr_trtype": "", "addr_adrfam": "", "addr_traddr": "", "addr_trsvcid": ""},
    "subsystems": {"attr_allow_any_host": "0", "attr_serial": "0123456789abcdef", "attr_model": "Linux"},
    "namespaces": {
        "device_path": "(null)",
        "device_uuid": "00000000-0000-0000-0000-000000000000",
        "device_nguid": "00000000-0000-0000-0000-000000000000",
        "buffered_io": "0",
        "enable": "0",
        "revalidate_size": "",
    },
}
DIRECTORIES = {"hosts": (), "ports": ("subsystems", "referrals"), "subsystems": ("namespaces", "allowed_hosts"), "namespaces": ()}


class FakeNvmet(Nvmet):
    def __init__(self, root: Path, *, authenticates: bool = True) -> None:
        super().__init__(root)
        self.writes: list[tuple[str, str]] = []
        self._authenticates = authenticates
        for name in ("hosts", "ports", "subsystems"):
            (root / name).mkdir(parents=True)

    def _make(self, path: Path) -> None:
        if path.is_dir():
            return
        kind = path.parent.name
        super()._make(path)
        for name, value in FILES[kind].items():
            if kind != "hosts" or self._authenticates:
                (path / name).write_text(value)
        for name in DIRECTORIES[kind]:
            (path / name).mkdir()

    def _remove(self, path: Path) -> None:
        if not path.exists():
            return
        made = [name for name in DIRECTORIES[path.parent.name] if any((path / name).iterdir())]
        in_use = path.parent.name == "hosts" and any(self._root.glob(f"subsystems/*/allowed_hosts/{path.name}"))
        in_use |= path.parent.name == "subsystems" and any(self._root.glob(f"ports/*/subsystems/{path.name}"))
        if made or in_use:
            raise self._error(path, errno.ENOTEMPTY)
        shutil.rmtree(path)

    def _link(self, path: Path, to: Path) -> None:
        if not to.is_dir():
            raise self._error(path, errno.ENOENT)
        if path.parent.name == "allowed_hosts" and (path.parent.parent / "attr_allow_any_host").read_text() == "1":
            raise self._error(path, errno.EINVAL)
        super()._link(path, to)

    def _write(self, path: Path, value: str) -> None:
        if not path.exists():
            raise self._error(path, errno.ENOENT)
        space = path.parent
        if path.name in ("device_path", "device_uuid", "device_nguid", "buffered_io") and (space / "enable").read_text() == "1":
            raise self._error(path, errno.EBUSY)
        if path.name == "enable" and value == "1" and not Path((space / "device_path").read_text()).exists():
            raise self._error(path, errno.ENOENT)
        if path.name == "revalidate_size" and (space / "enable").read_text() != "1":
            raise self._error(path, errno.EINVAL)
        if path.name.startswith("addr_") and any((space / "subsystems").iterdir()):
            raise self._error(path, errno.EACCES)
        if path.name == "attr_allow_any_host" and value == "1" and any((space / "allowed_hosts").iterdir()):
            raise self._error(path, errno.EINVAL)
        self.writes.append((str(path.relative_to(self._root)), value))
        path.write_text(value)

    @staticmethod
    def _error(path: Path, number: int) -> NvmetError:
        return NvmetError(f"{path}: {errno.errorcode[number]}")
