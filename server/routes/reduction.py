"""`/api/v1/reduction` and `/api/v1/why`: what reduction gained, and where the bytes of one key are. They read rows only."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastapi import APIRouter, HTTPException

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
    return {"path": "/" + scope.strip("/"), "mode": daemon.settings.reduction.mode, **found}


@router.get("/why")
async def why(daemon: CurrentDaemon, element: str) -> dict[str, Any]:
    view, key = _split(element)
    try:
        parts = await daemon.store.why(view, key)
    except NotFound:
        raise HTTPException(404, f"there is no /{element.strip('/')}") from None
    return {"path": "/" + element.strip("/"), "parts": [dataclasses.asdict(part) for part in parts]}
