"""Is the process alive (`/healthz`); should it get traffic (`/readyz`)."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from element_store.types import StoreError
from server.daemon import Phase
from server.routes.context import CurrentDaemon

router = APIRouter()


@router.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    return "ok\n"


@router.get("/readyz", response_class=PlainTextResponse)
async def readyz(daemon: CurrentDaemon) -> Response:
    """503 while starting or draining, and when the store takes no more requests."""
    try:
        # Any read does: a store that lost too many devices still has a status, but answers nothing else.
        await daemon.store.get_record("probe", "ready")
    except StoreError as error:
        return PlainTextResponse(f"store: {error}\n", 503)
    return PlainTextResponse(f"{daemon.phase}\n", 200 if daemon.phase is Phase.READY else 503)
