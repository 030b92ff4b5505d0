"""`trefoil bucket`: buckets are view roots that S3 shows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from protocols.s3.config import KeyPolicy
from server.cli.output import Json, State, Url, client, print_json, print_table
from server.client import quoted

app = typer.Typer(name="bucket", help="Create, list, show and delete buckets.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="Bucket name.", show_default=False)]


@app.command("create")
def create(
    name: Name,
    owner: Annotated[str, typer.Option("--owner", help="User that owns it.")] = "root",
    keys: Annotated[
        KeyPolicy | None,
        typer.Option("--keys", help="s3: every legal key; posix: only paths of files; default: s3.key_policy.", show_default=False),
    ] = None,
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Create a bucket."""
    made = client(state, url).post("/api/v1/buckets", {"name": name, "owner": owner, "keys": keys})
    if json_output:
        print_json(made)
    else:
        typer.echo(f"created bucket {name}, owned by {owner}")


@app.command("list")
def list_(json_output: Json = False, state: State = None, url: Url = None) -> None:
    """List all buckets."""
    buckets = client(state, url).get("/api/v1/buckets")
    if json_output:
        print_json(buckets)
        return
    rows = [(bucket["name"], bucket["owner"], _date(bucket["created_ns"])) for bucket in buckets]
    print_table(("bucket", "owner", "created"), rows, empty="no buckets; make one: trefoil bucket create NAME")


@app.command("show")
def show(name: Name, json_output: Json = False, state: State = None, url: Url = None) -> None:
    """Show one bucket."""
    bucket = client(state, url).get(f"/api/v1/buckets/{quoted(name)}")
    if json_output:
        print_json(bucket)
    else:
        created, kind = _date(bucket["created_ns"]), bucket["keys"]
        shows = ", snapshots as keys" if bucket["snapshots"] else ""
        typer.echo(f"bucket {bucket['name']}, owned by {bucket['owner']}, {kind} keys{shows}, created {created}, element {bucket['id']}")


@app.command("set")
def set_(
    name: Name,
    snapshots: Annotated[
        bool,
        typer.Option("--snapshots/--no-snapshots", help="S3 shows snapshots of it as keys .snapshot/SNAPSHOT/KEY.", show_default=False),
    ],
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Change how a bucket is shown."""
    bucket = client(state, url).patch(f"/api/v1/buckets/{quoted(name)}", {"snapshots": snapshots})
    if json_output:
        print_json(bucket)
    else:
        typer.echo(f"bucket {name} {'shows snapshots' if snapshots else 'shows no snapshots'} as keys below .snapshot/")


@app.command("delete")
def delete(name: Name, json_output: Json = False, state: State = None, url: Url = None) -> None:
    """Delete an empty bucket."""
    client(state, url).delete(f"/api/v1/buckets/{quoted(name)}")
    if json_output:
        print_json({"deleted": name})
    else:
        typer.echo(f"deleted bucket {name}")


def _date(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
