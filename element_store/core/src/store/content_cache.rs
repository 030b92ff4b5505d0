//! Plain, checked bytes in memory. Content of an id never changes and its id never returns, so nothing here is ever stale.
//!
//! Two caches, since a reference is shared by many deltas and worth more than what was read in part. Both are bounded by bytes; what is not used goes first.

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Of decoded references: about 2,000.
pub const BASE_BYTES_MAX: u64 = 64 << 20;
/// A `MEMORY_SHARE`-th of the machine's memory is for what was read in part, but at least and at most so much.
pub const PART_BYTES: std::ops::RangeInclusive<u64> = 32 << 20..=1 << 30;
const MEMORY_SHARE: u64 = 64;
/// For how many entries there is room at first.
const ENTRY_BYTES: u64 = 32 << 10;

/// What is kept and checked as one: a chunk (its block is 0), or a checksum block of an extent. Chunks and extents have ids of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub id: u64,
    pub block: u32,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Arc<[u8]>> for Bytes {
    fn weight(&self, _: &Key, plain: &Arc<[u8]>) -> u64 {
        plain.len() as u64
    }
}

pub struct ContentCache {
    cache: Cache<Key, Arc<[u8]>, Bytes>,
    pub hits: AtomicU64,
    pub misses: AtomicU64,
}

impl ContentCache {
    pub fn new(bytes_max: u64) -> Self {
        Self {
            cache: Cache::with_weighter((bytes_max / ENTRY_BYTES) as usize, bytes_max, Bytes),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    pub fn get(&self, key: Key) -> Option<Arc<[u8]>> {
        let found = self.cache.get(&key);
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    pub fn insert(&self, key: Key, plain: Arc<[u8]>) {
        self.cache.insert(key, plain);
    }

    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}

/// What may be kept of content that was read in part, by this machine's memory.
pub fn part_bytes_max() -> u64 {
    let said = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = said
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    (total.unwrap_or(0) * 1024 / MEMORY_SHARE).clamp(*PART_BYTES.start(), *PART_BYTES.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_and_what_is_kept_is_right() {
        const BYTES_MAX: u64 = 1 << 20;
        let cache = ContentCache::new(BYTES_MAX);
        for id in 0..1000 {
            cache.insert(Key { id, block: 1 }, vec![id as u8; 4096].into());
            assert!(cache.bytes() <= BYTES_MAX);
        }
        let kept = (0..1000)
            .filter_map(|id| Some((id, cache.get(Key { id, block: 1 })?)))
            .collect::<Vec<_>>();
        assert!(kept.len() as u64 * 4096 <= BYTES_MAX && kept.len() > 100);
        assert!(kept.iter().all(|(id, plain)| plain.iter().all(|byte| *byte == *id as u8)));
        assert!(cache.get(Key { id: kept[0].0, block: 0 }).is_none());
        cache.insert(Key { id: 5000, block: 0 }, vec![0; 2 << 20].into());
        assert!(
            cache.get(Key { id: 5000, block: 0 }).is_none() && cache.bytes() <= BYTES_MAX,
            "what is larger than the bound is not kept"
        );
    }
}
