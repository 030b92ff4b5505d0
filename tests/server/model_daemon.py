"""`trefoil` on the model store: what tests of the daemon start where the real store would only cost time."""

from __future__ import annotations

from typing import Any

from tests.model.store import ModelStore

from server import app
from server.cli import main
from server.store import check_devices


async def open_model(settings: Any, state: Any, *, format_devices: bool) -> Any:
    check_devices(settings.data)
    return ModelStore()


if __name__ == "__main__":
    vars(app)["open_store"] = open_model
    main()
