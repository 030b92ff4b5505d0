"""`trefoil check`: asks the daemon to recount its metadata and, on demand, to read all content."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.output import Json, State, Url, client, human_bytes, print_json
from server.errors import Exit

Content = Annotated[bool, typer.Option("--content", help="Also read and verify every payload and parity shard; what differs is repaired.")]


def check(content: Content = False, json_output: Json = False, state: State = None, url: Url = None) -> None:
    """Verify that what the pool holds is whole, while it is in use. Exit code 4 if it is not."""
    found = client(state, url).post("/api/v1/check", {"content": content}, patient=True)
    read = found["content"] or {}
    if json_output:
        print_json(found)
    else:
        for sentence in found["sentences"]:
            typer.echo(sentence)
        typer.echo("the metadata are whole" if not found["faults"] else f"{found['faults']} faults in the metadata")
        if found["content"] is not None:
            payloads, size, wrong, repaired, lost = (
                read.get(name, 0) for name in ("payloads", "payload_bytes", "checksum_errors", "repaired", "unrecoverable")
            )
            typer.echo(f"{payloads} payloads read, {human_bytes(size)}: {wrong} wrong, {repaired} repaired, {lost} lost")
    if found["faults"] or read.get("unrecoverable"):
        raise typer.Exit(Exit.UNHEALTHY)
