//! The file faces' way in: `FileSystem` over the store.
//!
//! Changes are lazy: seen by all when their call returns, durable in order with the next `sync`, or within a second. Content changes in place: readers that have it pinned (objects on their way out) are given a
//! copy that shares it first. Changes of one inode's content run side by side, but not while such a copy is made.

use super::commit::{Flush, Promise};
use super::{Core, Store};
use crate::element::content::{self, Source};
use crate::element::file_content::{self, CUT_RUNS_MAX, PINNED, Place};
use crate::element::namespace::SHARED_RUNS_MAX;
use crate::element::rows::ElementRow;
use crate::element::transaction::Transaction;
use crate::element::{Rows, file_names, files, keys, metadata};
use crate::error::Error;
use crate::filesystem::{
    Allocation, Changes, Entry, Errno, FILE_BYTES_MAX, FileSystem, Inode, New, Node, Owner, ROOT, Replace, Result, Seek, Statistics,
    TRANSFER_BYTES_MAX, XattrMode, news,
};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

/// Locks that inodes share by their number.
const LOCKS: usize = 64;
/// What a change of a name or of attributes writes in rows at most, besides its names: two elements with all their attributes, and their directories.
const CHANGE_BYTES: usize = 96 * 1024;
/// A run that is cut or shared, with the extent that it gives back.
const RUN_BYTES: usize = 512;
/// Orphans that one look finds.
const ORPHAN_ROWS: usize = 1024;

/// Who changes content, and who parts with readers.
pub(super) struct ContentLocks([RwLock<()>; LOCKS]);

impl Default for ContentLocks {
    fn default() -> Self {
        Self(std::array::from_fn(|_| RwLock::default()))
    }
}

impl ContentLocks {
    fn of(&self, inode: Inode) -> &RwLock<()> {
        &self.0[inode as usize % LOCKS]
    }

    /// While readers are given a copy.
    pub(super) fn part(&self, inode: Inode) -> RwLockWriteGuard<'_, ()> {
        self.of(inode).write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn errno(error: Error) -> Errno {
    match error {
        Error::File(errno) => errno,
        Error::NotFound(_) => Errno::NOENT,
        Error::Conflict(_) => Errno::BUSY,
        Error::Precondition(_) | Error::Digest(_) | Error::Invalid(_) => Errno::INVAL,
        Error::Limit(_) => Errno::FBIG,
        Error::OutOfSpace(_) => Errno::NOSPC,
        Error::Damaged(_) | Error::Refused(_) | Error::Closed(_) | Error::Io(_) => Errno::IO,
    }
}

fn is_pinned(error: &Error) -> bool {
    matches!(error, Error::Conflict(what) if what == PINNED)
}

type Work<T> = Box<dyn FnOnce(&mut Transaction) -> crate::error::Result<T> + Send>;

impl Core {
    fn commit<T: Send + 'static>(&self, payload: usize, rows: usize, work: Work<T>) -> crate::error::Result<T> {
        self.commit_with(None, payload, rows, work)
    }

    /// `flush`: for what it names in segments.
    fn commit_with<T: Send + 'static>(&self, flush: Option<Flush>, payload: usize, rows: usize, work: Work<T>) -> crate::error::Result<T> {
        let origin = news::speaker();
        let spoken = move |tx: &mut Transaction| {
            tx.origin = origin;
            work(tx)
        };
        self.committer.run_lazy(flush, payload, rows, spoken)
    }

    /// Changes content, after parting with its readers if need be; `work` makes the change anew for each attempt.
    fn change_content<T: Send + 'static>(
        self: &Arc<Self>,
        inode: Inode,
        payload: usize,
        rows: usize,
        work: impl FnMut() -> Work<T>,
    ) -> Result<T> {
        self.change_content_with(inode, || None, payload, rows, work)
    }

    /// `flush`: as `commit_with` has it, for each attempt.
    fn change_content_with<T: Send + 'static>(
        self: &Arc<Self>,
        inode: Inode,
        flush: impl Fn() -> Option<Flush>,
        payload: usize,
        rows: usize,
        mut work: impl FnMut() -> Work<T>,
    ) -> Result<T> {
        let locks = &self.content_locks;
        loop {
            let changed = {
                let _changes = locks.of(inode).read().unwrap_or_else(PoisonError::into_inner);
                self.commit_with(flush(), payload, rows, work())
            };
            match changed {
                Err(error) if is_pinned(&error) => {
                    let _parts = locks.part(inode);
                    let size = files::file_row(&self.snapshot(), inode).map_err(errno)?.size;
                    self.part_with_readers(inode, size).map_err(errno)?;
                }
                result => return result.map_err(errno),
            }
        }
    }

    /// Runs of [start, stop), and some that may come meanwhile.
    fn runs_bytes(&self, inode: Inode, start: u64, stop: u64) -> Result<usize> {
        let runs = content::runs(&self.snapshot(), inode, start, stop, CUT_RUNS_MAX).map_err(errno)?;
        Ok(RUN_BYTES * (runs.len() + 16))
    }
}

