//! Open files and their bytes.
//!
//! A file handle is nothing but its inode, and a number for those who hold locks by it: the store counts opens, and keeps content until the last one is
//! closed.

use trefoil_core::filesystem::{Allocation, Changes, Errno, Inode, New, Node, Result, Seek, TRANSFER_BYTES_MAX, Type};

use super::names::PERMISSIONS;
use super::shape::SET_ID;
use super::xattrs::SET_GID;
use super::{Answer, Call, Engine};
use crate::wire::{Writer, hint, notification, opened, operation};

/// `open(2)`, as all architectures that we build for have them.
const O_ACCMODE: u32 = 3;
const O_WRONLY: u32 = 1;
const O_EXCL: u32 = 0o200;
const O_TRUNC: u32 = 0o1000;
const O_DSYNC: u32 = 0o10_000;
const O_NOATIME: u32 = 0o1_000_000;
/// `fallocate(2)`
const KEEP_SIZE: u32 = 1;
const PUNCH_HOLE: u32 = 2;
const ZERO_RANGE: u32 = 16;
/// `lseek(2)`
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;
/// The answer of the older COPY_FILE_RANGE has 32 bits.
const COPY_BYTES_MAX: u64 = 1 << 30;

impl Engine {
    pub(super) fn open(&self, call: &mut Call) -> Result<Answer> {
        let (flags, hints) = (call.body.u32()?, call.body.u32()?);
        let strip = hints & hint::OPEN_KILL_SUIDGID != 0;
        let (_, keep) = self.opened(self.fs.open(call.inode)?, flags & O_TRUNC != 0, strip)?;
        // What the kernel has all of is read without asking.
        if keep && flags & O_ACCMODE != O_WRONLY && flags & O_NOATIME == 0 && self.notes_accesses() {
            self.fs.note_access(call.inode);
        }
        self.open_out(call, keep);
        Ok(Answer::Payload)
    }

    /// A directory is opened too: what `rmdir` removes while somebody reads it can still be asked for.
    pub(super) fn opendir(&self, call: &mut Call) -> Result<Answer> {
        let node = self.fs.open(call.inode)?;
        self.known.opened(node.inode, node.version);
        call.out.u64(self.holders.handle()).u32(0).u32(0);
        Ok(Answer::Payload)
    }

    /// Usually something new; but another face may have been faster.
    pub(super) fn create(&self, call: &mut Call) -> Result<Answer> {
        let (flags, mode, umask) = (call.body.u32()?, call.body.u32()?, call.body.u32()?);
        let strip = call.body.u32()? & hint::OPEN_KILL_SUIDGID != 0;
        let name = call.body.name()?;
        let made = self
            .fs
            .create_masked(call.inode, Some(name), New::File, mode & PERMISSIONS, umask, call.owner());
        let (node, keep) = match made {
            Ok(node) => self.opened(self.fs.open(node.inode)?, false, false)?,
            Err(Errno::EXIST) if flags & O_EXCL == 0 => {
                let node = self.fs.lookup(call.inode, name)?;
                if node.kind != Type::File {
                    // The kernel looks the name up once more and then finds what it is.
                    return Err(Errno::STALE);
                }
                self.opened(self.fs.open(node.inode)?, flags & O_TRUNC != 0, strip)?
            }
            Err(error) => return Err(error),
        };
        self.entry_out(call.out, &node, call.since);
        self.open_out(call, keep);
        Ok(Answer::Payload)
    }

    pub(super) fn tmpfile(&self, call: &mut Call) -> Result<Answer> {
        call.body.skip(4)?;
        let (mode, umask) = (call.body.u32()? & PERMISSIONS, call.body.u32()?);
        let node = self.fs.create_masked(call.inode, None, New::File, mode, umask, call.owner())?;
        self.known.opened(node.inode, node.version);
        self.entry_out(call.out, &node, call.since);
        self.open_out(call, false);
        Ok(Answer::Payload)
    }

    /// Counts what the store has just opened, and cuts it if it shall be. Whether the kernel may keep its pages.
    fn opened(&self, mut node: Node, truncate: bool, strip: bool) -> Result<(Node, bool)> {
        let keep = self.known.opened(node.inode, node.version);
        if truncate {
            let changes = Changes {
                size: Some(0),
                strip_privileges: strip,
                ..Changes::default()
            };
            match self.fs.change(node.inode, &changes) {
                Ok(after) => {
                    self.stripped(node.inode, strip);
                    node = after;
                }
                Err(error) => {
                    self.close(node.inode);
                    return Err(error);
                }
            }
            self.known.wrote(node.inode, node.version);
        }
        Ok((node, keep))
    }

    pub(super) fn release(&self, call: &mut Call) -> Result<Answer> {
        self.close(call.inode);
        let handle = call.body.u64()?;
        if call.header.operation == operation::RELEASEDIR {
            self.listings.end(handle);
        }
        if self.options.locks.is_some() {
            self.end_locks(call, handle)?;
        }
        Ok(Answer::Payload)
    }

    fn close(&self, inode: u64) {
        self.known.closed(inode);
        self.fs.close(inode);
    }

