"""`/api/v1/volumes`: what hosts attach, by name (`NAME` in the bucket of volumes, `BUCKET/PATH`, or a uuid)."""

from __future__ import annotations

import dataclasses
import socket
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from element_store import Conflict, Volume
from element_store.volumes import BLOCK_SIZE_DEFAULT
from server.block import connect_lines
from server.config import address_parts
from server.routes.context import CurrentBlocks, CurrentDaemon

router = APIRouter(prefix="/api/v1/volumes")

NAME_CHARACTERS_MAX = 1088
"""Of the longest bucket and the longest key."""
ANY_ADDRESS = ("", "0.0.0.0", "::")


class Named(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=NAME_CHARACTERS_MAX)


class NewVolume(Named):
    size: int = Field(gt=0, le=1 << 60)
    block_size: int = BLOCK_SIZE_DEFAULT


class FromFile(Named):
    block_size: int = BLOCK_SIZE_DEFAULT


class ToFile(Named):
    force: bool = False


class NewSize(Named):
    size: int = Field(gt=0, le=1 << 60)
    force: bool = False
    """It may get smaller."""


@router.get("")
async def list_volumes(blocks: CurrentBlocks) -> list[dict[str, Any]]:
    return [_shown(volume) for volume in await blocks.list()]


@router.post("", status_code=201)
async def create(blocks: CurrentBlocks, new: NewVolume) -> dict[str, Any]:
    return _shown(await blocks.create(new.name, new.size, new.block_size))


@router.post("/from-file", status_code=201)
async def from_file(blocks: CurrentBlocks, file: FromFile) -> dict[str, Any]:
    return _shown(await blocks.from_file(file.name, file.block_size))


@router.post("/show")
async def show(blocks: CurrentBlocks, volume: Named) -> dict[str, Any]:
    """NAME@SNAPSHOT."""
    return _shown(await blocks.show(volume.name))


@router.post("/to-file")
async def to_file(blocks: CurrentBlocks, volume: ToFile) -> dict[str, Any]:
    return _shown(await blocks.to_file(volume.name, force=volume.force))


@router.post("/resize")
async def resize(blocks: CurrentBlocks, new: NewSize) -> dict[str, Any]:
    return _shown(await blocks.resize(new.name, new.size, shrink=new.force))


@router.post("/unlock")
async def unlock(blocks: CurrentBlocks, volume: Named) -> dict[str, Any]:
    return _shown(await blocks.unlock(volume.name))


@router.delete("")
async def delete(blocks: CurrentBlocks, name: str, force: bool = False) -> dict[str, Any]:
    return _shown(await blocks.delete(name, force=force))


@router.get("/connect")
async def connect(
    daemon: CurrentDaemon, blocks: CurrentBlocks, name: str, host: str | None = None, address: str | None = None
) -> dict[str, Any]:
    """`host`: the NQN of who attaches it. `address`: how that calls this machine; else where the target listens, or this machine's name."""
    volume = await blocks.volume(name)
    if not blocks.addresses:
        raise Conflict("the target is not running; `trefoil doctor` says why")
    place = _place(blocks.addresses[0], address)
    allowed = [known for known in await blocks.hosts.list() if known.sees(volume)]
    known = next((one for one in allowed if one.nqn == host), None)
    keys = (known.key, known.controller_key) if known else (None, None)
    nqn = await blocks.nqn(volume)
    return {
        **connect_lines(nqn, place, volume, host=host, key=keys[0], controller_key=keys[1]),
        "nqn": nqn,
        "address": place,
        "volume": _shown(volume),
        "hosts": [one.nqn for one in allowed],
        "any_host": daemon.settings.block.allow_any_host,
    }


def _place(listens: str, given: str | None) -> str:
    host, port = address_parts(listens)
    name = given or (socket.gethostname() if host in ANY_ADDRESS else host)
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _shown(volume: Volume) -> dict[str, Any]:
    return dataclasses.asdict(volume)