impl Store {
    fn see<T>(&self, look: impl FnOnce(&dyn Rows) -> crate::error::Result<T>) -> Result<T> {
        self.look(look).map_err(errno)
    }

    fn change_names<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Transaction) -> crate::error::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.core.commit(0, CHANGE_BYTES, Box::new(work)).map_err(errno)
    }

    fn make_unnamed(&self, directory: Inode, mode: file_names::Mode, owner: Owner) -> Result<Node> {
        let inode = keys::in_space(self.core.staged_id().map_err(errno)?, keys::space_of(directory));
        let opens = &self.core.committer.shared.opens;
        opens.open(inode);
        let made = self.change_names(move |tx| file_names::create_unnamed(tx, inode, directory, mode, owner));
        match made {
            Ok(_) => opens.outlive(inode),
            Err(_) => drop(opens.close(inode)),
        }
        made
    }

    fn row(&self, inode: Inode) -> Result<ElementRow> {
        self.see(|rows| files::row(rows, inode))
    }

    fn lay(&self, inode: Inode, place: Place, bytes: &[u8], strip_privileges: bool) -> Result<Node> {
        if bytes.len() > TRANSFER_BYTES_MAX {
            return Err(Errno::INVAL);
        }
        if bytes.is_empty() {
            return self.see(|rows| files::file_row(rows, inode).map(|row| files::node(inode, &row)));
        }
        let mut staging = self.stage();
        let staged = staging.write(bytes).and_then(|()| staging.finish_lazy()).map_err(errno)?;
        let length = bytes.len() as u64;
        let (payload, extents) = match &staged.source {
            Source::Small(bytes) => (bytes.len(), 1),
            Source::Staged(extents) => (0, extents.len()),
        };
        let start = match place {
            Place::At(offset) => offset,
            Place::End => FILE_BYTES_MAX,
        };
        let rows = CHANGE_BYTES + 400 * extents + self.core.runs_bytes(inode, start, start.saturating_add(length))?;
        let flush = || staged.flush(&self.core);
        self.core.change_content_with(inode, flush, payload, rows, || {
            let source = staged.source.clone();
            Box::new(move |tx| file_content::write(tx, inode, place, source, length, strip_privileges))
        })
    }

    fn punch(&self, inode: Inode, start: u64, stop: u64) -> Result<()> {
        let mut at = start;
        while at < stop {
            let from = at;
            at = self.core.change_content(inode, 0, CHANGE_BYTES + RUN_BYTES * CUT_RUNS_MAX, || {
                Box::new(move |tx| file_content::punch(tx, inode, from, stop))
            })?;
        }
        Ok(())
    }

    /// Gives back what was open when the store ended.
    pub(super) fn forget_orphans(&self) -> crate::error::Result<()> {
        let (from, to) = keys::table(keys::ORPHAN);
        loop {
            let orphans = self.core.snapshot().get_range(&from, &to, ORPHAN_ROWS, false)?;
            if orphans.is_empty() {
                return Ok(());
            }
            for (key, _) in orphans {
                let inode = keys::id_of(&key);
                self.core
                    .commit(0, CHANGE_BYTES, Box::new(move |tx| file_names::forget(tx, inode)))?;
            }
        }
    }
}

/// A name that the store keeps as text.
fn text(name: &[u8]) -> Result<String> {
    String::from_utf8(name.to_vec()).map_err(|_| Errno::INVAL)
}

impl FileSystem for Store {
    fn lookup(&self, directory: Inode, name: &[u8]) -> Result<Node> {
        self.see(|rows| files::lookup(rows, directory, name))
    }

    fn parent(&self, directory: Inode) -> Result<Node> {
        self.see(|rows| {
            let row = files::growing_row(rows, directory)?;
            let parent = if directory == ROOT { ROOT } else { row.parent };
            Ok(files::node(parent, &files::row(rows, parent)?))
        })
    }

    fn stat(&self, inode: Inode) -> Result<Node> {
        self.see(|rows| Ok(files::node(inode, &files::row(rows, inode)?)))
    }

