"""`trefoil volume`: block devices that hosts attach by NVMe/TCP."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from element_store.volumes import BLOCK_SIZE_DEFAULT
from server.cli.output import Json, State, Url, client, human_bytes, print_json, print_table
from server.errors import UserError

app = typer.Typer(name="volume", help="Create, list, resize, delete and attach volumes.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="NAME in the bucket `volumes`, or BUCKET/PATH.", show_default=False)]
SNAPSHOT = "@"
Size = Annotated[str, typer.Argument(help="Bytes, or with K, M, G, T, P for powers of 1024: 20G.", show_default=False)]
BlockSize = Annotated[int, typer.Option("--block-size", help="512 or 4096. ESXi takes only 512.")]
Force = Annotated[bool, typer.Option("--force", help="Also while hosts have it attached.")]

_SIZE = re.compile(r"(\d{1,20})\s*([KMGTP]?)(i?B)?\Z", re.IGNORECASE)


@app.command("create")
def create(
    name: Name, size: Size, block_size: BlockSize = BLOCK_SIZE_DEFAULT, json_output: Json = False, state: State = None, url: Url = None
) -> None:
    """Create a thin volume: it takes no space until something is written."""
    body = {"name": name, "size": parsed_size(size), "block_size": block_size}
    made = client(state, url).post("/api/v1/volumes", body)
    _tell(made, json_output, f"created volume {made['path']}, {human_bytes(made['size'])}; to attach it: trefoil volume connect {name}")


@app.command("list")
def list_(json_output: Json = False, state: State = None, url: Url = None) -> None:
    """List all volumes."""
    volumes = client(state, url).get("/api/v1/volumes")
    if json_output:
        print_json(volumes)
        return
    rows = [
        (
            volume["id"],
            volume["path"],
            human_bytes(volume["size"]),
            human_bytes(volume["allocated"]),
            volume["block_size"],
            _attached(volume),
            volume["uuid"],
        )
        for volume in volumes
    ]
    print_table(
        ("id", "volume", "size", "used", "block", "attached", "uuid"), rows, empty="no volumes; make one: trefoil volume create NAME SIZE"
    )


@app.command("resize")
def resize(
    name: Name,
    size: Size,
    force: Annotated[bool, typer.Option("--force", help="Also to a smaller size: what is past it is lost.")] = False,
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Give a volume another size. Hosts that have it attached see it at once."""
    resized = client(state, url).post("/api/v1/volumes/resize", {"name": name, "size": parsed_size(size), "force": force}, patient=True)
    _tell(resized, json_output, f"volume {resized['path']} has {human_bytes(resized['size'])} now")


@app.command("delete")
def delete(name: Name, force: Force = False, json_output: Json = False, state: State = None, url: Url = None) -> None:
    """Delete a volume and what is in it. Of NAME@SNAPSHOT: hosts see it no more; the snapshot stays."""
    query = urlencode({"name": name, "force": str(force).lower()})
    client(state, url).delete(f"/api/v1/volumes?{query}")
    _tell({"deleted": name}, json_output, f"deleted volume {name}")


@app.command("from-file")
def from_file(
    name: Annotated[str, typer.Argument(help="BUCKET/PATH of a file or object.", show_default=False)],
    block_size: BlockSize = BLOCK_SIZE_DEFAULT,
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Make a file or object, such as a raw image, a volume. Nothing is copied."""
    made = client(state, url).post("/api/v1/volumes/from-file", {"name": name, "block_size": block_size}, patient=True)
    _tell(made, json_output, f"{made['path']} is a volume of {human_bytes(made['size'])} now; to attach it: trefoil volume connect {name}")


@app.command("to-file")
def to_file(name: Name, force: Force = False, json_output: Json = False, state: State = None, url: Url = None) -> None:
    """Make a volume a plain file again. Nothing is copied."""
    made = client(state, url).post("/api/v1/volumes/to-file", {"name": name, "force": force})
    _tell({"file": made["path"]}, json_output, f"{made['path']} is a plain file now")


@app.command("unlock")
def unlock(name: Name, json_output: Json = False, state: State = None, url: Url = None) -> None:
    """Let S3 and mounts change a volume although hosts have it attached, until the last of them lets go."""
    volume = client(state, url).post("/api/v1/volumes/unlock", {"name": name})
    _tell(volume, json_output, f"every face may change {volume['path']} now: a filesystem that a host has mounted on it may break")


@app.command("connect")
def connect(
    name: Name,
    host: Annotated[
        str | None, typer.Option("--host", help="NQN of the host that attaches it (/etc/nvme/hostnqn).", show_default=False)
    ] = None,
    address: Annotated[str | None, typer.Option("--address", help="How the host calls this machine.", show_default=False)] = None,
    json_output: Json = False,
    state: State = None,
    url: Url = None,
) -> None:
    """Print the line that attaches a volume, to be typed on the host. Of NAME@SNAPSHOT: what the snapshot has of it, read-only."""
    if SNAPSHOT in name:
        client(state, url).post("/api/v1/volumes/show", {"name": name})
    answer = client(state, url).get("/api/v1/volumes/connect", name=name, host=host, address=address)
    if json_output:
        print_json(answer)
        return
    typer.echo(answer["connect"])
    typer.echo(f"# then it is {answer['device']}")
    may = host in answer["hosts"] if host else bool(answer["hosts"])
    if not may and not answer["any_host"]:
        typer.echo(f"# nobody may yet: trefoil host allow {host or '$(cat /etc/nvme/hostnqn)'} --volume {name}")


def parsed_size(text: str) -> int:
    """Raises UserError."""
    match = _SIZE.match(text.strip())
    size = int(match[1]) << 10 * "KMGTP".find(match[2].upper()) + 10 if match and match[2] else int(match[1]) if match else 0
    if not 0 < size <= 1 << 60:
        raise UserError(f"{text!r} is no size: write bytes, or 512M, 20G, 4T")
    return size


def _attached(volume: dict[str, Any]) -> str:
    if not volume["handles"]:
        return "no"
    return "unlocked" if volume["unlocked"] else "yes"


def _tell(answer: dict[str, Any], json_output: bool, sentence: str) -> None:
    if json_output:
        print_json(answer)
    else:
        typer.echo(sentence)
