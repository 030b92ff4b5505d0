"""The FUSE engine over pyfuse3: libfuse's protocol, Python's handlers, an event loop in a thread of its own. `protocols/fuse` starts it.

Invariants: a handler that fails answers EIO and the mount goes on (`operations`, `loop`); nothing is answered before the store has answered; the
kernel's page cache outlives a close only for an unchanged version (`known`); a mount's end never waits without a limit (`session`). It never
checks permissions (the kernel does, by `default_permissions`) and keeps no content.

What pyfuse3 has no way to serve, and what programs see instead (`tests/protocols/fuse/limits.py` names each, and fails when one becomes possible):
fallocate is EOPNOTSUPP, O_TMPFILE is EOPNOTSUPP, SEEK_DATA and SEEK_HOLE see no holes, copy_file_range copies through the kernel instead of
sharing, the time of birth is not told, and locks are this mount's own. XATTR_CREATE and XATTR_REPLACE are two requests, so that two programs may
both succeed; the umask narrows what a default ACL gives. One process has one such mount at a time.
"""
