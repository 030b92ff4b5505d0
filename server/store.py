"""Opens the element store for the daemon: the only place that names the real one."""

from __future__ import annotations

import os
import stat

import element_store
from element_store.interface import ElementStore
from element_store.types import Refused
from server.config import Settings
from server.errors import Exit, UserError
from server.state import StateDirectory


async def open_store(settings: Settings, state: StateDirectory, *, format_devices: bool) -> ElementStore:
    """Raises UserError where the pool must not be used as asked.

    Empty files and directories are formatted at first use without asking; block devices only with `format_devices`, because
    an "empty" drive may be somebody's raw volume.
    """
    check_devices(settings.data)
    try:
        return await element_store.Store.open(
            settings.data,
            state=state.store,
            code=settings.pool.km(),
            format_block_devices=format_devices,
            allow_degraded=settings.pool.allow_degraded,
            reduction=settings.reduction.mode,
            cold_seconds=settings.reduction.cold_days * 24 * 3600 or None,
            index_bytes=settings.reduction.index_bytes,
        )
    except Refused as error:
        raise UserError(str(error), exit_code=Exit.REFUSED, kind="refused") from None


def check_devices(devices: list[str]) -> None:
    """What can be said before a device is opened. Raises UserError."""
    if not devices:
        raise UserError('no devices: name each one with --data DEVICE, or in the configuration with data = ["DEVICE", ...]')
    seen: dict[str, str] = {}
    for device in devices:
        real = os.path.realpath(device)
        if real in seen:
            raise UserError(f"{device} and {seen[real]} are the same device")
        seen[real] = device


def is_block_device(device: str) -> bool:
    try:
        return stat.S_ISBLK(os.stat(device).st_mode)  # noqa: PTH116
    except OSError:
        return False
