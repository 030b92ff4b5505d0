"""Every operation that pyfuse3 can be asked for, over `element_store.files.FileSystem`.

No state of its own that a crash or another face could make wrong: inode numbers are the store's, a directory's offsets are the store's cookies, a
file handle is its inode (and one bit that says whether writes must be durable), and what is open is counted in the store.

Where the store's calls run is the matter of `calls`.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
from pyfuse3 import FUSEError

from element_store.files import NAME_BYTES_MAX, FileSystem, Node
from protocols.fuse.pyfuse3_engine import shape
from protocols.fuse.pyfuse3_engine.calls import Calls
from protocols.fuse.pyfuse3_engine.invalidations import Invalidations
from protocols.fuse.pyfuse3_engine.known import Known

log = logging.getLogger("trefoil.fuse")

DURABLE = 1 << 63
"""Bit of a file handle that was opened with O_SYNC or O_DSYNC: the kernel leaves those to us."""
DOTS = 2
"""Offsets before the first cookie's: 1 after `.`, 2 after `..`."""
ENTRIES_FIRST, ENTRIES_MAX = 32, 1024
"""The kernel usually has room for 24; where it has more, the store is asked for more at once."""
TRUSTED = b"trusted."
NAMESPACES = (b"user.", TRUSTED, b"security.")
ACL_ACCESS, ACL_DEFAULT = b"system.posix_acl_access", b"system.posix_acl_default"

P = ParamSpec("P")
T = TypeVar("T")
Handler = Callable[Concatenate["Operations", P], Coroutine[Any, Any, T]]


