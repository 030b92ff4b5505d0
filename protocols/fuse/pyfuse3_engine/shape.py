"""What a node looks like to pyfuse3."""

from __future__ import annotations

import pyfuse3

from element_store.files import NAME_BYTES_MAX, Node

BLOCK_BYTES = 4096
"""What programs are told to read and write at once, and what `statfs` counts in."""
SECTOR_BYTES = 512
"""`st_blocks` counts these (POSIX leaves it open, Linux does not)."""
TIMEOUT_SECONDS = 1.0
"""How long the kernel believes what it was told; another face's change shows after that."""
NS_MIN, NS_MAX = -(1 << 63), (1 << 63) - 1
"""The times that can be kept: years 1678 to 2262."""


def attributes(node: Node, number: int) -> pyfuse3.EntryAttributes:
    """`number`: what this mount calls the inode. An inode number never returns, so its generation is always the same."""
    shown = pyfuse3.EntryAttributes()
    _, shown.st_mode, shown.st_rdev, shown.st_nlink, shown.st_uid, shown.st_gid, shown.st_size, allocated, *times, _, _ = node
    shown.st_atime_ns, shown.st_mtime_ns, shown.st_ctime_ns = times
    shown.st_ino = number
    shown.st_blocks = -(-allocated // SECTOR_BYTES)
    shown.st_blksize = BLOCK_BYTES
    shown.attr_timeout = shown.entry_timeout = TIMEOUT_SECONDS
    return shown


def statistics(total_bytes: int, free_bytes: int, elements: int) -> pyfuse3.StatvfsData:
    """Files that could still be made are what free space could hold."""
    free = free_bytes // BLOCK_BYTES
    shown = pyfuse3.StatvfsData()
    shown.f_bsize = shown.f_frsize = BLOCK_BYTES
    shown.f_blocks = total_bytes // BLOCK_BYTES
    shown.f_bfree = shown.f_bavail = free
    shown.f_files = elements + free
    shown.f_ffree = shown.f_favail = free
    shown.f_namemax = NAME_BYTES_MAX
    return shown


def kept_time(nanoseconds: int) -> int:
    """The nearest time that can be kept."""
    return min(max(nanoseconds, NS_MIN), NS_MAX)
