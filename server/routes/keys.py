"""`/api/v1/keys`: access keys. A secret is shown once, in the answer that makes it, and never listed."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict

from protocols.auth.accounts import ROOT_ID
from server.routes.context import CurrentDaemon

router = APIRouter(prefix="/api/v1/keys")


class NewKey(BaseModel):
    model_config = ConfigDict(extra="forbid")
    user_id: str
    access_key: str | None = None
    secret_key: str | None = None


@router.get("")
async def list_keys(daemon: CurrentDaemon, user_id: str | None = None) -> list[dict[str, str]]:
    return [{"access_key": key.access_key, "user_id": key.user_id} for key in await daemon.accounts.list_keys(user_id)]


@router.post("", status_code=201)
async def create_key(daemon: CurrentDaemon, new: NewKey) -> dict[str, Any]:
    if await daemon.accounts.user(new.user_id) is None:
        raise HTTPException(404, f"there is no user {new.user_id}")
    if new.access_key and await daemon.accounts.credential(new.access_key):
        raise HTTPException(409, f"access key {new.access_key} exists already")
    return dataclasses.asdict(await daemon.accounts.create_key(new.user_id, new.access_key, new.secret_key))


@router.delete("/{access_key}", status_code=204)
async def delete_key(daemon: CurrentDaemon, access_key: str) -> None:
    held = await daemon.accounts.credential(access_key)
    if held is None:
        raise HTTPException(404, f"there is no access key {access_key}")
    if held.user.id == ROOT_ID:
        raise HTTPException(409, "the root key cannot be deleted; set TREFOIL_ROOT_ACCESS_KEY and TREFOIL_ROOT_SECRET_KEY to replace it")
    await daemon.accounts.delete_key(access_key)
