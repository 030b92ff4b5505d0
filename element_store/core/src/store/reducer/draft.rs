//! The draft of one step: streams and blocks become chunks, each a duplicate, a delta, compressed, or raw.
//!
//! Invariants: those of the reducer. A draft changes nothing but the index, which holds hints only.

use super::{DEPENDENTS_MAX, PAGE_LOADS_MAX, Reducer};
use crate::codec::checksum;
use crate::element::blocks::Merged;
use crate::element::chunks::{self, Reduced};
use crate::element::rows::{ChunkRow, Encoding, Piece};
use crate::element::{Rows, keys};
use crate::error::Result;
use crate::meta::Snapshot;
use crate::reduction::choose::{self, BackOff};
use crate::reduction::page::{self, PageEntry};
use crate::reduction::page_cache::Slot;
use crate::reduction::sketch::{Features, sketch};
use crate::reduction::{Mode, is_zero};
use crate::segment::Location;
use crate::store::Core;
use crate::store::merge::Block;
use crate::store::reduce::Stream;
use crate::store::reduction_counters::{ReductionCounters, add, timed};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// One step's work, until it is stored.
pub(in crate::store) struct Draft<'a> {
    core: &'a Core,
    reducer: &'a mut Reducer,
    snapshot: Snapshot,
    chunks: BTreeMap<u64, ChunkRow>,
    stored: Vec<(u64, Vec<u8>)>,
    /// Plain bytes of its own full chunks, which are references too.
    plain: HashMap<u64, Arc<[u8]>>,
    pages: BTreeMap<u32, Vec<PageEntry>>,
    extents: Vec<Reduced>,
    blocks: Vec<Merged>,
    /// Of what is being added.
    mode: Mode,
}

/// A stream on its way.
#[derive(Default)]
struct Course {
    back_off: BackOff,
    /// Where the chunk after the last one's twin stands: the best guess at the next reference.
    next: Option<Slot>,
    first: bool,
    gains: bool,
    /// Chunks that go with the swap, unless something else needs them: no references.
    dying: BTreeSet<u64>,
}

struct Encoded {
    encoding: Encoding,
    bases: Vec<u64>,
    bytes: Vec<u8>,
}

