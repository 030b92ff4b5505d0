"""`trefoil key`: access keys. A secret is shown when it is made, and the root key from its file; never otherwise."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from server.cli.output import Json, State, Url, client, print_json, print_table
from server.client import quoted
from server.config import state_default
from server.errors import Exit, UserError
from server.state import StateDirectory

app = typer.Typer(name="key", help="Create, list and delete access keys; show the root key.", no_args_is_help=True)


@app.command("create")
def create(
    user_id: Annotated[str, typer.Argument(help="User id.", show_default=False)],
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Create an access key for a user; its secret is shown this once."""
    made = client(state, url).post("/api/v1/keys", {"user_id": user_id})
    if json_output:
        print_json(made)
    else:
        typer.echo(f"access key {made['access_key']}\nsecret key {made['secret_key']}   (shown only now)")


@app.command("list")
def list_(
    user: Annotated[str | None, typer.Option("--user", help="Of this user only.", show_default=False)] = None,
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """List access keys, without their secrets."""
    keys = client(state, url).get("/api/v1/keys", user_id=user)
    if json_output:
        print_json(keys)
    else:
        print_table(("access key", "user"), [(key["access_key"], key["user_id"]) for key in keys], empty="no keys")


@app.command("delete")
def delete(
    access_key: Annotated[str, typer.Argument(help="Access key.", show_default=False)],
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Delete an access key; it stops working at once."""
    client(state, url).delete(f"/api/v1/keys/{quoted(access_key)}")
    if json_output:
        print_json({"deleted": access_key})
    else:
        typer.echo(f"deleted access key {access_key}")


@app.command("root")
def root(
    env: Annotated[bool, typer.Option("--env", help='Print exports for a shell: eval "$(trefoil key root --env)".')] = False,
    json_output: Json = False,
    state: State = None,
) -> None:
    """Show the root key of the daemon on this machine, from its state directory."""
    directory = StateDirectory((state or state_default()).absolute())
    credentials = directory.root_credentials()
    if credentials is None:
        sentence = f"{directory.path} has no root key yet; start the daemon once, or name its state directory with --state"
        raise UserError(sentence, exit_code=Exit.UNREACHABLE, kind="unreachable")
    if env:
        typer.echo("\n".join(f"export {name}={shlex.quote(value)}" for name, value in _environment(directory).items()))
    elif json_output:
        print_json({"access_key": credentials.access_key, "secret_key": credentials.secret_key})
    else:
        typer.echo(f"access key {credentials.access_key}\nsecret key {credentials.secret_key}")


def _environment(directory: StateDirectory) -> dict[str, str]:
    """What S3 tools and `trefoil` read; the endpoint only while a daemon runs."""
    credentials = directory.root_credentials()
    assert credentials is not None
    names = {
        "TREFOIL_STATE": str(directory.path),
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
    }
    endpoints = directory.endpoints()
    if endpoints:
        names |= {"AWS_ENDPOINT_URL": endpoints["s3"], "AWS_REGION": endpoints["region"]}
    return names
