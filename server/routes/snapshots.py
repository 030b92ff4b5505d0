"""`/api/v1/snapshots`, `/api/v1/clones`: instants of paths, and writable copies of them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict, Field

from element_store.snapshots import Job
from element_store.types import Conflict, NotFound, Snapshot
from server.hooks import HookFailed, Hooks, about
from server.routes.context import CurrentDaemon
from server.snapshots import Keep, Schedule, Schedules, spelled

router = APIRouter(prefix="/api/v1")
PROTECTED_SECONDS_MAX = 100 * 366 * 24 * 3600


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewSnapshot(Request):
    path: str
    name: str
    protect_seconds: int = Field(0, ge=0, le=PROTECTED_SECONDS_MAX)
    """Nobody deletes it for so long."""
    hooks: Hooks = Hooks()
    """Commands around it; the answer comes when they have run."""


class Restore(Request):
    path: str
    name: str
    undo: str | None = None
    """What it is now is kept under this name; None: made from the time."""


class NewClone(Request):
    source: str
    target: str
    snapshot: str | None = None
    """None: of what is there now."""


class Clone(Request):
    path: str


class NewSchedule(Request):
    path: str
    keep: Keep
    hooks: Hooks = Hooks()


@router.get("/snapshots")
async def list_snapshots(daemon: CurrentDaemon, path: str | None = None) -> list[dict[str, Any]]:
    try:
        found = await daemon.store.snapshots.list(None if path is None else path.encode())
    except NotFound as error:
        raise _absent(error, path or "", "") from None
    return [_shown(snapshot) for snapshot in found]


@router.post("/snapshots", status_code=201)
async def create_snapshot(daemon: CurrentDaemon, new: NewSnapshot) -> dict[str, Any]:
    async def take() -> Snapshot:
        until = time.time_ns() + new.protect_seconds * 1_000_000_000 if new.protect_seconds else 0
        return await daemon.store.snapshots.create(new.path.encode(), new.name, protected_until_ns=until)

    try:
        return _shown(await daemon.hooks.around(new.hooks, about(spelled(new.path), new.name), take))
    except NotFound as error:
        raise _absent(error, new.path, new.name) from None
    except HookFailed as error:
        raise HTTPException(409, str(error)) from None
    except Conflict:
        raise HTTPException(409, f"{new.path} has a snapshot {new.name} already") from None


@router.get("/snapshots/space")
async def snapshot_space(daemon: CurrentDaemon, path: str, name: str) -> dict[str, Any]:
    snapshots, at = daemon.store.snapshots, path.encode()
    try:
        alone, older = await snapshots.space(at, name), await snapshots.space(at, name, older=True)
    except NotFound as error:
        raise _absent(error, path, name) from None
    figures = {"alone": alone, "with_older": older}
    return {
        what: {"content_bytes": held.content_bytes, "stored_bytes": held.stored_bytes, "rows": held.rows} for what, held in figures.items()
    }


@router.delete("/snapshots")
async def delete_snapshot(daemon: CurrentDaemon, path: str, name: str) -> dict[str, Any]:
    try:
        return {"deleted": name, "clones": await daemon.store.snapshots.delete(path.encode(), name)}
    except NotFound as error:
        raise _absent(error, path, name) from None
    except Conflict as error:
        if str(error) != "attached":
            raise
        raise HTTPException(
            409, f"hosts have a volume of {name} attached; disconnect them, or `trefoil volume delete VOLUME@{name} --force`"
        ) from None


@router.post("/snapshots/protect")
async def protect_snapshot(daemon: CurrentDaemon, new: NewSnapshot) -> dict[str, Any]:
    until = time.time_ns() + new.protect_seconds * 1_000_000_000
    try:
        return _shown(await daemon.store.snapshots.protect(new.path.encode(), new.name, until))
    except NotFound as error:
        raise _absent(error, new.path, new.name) from None


@router.post("/snapshots/restore")
async def restore_snapshot(daemon: CurrentDaemon, asked: Restore) -> dict[str, Any]:
    undo = asked.undo or f"undo-{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"
    try:
        return _shown(await daemon.store.snapshots.restore(asked.path.encode(), asked.name, undo=undo))
    except NotFound as error:
        if str(error) == "path":
            raise HTTPException(404, f"nothing is at {asked.path} now; trefoil clone {asked.path}@{asked.name} {asked.path}") from None
        raise _absent(error, asked.path, asked.name) from None
    except Conflict as error:
        what = {
            "attached": f"hosts have a volume in {asked.path} attached; disconnect them first",
            "snapshot": f"there is a snapshot {undo} already",
        }
        raise HTTPException(409, what.get(str(error), str(error))) from None


@router.get("/snapshots/backlog")
async def backlog(daemon: CurrentDaemon) -> list[dict[str, Any]]:
    """What is freed or split in the background."""
    jobs = [Job(*job) for job in await daemon.store.snapshots.backlog()]
    return [{**job._asdict(), "path": job.path.decode("utf-8", "replace")} for job in jobs]


@router.post("/clones", status_code=201)
async def create_clone(daemon: CurrentDaemon, new: NewClone) -> dict[str, Any]:
    try:
        element = await daemon.store.snapshots.clone(new.source.encode(), new.target.encode(), snapshot=new.snapshot)
    except NotFound as error:
        raise _absent(error, f"{new.source} or what {new.target} lies in", new.snapshot or "") from None
    except Conflict:
        raise HTTPException(409, f"{new.target} exists already") from None
    return {"path": spelled(new.target), "element": element}


@router.post("/clones/split", status_code=202)
async def split_clone(daemon: CurrentDaemon, clone: Clone) -> dict[str, Any]:
    try:
        await daemon.store.snapshots.split(clone.path.encode())
    except NotFound as error:
        raise _absent(error, clone.path, "") from None
    return {"path": spelled(clone.path)}


@router.get("/snapshots/schedules")
async def list_schedules(daemon: CurrentDaemon) -> list[dict[str, Any]]:
    found = await Schedules(daemon.store).list()
    return [_schedule(path, schedule) for path, schedule in sorted(found.items())]


@router.put("/snapshots/schedules")
async def set_schedule(daemon: CurrentDaemon, new: NewSchedule) -> dict[str, Any]:
    schedule = Schedule(**new.keep.model_dump(), hooks=new.hooks)
    if not schedule.kept():
        raise HTTPException(400, "a schedule keeps at least one snapshot of an hour, day, week or month")
    daemon.hooks.check(new.hooks)
    await Schedules(daemon.store).set(new.path, schedule)
    return _schedule(spelled(new.path), schedule)


@router.delete("/snapshots/schedules", status_code=204)
async def delete_schedule(daemon: CurrentDaemon, path: str) -> None:
    if not await Schedules(daemon.store).delete(path):
        raise HTTPException(404, f"{path} has no schedule")


def _schedule(path: str, schedule: Schedule) -> dict[str, Any]:
    hooks = {"hooks": schedule.hooks.model_dump()} if schedule.hooks else {}
    return {"path": path, "keep": schedule.model_dump(exclude={"hooks"}), **hooks}


def _absent(error: NotFound, path: str, name: str) -> HTTPException:
    if str(error) == "snapshot":
        return HTTPException(404, f"{path} has no snapshot {name}".rstrip())
    return HTTPException(404, f"there is no {path}")


def _shown(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "name": snapshot.name,
        "path": snapshot.path.decode("utf-8", "replace"),
        "epoch": snapshot.epoch,
        "created_ns": snapshot.created_ns,
        "protected_until_ns": snapshot.protected_until_ns,
        "automatic": snapshot.automatic,
        "clones": [clone.decode("utf-8", "replace") for clone in snapshot.clones],
    }
