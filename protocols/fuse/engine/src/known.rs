//! What the kernel holds of each inode: how often it was named to it, how often it has it open, and the version of the content that its page cache
//! may show.
//!
//! A page cache outlives the last close and is kept at the next open only if the content is of the version that the kernel saw last. A write through
//! this mount continues that version when it is exactly the next one; anything else (another face wrote between) makes it unknown, and the next
//! open drops the cache. An inode is here until the kernel forgets it (FORGET) and closes it, so the table is as long as the kernel's own.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use trefoil_core::filesystem::{Inode, Node};

const SHARDS: usize = 16;

#[derive(Debug, Clone, Default)]
struct Held {
    /// The highest version that was heard of.
    seen: u64,
    /// The kernel's page cache shows that version and no other.
    whole: bool,
    opens: u64,
    /// Times that it was named to the kernel, less those that it forgot.
    lookups: u64,
    /// Nobody read it since it was opened or written last.
    unread: bool,
    /// What it was when this mount took its last name: whoever still holds it without having it open may ask.
    gone: Option<Box<Node>>,
}

#[derive(Debug, Default)]
pub struct Known {
    shards: [Mutex<HashMap<Inode, Held>>; SHARDS],
}

impl Known {
    /// Counts an open; whether the kernel's page cache may be kept.
    pub fn opened(&self, inode: Inode, version: u64) -> bool {
        let mut shard = self.shard(inode);
        let held = shard.entry(inode).or_default();
        let same = held.whole && held.seen == version;
        (held.seen, held.whole, held.opens, held.unread) = (version, true, held.opens + 1, true);
        same
    }

    pub fn closed(&self, inode: Inode) {
        self.lessen(inode, |held| held.opens = held.opens.saturating_sub(1));
    }

    /// The kernel is about to be answered with it.
    pub fn named(&self, inode: Inode) {
        self.shard(inode).entry(inode).or_default().lookups += 1;
    }

    pub fn forgotten(&self, inode: Inode, times: u64) {
        self.lessen(inode, |held| held.lookups = held.lookups.saturating_sub(times));
    }

    /// Its last name was taken.
    pub fn unnamed(&self, mut node: Node) {
        if let Some(held) = self.shard(node.inode).get_mut(&node.inode) {
            node.links = 0;
            held.gone = Some(Box::new(node));
        }
    }

    pub fn gone(&self, inode: Inode) -> Option<Node> {
        self.shard(inode).get(&inode)?.gone.as_deref().cloned()
    }

    pub fn is_known(&self, inode: Inode) -> bool {
        self.shard(inode).contains_key(&inode)
    }

    fn lessen(&self, inode: Inode, less: impl FnOnce(&mut Held)) {
        let mut shard = self.shard(inode);
        let Some(held) = shard.get_mut(&inode) else { return };
        less(held);
        if held.opens == 0 && held.lookups == 0 {
            shard.remove(&inode);
        }
    }

    /// Content was written through this mount, so that the kernel's cache shows it too; `version` is what it has now.
    pub fn wrote(&self, inode: Inode, version: u64) {
        if let Some(held) = self.shard(inode).get_mut(&inode) {
            held.unread = true;
            held.whole &= held.seen == version || held.seen + 1 == version;
            held.seen = held.seen.max(version);
        }
    }

    /// Whether this is the first read since it was opened or written.
    pub fn first_read(&self, inode: Inode) -> bool {
        self.shard(inode)
            .get_mut(&inode)
            .is_some_and(|held| std::mem::take(&mut held.unread))
    }

    /// Whether somebody else changed the content of what the kernel has open. Says so once for each change.
    pub fn stale(&self, inode: Inode, version: u64) -> bool {
        let mut shard = self.shard(inode);
        let Some(held) = shard.get_mut(&inode) else { return false };
        let stale = held.opens > 0 && held.seen < version;
        if stale {
            (held.seen, held.whole) = (version, false);
        }
        stale
    }

    /// Those that the kernel has open, and how often.
    pub fn open(&self) -> Vec<(Inode, u64)> {
        let held = |shard: &Mutex<HashMap<_, Held>>| -> Vec<_> { lock(shard).iter().map(|(&inode, held)| (inode, held.opens)).collect() };
        self.shards.iter().flat_map(held).filter(|(_, opens)| *opens > 0).collect()
    }

    /// All that the kernel may know of, and whether it is open.
    pub fn all(&self) -> Vec<(Inode, bool)> {
        let held =
            |shard: &Mutex<HashMap<_, Held>>| -> Vec<_> { lock(shard).iter().map(|(&inode, held)| (inode, held.opens > 0)).collect() };
        self.shards.iter().flat_map(held).collect()
    }

    /// Drops what is known of content, so that every later open drops the kernel's cache.
    pub fn forget_versions(&self) {
        for shard in &self.shards {
            lock(shard).values_mut().for_each(|held| held.whole = false);
        }
    }

    fn shard(&self, inode: Inode) -> MutexGuard<'_, HashMap<Inode, Held>> {
        lock(&self.shards[(inode % SHARDS as u64) as usize])
    }
}

/// No code panics while it holds one of these locks, and each value is whole after every statement.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_kept_only_for_the_version_seen_last() {
        let known = Known::default();
        known.named(5);
        assert!(!known.opened(5, 1));
        known.closed(5);
        assert!(known.opened(5, 1));
        known.wrote(5, 2);
        assert!(known.opened(5, 2));
        assert!(!known.opened(5, 3), "another face wrote");
        known.wrote(5, 6);
        assert!(!known.opened(5, 6), "another face wrote between");
    }

    #[test]
    fn a_change_by_others_is_told_once_and_only_of_what_is_open() {
        let known = Known::default();
        assert!(!known.stale(5, 9));
        known.opened(5, 1);
        assert!(!known.stale(5, 1));
        assert!(known.stale(5, 2));
        assert!(!known.stale(5, 2));
        assert!(known.stale(5, 3), "once more");
        known.closed(5);
        known.opened(5, 3);
        known.closed(5);
        assert!(!known.stale(5, 4), "the next open drops the cache anyway");
    }

    #[test]
    fn it_keeps_what_the_kernel_keeps() {
        let known = Known::default();
        known.named(5);
        known.named(5);
        known.opened(5, 1);
        known.opened(6, 1);
        known.forgotten(5, 2);
        known.closed(6);
        assert_eq!((known.all(), known.open()), (vec![(5, true)], vec![(5, 1)]));
        assert!(known.is_known(5) && !known.is_known(6));
        known.closed(5);
        known.forgotten(5, 1);
        assert!(!known.is_known(5) && known.all().is_empty());
    }
}
