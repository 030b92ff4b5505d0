//! Advisory locks on files: POSIX byte ranges and BSD `flock`, in one table for all faces.
//!
//! Invariants: no two owners hold conflicting locks of one family; an owner's ranges do not overlap, and those that touch differ in how
//! they are held; a waiter conflicts with a lock that is held, and its wait closes no circle. As on Linux the two families do not see each
//! other, a POSIX owner that waits for more keeps what it has, and a `flock` that changes how it is held first gives up what it has.
//!
//! It never blocks a thread: whoever waits is answered through a callback, which runs after the table's lock is given back and may call the
//! table. It knows no files: it is told when one is closed. Nothing outlives it; NFS clients reclaim after a restart.

mod ranges;
mod table;

#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Errno, Inode, Result};
use table::Table;

/// Ranges held, of all files and owners together.
pub const LOCKS_MAX: usize = 262_144;
pub const WAITERS_MAX: usize = 4_096;

/// Who holds: `client` is a mount or a host, `owner` what tells its owners apart. A client's locks can be released together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockOwner {
    pub client: u64,
    pub owner: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// fcntl(F_SETLK), NLM: byte ranges.
    Posix,
    /// flock(2): always Range::ALL.
    Flock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    Shared,
    Exclusive,
}

/// Bytes from `start` to `end`, both locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    start: u64,
    end: u64,
}

impl Range {
    /// The last byte that can be locked stands for all that follow (Linux's OFFSET_MAX).
    pub const END: u64 = i64::MAX as u64;
    pub const ALL: Self = Self { start: 0, end: Self::END };

    /// As FUSE gives it: both ends are locked. Raises INVAL, and OVERFLOW for a start that no file has.
    pub fn new(start: u64, end: u64) -> Result<Self> {
        match (start <= end, start <= Self::END) {
            (false, _) => Err(Errno::INVAL),
            (_, false) => Err(Errno::OVERFLOW),
            _ => Ok(Self {
                start,
                end: end.min(Self::END),
            }),
        }
    }

    /// As NLM gives it: a length of 0 reaches to the end. Raises OVERFLOW.
    pub fn with_length(start: u64, length: u64) -> Result<Self> {
        match length.checked_sub(1) {
            None => Self::new(start, u64::MAX),
            Some(rest) => Self::new(start, start.checked_add(rest).ok_or(Errno::OVERFLOW)?),
        }
    }

    pub fn start(self) -> u64 {
        self.start
    }

    pub fn end(self) -> u64 {
        self.end
    }

    /// 0: to the end.
    pub fn length(self) -> u64 {
        if self.end == Self::END { 0 } else { self.end - self.start + 1 }
    }
}

/// A lock that is held or asked for. `process` only informs whoever tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    pub owner: LockOwner,
    pub hold: Hold,
    pub range: Range,
    pub process: u32,
}

/// Hears how a wait ends: granted, DEADLK, NOLCK, or INTR because its client was released. Called exactly once unless `cancel` was in time.
pub type Answer = Box<dyn FnOnce(Result<()>) + Send>;

/// Names one wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Waiter(u64);

/// Any number of threads call it.
pub struct LockTable {
    table: Mutex<Table>,
}

impl Default for LockTable {
    fn default() -> Self {
        Self::new(LOCKS_MAX, WAITERS_MAX)
    }
}

impl LockTable {
    pub fn new(locks_max: usize, waiters_max: usize) -> Self {
        Self {
            table: Mutex::new(Table::new(locks_max, waiters_max)),
        }
    }

    /// A lock that is in the way of this one, if there is any.
    pub fn test(&self, inode: Inode, family: Family, wanted: &Lock) -> Option<Lock> {
        self.locked().conflict(inode, family, wanted)
    }

    /// Raises AGAIN if another owner is in the way, NOLCK if the table is full.
    pub fn set(&self, inode: Inode, family: Family, wanted: &Lock) -> Result<()> {
        self.change(|table| table.set(inode, family, wanted))
    }

    /// As `set`, but waits: the answer comes at once, before this returns None, or later. DEADLK is for POSIX locks only.
    pub fn wait(&self, inode: Inode, family: Family, wanted: &Lock, answer: Answer) -> Option<Waiter> {
        let waiter = self.change(|table| table.wait(inode, family, wanted, answer));
        waiter.map(Waiter)
    }

    /// Whether it was in time: true if the waiter got no answer and never will.
    pub fn cancel(&self, waiter: Waiter) -> bool {
        self.locked().cancel(waiter.0)
    }

    /// Gives up what the owner holds of the range. Raises NOLCK if that would cut a range in two and the table is full.
    pub fn unlock(&self, inode: Inode, family: Family, owner: LockOwner, range: Range) -> Result<()> {
        self.change(|table| table.unlock(inode, family, owner, range))
    }

    /// Of one file: at `close` for POSIX, at the last one of an open file for `flock`.
    pub fn release(&self, inode: Inode, family: Family, owner: LockOwner) {
        self.change(|table| table.release(inode, family, owner));
    }

    /// Of all files, and its waits: for an unmount or a host that restarted.
    pub fn release_client(&self, client: u64) {
        self.change(|table| table.release_client(client));
    }

    /// Ranges held and requests that wait.
    pub fn count(&self) -> (usize, usize) {
        self.locked().count()
    }

    fn locked(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, action: impl FnOnce(&mut Table) -> T) -> T {
        let mut table = self.locked();
        let result = action(&mut table);
        let answers = table.take_answers();
        drop(table);
        answers.into_iter().for_each(|(answer, result)| answer(result));
        result
    }
}
