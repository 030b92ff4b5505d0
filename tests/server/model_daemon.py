"""`trefoil` on the model store: what tests of the daemon start where the real store would only cost time."""

from __future__ import annotations

import dataclasses
from typing import Any

from element_store.types import DeviceStatus, PoolStatus
from server import app
from server.cli import main
from server.store import check_devices
from tests.model.store import ModelStore


class ModelPool(ModelStore):
    """Shows the devices that it was opened on, as the real pool would."""

    def __init__(self, devices: list[str]) -> None:
        super().__init__()
        self._devices = devices

    async def status(self) -> PoolStatus:
        devices = tuple(DeviceStatus(index, name, "live", 1 << 40, 0, "") for index, name in enumerate(self._devices))
        return dataclasses.replace(await super().status(), devices=devices)


async def open_model(settings: Any, state: Any, *, format_devices: bool) -> Any:
    check_devices(settings.data)
    return ModelPool(settings.data)


if __name__ == "__main__":
    vars(app)["open_store"] = open_model
    main()
