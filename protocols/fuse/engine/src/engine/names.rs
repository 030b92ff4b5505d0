//! Operations on a directory's entries.

use trefoil_core::element::snapshot_directory;
use trefoil_core::filesystem::{Errno, Inode, NAME_BYTES_MAX, New, Node, Replace, Result, Type};

use super::{Answer, Call, Engine};
use crate::wire::operation;

/// `renameat2`
const RENAME_NOREPLACE: u32 = 1;
const RENAME_EXCHANGE: u32 = 2;
/// `S_IFMT`
const FORMAT: u32 = 0o170_000;
pub const PERMISSIONS: u32 = 0o7777;

pub fn is_snapshots(directory: Inode) -> bool {
    snapshot_directory::of(directory).is_some()
}

impl Engine {
    /// `.` and `..` are asked for by file handles (NFS export), where an inode that is gone must be ESTALE.
    pub(super) fn lookup(&self, call: &mut Call) -> Result<Answer> {
        let found = match call.body.name()? {
            b"." => self.fs.stat(call.inode),
            b".." if call.inode == self.options.root => self.fs.stat(call.inode),
            b".." => self.fs.parent(call.inode),
            name => self.fs.lookup(call.inode, name),
        };
        match found {
            // Nobody tells which snapshots come and go in which directory.
            Ok(node) if is_snapshots(call.inode) => self.brief_entry_out(call.out, &node),
            Ok(node) => self.entry_out(call.out, &node, call.since),
            Err(Errno::NOENT) if is_snapshots(call.inode) => return Err(Errno::NOENT),
            Err(Errno::NOENT) if !self.timeouts.absent_names.is_zero() => self.no_entry_out(call.out, call.since),
            Err(error) => return Err(error),
        }
        Ok(Answer::Payload)
    }

    pub(super) fn readlink(&self, call: &mut Call) -> Result<Answer> {
        let target = self.fs.read_link(call.inode)?;
        if self.notes_accesses() {
            self.fs.note_access(call.inode);
        }
        Ok(Answer::Content(target))
    }

    pub(super) fn mknod(&self, call: &mut Call) -> Result<Answer> {
        let (mode, device, umask) = (call.body.u32()?, u64::from(call.body.u32()?), call.body.u32()?);
        call.body.skip(4)?;
        let new = match mode & FORMAT {
            0 | 0o100_000 => New::File,
            0o010_000 => New::Fifo,
            0o020_000 => New::CharacterDevice(device),
            0o060_000 => New::BlockDevice(device),
            0o140_000 => New::Socket,
            _ => return Err(Errno::INVAL),
        };
        self.make(call, new, mode, umask)
    }

    pub(super) fn mkdir(&self, call: &mut Call) -> Result<Answer> {
        let (mode, umask) = (call.body.u32()?, call.body.u32()?);
        self.make(call, New::Directory, mode, umask)
    }

    pub(super) fn symlink(&self, call: &mut Call) -> Result<Answer> {
        let name = call.body.name()?;
        let target = call.body.text()?;
        let node = self.fs.create(call.inode, name, New::Symlink(target), 0o777, call.owner())?;
        Ok(self.entry(call, &node))
    }

    fn make(&self, call: &mut Call, new: New<'_>, mode: u32, umask: u32) -> Result<Answer> {
        let name = call.body.name()?;
        let (mode, owner) = (mode & PERMISSIONS, call.owner());
        let node = self.fs.create_masked(call.inode, Some(name), new, mode, umask, owner)?;
        Ok(self.entry(call, &node))
    }

    pub(super) fn link(&self, call: &mut Call) -> Result<Answer> {
        let inode = self.inward(call.body.u64()?);
        let name = call.body.name()?;
        let node = self.fs.link(inode, call.inode, name)?;
        Ok(self.entry(call, &node))
    }

    pub(super) fn unlink(&self, call: &mut Call) -> Result<Answer> {
        let name = call.body.name()?;
        let node = self.last_named(call.inode, name);
        self.fs.unlink(call.inode, name)?;
        Ok(self.took(node))
    }

    pub(super) fn rmdir(&self, call: &mut Call) -> Result<Answer> {
        let name = call.body.name()?;
        let node = self.last_named(call.inode, name);
        self.fs.remove_directory(call.inode, name)?;
        Ok(self.took(node))
    }

    pub(super) fn rename(&self, call: &mut Call) -> Result<Answer> {
        let directory = self.inward(call.body.u64()?);
        let mut flags = 0;
        if call.header.operation == operation::RENAME2 {
            flags = call.body.u32()?;
            call.body.skip(4)?;
        }
        let replace = match flags {
            0 => Replace::Yes,
            RENAME_NOREPLACE => Replace::No,
            RENAME_EXCHANGE => Replace::Exchange,
            _ => return Err(Errno::INVAL),
        };
        let (from, to) = (call.body.text()?, call.body.text()?);
        if from.len().max(to.len()) > NAME_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let node = if replace == Replace::Yes {
            self.last_named(directory, to)
        } else {
            None
        };
        self.fs.rename((call.inode, from), (directory, to), replace)?;
        Ok(self.took(node))
    }

    /// What has no other name.
    fn last_named(&self, directory: Inode, name: &[u8]) -> Option<Node> {
        let node = self.fs.lookup(directory, name).ok()?;
        (node.links == 1 || node.kind == Type::Directory).then_some(node)
    }

    fn took(&self, node: Option<Node>) -> Answer {
        if let Some(node) = node {
            self.known.unnamed(node);
        }
        Answer::Payload
    }

    fn entry(&self, call: &mut Call, node: &Node) -> Answer {
        self.entry_out(call.out, node, call.since);
        Answer::Payload
    }
}
