"""`trefoil user`: who may own buckets and sign requests."""

from __future__ import annotations

from typing import Annotated

import typer

from server.cli.output import Json, State, Url, client, print_json, print_table
from server.client import quoted
from server.errors import Exit, UserError

app = typer.Typer(name="user", help="Create, list and delete users.", no_args_is_help=True)
FileMode = Annotated[
    str | None,
    typer.Option("--file-mode", help="Permissions of new files, octal; default: identity.file_mode.", show_default=False),
]
DirectoryMode = Annotated[
    str | None,
    typer.Option("--directory-mode", help="Permissions of new directories, octal; default: identity.directory_mode.", show_default=False),
]
UserId = Annotated[str, typer.Argument(help="User id.", show_default=False)]


@app.command("create")
def create(
    user_id: UserId,
    name: Annotated[str, typer.Option("--name", help="Display name.")] = "",
    email: Annotated[str, typer.Option("--email", help="E-mail address.")] = "",
    uid: Annotated[
        int | None, typer.Option("--uid", help="Owner of the user's files; default: the next free one.", show_default=False)
    ] = None,
    gid: Annotated[int | None, typer.Option("--gid", help="Group of the user's files; default: the uid.", show_default=False)] = None,
    file_mode: FileMode = None,
    directory_mode: DirectoryMode = None,
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Create a user; it needs a key before it can sign requests."""
    body = {"id": user_id, "display_name": name, "email": email, "uid": uid, "gid": gid}
    body |= {"file_mode": _octal(file_mode), "directory_mode": _octal(directory_mode)}
    made = client(state, url).post("/api/v1/users", body)
    if json_output:
        print_json(made)
    else:
        typer.echo(f"created user {made['id']} (uid {made['uid']}); next: trefoil key create {made['id']}")


@app.command("set")
def set_(
    user_id: UserId,
    uid: Annotated[
        int | None, typer.Option("--uid", help="Owner of files that it writes through S3; 0: the configured one.", show_default=False)
    ] = None,
    gid: Annotated[
        int | None, typer.Option("--gid", help="Group of files that it writes through S3; 0: the configured one.", show_default=False)
    ] = None,
    file_mode: FileMode = None,
    directory_mode: DirectoryMode = None,
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Change whose files the user's S3 writes make, from now on."""
    given = {"uid": uid, "gid": gid, "file_mode": _octal(file_mode), "directory_mode": _octal(directory_mode)}
    changes = {name: value for name, value in given.items() if value is not None}
    made = client(state, url).patch(f"/api/v1/users/{quoted(user_id)}", changes)
    if json_output:
        print_json(made)
    else:
        typer.echo(
            f"user {made['id']}: uid {made['uid']}, gid {made['gid']}, files {_mode(made['file_mode'])}, directories {_mode(made['directory_mode'])}"
        )


def _octal(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(text, 8)
    except ValueError:
        raise UserError(f"{text!r} is no mode: give its octal digits, such as 0640", exit_code=Exit.USAGE) from None


def _mode(mode: int | None) -> str:
    return "as configured" if mode is None else f"{mode:04o}"


@app.command("list")
def list_(json_output: Json = False, state: State = None, url: Url = None) -> None:
    """List all users."""
    users = client(state, url).get("/api/v1/users")
    if json_output:
        print_json(users)
        return
    rows = [(user["id"], user["display_name"], user["email"], user["uid"], user["gid"]) for user in users]
    print_table(("user", "name", "e-mail", "uid", "gid"), rows, empty="no users")


@app.command("delete")
def delete(user_id: UserId, json_output: Json = False, state: State = None, url: Url = None) -> None:
    """Delete a user and its keys; its buckets stay."""
    client(state, url).delete(f"/api/v1/users/{quoted(user_id)}")
    if json_output:
        print_json({"deleted": user_id})
    else:
        typer.echo(f"deleted user {user_id} and its keys")
