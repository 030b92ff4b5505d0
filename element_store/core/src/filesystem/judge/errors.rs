//! Every error that holds for an operation: POSIX does not say which one is answered if several do.

use super::operation::{Make, Operation};
use super::pairs::{Id, Pairs};
use crate::filesystem::*;

struct Look<'f> {
    files: &'f dyn FileSystem,
    pairs: &'f Pairs,
    found: Vec<Errno>,
}

/// As one side shows it before the operation.
pub(super) fn possible(files: &dyn FileSystem, operation: &Operation, pairs: &Pairs) -> Vec<Errno> {
    let mut look = Look {
        files,
        pairs,
        found: Vec::new(),
    };
    match operation {
        Operation::Lookup(id, name) => {
            look.entry(*id, name);
        }
        Operation::Create(id, name, make, ..) => look.create(*id, name, make),
        Operation::Link(id, directory, name) => look.link(*id, *directory, name),
        Operation::Unlink(id, name) => {
            let node = look.entry(*id, name);
            look.must(node.is_none_or(|node| node.kind != Type::Directory), Errno::ISDIR);
        }
        Operation::RemoveDirectory(id, name) => {
            let node = look.entry(*id, name);
            look.must(node.is_none_or(|node| node.kind == Type::Directory), Errno::NOTDIR);
        }
        Operation::Rename(from, to, replace) => look.rename((from.0, &from.1), (to.0, &to.1), *replace),
        Operation::Change(id, Changes { size: Some(size), .. }) => look.content(*id, *size, 0),
        Operation::SetXattr(id, name, ..) => {
            look.stat(*id);
            look.must(std::str::from_utf8(name).is_ok(), Errno::INVAL);
            // Of a list that is none, and may not be there either.
            look.must(!name.starts_with(b"system.posix_acl"), Errno::INVAL);
            look.must(!name.starts_with(b"system.posix_acl"), Errno::ACCESS);
            look.must(!name.starts_with(b"system.posix_acl"), Errno::EXIST);
            look.must(!name.starts_with(b"system.posix_acl"), Errno::NODATA);
        }
        Operation::Write(id, offset, bytes, _) => look.content(*id, *offset, bytes.length as u64),
        Operation::Allocate(id, _, offset, length) => {
            look.content(*id, *offset, *length);
            look.must(*length > 0, Errno::INVAL);
        }
        Operation::Copy(from, to, length) => {
            look.content(from.0, 0, 0);
            look.content(to.0, to.1, *length);
            look.must(from.0 != to.0 || from.1.abs_diff(to.1) >= *length, Errno::INVAL);
        }
        _ => {}
    }
    look.found
}

impl Look<'_> {
    fn must(&mut self, holds: bool, otherwise: Errno) {
        if !holds {
            self.found.push(otherwise);
        }
    }

    fn keep<T>(&mut self, result: Result<T>) -> Option<T> {
        result.map_err(|errno| self.found.push(errno)).ok()
    }

    fn stat(&mut self, id: Id) -> Option<Node> {
        let node = self.files.stat(self.pairs.inode(id, 0));
        self.keep(node)
    }

    fn directory(&mut self, id: Id) {
        if let Some(node) = self.stat(id) {
            self.must(node.kind == Type::Directory, Errno::NOTDIR);
            self.must(node.links > 0, Errno::NOENT);
        }
    }

    fn name(&mut self, name: &[u8]) {
        self.must(name.len() <= NAME_BYTES_MAX, Errno::NAMETOOLONG);
        let legal = !matches!(name, b"" | b"." | b"..") && !name.iter().any(|byte| matches!(byte, b'/' | 0));
        self.must(legal, Errno::INVAL);
    }

    /// What is there, and why nothing is.
    fn entry(&mut self, directory: Id, name: &[u8]) -> Option<Node> {
        self.directory(directory);
        self.name(name);
        let node = self.files.lookup(self.pairs.inode(directory, 0), name);
        self.keep(node)
    }

    /// Where there should be nothing.
    fn vacancy(&mut self, directory: Id, name: &[u8]) {
        self.directory(directory);
        self.name(name);
        let free = self.files.lookup(self.pairs.inode(directory, 0), name).is_err();
        self.must(free, Errno::EXIST);
    }

    fn create(&mut self, directory: Id, name: &[u8], make: &Make) {
        self.vacancy(directory, name);
        self.must(directory != Id::ROOT || matches!(make, Make::Directory), Errno::PERM);
        if let Make::Symlink(target) = make {
            self.must(target.len() <= TARGET_BYTES_MAX, Errno::NAMETOOLONG);
        }
    }

    fn link(&mut self, id: Id, directory: Id, name: &[u8]) {
        if let Some(node) = self.stat(id) {
            self.must(node.kind != Type::Directory, Errno::PERM);
        }
        self.vacancy(directory, name);
        self.must(directory != Id::ROOT, Errno::PERM);
        // The trait does not show in which view a file is.
        self.found.push(Errno::XDEV);
    }

    fn rename(&mut self, from: (Id, &[u8]), to: (Id, &[u8]), replace: Replace) {
        let source = self.entry(from.0, from.1);
        self.must(from.0 != Id::ROOT && to.0 != Id::ROOT, Errno::PERM);
        self.directory(to.0);
        self.name(to.1);
        let [above, below] = [from.0, to.0].map(|id| self.trail(id));
        self.must(above.last() == below.last(), Errno::XDEV);
        let target = self.files.lookup(self.pairs.inode(to.0, 0), to.1).ok();
        self.must(target.is_some() || replace != Replace::Exchange, Errno::NOENT);
        self.must(target.is_none() || replace != Replace::No, Errno::EXIST);
        let is_directory = |node: &Option<Node>| node.as_ref().is_some_and(|node| node.kind == Type::Directory);
        let leads = |node: &Option<Node>, trail: &[Inode]| node.as_ref().is_some_and(|node| trail.contains(&node.inode));
        self.must(!leads(&source, &below), Errno::INVAL);
        if leads(&target, &above) {
            self.found.extend([Errno::INVAL, Errno::NOTEMPTY]);
        }
        if target.is_some() && replace != Replace::Exchange {
            self.must(is_directory(&source) || !is_directory(&target), Errno::ISDIR);
            self.must(!is_directory(&source) || is_directory(&target), Errno::NOTDIR);
            // To see whether it is empty would be an access on this side only.
            self.must(!is_directory(&target), Errno::NOTEMPTY);
        }
    }

    /// The directory and all above it, up to its view root, or ROOT itself.
    fn trail(&self, directory: Id) -> Vec<Inode> {
        let mut trail = vec![self.pairs.inode(directory, 0)];
        while let Some(at) = trail.last() {
            match self.files.parent(*at) {
                Ok(above) if above.inode != ROOT => trail.push(above.inode),
                _ => break,
            }
        }
        trail
    }

    fn content(&mut self, id: Id, offset: u64, length: u64) {
        if let Some(node) = self.stat(id) {
            self.must(node.kind != Type::Directory, Errno::ISDIR);
            self.must(matches!(node.kind, Type::File | Type::Directory), Errno::INVAL);
        }
        self.must(offset.checked_add(length).is_some_and(|end| end <= FILE_BYTES_MAX), Errno::FBIG);
    }
}
