"""Why a test of xfstests fails that need not pass. The table in docs/TESTING.md says the same."""

from __future__ import annotations

EXPLAINED: dict[str, str] = {
    "generic/003": "asks for strictatime; accesses are noted as relatime does, whatever the mount says",
    "generic/020": "sets xattrs of 64 KiB; those of one file take 32 KiB together, as each is part of the row that every change writes",
    "generic/394": "raises a limit of the process, which a machine without CAP_SYS_RESOURCE does not let it",
    "generic/451": "FUSE in the kernel does not drop cached pages after an asynchronous direct write, so another reader's cache may be older",
    "generic/490": "reckons with holes of whole blocks: where they are exact to the byte, one of its offsets lies past the end of the file",
    "generic/504": "looks for a lock in /proc/locks, where the kernel shows none of those that a FUSE server keeps",
    "generic/531": "raises a limit of the process, which a machine without CAP_SYS_RESOURCE does not let it",
    "generic/564": "raises a limit of the process, which a machine without CAP_SYS_RESOURCE does not let it",
    "generic/568": "fallocate sets nothing aside, as content moves when it changes: what is reserved counts no blocks until it is written",
    "generic/732": "mounts one device twice; the runner's mount opens a store of its own, and only one process can have it open",
}
