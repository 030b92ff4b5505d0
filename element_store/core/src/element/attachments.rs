//! Which volumes hosts have attached, and whether anything about volumes changed.
//!
//! Invariant: holders come and go only in changes, on the writer's thread, so every other change runs clearly before or clearly after.

use crate::filesystem::news::Origin;
use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug, Default)]
pub struct Attachments {
    inner: Mutex<Table>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    held: HashMap<u64, Held>,
    changes: u64,
}

#[derive(Debug, Default)]
struct Held {
    handles: usize,
    /// The operator lets other faces change it all the same, until the last handle is gone.
    unlocked: bool,
    /// The mount by which hosts change it, if the kernel serves them.
    lent: Option<Origin>,
}

impl Attachments {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn attach(&self, element: u64) {
        self.table().held.entry(element).or_default().handles += 1;
    }

    /// Hosts change it by what speaks in that name (see `news`).
    pub fn lend(&self, element: u64, to: Origin) {
        let mut table = self.table();
        let held = table.held.entry(element).or_default();
        (held.handles, held.lent) = (held.handles + 1, Some(to));
    }

    /// True if it was the last.
    pub fn release(&self, element: u64) -> bool {
        let mut table = self.table();
        match table.held.get_mut(&element) {
            Some(held) if held.handles > 1 => {
                held.handles -= 1;
                false
            }
            _ => table.held.remove(&element).is_some(),
        }
    }

    pub fn handles(&self, element: u64) -> usize {
        self.table().held.get(&element).map_or(0, |held| held.handles)
    }

    /// May none but its hosts change it?
    pub fn is_locked(&self, element: u64) -> bool {
        self.table().held.get(&element).is_some_and(|held| !held.unlocked)
    }

    /// May a change in that name not be made?
    pub fn refuses(&self, element: u64, origin: Origin) -> bool {
        let table = self.table();
        let held = table.held.get(&element).filter(|held| !held.unlocked);
        held.is_some_and(|held| held.lent != Some(origin))
    }

    /// False: it is not attached.
    pub fn unlock(&self, element: u64) -> bool {
        let mut table = self.table();
        let held = table.held.get_mut(&element);
        held.map(|held| held.unlocked = true).is_some()
    }

    /// Everybody can see that volumes came, went, or are of another size.
    pub fn note_change(&self) {
        self.table().changes += 1;
        self.changed.notify_all();
    }

    /// Waits for a change after `seen`, or for so long; returns what to pass next.
    pub fn wait_changed(&self, seen: u64, patience: Duration) -> u64 {
        let table = self.table();
        let waited = self.changed.wait_timeout_while(table, patience, |table| table.changes == seen);
        waited.unwrap_or_else(PoisonError::into_inner).0.changes
    }
}