/// What is to be stored, and then swapped.
pub(in crate::store) struct Drafted {
    pub extents: Vec<Reduced>,
    pub blocks: Vec<Merged>,
    /// Their places are not known yet.
    pub chunks: BTreeMap<u64, ChunkRow>,
    pub stored: Vec<(u64, Vec<u8>)>,
    pub pages: BTreeMap<u32, Vec<u8>>,
}

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
            blocks: Vec::new(),
            mode: Mode::default(),
        }
    }

    pub fn finish(self) -> Drafted {
        let encoded = |(number, entries): (u32, Vec<PageEntry>)| (number, chunks::encode_page(&entries));
        Drafted {
            extents: self.extents,
            blocks: self.blocks,
            chunks: self.chunks,
            stored: self.stored,
            pages: self.pages.into_iter().map(encoded).collect(),
        }
    }

    /// These extents stay as they are; chunks that only they need are not stored.
    pub fn withdraw(&mut self, extents: &[u64]) {
        let (left, kept): (Vec<Reduced>, Vec<Reduced>) = std::mem::take(&mut self.extents)
            .into_iter()
            .partition(|reduced| extents.contains(&reduced.extent));
        let blocks = self.blocks.iter().flat_map(|merged| &merged.pieces);
        let needed = kept.iter().flat_map(|reduced| &reduced.pieces).chain(blocks);
        let needed: HashSet<u64> = needed.map(|piece| piece.chunk).collect();
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
        self.begin(stream.mode)?;
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

    fn begin(&mut self, mode: Mode) -> Result<()> {
        self.mode = mode;
        self.reducer.read_hooks(&self.snapshot)
    }

    /// One chunk, for which what stood in its place is the first guess at a reference.
    pub fn add_block(&mut self, block: Block) -> Result<()> {
        self.begin(block.mode)?;
        add(&self.core.reduction_counters.bytes, block.bytes.len());
        let mut course = Course {
            next: self.slot_of(block.previous)?,
            dying: block.dying,
            ..Course::default()
        };
        let piece = Piece {
            chunk: self.place(&block.bytes, &mut course)?,
            skip: 0,
            length: block.bytes.len() as u32,
        };
        self.blocks.push(Merged {
            element: block.element,
            runs: block.runs,
            extent: self.reducer.take_id()?,
            pieces: vec![piece],
        });
        Ok(())
    }

    /// Where a chunk stands in the index; its page is loaded.
    fn slot_of(&mut self, chunk: Option<u64>) -> Result<Option<Slot>> {
        let Some(id) = chunk else { return Ok(None) };
        let Some(row) = chunks::chunk(&self.snapshot, id)?.filter(|row| row.page != 0) else {
            return Ok(None);
        };
        self.reducer.load(&self.snapshot, row.page, &self.core.reduction_counters)?;
        Ok(Some(Slot {
            page: row.page,
            index: row.slot,
        }))
    }

    /// The chunk that has these bytes: 0 for zeros, one that is there, or a new one.
    fn place(&mut self, plain: &[u8], course: &mut Course) -> Result<u64> {
        let counters = &self.core.reduction_counters;
        if is_zero(plain) {
            add(&counters.zero_bytes, plain.len());
            course.gains = true;
            return Ok(0);
        }
        if self.mode == Mode::Off {
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

    /// Plain bytes of a chunk that may be a reference; None if it is gone or about to go, a delta, or has too many dependents.
    fn base(&self, id: u64, course: &Course) -> Result<Option<Arc<[u8]>>> {
        if let Some(plain) = self.plain.get(&id) {
            return Ok(Some(plain.clone()));
        }
        let shares = self.snapshot.get(&keys::chunk_shares(id))?;
        let shares = shares.map_or(Ok(0), |value| crate::meta::decode_counter(&value))?;
        if shares >= DEPENDENTS_MAX || (shares == 0 && course.dying.contains(&id)) {
            return Ok(None);
        }
        let Some(row) = chunks::chunk(&self.snapshot, id)?.filter(|row| row.encoding != Encoding::Delta) else {
            return Ok(None);
        };
        // What cannot be read is no reference; whoever reads it is told.
        Ok(self.core.read_base(id, &row).ok())
    }

    fn encode(&mut self, plain: &[u8], features: Option<&Features>, course: &mut Course) -> Result<Encoded> {
        let counters = &self.core.reduction_counters;
        let mut candidates = match features {
            Some(features) => timed(&counters.find_ns, || self.candidates(features, course))?.into_iter(),
            None => Vec::new().into_iter(),
        };
        let (level, mut best) = (self.mode.delta_level(), None);
        let first = timed(&counters.delta_ns, || -> Result<_> {
            for id in candidates.by_ref() {
                if let Some(reference) = self.base(id, course)? {
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
        let alone = timed(&counters.compress_ns, || self.reducer.encoder.plain(plain, self.mode.plain_level()))?;
        let alone = if choose::is_compressible(alone.len(), plain.len()) {
            Encoded::zstd(alone)
        } else {
            Encoded::raw(plain)
        };
        let one = best.as_ref().map_or(0, |delta| delta.bytes.len());
        if let Some((id, reference)) = first
            && choose::wants_second(one, alone.bytes.len())
        {
            let second = timed(&counters.delta_ns, || self.with_second(plain, (id, &reference), candidates, course))?;
            best = second.filter(|second| choose::is_second_worth_it(second.bytes.len(), one)).or(best);
        }
        let Some(delta) = best else { return Ok(alone) };
        let accepted = choose::is_accepted(delta.bytes.len(), alone.bytes.len());
        course.back_off.note(accepted);
        Ok(if accepted { delta } else { alone })
    }

    /// A delta against the next candidate and the first one together.
    fn with_second(
        &mut self,
        plain: &[u8],
        first: (u64, &[u8]),
        candidates: std::vec::IntoIter<u64>,
        course: &Course,
    ) -> Result<Option<Encoded>> {
        for id in candidates {
            let Some(second) = self.base(id, course)? else { continue };
            add(&self.core.reduction_counters.attempts, 1);
            let references = joined(&[first.1, &second]);
            let encoded = self.reducer.encoder.delta(plain, &references, self.mode.delta_level())?;
            return Ok(encoded.map(|bytes| Encoded::delta(vec![first.0, id], bytes)));
        }
        Ok(None)
    }
}

/// References of a delta as its encoder sees them: the better one last, next to the chunk.
pub(in crate::store) fn joined(bases: &[&[u8]]) -> Vec<u8> {
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