def answered(handler: Handler[P, T]) -> Handler[P, T]:
    """pyfuse3 knows what to do with FUSEError alone; anything else would leave the caller without an answer."""

    @functools.wraps(handler)
    async def guarded(self: Operations, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(self, *args, **kwargs)
        except FUSEError:
            raise
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from None
        except asyncio.CancelledError:
            raise
        except BaseException:
            # Not only Exception: what the core raises when it panics is none.
            log.exception("%s failed", handler.__name__)
            raise FUSEError(errno.EIO) from None

    return guarded


def checked(name: bytes) -> bytes:
    """The kernel passes longer names on."""
    if len(name) > NAME_BYTES_MAX:
        raise FUSEError(errno.ENAMETOOLONG)
    return name


def served(name: bytes) -> bytes:
    if name not in (ACL_ACCESS, ACL_DEFAULT) and not any(name.startswith(space) and name != space for space in NAMESPACES):
        raise FUSEError(errno.EOPNOTSUPP)
    return name


class Operations(pyfuse3.Operations):
    """One mount. All of it runs on the session's loop."""

    supports_dot_lookup = True
    enable_writeback_cache = False
    enable_acl = True

    def __init__(self, files: FileSystem, root: int, pool: Executor) -> None:
        self._files = files
        self._root = root
        self.calls = Calls(pool)
        self.known = Known()
        self.invalidations = Invalidations(files, self.outward, self._overflowed)

    # Numbers: the kernel calls the mount's root 1, whatever directory that is.
    def inward(self, number: int) -> int:
        return self._root if number == pyfuse3.ROOT_INODE else number

    def outward(self, inode: int) -> int:
        return pyfuse3.ROOT_INODE if inode == self._root else inode

    def _overflowed(self) -> list[int]:
        self.known.forget_versions()
        return [inode for inode, _ in self.known.open()]

    def _shown(self, node: Node) -> pyfuse3.EntryAttributes:
        """The kernel learns attributes by itself, but not that its pages are of content that another face has replaced."""
        if stat.S_ISREG(node.mode) and self.known.stale(node.inode, node.version):
            self.invalidations.content(node.inode)
        return shape.attributes(node, self.outward(node.inode))

    # Names
    @answered
    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """`.` and `..` are asked for by file handles (NFS export), where an inode that is gone must be ESTALE."""
        directory = self.inward(parent_inode)
        if name == b"." or (name == b".." and directory == self._root):
            return self._shown(await self.calls.run(self._files.stat, directory))
        if name == b"..":
            return self._shown(await self.calls.run(self._files.parent, directory))
        return self._shown(await self.calls.run(self._files.lookup, directory, checked(name)))

    @answered
    async def mknod(self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        args = (self.inward(parent_inode), checked(name), mode, rdev, ctx.uid, ctx.gid)
        return self._shown(await self.calls.run(self._files.create, *args))

    @answered
    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        args = (self.inward(parent_inode), checked(name), mode, 0, ctx.uid, ctx.gid)
        return self._shown(await self.calls.run(self._files.create, *args))

    @answered
    async def symlink(self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        args = (self.inward(parent_inode), checked(name), target, ctx.uid, ctx.gid)
        return self._shown(await self.calls.run(self._files.symlink, *args))

    @answered
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        args = (self.inward(inode), self.inward(new_parent_inode), checked(new_name))
        return self._shown(await self.calls.run(self._files.link, *args))

    @answered
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self.calls.run(self._files.unlink, self.inward(parent_inode), checked(name))

    @answered
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self.calls.run(self._files.remove_directory, self.inward(parent_inode), checked(name))

    @answered
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        args = (self.inward(parent_inode_old), checked(name_old), self.inward(parent_inode_new), checked(name_new), flags)
        await self.calls.run(self._files.rename, *args)

    @answered
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        return await self.calls.run(self._files.read_link, self.inward(inode))

    # Attributes
    @answered
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self._shown(await self.calls.run(self._files.stat, self.inward(inode)))

    @answered
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Set-id bits that must go are in the mode that the kernel sends, if it knows of them; with a new size they go in any case."""
        node = await self.calls.run(
            self._files.change,
            self.inward(inode),
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            accessed=shape.kept_time(attr.st_atime_ns) if fields.update_atime else None,
            modified=shape.kept_time(attr.st_mtime_ns) if fields.update_mtime else None,
            strip_privileges=fields.update_size and ctx.uid != 0,
        )
        if fields.update_size:
            self.known.wrote(node.inode, node.version)
        return self._shown(node)

    @answered
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        return shape.statistics(*await self.calls.run(self._files.statistics))

    # Content
    @answered
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        _, keep = await self._opened(await self.calls.run(self._files.open, self.inward(inode)), flags, ctx)
        return self._handle(self.inward(inode), flags, keep)

    @answered
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Usually something new; but another face may have been faster."""
        directory = self.inward(parent_inode)
        checked(name)
        try:
            made = await self.calls.run(self._files.create, directory, name, stat.S_IFREG | mode, 0, ctx.uid, ctx.gid)
            node, keep = await self._opened(await self.calls.run(self._files.open, made.inode), flags & ~os.O_TRUNC, ctx)
        except FileExistsError:
            if flags & os.O_EXCL:
                raise
            found = await self.calls.run(self._files.lookup, directory, name)
            if not stat.S_ISREG(found.mode):
                # The kernel looks the name up once more and then finds what it is.
                raise FUSEError(errno.ESTALE) from None
            node, keep = await self._opened(await self.calls.run(self._files.open, found.inode), flags, ctx)
        return self._handle(node.inode, flags, keep), self._shown(node)

    async def _opened(self, node: Node, flags: int, ctx: pyfuse3.RequestContext) -> tuple[Node, bool]:
        """Counts what the store has just opened, and cuts it if it shall be. Whether the kernel may keep its pages."""
        keep = self.known.opened(node.inode, node.version)
        if flags & os.O_TRUNC:
            try:
                node = await self.calls.run(self._files.change, node.inode, size=0, strip_privileges=ctx.uid != 0)
            except BaseException:
                self._close(node.inode)
                raise
            self.known.wrote(node.inode, node.version)
        return node, keep

    def _handle(self, inode: int, flags: int, keep: bool) -> pyfuse3.FileInfo:
        return pyfuse3.FileInfo(fh=inode | (DURABLE if flags & os.O_DSYNC else 0), keep_cache=keep)

    def _close(self, inode: int) -> None:
        self.known.closed(inode)
        self._files.close(inode)

    @answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        return await self.calls.run(self._files.read, fh & ~DURABLE, off, size)

    @answered
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """With O_APPEND the kernel has chosen the offset; set-id bits it takes away itself."""
        node = await self.calls.run(self._files.write, fh & ~DURABLE, off, buf, False)
        self.known.wrote(node.inode, node.version)
        if fh & DURABLE:
            await self.calls.aside(self._files.sync)
        return len(buf)

    @answered
    async def release(self, fh: int) -> None:
        self._close(fh & ~DURABLE)

    @answered
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self.calls.aside(self._files.sync)

    # Directories
    @answered
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """Opened too: what `rmdir` removes while somebody reads it can still be asked for."""
        node = await self.calls.run(self._files.open, self.inward(inode))
        self.known.opened(node.inode, node.version)
        return node.inode

    @answered
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        if start_id < 1 and not await self._dot(token, b".", fh, 1):
            return
        if start_id < DOTS and not await self._dot(token, b"..", fh, DOTS):
            return
        cookie, limit = max(start_id - DOTS, 0), ENTRIES_FIRST
        while entries := await self.calls.run(self._files.list, fh, cookie, limit):
            for name, cookie, node in entries:
                if not pyfuse3.readdir_reply(token, name, self._shown(node), cookie + DOTS):
                    return
            limit = min(2 * limit, ENTRIES_MAX)

    async def _dot(self, token: pyfuse3.ReaddirToken, name: bytes, directory: int, offset: int) -> bool:
        """The kernel takes these two's numbers and types alone, and counts no look at them."""
        up = name == b".." and directory != self._root
        node = await self.calls.run(self._files.parent, directory) if up else await self.calls.run(self._files.stat, directory)
        return pyfuse3.readdir_reply(token, name, shape.attributes(node, self.outward(node.inode)), offset)

    @answered
    async def releasedir(self, fh: int) -> None:
        self._close(fh)

    @answered
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await self.calls.aside(self._files.sync)

    # Extended attributes: the kernel has checked who may.
    @answered
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self.calls.run(self._files.set_xattr, self.inward(inode), served(name), value, 0)
        if name == ACL_ACCESS and ctx.uid != 0:
            await self._kill_set_gid(self.inward(inode), ctx)

    async def _kill_set_gid(self, inode: int, ctx: pyfuse3.RequestContext) -> None:
        """Who gave a list to a file of a group that is not theirs does not get to run as that group; pyfuse3 hides the kernel's hint."""
        node = await self.calls.run(self._files.stat, inode)
        if node.mode & stat.S_ISGID and node.gid != ctx.gid:
            groups = await self.calls.aside(pyfuse3.get_sup_groups, ctx.pid)
            if node.gid not in groups:
                await self.calls.run(self._files.change, inode, mode=stat.S_IMODE(node.mode) & ~stat.S_ISGID)

    @answered
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        return await self.calls.run(self._files.xattr, self.inward(inode), served(name))

    @answered
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        """`trusted` names are shown to root only, as xattr(7) says."""
        names = await self.calls.run(self._files.xattrs, self.inward(inode))
        return [name for name in names if ctx.uid == 0 or not name.startswith(TRUSTED)]

    @answered
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self.calls.run(self._files.remove_xattr, self.inward(inode), served(name))
