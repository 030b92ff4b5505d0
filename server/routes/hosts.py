"""`/api/v1/hosts`: who may attach volumes, and who has. Keys are shown to nobody but who makes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from element_store import Volume
from protocols.block import NQN_BYTES_MAX, Host, Session
from server.block import NEW_KEY
from server.routes.context import CurrentBlocks

router = APIRouter(prefix="/api/v1/hosts")

KEY_CHARACTERS_MAX = 128
VOLUMES_MAX = 1024


class AllowedHost(BaseModel):
    model_config = ConfigDict(extra="forbid")
    nqn: str = Field(min_length=1, max_length=NQN_BYTES_MAX)
    volumes: list[str] = Field([], max_length=VOLUMES_MAX)
    """By name; none: all of them."""
    dhchap_key: str | None = Field(None, max_length=KEY_CHARACTERS_MAX)
    """`new`: make one."""
    dhchap_ctrl_key: str | None = Field(None, max_length=KEY_CHARACTERS_MAX)


@router.get("")
async def list_hosts(blocks: CurrentBlocks) -> list[dict[str, Any]]:
    """Also hosts that are connected because any may."""
    volumes, sessions, hosts = await blocks.list(), blocks.sessions(), await blocks.hosts.list()
    named = {host.nqn for host in hosts}
    others = dict.fromkeys(session.nqn for session in sessions if session.nqn not in named)
    return [_shown(host, volumes, sessions) for host in [*hosts, *map(Host, others)]]


@router.post("")
async def allow(blocks: CurrentBlocks, new: AllowedHost) -> dict[str, Any]:
    host = await blocks.allow(new.nqn, new.volumes, new.dhchap_key, new.dhchap_ctrl_key)
    made = {}
    if new.dhchap_key == NEW_KEY:
        made["dhchap_key"] = host.key
    if new.dhchap_ctrl_key == NEW_KEY:
        made["dhchap_ctrl_key"] = host.controller_key
    return {**_shown(host, await blocks.list(), blocks.sessions()), **made}


@router.delete("", status_code=204)
async def deny(blocks: CurrentBlocks, nqn: str, volume: str | None = None) -> None:
    await blocks.deny(nqn, [] if volume is None else [volume])


def _shown(host: Host, volumes: Sequence[Volume], sessions: Sequence[Session]) -> dict[str, Any]:
    return {
        "nqn": host.nqn,
        "volumes": None if host.volumes is None else [volume.path for volume in volumes if host.sees(volume)],
        "authenticated": host.key is not None,
        "sessions": [dataclasses.asdict(session) for session in sessions if session.nqn == host.nqn],
    }
