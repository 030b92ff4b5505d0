"""The mount that the configuration asks for, for as long as the daemon serves."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from element_store import Refused, Store
from element_store.interface import ElementStore
from protocols.fuse import Mount
from server.config import FileSection
from server.errors import Exit, UserError

log = logging.getLogger("trefoil.mount")


@asynccontextmanager
async def mounted(store: ElementStore, settings: FileSection, *, shared_locks: bool) -> AsyncIterator[None]:
    """Raises UserError where it cannot be mounted."""
    if settings.mount is None:
        yield
        return
    if not isinstance(store, Store):
        raise TypeError("only the real store can be mounted")
    try:
        mount = await Mount.start(store, settings.mount, read_only=settings.read_only, strict=settings.strict, shared_locks=shared_locks)
    except Refused as error:
        raise UserError(str(error), exit_code=Exit.REFUSED, kind="refused") from None
    log.info("mounted", extra={"path": str(settings.mount)})
    try:
        yield
    finally:
        try:
            await mount.end()
        except Refused as error:
            log.error("%s", error)
