//! A file system whose changes are durable when they return: for mounts and servers that promise it.
//!
//! Invariant: a change that was answered with success is on the devices. Owns nothing; every call is the inner file system's, and a change is
//! followed by its `sync`, which callers at one moment share.

use super::news::Listener;
use super::{Allocation, Changes, Entry, FileSystem, Inode, New, Node, Owner, Replace, Result, Seek, Statistics, XattrMode};
use std::sync::Arc;

pub struct Strict(pub Arc<dyn FileSystem>);

impl Strict {
    fn durable<T>(&self, change: impl FnOnce(&dyn FileSystem) -> Result<T>) -> Result<T> {
        let done = change(self.0.as_ref())?;
        self.0.sync()?;
        Ok(done)
    }
}

impl FileSystem for Strict {
    fn lookup(&self, directory: Inode, name: &[u8]) -> Result<Node> {
        self.0.lookup(directory, name)
    }

    fn parent(&self, directory: Inode) -> Result<Node> {
        self.0.parent(directory)
    }

    fn stat(&self, inode: Inode) -> Result<Node> {
        self.0.stat(inode)
    }

    fn change(&self, inode: Inode, changes: &Changes) -> Result<Node> {
        self.durable(|files| files.change(inode, changes))
    }

    fn create(&self, directory: Inode, name: &[u8], new: New<'_>, mode: u32, owner: Owner) -> Result<Node> {
        self.durable(|files| files.create(directory, name, new, mode, owner))
    }

    fn create_masked(&self, directory: Inode, name: Option<&[u8]>, new: New<'_>, mode: u32, umask: u32, owner: Owner) -> Result<Node> {
        let create = |files: &dyn FileSystem| files.create_masked(directory, name, new, mode, umask, owner);
        if name.is_some() {
            self.durable(create)
        } else {
            create(self.0.as_ref())
        }
    }

    /// Not named, so not durable.
    fn create_unnamed(&self, directory: Inode, mode: u32, owner: Owner) -> Result<Node> {
        self.0.create_unnamed(directory, mode, owner)
    }

    fn link(&self, inode: Inode, directory: Inode, name: &[u8]) -> Result<Node> {
        self.durable(|files| files.link(inode, directory, name))
    }

    fn unlink(&self, directory: Inode, name: &[u8]) -> Result<()> {
        self.durable(|files| files.unlink(directory, name))
    }

    fn remove_directory(&self, directory: Inode, name: &[u8]) -> Result<()> {
        self.durable(|files| files.remove_directory(directory, name))
    }

    fn rename(&self, from: (Inode, &[u8]), to: (Inode, &[u8]), replace: Replace) -> Result<()> {
        self.durable(|files| files.rename(from, to, replace))
    }

    fn read_link(&self, inode: Inode) -> Result<Vec<u8>> {
        self.0.read_link(inode)
    }

    fn open(&self, inode: Inode) -> Result<Node> {
        self.0.open(inode)
    }

    fn close(&self, inode: Inode) {
        self.0.close(inode);
    }

    fn read(&self, inode: Inode, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.0.read(inode, offset, length)
    }

    fn write(&self, inode: Inode, offset: u64, bytes: &[u8], strip_privileges: bool) -> Result<Node> {
        self.durable(|files| files.write(inode, offset, bytes, strip_privileges))
    }

    fn append(&self, inode: Inode, bytes: &[u8], strip_privileges: bool) -> Result<Node> {
        self.durable(|files| files.append(inode, bytes, strip_privileges))
    }

    fn sync(&self) -> Result<()> {
        self.0.sync()
    }

    fn allocate(&self, inode: Inode, how: Allocation, offset: u64, length: u64) -> Result<Node> {
        self.durable(|files| files.allocate(inode, how, offset, length))
    }

    fn seek(&self, inode: Inode, offset: u64, what: Seek) -> Result<u64> {
        self.0.seek(inode, offset, what)
    }

    fn copy(&self, from: (Inode, u64), to: (Inode, u64), length: u64) -> Result<u64> {
        self.durable(|files| files.copy(from, to, length))
    }

    fn list(&self, directory: Inode, cookie: u64, limit: usize) -> Result<Vec<Entry>> {
        self.0.list(directory, cookie, limit)
    }

    fn newest_cookie(&self, directory: Inode) -> Result<u64> {
        self.0.newest_cookie(directory)
    }

    fn xattr(&self, inode: Inode, name: &[u8]) -> Result<Vec<u8>> {
        self.0.xattr(inode, name)
    }

    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        self.durable(|files| files.set_xattr(inode, name, value, mode))
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<Vec<u8>>> {
        self.0.xattrs(inode)
    }

    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<()> {
        self.durable(|files| files.remove_xattr(inode, name))
    }

    fn note_access(&self, inode: Inode) {
        self.0.note_access(inode);
    }

    fn statistics(&self) -> Result<Statistics> {
        self.0.statistics()
    }

    fn subscribe(&self) -> Option<Arc<Listener>> {
        self.0.subscribe()
    }
}
