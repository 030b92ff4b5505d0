"""`/api/v1/status`: the daemon and its pool."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from fastapi import APIRouter

from element_store.types import Closed
from server import __version__
from server.routes.context import CurrentDaemon

router = APIRouter(prefix="/api/v1")


async def _bucket_count(daemon: CurrentDaemon) -> int | None:
    """None from a store that is closed: what its devices say matters most then."""
    try:
        return len(await daemon.store.views())
    except Closed:
        return None


@router.get("/status")
async def status(daemon: CurrentDaemon) -> dict[str, Any]:
    pool = await daemon.store.status()
    return {
        "version": __version__,
        "phase": daemon.phase,
        "uptime_seconds": round(time.monotonic() - daemon.started, 3),
        "endpoints": daemon.endpoints,
        "buckets": await _bucket_count(daemon),
        "pool": {**dataclasses.asdict(pool), "code": "{}+{}".format(*pool.code)},
    }
