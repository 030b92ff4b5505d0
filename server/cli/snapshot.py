"""`trefoil snapshot` and `trefoil clone`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from server.cli.output import Json, State, Url, client, human_bytes, print_json, print_table
from server.client import AdminClient
from server.errors import UserError

app = typer.Typer(name="snapshot", help="Take, list, delete and restore snapshots; keep them by schedule.", no_args_is_help=True)
schedule = typer.Typer(name="schedule", help="Snapshots that are taken and deleted by themselves.", no_args_is_help=True)
app.add_typer(schedule)
Path = Annotated[str, typer.Argument(help="/BUCKET or a path in it.", show_default=False)]
Name = Annotated[str, typer.Argument(help="The snapshot's name.", show_default=False)]
SPLIT = "split"
"""Instead of a source; a bucket of that name is /split."""
Before = Annotated[
    str, typer.Option("--before", help="Command in snapshot.hooks that runs before; no snapshot if it fails.", show_default=False)
]
After = Annotated[str, typer.Option("--after", help="Command that runs after, whatever happened.", show_default=False)]
HookTime = Annotated[str, typer.Option("--hook-time", help="The bound of each command.")]
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def seconds(text: str) -> int:
    """`90s`, `12h`, `30d`. Raises UserError."""
    found = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    if found is None:
        raise UserError(f"{text!r} is no time: a number and s, m, h, d or w, as 30d")
    return int(found[1]) * UNITS[found[2]]


@app.command("create")
def create(
    path: Path,
    name: Name,
    protect: Annotated[str, typer.Option("--protect", help="Nobody deletes it for so long, as 30d.", show_default=False)] = "",
    before: Before = "",
    after: After = "",
    hook_time: HookTime = "60s",
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Take a snapshot."""
    asked = {"path": path, "name": name, "protect_seconds": seconds(protect) if protect else 0}
    hooks = _hooks(before, after, hook_time)
    made = client(state, url).post("/api/v1/snapshots", {**asked, **hooks}, patient=bool(hooks))
    if json_output:
        print_json(made)
    else:
        typer.echo(f"took {name} of {path}; files find it in {path.rstrip('/')}/.snapshot/{name}")


