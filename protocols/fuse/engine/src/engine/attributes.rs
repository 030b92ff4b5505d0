//! `stat`, `chmod`, `chown`, `truncate`, `utimens`, `statfs`.

use trefoil_core::filesystem::{Changes, Errno, Inode, NAME_BYTES_MAX, Node, Result, Time};

use super::names::PERMISSIONS;
use super::shape::nanoseconds;
use super::{Answer, Call, Engine};
use crate::wire::{Reader, setattr};

/// What `statfs` counts in; files of it are what free space could still hold.
const STATFS_BLOCK_BYTES: u64 = 4096;

impl Engine {
    pub(super) fn getattr(&self, call: &mut Call) -> Result<Answer> {
        let node = self.seen(call.inode)?;
        self.attributes_out(call, &node);
        Ok(Answer::Payload)
    }

    /// Asked for only when somebody wants to know a time of birth.
    pub(super) fn statx(&self, call: &mut Call) -> Result<Answer> {
        let node = self.seen(call.inode)?;
        self.statx_out(call, &node);
        Ok(Answer::Payload)
    }

    /// A working directory, or what O_PATH holds, can be looked at after it was removed, although nobody has it open.
    fn seen(&self, inode: Inode) -> Result<Node> {
        match self.fs.stat(inode) {
            Err(Errno::STALE) => self.known.gone(inode).ok_or(Errno::STALE),
            found => found,
        }
    }

    pub(super) fn setattr(&self, call: &mut Call) -> Result<Answer> {
        let changes = changes(&mut call.body)?;
        let node = self.fs.change(call.inode, &changes)?;
        if changes.size.is_some() {
            self.known.wrote(node.inode, node.version);
        }
        self.attributes_out(call, &node);
        Ok(Answer::Payload)
    }

    pub(super) fn statfs(&self, call: &mut Call) -> Result<Answer> {
        let statistics = self.fs.statistics()?;
        let free = statistics.free_bytes / STATFS_BLOCK_BYTES;
        call.out.u64(statistics.total_bytes / STATFS_BLOCK_BYTES).u64(free).u64(free);
        call.out.u64(statistics.elements.saturating_add(free)).u64(free);
        call.out
            .u32(STATFS_BLOCK_BYTES as u32)
            .u32(NAME_BYTES_MAX as u32)
            .u32(STATFS_BLOCK_BYTES as u32)
            .zeros(28);
        Ok(Answer::Payload)
    }
}

/// `struct fuse_setattr_in`
fn changes(body: &mut Reader) -> Result<Changes> {
    let valid = body.u32()?;
    body.skip(4 + 8)?;
    let size = body.u64()?;
    body.skip(8)?;
    let (accessed, modified) = (body.u64()?, body.u64()?);
    body.skip(8)?;
    let (accessed_ns, modified_ns) = (body.u32()?, body.u32()?);
    body.skip(4)?;
    let mode = body.u32()?;
    body.skip(4)?;
    let (uid, gid) = (body.u32()?, body.u32()?);
    let said = |bit: u32| valid & bit != 0;
    let time = |bit, now, seconds, fraction| {
        said(bit).then(|| {
            if said(now) {
                Time::Now
            } else {
                Time::At(nanoseconds(seconds, fraction))
            }
        })
    };
    Ok(Changes {
        mode: said(setattr::MODE).then_some(mode & PERMISSIONS),
        uid: said(setattr::UID).then_some(uid),
        gid: said(setattr::GID).then_some(gid),
        size: said(setattr::SIZE).then_some(size),
        accessed: time(setattr::ACCESSED, setattr::ACCESSED_NOW, accessed, accessed_ns),
        modified: time(setattr::MODIFIED, setattr::MODIFIED_NOW, modified, modified_ns),
        strip_privileges: said(setattr::KILL_SUIDGID),
    })
}
