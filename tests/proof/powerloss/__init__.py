"""Power loss at block level: every device is recorded write by write, and crash states are rebuilt from the recording.

A kill -9 proves nothing about durability, because the page cache survives it. Here a device is a FUSE file of `qemu-storage-daemon` with
the `blklogwrites` filter below it, which logs each write and each flush. A crash state is what a drive may hold after losing power at a
sampled moment: everything up to its last completed flush, and any subset of what was written since, torn inside multi-sector writes.
"""
