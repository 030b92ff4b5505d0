"""`trefoil mount` and `trefoil umount`: the running daemon mounts the namespace, or one bucket, and takes it away again.

`fstab` is the same for mount(8): installed as `/sbin/mount.trefoil`, a line `BUCKET DIRECTORY trefoil OPTIONS 0 0` works (`all`: every bucket).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from server.cli.output import Json, State, Url, client, print_error, print_json, print_table
from server.errors import UserError

ALL = "all"
"""What stands for every bucket where mount(8) wants a source."""
FSTAB_ONLY = frozenset({"defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "owner"})
"""Words of fstab that are for mount(8) and systemd."""
FSTAB_NAMED = ("state=", "engine=")


def mount(
    path: Annotated[Path | None, typer.Argument(help="An empty directory. Without: list the mounts.", show_default=False)] = None,
    view: Annotated[str | None, typer.Option("--view", help="Mount this bucket alone.", show_default=False)] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="For reading only.")] = False,
    engine: Annotated[
        str | None, typer.Option("--engine", help="native or pyfuse3; default: file.engine of the daemon.", show_default=False)
    ] = None,
    options: Annotated[
        str,
        typer.Option(
            "--options", "-o", help="As mount(8) has them: ro, rw, sync, async, allow_other, suid, nosuid, dev, nodev.", show_default=False
        ),
    ] = "",
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Have the daemon mount all buckets, or one, on a directory; without one, list its mounts. They end with the daemon."""
    if path is None:
        _list(json_output, state, url)
        return
    words = [word for word in options.split(",") if word]
    made = _mount(path, state, url, view=view, engine=engine, read_only=read_only, options=words)
    if json_output:
        print_json(made)
    else:
        what = f"bucket {made['view']}" if made["view"] else "all buckets"
        typer.echo(f"mounted {what} on {made['path']}; to end it: trefoil umount {made['path']}")


def umount(
    path: Annotated[Path, typer.Argument(help="Where it is mounted.", show_default=False)],
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """End a mount of the daemon. Programs that still use it get ENOTCONN."""
    place = _absolute(path, url)
    client(state, url).delete(f"/api/v1/mounts?{urlencode({'path': place})}")
    if json_output:
        print_json({"unmounted": place})
    else:
        typer.echo(f"unmounted {place}")


def fstab(arguments: Sequence[str] | None = None) -> None:
    """`mount.trefoil SOURCE DIRECTORY [-sfnv] [-o OPTIONS]`, as mount(8) calls it."""
    try:
        source, directory, words, is_fake = _parsed(list(sys.argv[1:] if arguments is None else arguments))
        named = dict(word.split("=", 1) for word in words if word.startswith(FSTAB_NAMED))
        ours = [word for word in words if word not in FSTAB_ONLY and not word.startswith((*FSTAB_NAMED, "x-", "comment="))]
        if not is_fake:
            view = None if source in (ALL, "none", "trefoil") else source
            directory_of_daemon = named.get("state") or os.environ.get("TREFOIL_STATE")
            state = Path(directory_of_daemon) if directory_of_daemon else None
            _mount(Path(directory), state, None, view=view, engine=named.get("engine"), read_only=False, options=ours)
    except UserError as error:
        print_error(error, as_json=False)
        sys.exit(error.exit_code)


def _parsed(arguments: list[str]) -> tuple[str, str, list[str], bool]:
    places, words, is_fake = [], "", False
    waiting = iter(arguments)
    for argument in waiting:
        if argument in ("-o", "-t"):
            value = next(waiting, "")
            words = f"{words},{value}" if argument == "-o" else words
        elif argument.startswith("-"):
            is_fake |= "f" in argument
        else:
            places.append(argument)
    if len(places) != 2:
        raise UserError("usage: mount.trefoil BUCKET|all DIRECTORY [-o OPTIONS]")
    return places[0], places[1], [word for word in words.split(",") if word], is_fake


def _mount(path: Path, state: Path | None, url: str | None, **body: Any) -> dict[str, Any]:
    made: dict[str, Any] = client(state, url).post("/api/v1/mounts", {"path": _absolute(path, url), **body})
    return made


def _list(json_output: bool, state: Path | None, url: str | None) -> None:
    mounts = client(state, url).get("/api/v1/mounts")
    if json_output:
        print_json(mounts)
        return
    rows = [(made["path"], made["view"] or "(all)", made["engine"], "ro" if made["read_only"] else "rw") for made in mounts]
    print_table(("path", "bucket", "engine", ""), rows, empty="no mounts; make one: trefoil mount DIRECTORY [--view BUCKET]")


def _absolute(path: Path, url: str | None) -> str:
    """Relative to where the command runs, which another machine does not know."""
    if not path.is_absolute() and (url or os.environ.get("TREFOIL_ADMIN_URL")):
        raise UserError(f"{path} must be an absolute path: it is on the machine of the daemon")
    return os.path.abspath(path)  # noqa: PTH100