@app.command("list")
def list_(
    path: Annotated[str | None, typer.Argument(help="Only those that show it.", show_default=False)] = None,
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """List snapshots."""
    admin = client(state, url)
    found = admin.get("/api/v1/snapshots", path=path)
    if json_output:
        print_json(found)
        return
    rows = [(one["path"], one["name"], _date(one["created_ns"]), _notes(one)) for one in found]
    print_table(("path", "snapshot", "taken", ""), rows, empty="no snapshots; take one: trefoil snapshot create PATH NAME")
    for job in admin.get("/api/v1/snapshots/backlog"):
        typer.echo(_progress(job))


@app.command("backlog")
def backlog(json_output: Json = False, state: State = None, url: Url = None) -> None:
    """Show what is freed, or split, in the background, and how far it is."""
    jobs = client(state, url).get("/api/v1/snapshots/backlog")
    if json_output:
        print_json(jobs)
        return
    for job in jobs:
        typer.echo(_progress(job))
    if not jobs:
        typer.echo("nothing is left to be done")


@app.command("space")
def space(path: Path, name: Name, json_output: Json = False, state: State = None, url: Url = None) -> None:
    """Show what is freed with a snapshot."""
    held = client(state, url).get("/api/v1/snapshots/space", path=path, name=name)
    if json_output:
        print_json(held)
        return
    alone, older = held["alone"], held["with_older"]
    typer.echo(f"{name} alone holds {human_bytes(alone['stored_bytes'])}, with all older ones {human_bytes(older['stored_bytes'])}")


@app.command("delete")
def delete(path: Path, name: Name, json_output: Json = False, state: State = None, url: Url = None) -> None:
    """Delete a snapshot; its space is freed in the background."""
    ended = client(state, url).delete("/api/v1/snapshots", path=path, name=name)
    if json_output:
        print_json(ended)
        return
    kept = f"; {ended['clones']} clones keep what they share with it" if ended["clones"] else ""
    typer.echo(f"deleted {name} of {path}{kept}")


@app.command("protect")
def protect(
    path: Path,
    name: Name,
    time: Annotated[str, typer.Argument(help="From now on, as 30d.", show_default=False)],
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Keep a snapshot from being deleted for a time."""
    kept = client(state, url).post("/api/v1/snapshots/protect", {"path": path, "name": name, "protect_seconds": seconds(time)})
    if json_output:
        print_json(kept)
    else:
        typer.echo(f"{name} of {path} is protected until {_date(kept['protected_until_ns'])}")


@app.command("restore")
def restore(
    path: Path,
    name: Name,
    undo: Annotated[str | None, typer.Option("--undo", help="Keep what is there now under this name.", show_default=False)] = None,
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Make a bucket, a directory or a file what it was; what it is now is kept as another snapshot."""
    kept = client(state, url).post("/api/v1/snapshots/restore", {"path": path, "name": name, "undo": undo})
    if json_output:
        print_json(kept)
    else:
        typer.echo(f"{path} is as in {name}; undo: trefoil snapshot restore {path} {kept['name']}")


@schedule.command("set")
def set_schedule(
    path: Path,
    hour: Annotated[int, typer.Option("--hour", min=0, help="Hourly snapshots kept.")] = 0,
    day: Annotated[int, typer.Option("--day", min=0, help="Daily ones.")] = 0,
    week: Annotated[int, typer.Option("--week", min=0, help="Weekly ones.")] = 0,
    month: Annotated[int, typer.Option("--month", min=0, help="Monthly ones.")] = 0,
    before: Before = "",
    after: After = "",
    hook_time: HookTime = "60s",
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Take snapshots of a path by the clock, and keep so many."""
    asked = {"path": path, "keep": {"hour": hour, "day": day, "week": week, "month": month}, **_hooks(before, after, hook_time)}
    made = client(state, url).put("/api/v1/snapshots/schedules", asked)
    if json_output:
        print_json(made)
    else:
        typer.echo(f"{made['path']} keeps {_kept(made['keep'])}")


@schedule.command("list")
def list_schedules(json_output: Json = False, state: State = None, url: Url = None) -> None:
    """List schedules."""
    found = client(state, url).get("/api/v1/snapshots/schedules")
    if json_output:
        print_json(found)
        return
    rows = [(one["path"], _kept(one["keep"]), _around(one.get("hooks"))) for one in found]
    print_table(("path", "keeps", ""), rows, empty="no schedules; make one: trefoil snapshot schedule set PATH --day 7")


@schedule.command("delete")
def delete_schedule(path: Path, json_output: Json = False, state: State = None, url: Url = None) -> None:
    """End a schedule; the snapshots that it took stay."""
    client(state, url).delete("/api/v1/snapshots/schedules", path=path)
    if json_output:
        print_json({"deleted": path})
    else:
        typer.echo(f"{path} has no schedule any more; its snapshots stay")


def clone(
    source: Annotated[str, typer.Argument(help="PATH@SNAPSHOT, or PATH as it is now.", show_default=False)],
    target: Annotated[str, typer.Argument(help="The new path; /NAME makes a bucket.", show_default=False)],
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Make a writable copy of a bucket, directory or file that shares its content; or `clone split PATH`: give one rows of its own."""
    if source == SPLIT:
        _split(target, json_output, client(state, url))
        return
    path, at, name = source.rpartition("@")
    asked = {"source": path if at else source, "snapshot": name if at else None, "target": target}
    made = client(state, url).post("/api/v1/clones", asked)
    if json_output:
        print_json(made)
    else:
        typer.echo(f"{made['path']} is a clone of {source}")


def _split(path: str, json_output: bool, admin: AdminClient) -> None:
    begun = admin.post("/api/v1/clones/split", {"path": path})
    if json_output:
        print_json(begun)
    else:
        typer.echo(f"{begun['path']} gets rows of its own in the background; `trefoil snapshot list` says how far it is")


def _hooks(before: str, after: str, bound: str) -> dict[str, Any]:
    return {"hooks": {"before": before, "after": after, "seconds": seconds(bound)}} if before or after else {}


def _around(hooks: dict[str, Any] | None) -> str:
    return ", ".join(f"{phase} it {hooks[phase]}" for phase in ("before", "after") if hooks[phase]) if hooks else ""


def _kept(keep: dict[str, int]) -> str:
    words = {"hour": "hourly", "day": "daily", "week": "weekly", "month": "monthly"}
    return ", ".join(f"{keep[period]} {word}" for period, word in words.items() if keep[period])


def _progress(job: dict[str, Any]) -> str:
    what = {"free": "freeing what a deleted snapshot held", "drop": "freeing what was removed or replaced", "split": "splitting"}[
        job["kind"]
    ]
    where = f" of {job['path']}" if job["path"] else ""
    done = 100 * (job["rows"] - job["rows_left"]) // job["rows"] if job["rows"] else 100
    content = f", {human_bytes(job['bytes_left'])} of content" if job["bytes_left"] else ""
    return f"in the background: {what}{where}: {done} %, {job['rows_left']:,} rows{content} left"


def _notes(one: dict[str, object]) -> str:
    until = one["protected_until_ns"]
    notes = [f"protected until {_date(until)}"] if isinstance(until, int) and until else []
    notes += ["undo"] if one["automatic"] else []
    clones = one["clones"]
    notes += [f"clones: {', '.join(map(str, clones))}"] if isinstance(clones, list) and clones else []
    return "; ".join(notes)


def _date(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
