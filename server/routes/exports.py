"""`/api/v1/exports`: what NFS serves, and how clients mount it."""

from __future__ import annotations

import socket
from pathlib import PurePosixPath
from typing import Any

from fastapi import APIRouter

from server import exports
from server.routes.context import CurrentDaemon

router = APIRouter(prefix="/api/v1")


@router.get("/exports")
async def show(daemon: CurrentDaemon, host: str | None = None) -> dict[str, Any]:
    """`host`: how clients call this machine; its own name for itself if not given."""
    settings, mount = daemon.settings.nfs, daemon.settings.file.mount
    name = host or socket.gethostname()
    nfsd = None
    if mount is not None and settings.export:
        root = PurePosixPath(mount.absolute())
        nfsd = {
            "text": exports.nfsd_exports(root, settings.export, (await daemon.store.status()).uuid),
            "mount": [exports.nfsd_mount_line(root, export, name) for export in settings.export],
        }
    return {
        "address": daemon.nfs_address,
        "locks": exports.serves_locks(settings),
        "exports": [{**export.model_dump(), "mount": exports.mount_line(settings, export, name)} for export in settings.export],
        "nfsd": nfsd,
    }
