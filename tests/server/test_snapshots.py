"""Schedules of snapshots: what is due, what is kept, by a clock that the test owns."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from element_store.types import Attributes
from server.snapshots import PERIODS, RECORDS, Schedule, Schedules, due, expired, is_of
from tests.model.store import ModelStore

START = datetime(2026, 11, 30, 22, 47, tzinfo=UTC)


class World:
    def __init__(self) -> None:
        self.now = START
        self.store = ModelStore(lambda: int(self.now.timestamp() * 1e9))
        self.schedules = Schedules(self.store)

    async def tick(self, **passed: float) -> list[str]:
        self.now += timedelta(**passed)
        await self.schedules.tick(self.now)
        return [snapshot.name for snapshot in await self.store.snapshots.list(b"/v")]


def test_a_period_has_one_snapshot_and_so_many_are_kept():
    async def live() -> None:
        world = World()
        await world.store.create_view("v", Attributes())
        await world.schedules.set("v/", Schedule(hour=2, day=1))
        assert list(await world.schedules.list()) == ["/v"]
        assert await world.tick() == ["daily-2026-11-30", "hourly-2026-11-30T22"]
        assert await world.tick(minutes=5) == ["daily-2026-11-30", "hourly-2026-11-30T22"]
        await world.store.snapshots.create(b"/v", "mine")
        await world.tick(minutes=30)
        assert await world.tick(hours=1) == ["daily-2026-12-01", "hourly-2026-11-30T23", "hourly-2026-12-01T00", "mine"]
        await world.store.snapshots.protect(b"/v", "hourly-2026-11-30T23", int((world.now + timedelta(hours=5)).timestamp() * 1e9))
        assert "hourly-2026-11-30T23" in await world.tick(hours=2)
        assert "hourly-2026-11-30T23" not in await world.tick(hours=4)
        assert await world.schedules.delete("/v") and not await world.schedules.delete("/v")
        kept = await world.tick()
        assert await world.tick(days=40) == kept

    asyncio.run(live())


def test_one_path_that_is_gone_keeps_no_other_waiting(caplog):
    async def live() -> None:
        world = World()
        await world.store.create_view("v", Attributes())
        await world.schedules.set("/a", Schedule(month=1))
        await world.schedules.set("/v", Schedule(week=1))
        await world.store.put_record(RECORDS, "/broken", b"{")
        assert await world.tick() == ["weekly-2026-W49"]

    asyncio.run(live())
    assert {record.levelname for record in caplog.records} == {"WARNING", "ERROR"}
    caplog.clear()


def test_a_schedule_is_bounded():
    for wrong in ({"hour": -1}, {"day": 10_001}, {"year": 1}):
        with pytest.raises(ValidationError):
            Schedule.model_validate(wrong)


@given(st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)), st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)))
def test_names_sort_by_time_and_belong_to_one_period(one: datetime, other: datetime):
    for period, spelling in PERIODS.items():
        name, later = (moment.strftime(spelling) for moment in sorted((one, other)))
        assert name <= later
        assert [each for each in PERIODS if is_of(name, each)] == [period]


def test_nothing_is_due_or_expired_without_a_schedule_or_snapshots():
    assert due(Schedule(), [], START) == []
    assert expired(Schedule(hour=1), [], START) == []
