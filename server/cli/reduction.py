"""`trefoil reduction` and `trefoil why`: what reduction gained, and where the bytes of one key are."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from server.cli.output import Json, State, Url, client, human_bytes, print_json, print_table
from server.errors import UserError

Scope = Annotated[str, typer.Argument(help="A bucket, or /BUCKET/PREFIX of keys. Nothing: the whole pool.")]
Path = Annotated[str, typer.Argument(help="/BUCKET/KEY of an object or file.")]


MODES = ("off", "fast", "balanced", "deep")
INHERIT = "inherit"
Mode = Annotated[
    str,
    typer.Option(
        "--set",
        help="off, fast, balanced or deep: how PATH (a bucket, folder, volume or object) is reduced from now on; inherit: as what holds it.",
        metavar="MODE",
        show_default=False,
    ),
]


def reduction(path: Scope = "", set_mode: Mode = "", json_output: Json = False, state: State = None, url: Url = None) -> None:
    """Show what deduplication, similarity and compression gain, counted exactly; or say how a path is reduced."""
    if set_mode:
        _set(path, set_mode, json_output, state, url)
        return
    found = client(state, url).get("/api/v1/reduction", scope=path or None)
    if json_output:
        print_json(found)
        return
    logical, stored = found["logical_bytes"] - found["zero_bytes"], found["stored_bytes"] + found["held_bytes"]
    rows = [
        ("logical", found["logical_bytes"]),
        ("zeros, stored nowhere", -found["zero_bytes"]),
        ("by deduplication", -found["dedupe_gain_bytes"]),
        ("by similarity", -found["similarity_gain_bytes"]),
        ("by compression", -found["compression_gain_bytes"]),
        ("stored", found["stored_bytes"]),
        ("of it not reduced yet", found["landed_bytes"]),
        ("held for deltas alone", found["held_bytes"]),
        ("rows", found["row_bytes"]),
        ("devices: live", found.get("used_live_bytes", 0)),
        ("devices: garbage and room", found.get("used_garbage_bytes", 0)),
        ("devices: parity", found.get("used_parity_bytes", 0)),
        ("devices: metadata", found.get("used_metadata_bytes", 0)),
    ]
    print_table(("what", "bytes", "size"), [(name, size, _signed(size)) for name, size in rows if size], empty="nothing is stored")
    typer.echo(f"mode {found['mode']}; ratio {logical / stored:.2f} before parity" if stored > 0 else f"mode {found['mode']}")


def _set(path: str, mode: str, json_output: bool, state: State, url: Url) -> None:
    if not path.strip("/"):
        raise UserError("whose mode? the pool's own is reduction.mode in the configuration")
    if mode not in (*MODES, INHERIT):
        raise UserError(f"{mode} is no mode: {', '.join(MODES)} or {INHERIT}")
    found = client(state, url).put("/api/v1/reduction", {"path": path, "mode": None if mode == INHERIT else mode})
    if json_output:
        print_json(found)
    else:
        typer.echo(f"{path} is reduced by mode {found['mode']}")


def _signed(size: int) -> str:
    return f"-{human_bytes(-size)}" if size < 0 else human_bytes(size)


def why(path: Path, json_output: Json = False, state: State = None, url: Url = None) -> None:
    """Show where the bytes of a key are: chunks, what they refer to, and their places."""
    found = client(state, url).get("/api/v1/why", element=path)
    if json_output:
        print_json(found)
        return
    columns = ("offset", "length", "kind", "chunk", "stored", "references", "refers to", "place")
    print_table(columns, [_row(part) for part in found["parts"]], empty="no bytes")


def _row(part: dict[str, Any]) -> tuple[object, ...]:
    place = f"segment {part['segment']} shard {part['shard']} at {part['at']}" if part["segment"] else "-"
    bases = ", ".join(map(str, part["bases"])) or "-"
    return (
        part["offset"],
        part["length"],
        part["kind"],
        part["chunk"] or "-",
        f"{part['stored_bytes']} of {part['chunk_bytes'] or part['length']}",
        part["references"] or "-",
        bases,
        place,
    )
