"""`/api/v1/check`: is what the pool holds whole? One at a time: it reads all metadata, and on demand all content."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict

from server.routes.context import CurrentDaemon

router = APIRouter(prefix="/api/v1")
_running = asyncio.Lock()


class Check(BaseModel):
    model_config = ConfigDict(extra="forbid")
    content: bool = False
    """Also read every payload and parity shard; what differs is repaired."""


@router.post("/check")
async def check(daemon: CurrentDaemon, wanted: Check) -> dict[str, Any]:
    if _running.locked():
        raise HTTPException(409, "a check is running already")
    async with _running:
        found = await daemon.store.check()
        content = dict(await daemon.store.scrub()) if wanted.content else None
    return {"faults": found.count, "sentences": list(found.sentences), "content": content}
