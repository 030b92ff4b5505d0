//! By which open file each lock was asked for.
//!
//! A lock of an open file description (`F_OFD_SETLK`) ends with the description, and the kernel does not say so but by RELEASE of the handle that took it.
//! Locks of a process end with its first close, which FLUSH tells with their owner; RELEASE comes later, when the same process may hold the next lock
//! already, so what was flushed is forgotten here first. As long as the locks that are held, and those that were asked for by handles still open.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use trefoil_core::filesystem::Inode;

use crate::known::lock;

#[derive(Debug, Default)]
pub struct Holders {
    /// (handle, owner)
    asked: Mutex<HashMap<Inode, HashSet<(u64, u64)>>>,
    last: AtomicU64,
}

impl Holders {
    /// A handle that no other open file has.
    pub fn handle(&self) -> u64 {
        1 + self.last.fetch_add(1, Ordering::Relaxed)
    }

    pub fn ask(&self, inode: Inode, handle: u64, owner: u64) {
        lock(&self.asked).entry(inode).or_default().insert((handle, owner));
    }

    /// All locks of the owner are gone.
    pub fn flushed(&self, inode: Inode, owner: u64) {
        self.keep(inode, |(_, other)| other != owner);
    }

    /// Whose locks go with the handle.
    pub fn released(&self, inode: Inode, handle: u64) -> Vec<u64> {
        let mut owners = Vec::new();
        self.keep(inode, |(other, owner)| {
            let stays = other != handle;
            owners.extend((!stays).then_some(owner));
            stays
        });
        owners
    }

    fn keep(&self, inode: Inode, mut stays: impl FnMut((u64, u64)) -> bool) {
        let mut asked = lock(&self.asked);
        let Some(holders) = asked.get_mut(&inode) else { return };
        holders.retain(|holder| stays(*holder));
        if holders.is_empty() {
            asked.remove(&inode);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_flushed_does_not_end_with_the_handle() {
        let holders = Holders::default();
        let (first, second) = (holders.handle(), holders.handle());
        assert_ne!(first, second);
        holders.ask(5, first, 100);
        holders.ask(5, first, 200);
        holders.flushed(5, 100);
        holders.ask(5, second, 100);
        assert_eq!(holders.released(5, first), [200]);
        assert_eq!(holders.released(5, first), [0; 0]);
        assert_eq!(holders.released(5, second), [100]);
        assert!(lock(&holders.asked).is_empty());
    }
}
