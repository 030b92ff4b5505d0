//! What the reducer knows from step to step, and the draft of one step: streams become chunks, each a duplicate, a delta, compressed, or raw.
//!
//! Invariants: a chunk shared or referred to was seen in the draft's snapshot with its whole fingerprint, or is the draft's own; a reference is a
//! full chunk; the index holds hints only, so a draft that is never committed leaves nothing wrong behind. One draft at a time.

use super::Core;
use super::reduce::Stream;
use super::reduction_counters::{ReductionCounters, add, timed};
use crate::codec::checksum;
use crate::element::chunks::{self, Reduced};
use crate::element::rows::{ChunkRow, Encoding, Piece};
use crate::element::{Rows, keys};
use crate::error::{Error, Result};
use crate::meta::Snapshot;
use crate::reduction::choose::{self, BackOff, Neighbour};
use crate::reduction::encode::Encoder;
use crate::reduction::gear::{CHUNK_BYTES_MIN, Gear};
use crate::reduction::hooks::{Hooks, PAGES_MAX};
use crate::reduction::page::{self, PAGE_ENTRIES, PageEntry};
use crate::reduction::page_cache::{PageCache, Slot};
use crate::reduction::sketch::{Features, sketch};
use crate::reduction::{Mode, is_zero};
use crate::segment::Location;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Pages that one chunk may make the reducer load.
const PAGE_LOADS_MAX: usize = 4;
/// Pages whose hooks one step reads back after a start.
const HOOKED_PAGES_STEP: usize = 4096;
/// Deltas and extents that may depend on one chunk before it is no reference any more: what its damage would take along.
const DEPENDENTS_MAX: i64 = 1000;

/// How content is reduced, and what the index may take.
#[derive(Debug, Clone, Copy)]
pub struct ReductionSettings {
    pub mode: Mode,
    pub hook_bytes_max: usize,
    pub pages_cached: usize,
}

impl Default for ReductionSettings {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            hook_bytes_max: crate::reduction::hooks::HOOK_BYTES_MAX,
            pages_cached: crate::reduction::page_cache::PAGES_CACHED,
        }
    }
}

pub(super) struct Reducer {
    settings: ReductionSettings,
    gear: Gear,
    encoder: Encoder,
    hooks: Hooks,
    pages: PageCache,
    /// Up to which page the hooks were read back; None: all of them.
    hooked: Option<u32>,
    /// Number of the next page; known once a step looked.
    page_next: Option<u32>,
    /// The page that takes the next chunks.
    open: Option<(u32, Vec<PageEntry>)>,
    raw_floor: u64,
    /// Extents that could not be read.
    skipped: HashSet<u64>,
    /// For the chunks of a draft: leasing some waits for the writer, which a draft must not.
    ids: VecDeque<u64>,
}

impl Reducer {
    pub fn new(secret: &[u8; 32], settings: ReductionSettings) -> Self {
        Self {
            settings,
            gear: Gear::keyed(secret),
            encoder: Encoder::default(),
            hooks: Hooks::new(settings.hook_bytes_max),
            pages: PageCache::new(settings.pages_cached),
            hooked: Some(0),
            page_next: None,
            open: None,
            raw_floor: 0,
            skipped: HashSet::new(),
            ids: VecDeque::new(),
        }
    }

    pub fn mode(&self) -> Mode {
        self.settings.mode
    }

    /// Where the search for landed extents begins: past the deleted rows of those that were moved.
    pub fn raw_floor(&mut self) -> &mut u64 {
        &mut self.raw_floor
    }

    pub fn skip(&mut self, extent: u64) {
        self.skipped.insert(extent);
    }

    /// Makes sure of as many ids as a draft of these streams may take.
    pub fn lease(&mut self, core: &Core, streams: &[Stream]) -> Result<()> {
        let chunks = |stream: &Stream| {
            stream
                .extents
                .iter()
                .map(|taken| taken.plain.len() / CHUNK_BYTES_MIN + 2)
                .sum::<usize>()
        };
        let needed = streams.iter().map(chunks).sum();
        while self.ids.len() < needed {
            self.ids.push_back(core.staged_id()?);
        }
        Ok(())
    }

    fn take_id(&mut self) -> Result<u64> {
        self.ids.pop_front().ok_or_else(|| Error::Limit("ids of a draft".into()))
    }

    pub fn is_skipped(&self, extent: u64) -> bool {
        self.skipped.contains(&extent)
    }

