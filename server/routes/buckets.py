"""`/api/v1/buckets`: view roots that S3 shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict

from element_store.types import Attributes, Conflict, NotFound, View
from protocols.s3.config import KeyPolicy
from protocols.s3.context import OWNER, owner_of
from protocols.s3.key_policy import policy_of, policy_xattrs
from protocols.s3.naming import is_bucket_name
from protocols.s3.snapshot_keys import ATTRIBUTE, PREFIX, shows_snapshots
from server.routes.context import CurrentDaemon

router = APIRouter(prefix="/api/v1/buckets")


class NewBucket(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    owner: str = "root"
    keys: KeyPolicy | None = None
    """None: as `s3.key_policy`."""


class Change(BaseModel):
    model_config = ConfigDict(extra="forbid")
    snapshots: bool
    """S3 shows snapshots of it under `.snapshot/<snapshot>/<key>`."""


@router.get("")
async def list_buckets(daemon: CurrentDaemon) -> list[dict[str, Any]]:
    return [_shown(view) for view in await daemon.store.views()]


@router.get("/{name}")
async def show_bucket(daemon: CurrentDaemon, name: str) -> dict[str, Any]:
    try:
        return _shown(await daemon.store.view(name))
    except NotFound:
        raise _absent(name) from None


@router.post("", status_code=201)
async def create_bucket(daemon: CurrentDaemon, new: NewBucket) -> dict[str, Any]:
    if not is_bucket_name(new.name):
        raise HTTPException(400, f"{new.name!r} is not a bucket name: 3 to 63 lower-case letters, digits, dots and hyphens")
    owner = await daemon.accounts.user(new.owner)
    if owner is None:
        raise HTTPException(404, f"there is no user {new.owner}")
    policy = new.keys or daemon.settings.s3.key_policy
    identity = daemon.settings.identity.map().of(owner)
    attributes = Attributes(
        uid=identity.uid, gid=identity.gid, mode=identity.directory_mode, xattrs={OWNER: owner.id.encode(), **policy_xattrs(policy)}
    )
    try:
        return _shown(await daemon.store.create_view(new.name, attributes))
    except Conflict:
        raise HTTPException(409, f"bucket {new.name} exists already") from None


@router.patch("/{name}")
async def set_bucket(daemon: CurrentDaemon, name: str, change: Change) -> dict[str, Any]:
    store = daemon.store
    try:
        view = await store.view(name)
        if change.snapshots and (await store.list(name, prefix=PREFIX, limit=1)).elements:
            raise HTTPException(
                409, f"bucket {name} has keys of its own below {PREFIX.decode()}: they could not be told from what snapshots show"
            )
        xattrs = {key: value for key, value in view.attributes.xattrs.items() if key != ATTRIBUTE}
        if change.snapshots:
            xattrs[ATTRIBUTE] = b"1"
        return _shown(await store.set_view_attributes(name, replace(view.attributes, xattrs=xattrs)))
    except NotFound:
        raise _absent(name) from None


@router.delete("/{name}", status_code=204)
async def delete_bucket(daemon: CurrentDaemon, name: str) -> None:
    try:
        await daemon.store.delete_view(name)
    except NotFound:
        raise _absent(name) from None
    except Conflict:
        raise HTTPException(409, f"bucket {name} is not empty") from None


def _absent(name: str) -> HTTPException:
    return HTTPException(404, f"there is no bucket {name}")


def _shown(view: View) -> dict[str, Any]:
    return {
        "name": view.name,
        "id": view.id,
        "owner": owner_of(view),
        "keys": policy_of(view),
        "snapshots": shows_snapshots(view),
        "created_ns": view.created_ns,
    }
