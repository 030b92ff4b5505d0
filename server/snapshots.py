"""Schedules of snapshots: which are due, which are kept, and the task that sees to it.

A schedule belongs to a path and says how many snapshots of each period are kept. A period's snapshot is named by the period and the UTC time of its
start, so names of a period sort by time and one is taken at most once; after a pause only the present one is made up for. What somebody named
himself, protected snapshots and undos are never deleted. The clock is the caller's. A schedule may name commands that run around each of its
snapshots (`server.hooks`); where those failed it is tried again a little later, not at once.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from element_store.interface import ElementStore
from element_store.types import Conflict, Invalid, NotFound, Snapshot, StoreError
from server.hooks import HookFailed, HookRunner, Hooks, about

log = logging.getLogger("trefoil.snapshots")

RECORDS: Final = "snapshot-schedule"
TICK_SECONDS: Final = 20.0
RETRY: Final = timedelta(minutes=5)
"""After a command before a snapshot failed."""
KEEP_MAX: Final = 10_000
PERIODS: Final = {"hour": "hourly-%Y-%m-%dT%H", "day": "daily-%Y-%m-%d", "week": "weekly-%G-W%V", "month": "monthly-%Y-%m"}
"""Periods and how their snapshots are named."""


class Keep(BaseModel):
    """How many snapshots are kept; 0: none are taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    hour: int = Field(0, ge=0, le=KEEP_MAX)
    day: int = Field(0, ge=0, le=KEEP_MAX)
    week: int = Field(0, ge=0, le=KEEP_MAX)
    month: int = Field(0, ge=0, le=KEEP_MAX)

    def kept(self) -> dict[str, int]:
        return {period: keep for period in PERIODS if (keep := getattr(self, period))}


class Schedule(Keep):
    """With the commands that run around each snapshot."""

    hooks: Hooks = Hooks()


def is_of(name: str, period: str) -> bool:
    """Is it a name that a schedule gives?"""
    try:
        # A week's time needs a day to be read.
        datetime.strptime(f"{name}-1" if period == "week" else name, PERIODS[period] + ("-%u" if period == "week" else ""))
    except ValueError:
        return False
    return True


def due(schedule: Schedule, taken: Sequence[Snapshot], now: datetime) -> list[str]:
    """Names of those that are to be taken now."""
    names = {snapshot.name for snapshot in taken}
    wanted = [now.astimezone(UTC).strftime(PERIODS[period]) for period in schedule.kept()]
    return [name for name in wanted if name not in names]


def expired(schedule: Schedule, taken: Sequence[Snapshot], now: datetime) -> list[str]:
    """Names of those that are to be deleted now, the oldest first."""
    gone = []
    for period in PERIODS:
        names = sorted(snapshot.name for snapshot in taken if is_of(snapshot.name, period) and not snapshot.automatic)
        keep = schedule.kept().get(period, 0)
        gone += names[: max(0, len(names) - keep)]
    protected = {snapshot.name for snapshot in taken if snapshot.protected_until_ns > now.timestamp() * 1e9}
    return [name for name in gone if name not in protected]


def spelled(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part)


class Schedules:
    """Kept in the pool, by path."""

    def __init__(self, store: ElementStore, hooks: HookRunner | None = None) -> None:
        self._store = store
        self._hooks = hooks or HookRunner(None)
        self._again: dict[str, datetime] = {}
        """When paths are tried again whose commands failed."""

    async def list(self) -> dict[str, Schedule]:
        found = {}
        for path, value in await self._store.list_records(RECORDS):
            try:
                found[path] = Schedule.model_validate(json.loads(value))
            except (ValueError, ValidationError):
                log.error("a snapshot schedule cannot be read: set it again", extra={"path": path})
        return found

    async def set(self, path: str, schedule: Schedule) -> None:
        await self._store.put_record(RECORDS, spelled(path), schedule.model_dump_json().encode())

    async def delete(self, path: str) -> bool:
        return await self._store.delete_record(RECORDS, spelled(path))

    async def tick(self, now: datetime) -> None:
        """Takes and deletes what is due. One path's trouble is logged and keeps no other waiting."""
        for path, schedule in (await self.list()).items():
            try:
                await self._see_to(path, schedule, now)
            except HookFailed:
                self._again[path] = now + RETRY
            except Invalid as error:
                self._again[path] = now + RETRY
                log.error("scheduled snapshots failed", extra={"path": path, "reason": str(error)})
            except NotFound:
                log.warning("nothing is there to take a snapshot of", extra={"path": path})
            except StoreError as error:
                log.error("scheduled snapshots failed", extra={"path": path, "reason": str(error)})

    async def _see_to(self, path: str, schedule: Schedule, now: datetime) -> None:
        snapshots, at = self._store.snapshots, path.encode()
        wanted = due(schedule, await snapshots.list(at), now)
        if wanted and self._again.get(path, now) <= now:
            # The application is held once for all of them.
            await self._hooks.around(schedule.hooks, about(path, " ".join(wanted)), lambda: self._take(path, wanted))
            self._again.pop(path, None)
        for name in expired(schedule, await snapshots.list(at), now):
            try:
                await snapshots.delete(at, name)
            except Conflict as error:
                log.warning("a snapshot could not be deleted yet", extra={"path": path, "snapshot": name, "reason": str(error)})

    async def _take(self, path: str, names: Sequence[str]) -> None:
        for name in names:
            try:
                await self._store.snapshots.create(path.encode(), name)
            except Conflict:
                # One of that name was taken of something around or inside.
                log.warning("a scheduled snapshot's name is taken", extra={"path": path, "snapshot": name})

    async def run(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.tick(clock())
            except StoreError as error:
                log.error("snapshot schedules were not looked at", extra={"reason": str(error)})
            await asyncio.sleep(TICK_SECONDS)