    pub(super) fn read(&self, call: &mut Call) -> Result<Answer> {
        call.body.skip(8)?;
        let (offset, length) = (call.body.u64()?, call.body.u32()? as usize);
        call.body.skip(4 + 8)?;
        let flags = call.body.u32()?;
        let bytes = self.fs.read(call.inode, offset, length.min(TRANSFER_BYTES_MAX))?;
        if flags & O_NOATIME == 0 && self.notes_accesses() && self.known.first_read(call.inode) {
            self.fs.note_access(call.inode);
        }
        Ok(Answer::Content(bytes))
    }

    /// With O_APPEND the kernel has chosen the offset. It leaves O_DSYNC to us.
    pub(super) fn write(&self, call: &mut Call) -> Result<Answer> {
        call.body.skip(8)?;
        let (offset, length, hints) = (call.body.u64()?, call.body.u32()?, call.body.u32()?);
        call.body.skip(8)?;
        let flags = call.body.u32()?;
        call.body.skip(4)?;
        let bytes = call.body.bytes(length as usize)?;
        let strip = hints & hint::WRITE_KILL_SUIDGID != 0;
        let node = self.fs.write(call.inode, offset, bytes, strip)?;
        self.stripped(call.inode, strip);
        self.known.wrote(node.inode, node.version);
        call.out.u32(length).u32(0);
        if flags & O_DSYNC != 0 {
            return Ok(self.after_sync(call));
        }
        Ok(Answer::Payload)
    }

    pub(super) fn fallocate(&self, call: &mut Call) -> Result<Answer> {
        call.body.skip(8)?;
        let (offset, length, mode) = (call.body.u64()?, call.body.u64()?, call.body.u32()?);
        let keep_size = mode & KEEP_SIZE != 0;
        let how = match mode & !KEEP_SIZE {
            0 => Allocation::Reserve { keep_size },
            PUNCH_HOLE if keep_size => Allocation::Punch,
            ZERO_RANGE => Allocation::Zero { keep_size },
            _ => return Err(Errno::OPNOTSUPP),
        };
        let node = self.fs.allocate(call.inode, how, offset, length)?;
        self.wrote(call, &node)?;
        Ok(Answer::Payload)
    }

    pub(super) fn lseek(&self, call: &mut Call) -> Result<Answer> {
        call.body.skip(8)?;
        let (offset, whence) = (call.body.u64()?, call.body.u32()?);
        let what = match whence {
            SEEK_DATA => Seek::Data,
            SEEK_HOLE => Seek::Hole,
            _ => return Err(Errno::INVAL),
        };
        let found = self.fs.seek(call.inode, offset, what)?;
        call.out.u64(found);
        Ok(Answer::Payload)
    }

    pub(super) fn copy_file_range(&self, call: &mut Call) -> Result<Answer> {
        call.body.skip(8)?;
        let from = (call.inode, call.body.u64()?);
        let target = self.inward(call.body.u64()?);
        call.body.skip(8)?;
        let to = (target, call.body.u64()?);
        let (length, flags) = (call.body.u64()?, call.body.u64()?);
        if flags != 0 {
            return Err(Errno::INVAL);
        }
        let copied = self.fs.copy(from, to, length.min(COPY_BYTES_MAX))?;
        self.wrote(call, &self.fs.stat(target)?)?;
        match call.header.operation {
            operation::COPY_FILE_RANGE_64 => call.out.u64(copied),
            _ => call.out.u32(copied as u32).u32(0),
        };
        Ok(Answer::Payload)
    }

    /// The kernel leaves set-id bits to us, and does not look whether they went. It is told before it is answered; attributes alone take no lock.
    fn stripped(&self, inode: Inode, strip: bool) {
        if strip && self.known.take_set_id(inode) {
            let mut payload = Writer::default();
            payload.u64(self.outward(inode)).u64(u64::MAX).u64(0);
            // Fails only when the mount is ending.
            let _ = self.device.notify(notification::INVALIDATE_INODE, payload.as_slice());
        }
    }

    /// The kernel does not say with these two whether set-id bits must go.
    fn wrote(&self, call: &Call, node: &Node) -> Result<()> {
        self.known.wrote(node.inode, node.version);
        if call.strips() && node.mode & SET_ID != 0 {
            self.fs.change(
                node.inode,
                &Changes {
                    strip_privileges: true,
                    ..Changes::default()
                },
            )?;
            self.stripped(node.inode, true);
            // As the kernel does where it minds this itself: whoever is not of the file's group leaves no set-group-id bit, whether it means anything or not.
            if node.mode & SET_GID != 0 && call.header.gid != node.gid {
                self.kill_set_gid(call)?;
            }
        }
        Ok(())
    }

    /// `struct fuse_open_out`. Only locks have something to hear when one of an open file's descriptors is closed.
    fn open_out(&self, call: &mut Call, keep: bool) {
        let quiet = if self.options.locks.is_none() { opened::NOFLUSH } else { 0 };
        let handle = if self.options.locks.is_some() { self.holders.handle() } else { 0 };
        call.out.u64(handle).u32(quiet | if keep { opened::KEEP_CACHE } else { 0 }).u32(0);
    }
}
