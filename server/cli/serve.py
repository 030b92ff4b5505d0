"""`trefoil serve`: the daemon, in the foreground."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from server.config import load
from server.errors import Exit, UserError
from server.telemetry import logs

if TYPE_CHECKING:
    from server.daemon import Daemon
    from server.state import Credentials

Device = Annotated[list[str] | None, typer.Option("--data", help="A device of the pool; once for each.", show_default=False)]


def serve(
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file; default /etc/trefoil/trefoil.toml.", show_default=False)
    ] = None,
    data: Device = None,
    state: Annotated[Path | None, typer.Option("--state", help="State directory.", show_default=False)] = None,
    format_devices: Annotated[bool, typer.Option("--format", help="Format block devices that hold no pool.")] = False,
    code: Annotated[str | None, typer.Option("--code", help='Erasure code of a new pool, such as "4+2".', show_default=False)] = None,
    s3_listen: Annotated[str | None, typer.Option("--s3-listen", help="HOST:PORT of S3.", show_default=False)] = None,
    admin_listen: Annotated[str | None, typer.Option("--admin-listen", help="HOST:PORT of the admin API.", show_default=False)] = None,
    certificate: Annotated[Path | None, typer.Option("--certificate", help="PEM certificate chain of S3.", show_default=False)] = None,
    private_key: Annotated[Path | None, typer.Option("--private-key", help="PEM private key of S3.", show_default=False)] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.", show_default=False)] = None,
    log_format: Annotated[str | None, typer.Option("--log-format", help="json or text.", show_default=False)] = None,
    welcome: Annotated[bool, typer.Option("--welcome", help="Once ready, print endpoints, root credentials and what to try.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Once ready, print the endpoints as one line of JSON.")] = False,
) -> None:
    """Run the daemon in the foreground. First use formats empty files and directories; block devices need --format."""
    flags = {
        "data": data,
        "state": state,
        "pool": {"code": code},
        "s3": {"listen": s3_listen, "certificate": certificate, "private_key": private_key},
        "admin": {"listen": admin_listen},
        "log": {"level": log_level, "format": log_format},
    }
    settings = load(config, flags)
    logs.configure(settings.log)

    def on_ready(daemon: Daemon, credentials: Credentials) -> None:
        if welcome:
            typer.echo(_welcome(daemon, credentials))
        if json_output:
            typer.echo(json.dumps({"s3": daemon.s3_url, "admin": daemon.admin_url, "state": str(daemon.state.path)}))

    # The gateway and FastAPI take a third of a second to import: only this command pays for them.
    import uvloop

    from server import app

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(app.serve(settings, format_devices=format_devices, on_ready=on_ready))
    except UserError:
        raise
    except Exception:
        logging.getLogger("trefoil.app").exception("the daemon failed")
        raise typer.Exit(Exit.BUG) from None


def _welcome(daemon: Daemon, credentials: Credentials) -> str:
    state = daemon.state.path
    return f"""
Trefoil is ready.
  S3          {daemon.s3_url}
  admin       {daemon.admin_url}   (token in {daemon.state.token_file})
  access key  {credentials.access_key}
  secret key  {credentials.secret_key}   (kept in {daemon.state.credentials_file})

Try, in another terminal:
  eval "$(trefoil key root --env --state {state})"
  aws s3 mb s3://first && aws s3 ls
  trefoil status
`trefoil` is in .venv/bin after ./up. Ctrl-C stops the daemon.
"""
