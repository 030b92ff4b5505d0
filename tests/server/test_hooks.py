"""Commands around snapshots: what runs when, what is told, and that nobody else's program ever runs."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from element_store.types import Attributes, Invalid
from server.hooks import OUTPUT_BYTES_MAX, HookFailed, HookRunner, Hooks, about
from server.snapshots import RETRY, Schedule, Schedules
from tests.model.store import ModelStore

ABOUT = about("/v", "one")
TELL = 'echo "$TREFOIL_PHASE $TREFOIL_PATH $TREFOIL_SNAPSHOT $TREFOIL_RESULT" >>"{log}"'


class Place:
    def __init__(self, directory: Path) -> None:
        self.hooks = directory / "hooks"
        self.hooks.mkdir(mode=0o755)
        self.log = directory / "log"
        self.log.touch()
        self.registry = CollectorRegistry()
        self.runner = HookRunner(self.hooks, self.registry)
        self.script("tell", TELL.format(log=self.log))
        self.script("fail", f"{TELL.format(log=self.log)}; echo it would not freeze; exit 3")

    def script(self, name: str, text: str) -> Path:
        path = self.hooks / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def said(self) -> list[str]:
        return [line.strip() for line in self.log.read_text().splitlines()]

    def count(self, phase: str, result: str) -> float:
        return self.registry.get_sample_value("trefoil_snapshot_hooks_total", {"phase": phase, "result": result}) or 0.0

    async def take(self) -> str:
        with self.log.open("a") as log:
            log.write("taken\n")
        return "snapshot"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def test_one_runs_before_and_one_after(place: Place):
    assert await place.runner.around(Hooks(before="tell", after="tell"), ABOUT, place.take) == "snapshot"
    assert place.said() == ["before /v one", "taken", "after /v one taken"]
    assert (place.count("before", "ok"), place.count("after", "ok")) == (1, 1)
    assert await place.runner.around(Hooks(), ABOUT, place.take) == "snapshot"


async def test_without_the_first_there_is_no_snapshot_and_the_second_runs(place: Place, caplog):
    with pytest.raises(HookFailed, match="no snapshot was taken: fail ended with 3: it would not freeze"):
        await place.runner.around(Hooks(before="fail", after="tell"), ABOUT, place.take)
    assert place.said() == ["before /v one", "after /v one refused"]
    assert place.count("before", "failed") == 1
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    caplog.clear()


async def test_what_fails_in_between_is_told_to_the_second(place: Place):
    async def fail() -> str:
        raise Invalid("no")

    with pytest.raises(Invalid, match="no"):
        await place.runner.around(Hooks(before="tell", after="tell"), ABOUT, fail)
    assert place.said()[-1] == "after /v one failed"


async def test_a_second_that_fails_leaves_the_snapshot(place: Place, caplog):
    assert await place.runner.around(Hooks(after="fail"), ABOUT, place.take) == "snapshot"
    assert place.count("after", "failed") == 1
    caplog.clear()


async def test_a_command_that_does_not_end_is_killed_with_all_it_started(place: Place, caplog):
    pid = place.log.with_name("pid")
    place.script("hang", f'sleep 600 & echo $! >"{pid}"; wait')
    with pytest.raises(HookFailed, match="had not ended after 1 s, and was killed"):
        await place.runner.around(Hooks(before="hang", after="tell", seconds=1), ABOUT, place.take)
    assert place.said() == ["after /v one refused"]
    state = Path(f"/proc/{int(pid.read_text())}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
    caplog.clear()


async def test_the_second_runs_when_the_daemon_ends_meanwhile(place: Place, caplog):
    ready = place.log.with_name("ready")
    os.mkfifo(ready)
    place.script("hang", f'echo x >"{ready}"; sleep 600')
    task = asyncio.create_task(place.runner.around(Hooks(before="hang", after="tell"), ABOUT, place.take))
    await asyncio.to_thread(ready.read_text)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert place.said() == ["after /v one refused"]
    caplog.clear()


async def test_what_a_command_prints_is_bounded_and_its_environment_is_its_own(place: Place, caplog, monkeypatch):
    monkeypatch.setenv("TREFOIL_ROOT_SECRET_KEY", "secret")
    place.script("loud", 'yes | head -c 300000; echo "end ${TREFOIL_ROOT_SECRET_KEY:-none}"; cat; exit 1')
    with pytest.raises(HookFailed) as failed:
        await place.runner.around(Hooks(before="loud"), ABOUT, place.take)
    assert str(failed.value).endswith("end none") and len(str(failed.value)) < OUTPUT_BYTES_MAX + 200
    caplog.clear()


@pytest.mark.parametrize("name", ["../tell", "/bin/true", ".tell", "a b", "a/b", "x" * 65, "tell\n"])
def test_a_name_is_no_path(place: Place, name: str):
    with pytest.raises(ValidationError):
        Hooks(before=name)


def test_only_what_nobody_else_can_change_runs(place: Place):
    place.script("open", "true").chmod(0o777)
    place.script("data", "true").chmod(0o644)
    for name, words in {"open": "could be changed", "data": "no program", "absent": "No such file"}.items():
        with pytest.raises(Invalid, match=words):
            place.runner.check(Hooks(before=name))
    place.hooks.chmod(0o777)
    with pytest.raises(Invalid, match="could be changed"):
        place.runner.check(Hooks(after="tell"))
    with pytest.raises(Invalid, match=r"snapshot\.hooks"):
        HookRunner(None).check(Hooks(after="tell"))


def test_a_schedule_holds_the_application_once_and_tries_again_later(place: Place, caplog):
    async def live() -> None:
        now = datetime(2026, 12, 1, tzinfo=UTC)
        store = ModelStore(lambda: int(now.timestamp() * 1e9))
        schedules = Schedules(store, place.runner)
        await store.create_view("v", Attributes())
        await schedules.set("/v", Schedule(hour=2, day=1, hooks=Hooks(before="fail", after="tell")))
        await schedules.tick(now)
        await schedules.tick(now + RETRY / 2)
        assert await _names(store) == [] and len(place.said()) == 2
        place.script("fail", TELL.format(log=place.log))
        await schedules.tick(now + RETRY)
        assert await _names(store) == ["daily-2026-12-01", "hourly-2026-12-01T00"]
        assert place.said()[2:] == [
            "before /v hourly-2026-12-01T00 daily-2026-12-01",
            "after /v hourly-2026-12-01T00 daily-2026-12-01 taken",
        ]
        await schedules.tick(now + RETRY + timedelta(minutes=1))
        assert len(place.said()) == 4, "nothing is due"

    asyncio.run(live())
    caplog.clear()


async def _names(store: ModelStore) -> list[str]:
    return [snapshot.name for snapshot in await store.snapshots.list(b"/v")]
