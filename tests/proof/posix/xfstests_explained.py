"""Why a test of xfstests fails that need not pass. The table in docs/TESTING.md says the same."""

from __future__ import annotations

EXPLAINED: dict[str, str] = {}