    fn change(&self, inode: Inode, changes: &Changes) -> Result<Node> {
        let Some(size) = changes.size else {
            let changes = changes.clone();
            return self.change_names(move |tx| files::change(tx, inode, &changes));
        };
        if size > FILE_BYTES_MAX {
            self.see(|rows| files::file_row(rows, inode))?;
            return Err(Errno::FBIG);
        }
        let rows = CHANGE_BYTES + RUN_BYTES * CUT_RUNS_MAX;
        while !self
            .core
            .change_content(inode, 0, rows, || Box::new(move |tx| file_content::shrink(tx, inode, size)))?
        {}
        self.core.change_content(inode, 0, CHANGE_BYTES, || {
            let changes = changes.clone();
            Box::new(move |tx| files::change(tx, inode, &changes))
        })
    }

    fn create(&self, directory: Inode, name: &[u8], new: New<'_>, mode: u32, owner: Owner) -> Result<Node> {
        self.create_masked(directory, Some(name), new, mode, 0, owner)
    }

    fn create_masked(&self, directory: Inode, name: Option<&[u8]>, new: New<'_>, mode: u32, umask: u32, owner: Owner) -> Result<Node> {
        let mode = file_names::Mode { bits: mode, umask };
        let Some(name) = name else {
            return self.make_unnamed(directory, mode, owner);
        };
        if directory == ROOT {
            text(name)?;
        }
        let (name, new) = (name.to_vec(), file_names::OwnedNew::from(&new));
        self.change_names(move |tx| file_names::create(tx, directory, &name, &new.borrow(), mode, owner))
    }

    fn create_unnamed(&self, directory: Inode, mode: u32, owner: Owner) -> Result<Node> {
        self.create_masked(directory, None, New::File, mode, 0, owner)
    }

    fn link(&self, inode: Inode, directory: Inode, name: &[u8]) -> Result<Node> {
        let name = name.to_vec();
        self.change_names(move |tx| file_names::link(tx, inode, directory, &name))
    }

    fn unlink(&self, directory: Inode, name: &[u8]) -> Result<()> {
        let name = name.to_vec();
        self.change_names(move |tx| file_names::unlink(tx, directory, &name))
    }

    fn remove_directory(&self, directory: Inode, name: &[u8]) -> Result<()> {
        if directory == ROOT {
            self.see(|rows| files::lookup(rows, directory, name))?;
            return self.delete_view(&text(name)?).map_err(|error| match error {
                Error::Conflict(_) => Errno::NOTEMPTY,
                error => errno(error),
            });
        }
        let name = name.to_vec();
        self.change_names(move |tx| file_names::remove_directory(tx, directory, &name))
    }

    fn rename(&self, from: (Inode, &[u8]), to: (Inode, &[u8]), replace: Replace) -> Result<()> {
        let (from, to) = ((from.0, from.1.to_vec()), (to.0, to.1.to_vec()));
        self.change_names(move |tx| file_names::rename(tx, (from.0, &from.1), (to.0, &to.1), replace))
    }

    fn read_link(&self, inode: Inode) -> Result<Vec<u8>> {
        let row = self.row(inode)?;
        if row.kind == super::Kind::Symlink {
            Ok(row.detail)
        } else {
            Err(Errno::INVAL)
        }
    }

    fn open(&self, inode: Inode) -> Result<Node> {
        let opens = &self.core.committer.shared.opens;
        opens.open(inode);
        self.stat(inode).inspect_err(|_| {
            opens.close(inode);
        })
    }

    fn close(&self, inode: Inode) {
        if self.core.committer.shared.opens.close(inode) {
            // If that fails, the next start does it.
            self.core
                .committer
                .submit_with(Promise::Lazy(None), 0, CHANGE_BYTES, Box::new(|_| {}), move |tx| {
                    file_names::forget(tx, inode)
                });
        }
    }

    fn read(&self, inode: Inode, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.core.note_read();
        let _inside = self.core.guard.enter();
        self.see(|rows| {
            let size = files::file_row(rows, inode)?.size;
            let stop = offset.saturating_add(length.min(TRANSFER_BYTES_MAX) as u64).min(size);
            let mut bytes = vec![0; stop.saturating_sub(offset) as usize];
            self.core.read_with(rows, inode, offset, &mut bytes)?;
            Ok(bytes)
        })
    }