    /// A part of what a start has to read back; the rest with the next steps. Older pages come first, so that newer ones stand before them.
    fn read_hooks(&mut self, rows: &dyn Rows) -> Result<()> {
        let Some(after) = self.hooked else { return Ok(()) };
        let (_, to) = keys::table(keys::PAGE);
        let (mut count, mut last) = (0, after);
        for row in rows.range(&keys::page(after + 1), &to, false).take(HOOKED_PAGES_STEP) {
            let (key, value) = row?;
            last = keys::id_of(&key) as u32;
            count += 1;
            for entry in chunks::decode_page(&value)? {
                page::hooks(&entry, false).for_each(|hash| self.hooks.insert(hash, last));
            }
        }
        self.hooked = (count == HOOKED_PAGES_STEP).then_some(last);
        Ok(())
    }

    fn next_page(&mut self, rows: &dyn Rows) -> Result<u32> {
        let next = match self.page_next {
            Some(next) => next,
            None => {
                let (from, to) = keys::table(keys::PAGE);
                let last = rows.range(&from, &to, true).next().transpose()?;
                last.map_or(1, |(key, _)| keys::id_of(&key) as u32 + 1)
            }
        };
        self.page_next = Some(next + 1);
        Ok(next)
    }

    /// Adds a chunk to the open page and to the index; None once no page can be numbered.
    fn enlist(&mut self, rows: &dyn Rows, entry: PageEntry, first: bool) -> Result<Option<Slot>> {
        if self.open.as_ref().is_none_or(|(_, entries)| entries.len() == PAGE_ENTRIES) {
            let number = self.next_page(rows)?;
            if number >= PAGES_MAX {
                return Ok(None);
            }
            self.pages.insert(number, Vec::new());
            self.open = Some((number, Vec::with_capacity(PAGE_ENTRIES)));
        }
        let Some((number, entries)) = &mut self.open else { return Ok(None) };
        let slot = Slot {
            page: *number,
            index: entries.len() as u8,
        };
        page::hooks(&entry, first).for_each(|hash| self.hooks.insert(hash, slot.page));
        entries.push(entry.clone());
        if self.pages.contains(slot.page) {
            self.pages.append(slot.page, entry);
        } else {
            self.pages.insert(slot.page, entries.clone());
        }
        Ok(Some(slot))
    }

    /// Where the chunk stands that came after that one.
    fn after(&self, chunk: u64) -> Option<Slot> {
        Some(self.following(self.pages.slot_of(chunk)?))
    }

    fn following(&self, slot: Slot) -> Slot {
        let next = Slot {
            index: slot.index.saturating_add(1),
            ..slot
        };
        let over = Slot {
            page: slot.page.saturating_add(1),
            index: 0,
        };
        if self.pages.entry(next).is_some() { next } else { over }
    }

    fn neighbour(&self, slot: Slot) -> Option<Neighbour> {
        let entry = self.pages.entry(slot)?;
        Some(Neighbour {
            id: entry.reference,
            features: entry.features?,
        })
    }

    fn load(&mut self, rows: &dyn Rows, number: u32, counters: &ReductionCounters) -> Result<()> {
        if self.pages.contains(number) {
            self.pages.touch(number);
        } else if let Some(entries) = chunks::page(rows, number)? {
            add(&counters.page_loads, 1);
            self.pages.insert(number, entries);
        }
        Ok(())
    }
}

/// One step's work, until it is stored.
pub(super) struct Draft<'a> {
    core: &'a Core,
    reducer: &'a mut Reducer,
    snapshot: Snapshot,
    chunks: BTreeMap<u64, ChunkRow>,
    stored: Vec<(u64, Vec<u8>)>,
    /// Plain bytes of its own full chunks, which are references too.
    plain: HashMap<u64, Arc<[u8]>>,
    pages: BTreeMap<u32, Vec<PageEntry>>,
    extents: Vec<Reduced>,
}

/// A stream on its way.
#[derive(Default)]
struct Course {
    back_off: BackOff,
    /// Where the chunk after the last one's twin stands: the best guess at the next reference.
    next: Option<Slot>,
    first: bool,
    gains: bool,
}

struct Encoded {
    encoding: Encoding,
    bases: Vec<u64>,
    bytes: Vec<u8>,
}

type Finished = (Vec<Reduced>, BTreeMap<u64, ChunkRow>, Vec<(u64, Vec<u8>)>, BTreeMap<u32, Vec<u8>>);

