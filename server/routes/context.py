"""How a route gets at the daemon."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, HTTPException, Request

from server.block import Blocks
from server.daemon import Daemon


def _daemon(request: Request) -> Daemon:
    daemon = request.app.state.daemon
    assert isinstance(daemon, Daemon)
    return daemon


CurrentDaemon = Annotated[Daemon, Depends(_daemon)]


def _blocks(daemon: CurrentDaemon) -> Blocks:
    if daemon.blocks is None:
        raise HTTPException(409, "this daemon's store has no volumes")
    return daemon.blocks


CurrentBlocks = Annotated[Blocks, Depends(_blocks)]
