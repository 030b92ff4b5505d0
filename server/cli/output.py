"""What all commands share: their common options, JSON or tables on standard output, one sentence for errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from server.client import AdminClient, connect
from server.config import state_default
from server.errors import UserError

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
State = Annotated[
    Path | None,
    typer.Option("--state", envvar="TREFOIL_STATE", help="The daemon's state directory; its socket is there.", show_default=False),
]
Url = Annotated[
    str | None, typer.Option("--url", help="Admin URL of a daemon elsewhere; TREFOIL_ADMIN_TOKEN has its token.", show_default=False)
]
Config = Annotated[
    Path | None, typer.Option("--config", envvar="TREFOIL_CONFIG", help="TOML file; default /etc/trefoil/trefoil.toml.", show_default=False)
]


def client(state: Path | None, url: str | None) -> AdminClient:
    return connect(state or state_default(), url)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    if not rows:
        typer.echo(empty)
        return
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    # A pipe has no width: never cut what a script may read.
    console = Console(soft_wrap=True) if sys.stdout.isatty() else Console(width=10_000)
    console.print(table)


def print_error(error: UserError, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"error": str(error), "kind": error.kind}), err=True)
    else:
        typer.echo(f"trefoil: {error}", err=True)


def human_bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} PiB"
