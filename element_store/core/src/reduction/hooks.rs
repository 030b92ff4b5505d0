//! The part of the index that is always in memory: which page may know a feature or a fingerprint.
//!
//! One entry takes 8 bytes: 36 bits of the hash and the number of a page. A bucket holds eight and drops the oldest: what is lost costs a match, not
//! correctness. The table begins small and doubles up to its bound; the bits of a bucket's place are part of the entry, so doubling needs no page.

const BUCKET: usize = 8;
const PAGE_BITS: u32 = 28;
/// Pages are numbered below this.
pub const PAGES_MAX: u32 = 1 << PAGE_BITS;
const BUCKETS_BITS_MIN: u32 = 10;

/// Bound of the table unless the operator says otherwise: enough for about 700 GB of unique content.
pub const HOOK_BYTES_MAX: usize = 256 << 20;

#[derive(Debug)]
pub struct Hooks {
    /// Newest first in each bucket; 0 is empty (pages are numbered from 1).
    entries: Vec<u64>,
    bits: u32,
    bits_max: u32,
    count: usize,
}

impl Hooks {
    pub fn new(bytes_max: usize) -> Self {
        let buckets = (bytes_max / (BUCKET * size_of::<u64>())).max(1);
        let bits_max = buckets.ilog2().max(BUCKETS_BITS_MIN);
        Self {
            entries: vec![0; BUCKET << BUCKETS_BITS_MIN],
            bits: BUCKETS_BITS_MIN,
            bits_max,
            count: 0,
        }
    }

    pub fn bytes(&self) -> usize {
        self.entries.len() * size_of::<u64>()
    }

    pub fn count(&self) -> usize {
        self.count
    }

    fn bucket(&self, hash: u64) -> usize {
        (hash >> (64 - self.bits)) as usize * BUCKET
    }

    pub fn insert(&mut self, hash: u64, page: u32) {
        if self.count * 2 > self.entries.len() && self.bits < self.bits_max {
            self.double();
        }
        let entry = (hash >> PAGE_BITS << PAGE_BITS) | u64::from(page);
        let at = self.bucket(hash);
        let bucket = &mut self.entries[at..at + BUCKET];
        if bucket.contains(&entry) {
            return;
        }
        bucket.rotate_right(1);
        self.count += usize::from(bucket[0] == 0);
        bucket[0] = entry;
    }

    /// Pages that may know it, newest first.
    pub fn find(&self, hash: u64) -> impl Iterator<Item = u32> + '_ {
        let at = self.bucket(hash);
        self.entries[at..at + BUCKET]
            .iter()
            .filter(move |entry| **entry != 0 && *entry >> PAGE_BITS == hash >> PAGE_BITS)
            .map(|entry| (entry & u64::from(PAGES_MAX - 1)) as u32)
    }

    fn double(&mut self) {
        let grown = vec![0; self.entries.len() * 2];
        let old = std::mem::replace(&mut self.entries, grown);
        self.bits += 1;
        for bucket in old.chunks_exact(BUCKET) {
            let mut filled = [0; 2];
            for entry in bucket.iter().filter(|entry| **entry != 0) {
                let at = self.bucket(*entry);
                let half = (at / BUCKET) & 1;
                self.entries[at + filled[half]] = *entry;
                filled[half] += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::random::Seeded;
    use std::collections::HashMap;

    #[test]
    fn the_newest_are_found_whatever_the_size() {
        let mut hooks = Hooks::new(4 << 20);
        let (mut random, mut model) = (Seeded::new(1), HashMap::new());
        for page in 1..=100_000u32 {
            let hash = random.next_u64();
            hooks.insert(hash, page);
            model.insert(hash, page);
        }
        assert!(hooks.bytes() > 1 << 20, "it grew");
        let found = model
            .iter()
            .filter(|(hash, page)| hooks.find(**hash).any(|found| found == **page))
            .count();
        assert!(found > 98_000, "{found}: full buckets are rare at half load");
    }

    #[test]
    fn the_bound_holds_and_the_oldest_go() {
        let mut hooks = Hooks::new(100_000);
        let mut random = Seeded::new(2);
        let hashes: Vec<u64> = (0..100_000).map(|_| random.next_u64()).collect();
        for (index, hash) in hashes.iter().enumerate() {
            hooks.insert(*hash, index as u32 + 1);
        }
        assert!(hooks.bytes() <= 100_000 && hooks.count() <= hooks.bytes() / 8);
        let kept = |range: std::ops::Range<usize>| {
            range
                .filter(|index| hooks.find(hashes[*index]).any(|page| page == *index as u32 + 1))
                .count()
        };
        assert_eq!(kept(0..1000), 0);
        assert!(kept(99_000..100_000) > 990);
    }

    #[test]
    fn one_bucket_is_a_queue() {
        let mut hooks = Hooks::new(0);
        for page in 1..=10 {
            hooks.insert(5 << 40, page);
            hooks.insert(5 << 40, page);
        }
        assert_eq!(hooks.find(5 << 40).collect::<Vec<_>>(), [10, 9, 8, 7, 6, 5, 4, 3]);
    }

    /// Of 200 GB of unique content, in chunks of 43.6 KB with twelve features each: what the table takes, and of how many chunks at least one hook is left.
    fn after_200_gigabytes(bytes_max: usize) -> (usize, f64) {
        const CHUNKS: u32 = 4_600_000;
        let mut hooks = Hooks::new(bytes_max);
        let features = |chunk: u32| {
            let mut random = Seeded::new(u64::from(chunk) + 1);
            (0..12).map(move |_| random.next_u64()).filter(|hash| hash.is_multiple_of(8))
        };
        for chunk in 0..CHUNKS {
            features(chunk).for_each(|hash| hooks.insert(hash, chunk / 64 + 1));
        }
        let sample: Vec<u32> = (0..CHUNKS).step_by(97).filter(|chunk| features(*chunk).next().is_some()).collect();
        let is_found = |chunk: &&u32| features(**chunk).any(|hash| hooks.find(hash).any(|page| page == **chunk / 64 + 1));
        (hooks.bytes(), sample.iter().filter(is_found).count() as f64 / sample.len() as f64)
    }

    #[test]
    #[ignore = "slow: half a minute"]
    fn the_index_of_200_gigabytes_keeps_its_bound_and_forgets_by_degrees() {
        let found: Vec<(usize, f64)> = [128, 64, 32, 16].map(|mebibytes| after_200_gigabytes(mebibytes << 20)).to_vec();
        println!("bytes, and chunks that are found: {found:?}");
        for ((bytes, _), mebibytes) in found.iter().zip([128, 64, 32, 16]) {
            assert!(*bytes <= mebibytes << 20);
        }
        assert!(found[0].1 > 0.99 && found[1].1 > 0.85 && found[3].1 > 0.2, "{found:?}");
    }
}
