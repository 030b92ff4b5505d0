"""`trefoil host`: which machines may attach volumes."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

import typer

from server.cli.output import Json, State, Url, client, print_json, print_table

app = typer.Typer(name="host", help="Allow, deny and list hosts that attach volumes.", no_args_is_help=True)
Nqn = Annotated[str, typer.Argument(help="The host's NQN, as its /etc/nvme/hostnqn has it.", show_default=False)]


@app.command("allow")
def allow(
    nqn: Nqn,
    volume: Annotated[
        list[str] | None,
        typer.Option("--volume", help="A volume that it may attach; may be given again. Without: all.", show_default=False),
    ] = None,
    dhchap_key: Annotated[
        str | None,
        typer.Option("--dhchap-key", help="What the host must prove to know: DHHC-1:..., or `new` to make one.", show_default=False),
    ] = None,
    dhchap_ctrl_key: Annotated[
        str | None,
        typer.Option("--dhchap-ctrl-key", help="What the target proves to know if asked: DHHC-1:..., or `new`.", show_default=False),
    ] = None,
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Let a host attach volumes. Given again, it may attach more; its keys stay unless others are given."""
    body = {"nqn": nqn, "volumes": volume or [], "dhchap_key": dhchap_key, "dhchap_ctrl_key": dhchap_ctrl_key}
    host = client(state, url).post("/api/v1/hosts", body)
    if json_output:
        print_json(host)
        return
    what = "every volume" if host["volumes"] is None else ", ".join(host["volumes"])
    typer.echo(f"{nqn} may attach {what}{', once it has proved its key' if host['authenticated'] else ''}")
    for name in ("dhchap_key", "dhchap_ctrl_key"):
        if name in host:
            typer.echo(f"{name.replace('_', '-')}: {host[name]}")


@app.command("deny")
def deny(
    nqn: Nqn,
    volume: Annotated[str | None, typer.Option("--volume", help="This volume alone. Without: it is forgotten.", show_default=False)] = None,
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Let a host attach a volume, or anything, no more. It is cut off from what it may not attach."""
    query = {"nqn": nqn} | ({"volume": volume} if volume else {})
    client(state, url).delete(f"/api/v1/hosts?{urlencode(query)}")
    if json_output:
        print_json({"denied": nqn, "volume": volume})
    else:
        typer.echo(f"{nqn} may not attach {volume or 'anything'} any more")


@app.command("list")
def list_(json_output: Json = False, state: State = None, url: Url = None) -> None:
    """List hosts that may attach volumes, and those that are connected."""
    hosts = client(state, url).get("/api/v1/hosts")
    if json_output:
        print_json(hosts)
        return
    rows = [
        (
            host["nqn"],
            "(all)" if host["volumes"] is None else ", ".join(host["volumes"]),
            "yes" if host["authenticated"] else "no",
            ", ".join(session["address"] for session in host["sessions"] if not session["is_discovery"]) or "no",
        )
        for host in hosts
    ]
    print_table(("host", "volumes", "key", "connected"), rows, empty="no host may attach anything; allow one: trefoil host allow NQN")