impl<'a> Draft<'a> {
    /// The caller is inside the guard.
    pub fn new(core: &'a Core, reducer: &'a mut Reducer) -> Self {
        Self {
            snapshot: core.committer.meta.snapshot(),
            core,
            reducer,
            chunks: BTreeMap::new(),
            stored: Vec::new(),
            plain: HashMap::new(),
            pages: BTreeMap::new(),
            extents: Vec::new(),
        }
    }

    pub fn mode(&self) -> Mode {
        self.reducer.settings.mode
    }

    /// Extents to swap, chunks for it, their stored bytes, and the pages that they are in.
    pub fn finish(self) -> Finished {
        let pages = self
            .pages
            .into_iter()
            .map(|(number, entries)| (number, chunks::encode_page(&entries)));
        (self.extents, self.chunks, self.stored, pages.collect())
    }

    /// These extents stay as they are; chunks that only they need are not stored.
    pub fn withdraw(&mut self, extents: &[u64]) {
        let (left, kept): (Vec<Reduced>, Vec<Reduced>) = std::mem::take(&mut self.extents)
            .into_iter()
            .partition(|reduced| extents.contains(&reduced.extent));
        let needed: HashSet<u64> = kept.iter().flat_map(|reduced| &reduced.pieces).map(|piece| piece.chunk).collect();
        let gone: HashSet<u64> = left
            .iter()
            .flat_map(|reduced| &reduced.pieces)
            .map(|piece| piece.chunk)
            .filter(|chunk| !needed.contains(chunk))
            .collect();
        self.stored.retain(|(id, _)| !gone.contains(id));
        gone.iter().for_each(|id| {
            self.chunks.remove(id);
            self.plain.remove(id);
        });
        self.extents = kept;
    }

    /// True if the stream takes less space than before.
    pub fn add(&mut self, stream: Stream) -> Result<bool> {
        self.reducer.read_hooks(&self.snapshot)?;
        let counters = &self.core.reduction_counters;
        let bytes: Vec<u8> = match stream.extents.as_slice() {
            [one] => one.plain.clone(),
            many => many.iter().flat_map(|taken| &taken.plain).copied().collect(),
        };
        add(&counters.bytes, bytes.len());
        counters.hook_bytes.store(self.reducer.hooks.bytes() as u64, Ordering::Relaxed);
        let ranges = timed(&counters.cut_ns, || {
            stream.cutting.chunks(&self.reducer.gear, stream.offset, &bytes)
        });
        let mut course = Course {
            first: true,
            ..Course::default()
        };
        let mut placed = Vec::with_capacity(ranges.len());
        for range in ranges {
            let id = self.place(&bytes[range.clone()], &mut course)?;
            course.first = false;
            placed.push((range, id));
        }
        self.extents.extend(cover(&stream, &placed));
        Ok(course.gains)
    }

    /// The chunk that has these bytes: 0 for zeros, one that is there, or a new one.
    fn place(&mut self, plain: &[u8], course: &mut Course) -> Result<u64> {
        let counters = &self.core.reduction_counters;
        if is_zero(plain) {
            add(&counters.zero_bytes, plain.len());
            course.gains = true;
            return Ok(0);
        }
        if self.mode() == Mode::Off {
            return self.store(plain, Encoded::raw(plain), None);
        }
        let fingerprint = timed(&counters.fingerprint_ns, || {
            *blake3::keyed_hash(&self.core.pool.secret, plain).as_bytes()
        });
        if let Some(id) = timed(&counters.find_ns, || self.duplicate(&fingerprint))? {
            add(&counters.duplicate_bytes, plain.len());
            (course.gains, course.next) = (true, self.reducer.after(id));
            return Ok(id);
        }
        let features = timed(&counters.sketch_ns, || sketch(&self.reducer.gear, plain));
        let encoded = self.encode(plain, features.as_ref(), course)?;
        course.gains |= encoded.encoding != Encoding::Raw;
        course.next = match encoded.bases.first() {
            Some(base) => self.reducer.after(*base),
            None => course.next.map(|slot| self.reducer.following(slot)),
        };
        self.store(plain, encoded, Some((fingerprint, features, course.first)))
    }

