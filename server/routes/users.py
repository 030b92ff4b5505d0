"""`/api/v1/users`: who may sign requests."""

from __future__ import annotations

import dataclasses
from typing import Any

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict

from server.routes.context import CurrentDaemon

router = APIRouter(prefix="/api/v1/users")


class NewUser(BaseModel):
    model_config = ConfigDict(extra="forbid")
    id: str
    display_name: str = ""
    email: str = ""
    uid: int | None = None
    gid: int | None = None
    file_mode: int | None = None
    directory_mode: int | None = None


class NewIdentity(BaseModel):
    """What is absent stays; null for a mode: as the configuration says."""

    model_config = ConfigDict(extra="forbid")
    uid: int = 0
    gid: int = 0
    file_mode: int | None = None
    directory_mode: int | None = None


@router.get("")
async def list_users(daemon: CurrentDaemon) -> list[dict[str, Any]]:
    return [dataclasses.asdict(user) for user in await daemon.accounts.list_users()]


@router.post("", status_code=201)
async def create_user(daemon: CurrentDaemon, new: NewUser) -> dict[str, Any]:
    if await daemon.accounts.user(new.id):
        raise HTTPException(409, f"user {new.id} exists already")
    identity = new.model_dump(include={"uid", "gid", "file_mode", "directory_mode"})
    created = await daemon.accounts.create_user(new.id, display_name=new.display_name, email=new.email, **identity)
    return dataclasses.asdict(created)


@router.patch("/{user_id}")
async def set_identity(daemon: CurrentDaemon, user_id: str, new: NewIdentity) -> dict[str, Any]:
    if await daemon.accounts.user(user_id) is None:
        raise HTTPException(404, f"there is no user {user_id}")
    return dataclasses.asdict(await daemon.accounts.set_identity(user_id, new.model_dump(exclude_unset=True)))


@router.delete("/{user_id}", status_code=204)
async def delete_user(daemon: CurrentDaemon, user_id: str) -> None:
    if await daemon.accounts.user(user_id) is None:
        raise HTTPException(404, f"there is no user {user_id}")
    await daemon.accounts.delete_user(user_id)
