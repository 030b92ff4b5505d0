"""`/api/v1/reduction` and `/api/v1/why`: what reduction gained, and where the bytes of one key are. They read rows only."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict

from element_store.interface import ElementStore
from element_store.types import NotFound
from server.routes.context import CurrentDaemon

router = APIRouter(prefix="/api/v1")


def _split(path: str) -> tuple[str, bytes]:
    view, _, key = path.strip("/").partition("/")
    return view, key.encode()


@router.get("/reduction")
async def reduction(daemon: CurrentDaemon, scope: str = "") -> dict[str, Any]:
    view, prefix = _split(scope)
    try:
        found = dict(await daemon.store.reduction(view or None, prefix))
    except NotFound:
        raise HTTPException(404, f"there is no bucket {view}") from None
    return {"path": "/" + scope.strip("/"), "mode": await _mode(daemon.store, scope), **found}


async def _mode(store: ElementStore, scope: str) -> str:
    """What holds there; of a prefix that is no path, what holds for its bucket."""
    view = scope.strip("/").partition("/")[0]
    if not view:
        return await store.reduction_mode()
    try:
        return await store.reduction_mode(scope.encode())
    except NotFound:
        return await store.reduction_mode(view.encode())


class NewMode(BaseModel):
    model_config = ConfigDict(extra="forbid")

    path: str
    mode: Literal["off", "fast", "balanced", "deep"] | None
    """None: what holds above it."""


@router.put("/reduction")
async def set_mode(daemon: CurrentDaemon, new: NewMode) -> dict[str, Any]:
    try:
        await daemon.store.set_reduction_mode(new.path.encode(), new.mode)
        return {"path": new.path, "mode": await daemon.store.reduction_mode(new.path.encode())}
    except NotFound:
        raise HTTPException(404, f"there is no /{new.path.strip('/')}") from None


@router.get("/why")
async def why(daemon: CurrentDaemon, element: str) -> dict[str, Any]:
    view, key = _split(element)
    try:
        parts = await daemon.store.why(view, key)
    except NotFound:
        raise HTTPException(404, f"there is no /{element.strip('/')}") from None
    return {"path": "/" + element.strip("/"), "parts": [dataclasses.asdict(part) for part in parts]}