    fn store(&mut self, plain: &[u8], encoded: Encoded, known_by: Option<([u8; 32], Option<Features>, bool)>) -> Result<u64> {
        let id = self.reducer.take_id()?;
        let mut slot = None;
        if let Some((fingerprint, features, first)) = known_by {
            let entry = PageEntry {
                chunk: id,
                reference: encoded.bases.first().copied().unwrap_or(id),
                fingerprint,
                features,
            };
            slot = self.reducer.enlist(&self.snapshot, entry, first)?;
            if let (Some(slot), Some((number, entries))) = (slot, &self.reducer.open) {
                debug_assert_eq!(slot.page, *number);
                self.pages.insert(*number, entries.clone());
            }
        }
        encoded.count(&self.core.reduction_counters, plain.len());
        if encoded.bases.is_empty() && slot.is_some() {
            self.plain.insert(id, plain.into());
        }
        let row = ChunkRow {
            length: plain.len() as u32,
            encoding: encoded.encoding,
            bases: encoded.bases,
            page: slot.map_or(0, |slot| slot.page),
            slot: slot.map_or(0, |slot| slot.index),
            location: Location::default(),
            checksum: checksum(&encoded.bytes),
        };
        self.chunks.insert(id, row);
        self.stored.push((id, encoded.bytes));
        Ok(id)
    }

    /// A chunk with this fingerprint that is there.
    fn duplicate(&mut self, fingerprint: &[u8; 32]) -> Result<Option<u64>> {
        if let Some(id) = self.known(fingerprint)? {
            return Ok(Some(id));
        }
        let pages: Vec<u32> = self
            .reducer
            .hooks
            .find(page::fingerprint_hash(fingerprint))
            .take(PAGE_LOADS_MAX)
            .collect();
        for number in pages {
            if !self.reducer.pages.contains(number) {
                self.reducer.load(&self.snapshot, number, &self.core.reduction_counters)?;
                if let Some(id) = self.known(fingerprint)? {
                    return Ok(Some(id));
                }
            }
        }
        Ok(None)
    }

    fn known(&mut self, fingerprint: &[u8; 32]) -> Result<Option<u64>> {
        let Some((slot, entry)) = self.reducer.pages.find(fingerprint) else {
            return Ok(None);
        };
        let id = entry.chunk;
        let there = match self.chunks.get(&id) {
            Some(_) => true,
            None => chunks::chunk(&self.snapshot, id)?.is_some_and(|row| (row.page, row.slot) == (slot.page, slot.index)),
        };
        if there {
            self.reducer.pages.touch(slot.page);
        }
        Ok(there.then_some(id))
    }

    /// References to try, the best first.
    fn candidates(&mut self, features: &Features, course: &Course) -> Result<Vec<u64>> {
        let mut loads = 0;
        for hash in page::feature_hashes(features).filter(|hash| page::is_hooked(*hash)) {
            let pages: Vec<u32> = self.reducer.hooks.find(hash).take(2).collect();
            for number in pages {
                if self.reducer.pages.contains(number) {
                    self.reducer.pages.touch(number);
                } else if loads < PAGE_LOADS_MAX {
                    loads += 1;
                    self.reducer.load(&self.snapshot, number, &self.core.reduction_counters)?;
                }
            }
        }
        let neighbour = course.next.and_then(|slot| self.reducer.neighbour(slot));
        let hits = self.reducer.pages.hits(features);
        Ok(choose::candidates(features, &hits, neighbour.as_ref(), course.back_off))
    }

    /// Plain bytes of a chunk that may be a reference; None if it is gone, a delta, or has too many dependents.
    fn base(&self, id: u64) -> Result<Option<Arc<[u8]>>> {
        if let Some(plain) = self.plain.get(&id) {
            return Ok(Some(plain.clone()));
        }
        let Some(row) = chunks::chunk(&self.snapshot, id)?.filter(|row| row.encoding != Encoding::Delta) else {
            return Ok(None);
        };
        let shares = self.snapshot.get(&keys::chunk_shares(id))?;
        if shares.map_or(Ok(0), |value| crate::meta::decode_counter(&value))? >= DEPENDENTS_MAX {
            return Ok(None);
        }
        // What cannot be read is no reference; whoever reads it is told.
        Ok(self.core.read_base(id, &row).ok())
    }

