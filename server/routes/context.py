"""How a route gets at the daemon."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from server.daemon import Daemon


def _daemon(request: Request) -> Daemon:
    daemon = request.app.state.daemon
    assert isinstance(daemon, Daemon)
    return daemon


CurrentDaemon = Annotated[Daemon, Depends(_daemon)]
