"""A real store on temporary files, and beside it the model that it must equal."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from element_store import Store
from element_store.interface import ElementStore
from element_store.types import Attributes
from tests.model.store import ModelStore

VIEW = "view"
OpenStore = Callable[[], Awaitable[Store]]


DEVICE_BYTES = 256 * 1024 * 1024
"""Sparse files of this size are formatted in a moment; directories would be sized by the free space."""


def devices(path: Path, count: int = 2) -> Sequence[str]:
    """Files for devices, made where they are missing."""
    made = [path / f"device-{number}" for number in range(count)]
    for device in made:
        if not device.exists():
            device.touch()
            os.truncate(device, DEVICE_BYTES)
    return [str(device) for device in made]


@pytest.fixture
def open_store(tmp_path: Path) -> OpenStore:
    """Opens the test's pool, again and again if need be; whoever opens it closes it."""

    async def opened() -> Store:
        return await Store.open(devices(tmp_path), state=tmp_path / "state")

    (tmp_path / "state").mkdir()
    return opened


@pytest.fixture
async def store(open_store: OpenStore) -> AsyncIterator[Store]:
    """With one empty view."""
    store = await open_store()
    try:
        await store.create_view(VIEW, Attributes(mode=0o755))
        yield store
    finally:
        await store.close()


@pytest.fixture(params=["model", "store"])
async def either(request: pytest.FixtureRequest) -> AsyncIterator[ElementStore]:
    """Each of the two in turn: a test of this fixture says how they are alike."""
    if request.param == "store":
        open_store: OpenStore = request.getfixturevalue("open_store")
        store: ElementStore = await open_store()
    else:
        store = ModelStore()
    try:
        await store.create_view(VIEW, Attributes(mode=0o755))
        yield store
    finally:
        await store.close()
