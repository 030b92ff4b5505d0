"""`trefoil config`: the annotated configuration, and the one in effect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from server.cli.output import Config, Json, print_json
from server.config import load
from server.config_text import annotated
from server.errors import Exit, UserError

app = typer.Typer(name="config", help="Print an annotated configuration, or the settings in effect.", no_args_is_help=True)


@app.command("init")
def init(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write here instead; never overwrites.", show_default=False)] = None,
    json_output: Json = False,
) -> None:
    """Print all settings with their defaults and what they are for."""
    if json_output:
        print_json({"toml": annotated()})
    elif output is None:
        typer.echo(annotated(), nl=False)
    else:
        _write(output)


@app.command("show")
def show(config: Config = None, json_output: Json = False) -> None:
    """Show the settings in effect: file, environment and defaults together. JSON with or without --json."""
    print_json(load(config).model_dump(mode="json"))


def _write(output: Path) -> None:
    try:
        with output.open("x") as file:
            file.write(annotated())
    except FileExistsError:
        raise UserError(f"{output} exists already", exit_code=Exit.FAILED, kind="conflict") from None
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}", exit_code=Exit.FAILED, kind="invalid") from None
    typer.echo(f"wrote {output}")
