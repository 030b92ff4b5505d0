//! Pages in memory: the newest and those that hooks led to lately, searched by fingerprint and by feature.
//!
//! Bounded by the number of pages. Where two pages know the same feature the newer chunk counts. An entry is a hint: the caller compares the
//! fingerprint as a whole and looks whether the chunk is still there.

use super::gear::FEATURES;
use super::page::{PAGE_ENTRIES, PageEntry, feature_hashes, fingerprint_hash};
use super::sketch::Features;
use std::collections::{BTreeMap, HashMap};

/// Pages kept unless the operator says otherwise: 32,768 chunks, about 1.4 GB of content, in about 30 MB.
pub const PAGES_CACHED: usize = 512;

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    pub page: u32,
    pub index: u8,
}

#[derive(Debug)]
struct Cached {
    entries: Vec<PageEntry>,
    used: u64,
}

#[derive(Debug)]
pub struct PageCache {
    pages_max: usize,
    pages: HashMap<u32, Cached>,
    /// Pages by when they were used last.
    order: BTreeMap<u64, u32>,
    clock: u64,
    fingerprints: HashMap<u64, Slot>,
    features: HashMap<u64, (u64, u32)>,
    /// Where full chunks are.
    chunks: HashMap<u64, Slot>,
}

impl PageCache {
    pub fn new(pages_max: usize) -> Self {
        Self {
            pages_max: pages_max.max(2),
            pages: HashMap::new(),
            order: BTreeMap::new(),
            clock: 0,
            fingerprints: HashMap::new(),
            features: HashMap::new(),
            chunks: HashMap::new(),
        }
    }

    pub fn contains(&self, page: u32) -> bool {
        self.pages.contains_key(&page)
    }

    pub fn touch(&mut self, page: u32) {
        if let Some(cached) = self.pages.get_mut(&page) {
            self.order.remove(&cached.used);
            self.clock += 1;
            cached.used = self.clock;
            self.order.insert(self.clock, page);
        }
    }

    pub fn insert(&mut self, page: u32, entries: Vec<PageEntry>) {
        self.remove(page);
        self.clock += 1;
        self.order.insert(self.clock, page);
        let cached = Cached {
            entries: Vec::with_capacity(PAGE_ENTRIES),
            used: self.clock,
        };
        self.pages.insert(page, cached);
        entries.into_iter().for_each(|entry| self.append(page, entry));
        while self.pages.len() > self.pages_max {
            let Some((_, oldest)) = self.order.first_key_value() else { break };
            self.remove(*oldest);
        }
    }

    /// To a page that is here.
    pub fn append(&mut self, page: u32, entry: PageEntry) {
        let Some(cached) = self.pages.get_mut(&page) else { return };
        let slot = Slot {
            page,
            index: cached.entries.len() as u8,
        };
        self.fingerprints.insert(fingerprint_hash(&entry.fingerprint), slot);
        self.chunks.insert(entry.chunk, slot);
        for hash in entry.features.iter().flat_map(feature_hashes) {
            let known = self.features.entry(hash).or_default();
            if known.0 <= entry.reference {
                *known = (entry.reference, page);
            }
        }
        cached.entries.push(entry);
    }

    /// The entry leads to another reference from now on.
    pub fn refer(&mut self, page: u32, index: u8, chunk: u64, reference: u64) {
        let Some(cached) = self.pages.get(&page) else { return };
        let mut entries = cached.entries.clone();
        if let Some(entry) = entries.get_mut(usize::from(index)).filter(|entry| entry.chunk == chunk) {
            entry.reference = reference;
            self.insert(page, entries);
        }
    }

    fn remove(&mut self, page: u32) {
        let Some(cached) = self.pages.remove(&page) else { return };
        self.order.remove(&cached.used);
        for entry in &cached.entries {
            let own = fingerprint_hash(&entry.fingerprint);
            if self.fingerprints.get(&own).is_some_and(|slot| slot.page == page) {
                self.fingerprints.remove(&own);
            }
            if self.chunks.get(&entry.chunk).is_some_and(|slot| slot.page == page) {
                self.chunks.remove(&entry.chunk);
            }
            for hash in entry.features.iter().flat_map(feature_hashes) {
                if self.features.get(&hash).is_some_and(|(_, holder)| *holder == page) {
                    self.features.remove(&hash);
                }
            }
        }
    }

    pub fn entries(&self, page: u32) -> &[PageEntry] {
        self.pages.get(&page).map_or(&[], |cached| &cached.entries)
    }

    pub fn entry(&self, slot: Slot) -> Option<&PageEntry> {
        self.pages.get(&slot.page)?.entries.get(usize::from(slot.index))
    }

    /// The entry with exactly this fingerprint.
    pub fn find(&self, fingerprint: &[u8; 32]) -> Option<(Slot, &PageEntry)> {
        let slot = *self.fingerprints.get(&fingerprint_hash(fingerprint))?;
        let entry = self.entry(slot)?;
        (entry.fingerprint == *fingerprint).then_some((slot, entry))
    }

    pub fn slot_of(&self, chunk: u64) -> Option<Slot> {
        self.chunks.get(&chunk).copied()
    }

    /// For each feature the newest reference that has it.
    pub fn hits(&self, features: &Features) -> [Option<u64>; FEATURES] {
        let mut hits = [None; FEATURES];
        for (hit, hash) in hits.iter_mut().zip(feature_hashes(features)) {
            *hit = self.features.get(&hash).map(|(reference, _)| *reference);
        }
        hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(chunk: u64) -> PageEntry {
        PageEntry {
            chunk,
            reference: chunk,
            fingerprint: *blake3::hash(&chunk.to_le_bytes()).as_bytes(),
            features: Some([chunk as u32 / 2; FEATURES]),
        }
    }

    #[test]
    fn what_was_not_used_longest_goes_and_leaves_nothing() {
        let mut cache = PageCache::new(3);
        for page in 1..=5 {
            cache.insert(page, (0..4).map(|index| entry(u64::from(page) * 10 + index)).collect());
            cache.touch(1);
        }
        assert!(cache.contains(1) && cache.contains(4) && cache.contains(5) && !cache.contains(2));
        assert_eq!((cache.fingerprints.len(), cache.chunks.len(), cache.order.len()), (12, 12, 3));
        assert_eq!(cache.find(&entry(21).fingerprint), None);
        assert_eq!(cache.find(&entry(53).fingerprint).unwrap().1.chunk, 53);
        assert_eq!(cache.hits(&[25; FEATURES]), [Some(51); FEATURES], "the newer of two");
        assert_eq!(cache.hits(&[10; FEATURES]), [None; FEATURES]);
        cache.append(5, entry(60));
        assert_eq!(cache.slot_of(60), Some(Slot { page: 5, index: 4 }));
        for page in [1, 4, 5] {
            cache.remove(page);
        }
        assert!(cache.features.is_empty() && cache.fingerprints.is_empty() && cache.chunks.is_empty());
    }
}
