"""`/api/v1/doctor`: the checks of `server.doctor`, from inside the running daemon."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from fastapi import APIRouter

from server import doctor
from server.routes.context import CurrentDaemon

router = APIRouter(prefix="/api/v1")


@router.get("/doctor")
async def examine(daemon: CurrentDaemon) -> list[dict[str, Any]]:
    pool = await daemon.store.status()
    findings = await asyncio.to_thread(doctor.examine, daemon.settings, daemon.state, pool)
    return [dataclasses.asdict(finding) for finding in findings]
