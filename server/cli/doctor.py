"""`trefoil doctor`: what will hurt, and the remedy; asks the daemon, or looks itself while none runs."""

from __future__ import annotations

import dataclasses
from typing import Any

import typer

from server.cli.output import Config, Json, State, Url, client, print_json, print_table
from server.config import load
from server.errors import Exit, UserError


def doctor(json_output: Json = False, config: Config = None, state: State = None, url: Url = None) -> None:
    """Check ports, devices, clock, flush latency, space, limits, TLS, memory. Exit code 4 if there is an error."""
    try:
        findings: list[dict[str, Any]] = client(state, url).get("/api/v1/doctor")
    except UserError as error:
        if error.exit_code is not Exit.UNREACHABLE or url:
            raise
        findings = _without_daemon(config, state)
    if json_output:
        print_json(findings)
    else:
        rows = [(finding["level"].upper(), finding["check"], finding["message"], finding["remedy"]) for finding in findings]
        print_table(("", "check", "finding", "remedy"), rows, empty="nothing to check")
    if any(finding["level"] == "error" for finding in findings):
        raise typer.Exit(Exit.UNHEALTHY)


def _without_daemon(config: Any, state: Any) -> list[dict[str, Any]]:
    from server.doctor import examine
    from server.state import StateDirectory

    settings = load(config, {"state": state})
    absent = {"check": "daemon", "level": "warning", "message": "no daemon answers", "remedy": "trefoil serve"}
    return [absent, *(dataclasses.asdict(finding) for finding in examine(settings, StateDirectory(settings.state), None))]
