"""What the admin API may see and do: the running daemon's parts in one value. Made by `app`, read by `routes`."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from element_store.interface import ElementStore
from protocols.auth import Authenticator
from protocols.nfs import NfsServer
from server.block import Blocks
from server.config import Settings
from server.hooks import HookRunner
from server.mount import Mounts
from server.state import StateDirectory
from server.telemetry.collector import StoreCollector


class Phase(enum.StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(slots=True)
class Daemon:
    settings: Settings
    state: StateDirectory
    store: ElementStore
    accounts: Authenticator
    """The gateway's own: its caches must see every change of a key."""
    registry: CollectorRegistry
    collector: StoreCollector
    mounts: Mounts
    hooks: HookRunner
    phase: Phase = Phase.STARTING
    started: float = field(default_factory=time.monotonic)
    nfs: NfsServer | None = None
    """While it runs."""
    blocks: Blocks | None = None
    """None: on a store that has no volumes, as those of tests."""

    @property
    def s3_url(self) -> str:
        return f"{'https' if self.settings.s3.certificate else 'http'}://{self.settings.s3.listen}"

    @property
    def admin_url(self) -> str:
        return f"{'https' if self.settings.admin.certificate else 'http'}://{self.settings.admin.listen}"

    @property
    def nfs_address(self) -> str | None:
        return self.nfs.address if self.nfs else None

    @property
    def endpoints(self) -> dict[str, str]:
        """What is served where, faces that are off left out."""
        mount = self.settings.file.mount
        block = ", ".join(self.blocks.addresses) if self.blocks else ""
        found = {
            "s3": self.s3_url,
            "admin": self.admin_url,
            "mount": str(mount) if mount else None,
            "nfs": self.nfs_address,
            "block": block,
        }
        return {name: where for name, where in found.items() if where}
