//! A file system in memory: what the store's own is judged by, and what the file faces test against.
//!
//! It owns a tree under one lock, so every call is atomic. Bounded: elements, names, attributes and content together stay within the bytes given
//! at construction, then ENOSPC; a rename and whatever frees space always have room. Nothing outlives the value.
//!
//! Content is kept in pages of PAGE_BYTES: that is how finely `seek` and `allocated` tell the truth.
//!
//! Where the trait and POSIX leave a choice it does as Linux's ext4 does, and answers the error that Linux answers first:
//! - a rename changes `changed_ns` of what it moves and of what it replaces; two names of one file: of nothing;
//! - a new size changes the times even if it is the old one; no bytes written, and no changes named, change nothing;
//! - whatever is open stays until its last `close`: a removed directory with 0 links, empty, in which nothing can be made or found (ENOENT);
//! - what is open without a name may be linked, however it came to have none;
//! - `strip_privileges` comes after a new mode; set-gid goes only where the group may execute;
//! - a directory's size is 0.

mod attributes;
mod content;
mod data;
mod rename;
mod state;
mod tree;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use state::{Mode, State};

pub use content::PAGE_BYTES;

/// Nanoseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Bytes of names and values of one element's attributes.
pub const XATTR_BYTES_MAX: usize = 32 << 10;
/// Bytes of one attribute's name (`XATTR_NAME_MAX`).
pub const XATTR_NAME_BYTES_MAX: usize = 255;

pub struct Model {
    state: Mutex<State>,
    clock: Clock,
    news: news::Hub,
}

impl Model {
    pub fn new(bytes_max: u64, clock: Clock) -> Self {
        let state = Mutex::new(State::new(bytes_max, clock()));
        Self {
            state,
            clock,
            news: news::Hub::default(),
        }
    }

    /// The same tree once more, on its own from here on, with the same clock. What is open is open in both.
    pub fn fork(&self) -> Self {
        Self {
            state: Mutex::new(self.locked().clone()),
            clock: self.clock.clone(),
            news: news::Hub::default(),
        }
    }

    /// As `subscribe`, with another bound for the news that wait.
    pub fn subscribe_bounded(&self, news_max: usize) -> Arc<news::Listener> {
        self.news.subscribe_bounded(news_max)
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the state, at the one moment at which the whole call happens, and tells what changed.
    fn change_state<T>(&self, work: impl FnOnce(&mut State, i64) -> T) -> T {
        let mut state = self.locked();
        let now = (self.clock)();
        let result = work(&mut state, now);
        self.news.tell(news::speaker(), &state.take_news());
        result
    }
}

pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}

impl FileSystem for Model {
    fn lookup(&self, directory: Inode, name: &[u8]) -> Result<Node> {
        self.locked().lookup(directory, name)
    }

    fn parent(&self, directory: Inode) -> Result<Node> {
        self.locked().parent(directory)
    }

    fn stat(&self, inode: Inode) -> Result<Node> {
        self.locked().node(inode)
    }

    fn change(&self, inode: Inode, changes: &Changes) -> Result<Node> {
        self.change_state(|state, now| state.change(inode, changes, now))
    }

    fn create(&self, directory: Inode, name: &[u8], new: New<'_>, mode: u32, owner: Owner) -> Result<Node> {
        self.create_masked(directory, Some(name), new, mode, 0, owner)
    }

    fn create_masked(&self, directory: Inode, name: Option<&[u8]>, new: New<'_>, mode: u32, umask: u32, owner: Owner) -> Result<Node> {
        let mode = Mode { bits: mode, umask };
        self.change_state(|state, now| match name {
            Some(name) => state.create(directory, name, &new, mode, owner, now),
            None => state.create_unnamed(directory, mode, owner, now),
        })
    }

    fn create_unnamed(&self, directory: Inode, mode: u32, owner: Owner) -> Result<Node> {
        self.create_masked(directory, None, New::File, mode, 0, owner)
    }

    fn link(&self, inode: Inode, directory: Inode, name: &[u8]) -> Result<Node> {
        self.change_state(|state, now| state.link(inode, directory, name, now))
    }

    fn unlink(&self, directory: Inode, name: &[u8]) -> Result<()> {
        self.change_state(|state, now| state.unlink(directory, name, now))
    }

    fn remove_directory(&self, directory: Inode, name: &[u8]) -> Result<()> {
        self.change_state(|state, now| state.remove_directory(directory, name, now))
    }

    fn rename(&self, from: (Inode, &[u8]), to: (Inode, &[u8]), replace: Replace) -> Result<()> {
        self.change_state(|state, now| state.rename(from, to, replace, now))
    }

    fn read_link(&self, inode: Inode) -> Result<Vec<u8>> {
        self.locked().read_link(inode)
    }

    fn open(&self, inode: Inode) -> Result<Node> {
        self.locked().open(inode)
    }

    fn close(&self, inode: Inode) {
        self.change_state(|state, _| state.close(inode));
    }

    fn read(&self, inode: Inode, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.locked().read(inode, offset, length)
    }

    fn note_access(&self, inode: Inode) {
        self.change_state(|state, now| {
            if let Ok(element) = state.get_mut(inode) {
                element.accessed(now);
            }
        });
    }

    fn write(&self, inode: Inode, offset: u64, bytes: &[u8], strip_privileges: bool) -> Result<Node> {
        self.change_state(|state, now| state.write(inode, Some(offset), bytes, strip_privileges, now))
    }

    fn append(&self, inode: Inode, bytes: &[u8], strip_privileges: bool) -> Result<Node> {
        self.change_state(|state, now| state.write(inode, None, bytes, strip_privileges, now))
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn allocate(&self, inode: Inode, how: Allocation, offset: u64, length: u64) -> Result<Node> {
        self.change_state(|state, now| state.allocate(inode, how, offset, length, now))
    }

    fn seek(&self, inode: Inode, offset: u64, what: Seek) -> Result<u64> {
        self.locked().seek(inode, offset, what)
    }

    fn copy(&self, from: (Inode, u64), to: (Inode, u64), length: u64) -> Result<u64> {
        self.change_state(|state, now| state.copy(from, to, length, now))
    }

    fn list(&self, directory: Inode, cookie: u64, limit: usize) -> Result<Vec<Entry>> {
        self.locked().list(directory, cookie, limit)
    }

    fn newest_cookie(&self, directory: Inode) -> Result<u64> {
        self.locked().newest_cookie(directory)
    }

    fn xattr(&self, inode: Inode, name: &[u8]) -> Result<Vec<u8>> {
        self.locked().xattr(inode, name)
    }

    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        self.change_state(|state, now| state.set_xattr(inode, name, value, mode, now))
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<Vec<u8>>> {
        self.locked().xattrs(inode)
    }

    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<()> {
        self.change_state(|state, now| state.remove_xattr(inode, name, now))
    }

    fn statistics(&self) -> Result<Statistics> {
        Ok(self.locked().statistics())
    }

    fn subscribe(&self) -> Option<Arc<news::Listener>> {
        Some(self.news.subscribe())
    }
}