    fn encode(&mut self, plain: &[u8], features: Option<&Features>, course: &mut Course) -> Result<Encoded> {
        let counters = &self.core.reduction_counters;
        let mut candidates = match features {
            Some(features) => timed(&counters.find_ns, || self.candidates(features, course))?.into_iter(),
            None => Vec::new().into_iter(),
        };
        let (level, mut best) = (self.mode().delta_level(), None);
        let first = timed(&counters.delta_ns, || -> Result<_> {
            for id in candidates.by_ref() {
                if let Some(reference) = self.base(id)? {
                    add(&counters.attempts, 1);
                    best = self
                        .reducer
                        .encoder
                        .delta(plain, &reference, level)?
                        .map(|bytes| Encoded::delta(vec![id], bytes));
                    return Ok(Some((id, reference)));
                }
            }
            Ok(None)
        })?;
        if let Some(delta) = best.take_if(|delta| choose::is_strong(delta.bytes.len(), plain.len())) {
            course.back_off.note(true);
            return Ok(delta);
        }
        let alone = timed(&counters.compress_ns, || {
            self.reducer.encoder.plain(plain, self.reducer.settings.mode.plain_level())
        })?;
        let alone = if choose::is_compressible(alone.len(), plain.len()) {
            Encoded::zstd(alone)
        } else {
            Encoded::raw(plain)
        };
        let one = best.as_ref().map_or(0, |delta| delta.bytes.len());
        if let Some((id, reference)) = first
            && choose::wants_second(one, alone.bytes.len())
        {
            let second = timed(&counters.delta_ns, || self.with_second(plain, (id, &reference), candidates))?;
            best = second.filter(|second| choose::is_second_worth_it(second.bytes.len(), one)).or(best);
        }
        let Some(delta) = best else { return Ok(alone) };
        let accepted = choose::is_accepted(delta.bytes.len(), alone.bytes.len());
        course.back_off.note(accepted);
        Ok(if accepted { delta } else { alone })
    }

    /// A delta against the next candidate and the first one together.
    fn with_second(&mut self, plain: &[u8], first: (u64, &[u8]), candidates: std::vec::IntoIter<u64>) -> Result<Option<Encoded>> {
        for id in candidates {
            let Some(second) = self.base(id)? else { continue };
            add(&self.core.reduction_counters.attempts, 1);
            let references = joined(&[first.1, &second]);
            let encoded = self.reducer.encoder.delta(plain, &references, self.mode().delta_level())?;
            return Ok(encoded.map(|bytes| Encoded::delta(vec![first.0, id], bytes)));
        }
        Ok(None)
    }
}

/// References of a delta as its encoder sees them: the better one last, next to the chunk.
pub(super) fn joined(bases: &[&[u8]]) -> Vec<u8> {
    bases.iter().rev().flat_map(|base| base.iter()).copied().collect()
}

/// Each extent's pieces of a stream whose chunks are at `placed`.
fn cover(stream: &Stream, placed: &[(Range<usize>, u64)]) -> Vec<Reduced> {
    let (mut start, mut at) = (0, 0);
    let mut covered = Vec::with_capacity(stream.extents.len());
    for taken in &stream.extents {
        let end = start + taken.plain.len();
        let mut pieces = Vec::new();
        while let Some((range, chunk)) = placed.get(at) {
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from < to {
                pieces.push(Piece {
                    chunk: *chunk,
                    skip: if *chunk == 0 { 0 } else { (from - range.start) as u32 },
                    length: (to - from) as u32,
                });
            }
            if range.end > end {
                break;
            }
            at += 1;
        }
        covered.push(Reduced {
            extent: taken.landed.extent,
            old: taken.row.clone(),
            pieces,
        });
        start = end;
    }
    covered
}

impl Encoded {
    fn raw(plain: &[u8]) -> Self {
        Self {
            encoding: Encoding::Raw,
            bases: Vec::new(),
            bytes: plain.to_vec(),
        }
    }

    fn zstd(bytes: Vec<u8>) -> Self {
        Self {
            encoding: Encoding::Zstd,
            bases: Vec::new(),
            bytes,
        }
    }

    fn delta(bases: Vec<u64>, bytes: Vec<u8>) -> Self {
        Self {
            encoding: Encoding::Delta,
            bases,
            bytes,
        }
    }
}

impl Encoded {
    fn count(&self, counters: &ReductionCounters, plain: usize) {
        add(&counters.chunks, 1);
        match self.encoding {
            Encoding::Raw => add(&counters.raw_bytes, plain),
            Encoding::Zstd => {
                add(&counters.compressed_bytes, plain);
                add(&counters.stored_compressed_bytes, self.bytes.len());
            }
            Encoding::Delta => {
                add(&counters.deltas, 1);
                add(&counters.doubles, usize::from(self.bases.len() == 2));
                add(&counters.delta_bytes, plain);
                add(&counters.stored_delta_bytes, self.bytes.len());
            }
        }
    }
}
