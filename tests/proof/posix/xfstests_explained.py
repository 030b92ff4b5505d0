"""Why a test of xfstests fails that need not pass. The table in docs/TESTING.md says the same."""

from __future__ import annotations

EXPLAINED: dict[str, str] = {
    "generic/020": "sets xattrs of 64 KiB; those of one file take 32 KiB together, as each is part of the row that every change writes",
    "generic/394": "raises a limit of the process, which a machine without CAP_SYS_RESOURCE does not let it",
    "generic/451": "FUSE in the kernel does not drop cached pages after an asynchronous direct write, so another reader's cache may be older",
}
