//! Plain bytes of chunks in memory. A chunk's content never changes and its id never returns, so nothing here is ever stale.
//!
//! Two caches, since a reference is shared by many deltas and worth more than a chunk that was read in part. Both are bounded by bytes; what was not
//! used longest goes first.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Of decoded references: about 2,000.
pub const BASE_BYTES_MAX: usize = 64 << 20;
/// Of chunks that were read in part: the next read often wants the rest.
pub const CHUNK_BYTES_MAX: usize = 32 << 20;

#[derive(Debug)]
pub struct ChunkCache {
    bytes_max: usize,
    inner: Mutex<Inner>,
    pub hits: AtomicU64,
    pub misses: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    chunks: HashMap<u64, (Arc<[u8]>, u64)>,
    order: BTreeMap<u64, u64>,
    clock: u64,
    bytes: usize,
}

impl ChunkCache {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            inner: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    pub fn get(&self, id: u64) -> Option<Arc<[u8]>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let found = inner.touch(id);
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    pub fn insert(&self, id: u64, plain: Arc<[u8]>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.touch(id).is_some() {
            return;
        }
        inner.clock += 1;
        let used = inner.clock;
        inner.order.insert(used, id);
        inner.bytes += plain.len();
        inner.chunks.insert(id, (plain, used));
        while inner.bytes > self.bytes_max {
            let Some((_, oldest)) = inner.order.pop_first() else { break };
            if let Some((plain, _)) = inner.chunks.remove(&oldest) {
                inner.bytes -= plain.len();
            }
        }
    }

    pub fn bytes(&self) -> u64 {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).bytes as u64
    }
}

impl Inner {
    fn touch(&mut self, id: u64) -> Option<Arc<[u8]>> {
        self.clock += 1;
        let (plain, used) = self.chunks.get_mut(&id)?;
        self.order.remove(used);
        *used = self.clock;
        self.order.insert(self.clock, id);
        Some(plain.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_and_what_was_used_stays() {
        let cache = ChunkCache::new(100);
        for id in 0..50 {
            cache.insert(id, vec![id as u8; 10].into());
            cache.get(0);
        }
        assert_eq!(cache.bytes(), 100);
        assert!(cache.get(0).is_some() && cache.get(49).is_some() && cache.get(30).is_none());
        cache.insert(0, vec![9; 10].into());
        assert_eq!(cache.get(0).unwrap()[0], 0, "content of an id never changes");
        cache.insert(99, vec![0; 1000].into());
        assert_eq!(cache.bytes(), 0, "what is larger than the bound is not kept");
    }
}