    /// It is news to whoever accesses it, too: the kernel has the old time by then.
    fn note_access(&self, inode: Inode) {
        let committer = &self.core.committer;
        // Nothing is noted of a snapshot.
        let spaces = committer.shared.spaces();
        if spaces.get(keys::space_of(inode)).is_some_and(|space| space.row.is_image) {
            return;
        }
        if self.row(inode).is_ok_and(|row| files::is_access_due(&row, committer.now_ns())) {
            committer.submit_with(Promise::Lazy(None), 0, CHANGE_BYTES, Box::new(|_| {}), move |tx| {
                files::note_access(tx, inode)
            });
        }
    }

    fn write(&self, inode: Inode, offset: u64, bytes: &[u8], strip_privileges: bool) -> Result<Node> {
        self.lay(inode, Place::At(offset), bytes, strip_privileges)
    }

    fn append(&self, inode: Inode, bytes: &[u8], strip_privileges: bool) -> Result<Node> {
        self.lay(inode, Place::End, bytes, strip_privileges)
    }

    fn sync(&self) -> Result<()> {
        self.core.committer.sync().map_err(errno)
    }

    fn allocate(&self, inode: Inode, how: Allocation, offset: u64, length: u64) -> Result<Node> {
        let end = offset.checked_add(length).filter(|end| *end <= FILE_BYTES_MAX).ok_or(Errno::FBIG)?;
        if length == 0 {
            return Err(Errno::INVAL);
        }
        self.see(|rows| files::file_row(rows, inode))?;
        // Nothing is set aside: content moves when it changes. What could not be written even now is refused now.
        if how != Allocation::Punch && length > self.statistics()?.free_bytes {
            return Err(Errno::NOSPC);
        }
        if !matches!(how, Allocation::Reserve { .. }) {
            self.punch(inode, offset, end)?;
        }
        self.core.change_content(inode, 0, CHANGE_BYTES, || {
            Box::new(move |tx| file_content::allocate(tx, inode, how, end))
        })
    }

    fn seek(&self, inode: Inode, offset: u64, what: Seek) -> Result<u64> {
        self.see(|rows| file_content::seek(rows, inode, offset, what))
    }

    fn copy(&self, from: (Inode, u64), to: (Inode, u64), length: u64) -> Result<u64> {
        let size = self.see(|rows| files::file_row(rows, from.0))?.size;
        let length = length.min(size.saturating_sub(from.1));
        self.see(|rows| files::file_row(rows, to.0))?;
        if from.0 == to.0 && from.1 < to.1.saturating_add(length) && to.1 < from.1 + length {
            return Err(Errno::INVAL);
        }
        let mut done = 0;
        while done < length {
            let (from, to, left) = ((from.0, from.1 + done), (to.0, to.1 + done), length - done);
            let rows = CHANGE_BYTES + RUN_BYTES * SHARED_RUNS_MAX + self.core.runs_bytes(to.0, to.1, to.1.saturating_add(left))?;
            done += self.core.change_content(to.0, 0, rows, || {
                Box::new(move |tx| file_content::copy(tx, from, to, left, SHARED_RUNS_MAX))
            })?;
        }
        Ok(length)
    }

    fn list(&self, directory: Inode, cookie: u64, limit: usize) -> Result<Vec<Entry>> {
        self.see(|rows| {
            files::directory_row(rows, directory)?;
            files::list(rows, directory, cookie, limit)
        })
    }

    fn newest_cookie(&self, directory: Inode) -> Result<u64> {
        self.see(|rows| files::newest_cookie(rows, directory))
    }

    fn xattr(&self, inode: Inode, name: &[u8]) -> Result<Vec<u8>> {
        let (row, name) = (self.row(inode)?, text(name)?);
        row.attributes
            .xattrs
            .get(&name)
            .filter(|_| metadata::is_shown(&name))
            .cloned()
            .ok_or(Errno::NODATA)
    }

    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        let (name, value) = (text(name)?, value.to_vec());
        self.change_names(move |tx| files::set_xattr(tx, inode, &name, Some(&value), mode))
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<Vec<u8>>> {
        let row = self.row(inode)?;
        let names = row.attributes.xattrs.into_keys().filter(|name| metadata::is_shown(name));
        Ok(names.map(String::into_bytes).collect())
    }

    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<()> {
        let name = text(name)?;
        self.change_names(move |tx| files::set_xattr(tx, inode, &name, None, XattrMode::Any))
    }

    fn statistics(&self) -> Result<Statistics> {
        self.check_open().map_err(errno)?;
        let space = self.core.segments.status();
        Ok(Statistics {
            total_bytes: space.usable_bytes,
            free_bytes: space.free_bytes,
            elements: 0,
        })
    }

    fn subscribe(&self) -> Option<Arc<news::Listener>> {
        Some(self.core.committer.shared.news.subscribe())
    }
}
