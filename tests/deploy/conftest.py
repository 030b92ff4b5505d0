"""Deployment files are tested against the same running daemon as the server's tests."""

from __future__ import annotations

from tests.server.conftest import daemon

__all__ = ["daemon"]
