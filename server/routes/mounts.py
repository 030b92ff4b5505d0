"""`/api/v1/mounts`: the namespace, or one bucket, mounted on directories of the daemon's machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from protocols.fuse import Mount
from server.routes.context import CurrentDaemon

router = APIRouter(prefix="/api/v1/mounts")

OPTIONS_MAX = 32


class NewMount(BaseModel):
    model_config = ConfigDict(extra="forbid")
    path: str = Field(min_length=1, max_length=4095)
    view: str | None = None
    engine: str | None = None
    read_only: bool = False
    options: list[str] = Field([], max_length=OPTIONS_MAX)


@router.get("")
async def list_mounts(daemon: CurrentDaemon) -> list[dict[str, Any]]:
    return [_shown(mount) for mount in await daemon.mounts.list()]


@router.post("", status_code=201)
async def mount(daemon: CurrentDaemon, new: NewMount) -> dict[str, Any]:
    options = daemon.mounts.options(new.view, new.engine, new.read_only, new.options)
    return _shown(await daemon.mounts.mount(Path(new.path), options))


@router.delete("", status_code=204)
async def unmount(daemon: CurrentDaemon, path: str) -> None:
    await daemon.mounts.unmount(Path(path))


def _shown(mount: Mount) -> dict[str, Any]:
    options = mount.options
    return {
        "path": str(mount.path),
        "view": options.view,
        "engine": str(options.engine),
        "read_only": options.read_only,
        "strict": options.strict,
    }
