"""`trefoil`: one file per command group. Commands know the admin REST only; `serve` alone starts a daemon.

A person's mistake ends as one sentence on standard error and an exit code of `server.errors.Exit`, never as a traceback.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from server import __version__
from server.cli import bucket, check, config, doctor, export, host, key, mount, reduction, serve, snapshot, status, user, volume
from server.cli.output import print_error
from server.errors import Exit, UserError

app = typer.Typer(
    name="trefoil",
    help="One storage daemon: S3 over one element store.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.command("status")(status.status)
app.command("doctor")(doctor.doctor)
app.command("check")(check.check)
app.command("reduction")(reduction.reduction)
app.command("why")(reduction.why)
app.command("mount")(mount.mount)
app.command("umount")(mount.umount)
app.command("export")(export.export)
app.command("clone")(snapshot.clone)
for group in (bucket, volume, host, user, key, snapshot, config):
    app.add_typer(group.app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trefoil {__version__}")
        raise typer.Exit


@app.callback()
def root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    pass


def main() -> None:
    try:
        app()
    except UserError as error:
        print_error(error, as_json="--json" in sys.argv)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(Exit.FAILED)
