"""`trefoil status`: is all well, and what to do next."""

from __future__ import annotations

from typing import Any

import typer

from server.cli.output import Json, State, Url, client, human_bytes, print_json, print_table
from server.errors import Exit


def status(json_output: Json = False, state: State = None, url: Url = None) -> None:
    """Show the daemon and its pool. Exit code 4 if something needs attention."""
    answer = client(state, url).get("/api/v1/status")
    if json_output:
        print_json(answer)
    else:
        _print(answer)
    if not _is_well(answer):
        raise typer.Exit(Exit.UNHEALTHY)


def _is_well(answer: dict[str, Any]) -> bool:
    return (
        answer["phase"] == "ready"
        and answer["buckets"] is not None
        and all(device["state"] == "live" for device in answer["pool"]["devices"])
    )


def _print(answer: dict[str, Any]) -> None:
    pool = answer["pool"]
    typer.echo(f"trefoil {answer['version']}: {answer['phase']}, up {answer['uptime_seconds']:.0f} s, {_faces(answer['endpoints'])}")
    protection = "protected" if pool["protected"] else "UNPROTECTED"
    typer.echo(f"pool {pool['uuid']}: code {pool['code']}, {protection}, {_share(pool)}, {_buckets(answer)}")
    rows = [
        (
            device["index"],
            device["name"],
            device["state"],
            human_bytes(device["bytes_used"]),
            human_bytes(device["bytes_total"]),
            device["reason"],
        )
        for device in pool["devices"]
    ]
    print_table(("device", "name", "state", "used", "size", "reason"), rows, empty="no devices")
    for sentence in pool["advice"]:
        typer.echo(f"! {sentence}")
    typer.echo(f"Next: {_next(answer)}")


def _faces(endpoints: dict[str, str]) -> str:
    named = {"s3": "S3 at", "mount": "mounted at", "nfs": "NFS at", "block": "NVMe/TCP at"}
    return ", ".join(f"{words} {endpoints[name]}" for name, words in named.items() if name in endpoints)


def _share(pool: dict[str, Any]) -> str:
    return f"{human_bytes(pool['bytes_used'])} of {human_bytes(pool['bytes_total'])} used"


def _buckets(answer: dict[str, Any]) -> str:
    return "buckets unknown: the store is closed" if answer["buckets"] is None else f"{answer['buckets']} buckets"


def _next(answer: dict[str, Any]) -> str:
    if not _is_well(answer):
        return "trefoil doctor"
    if not answer["buckets"]:
        return "trefoil bucket create NAME"
    return "trefoil bucket list"
