"""`/api/v1/status`: the daemon and its pool."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from fastapi import APIRouter

from server import __version__
from server.routes.context import CurrentDaemon

router = APIRouter(prefix="/api/v1")


@router.get("/status")
async def status(daemon: CurrentDaemon) -> dict[str, Any]:
    pool = await daemon.store.status()
    return {
        "version": __version__,
        "phase": daemon.phase,
        "uptime_seconds": round(time.monotonic() - daemon.started, 3),
        "endpoints": {"s3": daemon.s3_url, "admin": daemon.admin_url},
        "buckets": len(await daemon.store.views()),
        "pool": {**dataclasses.asdict(pool), "code": "{}+{}".format(*pool.code)},
    }
