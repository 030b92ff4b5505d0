"""What a person did wrong, or must know, as one sentence with an exit code; and the exit codes.

Whoever raises `UserError` has written the whole sentence. Nothing else may reach a terminal as an error, except our own bugs.
"""

from __future__ import annotations

import enum


class Exit(enum.IntEnum):
    """Exit codes of every command; docs/OPERATIONS.md explains them to the operator."""

    OK = 0
    FAILED = 1
    """The daemon answered, and said no: not there, already there, not empty, out of space."""
    USAGE = 2
    """Wrong arguments or configuration; nothing was tried."""
    UNREACHABLE = 3
    """No daemon answered, or it did not let us in."""
    UNHEALTHY = 4
    """`status`, `doctor` or `check` found something that needs attention."""
    REFUSED = 5
    """`serve` must not use a device, a pool or a state directory as it is."""
    BUG = 70
    """Our bug; the log has the traceback."""


class UserError(Exception):
    """One sentence for a person. `kind` is for programs that read `--json`."""

    def __init__(self, sentence: str, *, exit_code: Exit = Exit.USAGE, kind: str = "usage") -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
        self.kind = kind
