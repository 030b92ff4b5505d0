//! The reducer's steps: takes landed content out of the journal and out of landing segments, as streams, and names its chunks.
//!
//! Invariants: chunks are durable before the transaction that names them; that transaction leaves an extent alone if it was moved or given up
//! meanwhile, or if a chunk that it would share went: then the extent stays landed and is taken again. Plain bytes are compared with their
//! checksum before they are encoded. Never runs in front of an acknowledgement. Memory is bounded by STEP_BYTES, three times.

use super::Core;
use super::commit::Rank;
use super::landing::Hold;
use super::reducer::{Draft, Reducer};
use crate::element::chunks::{self, Adoption, Reduced};
use crate::element::content;
use crate::element::rows::{ChunkRow, ExtentRow, LandedRow, Placement};
use crate::element::{Rows, keys};
use crate::error::{Error, Result};
use crate::reduction::{Cutting, Mode};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Plain bytes that one step takes. A stream is cut where a step ends, which costs one cut in about 400.
const STEP_BYTES: usize = 16 << 20;
/// Rows that one step looks at.
const STEP_ROWS: usize = 2048;
/// Rows that one transaction of the swap may write, estimated.
const SWAP_BYTES: usize = 96 << 10;
/// Extents that one transaction swaps.
const SWAP_EXTENTS: usize = 128;
/// Of the space for users, below which content that nothing makes smaller stays where it landed, percent.
const SPACE_SHORT_PERCENT: u64 = 20;

/// One extent taken up by a step.
#[derive(Debug)]
pub(super) struct Taken {
    pub landed: LandedRow,
    pub row: ExtentRow,
    pub plain: Vec<u8>,
}

/// Extents that follow one another in one element.
#[derive(Debug)]
pub(super) struct Stream {
    pub offset: u64,
    pub cutting: Cutting,
    pub extents: Vec<Taken>,
}

/// Neighbours become one stream; the order within the step is that of the elements.
fn streams(mut taken: Vec<Taken>) -> Vec<Stream> {
    taken.sort_by_key(|taken| taken.landed);
    let mut streams: Vec<Stream> = Vec::new();
    let mut end = None;
    for extent in taken {
        let LandedRow {
            element, offset, cutting, ..
        } = extent.landed;
        let begins = (element, offset, cutting);
        let next = (element, offset + u64::from(extent.row.length), cutting);
        match streams.last_mut() {
            Some(stream) if end == Some(begins) => stream.extents.push(extent),
            _ => streams.push(Stream {
                offset,
                cutting,
                extents: vec![extent],
            }),
        }
        end = Some(next);
    }
    streams
}

impl Core {
    /// Moves the oldest extents out of the journal, those at positions below `before`. Returns how many; 0 means that none is left there.
    pub(super) fn reduce_journal(&self, before: u64) -> Result<usize> {
        let taken = {
            let _inside = self.guard.enter();
            let snapshot = self.committer.meta.snapshot();
            let from = keys::landed_journal(self.landed_floor.load(Ordering::Relaxed));
            let (mut taken, mut bytes) = (Vec::new(), 0);
            for row in snapshot.range(&from, &keys::landed_journal(before), false).take(STEP_ROWS) {
                let landed = LandedRow::decode(&row?.1)?;
                taken.push(self.take(&snapshot, landed)?);
                bytes += taken.last().map_or(0, |taken: &Taken| taken.plain.len());
                if bytes >= STEP_BYTES {
                    break;
                }
            }
            taken
        };
        let count = taken.len();
        self.rewrite(taken)?;
        Ok(count)
    }

    fn take(&self, rows: &dyn Rows, landed: LandedRow) -> Result<Taken> {
        let id = landed.extent;
        let row = content::extent(rows, id)?.ok_or_else(|| Error::Damaged(format!("landed extent {id} has no row")))?;
        let plain = self.read_extent_with(rows, &row, 0, row.length)?;
        Ok(Taken { landed, row, plain })
    }

    /// Takes extents that landed raw in segments, in the order of their elements, up to a step's bytes. Returns how many; 0 means that none is left.
    pub(super) fn reduce_raw(&self) -> Result<usize> {
        let taken = {
            let _inside = self.guard.enter();
            let snapshot = self.committer.meta.snapshot();
            let mut waiting = self.landed_raw(&snapshot)?;
            waiting.sort_unstable();
            let (mut taken, mut bytes) = (Vec::new(), 0);
            for landed in waiting {
                match self.take(&snapshot, landed) {
                    Ok(extent) => {
                        bytes += extent.plain.len();
                        taken.push(extent);
                    }
                    // Its readers are told; whoever repairs the pool starts it again.
                    Err(Error::Damaged(_)) => self.reducer().skip(landed.extent),
                    Err(error) => return Err(error),
                }
                if bytes >= STEP_BYTES {
                    break;
                }
            }
            taken
        };
        let count = taken.len();
        self.rewrite(taken)?;
        Ok(count)
    }

    /// Some of those that wait, from the oldest on. Ids are taken when content arrives and rows written when it is named: once no row is left above
    /// the floor, the search begins at the start again.
    fn landed_raw(&self, rows: &dyn Rows) -> Result<Vec<LandedRow>> {
        let (_, to) = keys::table(keys::LANDED_RAW);
        let mut reducer = self.reducer();
        loop {
            let (floor, mut waiting) = (*reducer.raw_floor(), Vec::new());
            for row in rows.range(&keys::landed_raw(floor), &to, false) {
                let landed = LandedRow::decode(&row?.1)?;
                if !reducer.is_skipped(landed.extent) {
                    waiting.push(landed);
                }
                if waiting.len() == STEP_ROWS {
                    break;
                }
            }
            *reducer.raw_floor() = waiting.first().map_or(0, |landed| landed.extent);
            if !waiting.is_empty() || floor == 0 {
                return Ok(waiting);
            }
        }
    }

    /// Taken by one step at a time; nobody else waits for it.
    pub(super) fn reducer(&self) -> std::sync::MutexGuard<'_, Reducer> {
        self.reducer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Encodes the extents anew and names their new places.
    pub(super) fn rewrite(&self, taken: Vec<Taken>) -> Result<()> {
        if taken.is_empty() {
            return Ok(());
        }
        let (short, streams) = (self.is_space_short(), streams(taken));
        let mut reducer = self.reducer();
        reducer.lease(self, &streams)?;
        // Left before the swap: what makes room waits for those inside, and the swap may wait for room.
        let inside = self.guard.enter();
        let mut draft = Draft::new(self, &mut reducer);
        let mut kept = Vec::new();
        for stream in streams {
            let may_stay = stream
                .extents
                .iter()
                .all(|taken| matches!(taken.row.placement, Placement::Raw { .. }));
            let ids: Vec<u64> = stream.extents.iter().map(|taken| taken.landed.extent).collect();
            if may_stay && draft.mode() == Mode::Off {
                kept.extend(ids);
                continue;
            }
            let gains = draft.add(stream)?;
            if may_stay && short && !gains {
                draft.withdraw(&ids);
                kept.extend(ids);
            }
        }
        let (extents, mut chunks, stored, pages) = draft.finish();
        drop(inside);
        let started = Instant::now();
        let mut hold = Hold::new(&self.holds);
        let locations = self.store_chunks(&mut hold, &stored)?;
        for ((id, _), location) in stored.iter().zip(locations) {
            if let Some(row) = chunks.get_mut(id) {
                row.location = location;
            }
        }
        let spent = |counter: &std::sync::atomic::AtomicU64, since: Instant| {
            counter.fetch_add(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
        };
        spent(&self.reduction_counters.store_ns, started);
        let started = Instant::now();
        self.swap(extents, chunks, &pages)?;
        if !kept.is_empty() {
            self.committer.run_own(Rank::Own, 32 * kept.len(), move |tx| {
                kept.iter().try_for_each(|id| tx.delete(&keys::landed_raw(*id)))
            })?;
        }
        spent(&self.reduction_counters.swap_ns, started);
        Ok(())
    }

    fn is_space_short(&self) -> bool {
        let space = self.segments.status();
        space.free_bytes * 100 < space.usable_bytes * SPACE_SHORT_PERCENT
    }

    /// In transactions of a bounded size: each brings the new chunks that its extents need first.
    fn swap(&self, extents: Vec<Reduced>, mut chunks: BTreeMap<u64, ChunkRow>, pages: &BTreeMap<u32, Vec<u8>>) -> Result<()> {
        let mut left = extents.into_iter().peekable();
        while left.peek().is_some() {
            let (mut adoption, mut bytes) = (Adoption::default(), 0);
            while bytes < SWAP_BYTES && adoption.extents.len() < SWAP_EXTENTS {
                let Some(reduced) = left.next() else { break };
                bytes += 200 + 16 * reduced.pieces.len();
                bytes += include(&mut adoption, &reduced, &chunks, pages);
                adoption.extents.push(reduced);
            }
            let rows = 2 * bytes + 16 * 1024;
            let adopted = self.committer.run_own(Rank::Own, rows, move |tx| chunks::adopt(tx, &adoption))?;
            chunks.retain(|id, _| !adopted.chunks.contains(id));
            let swapped = adopted.extents.iter().filter(|swapped| **swapped).count() as u64;
            let counters = &self.reduction_counters;
            counters.extents.fetch_add(swapped, Ordering::Relaxed);
            counters.missed.fetch_add(adopted.extents.len() as u64 - swapped, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Adds the new chunks, bases and pages that an extent needs; returns about how many bytes their rows take.
fn include(adoption: &mut Adoption, reduced: &Reduced, chunks: &BTreeMap<u64, ChunkRow>, pages: &BTreeMap<u32, Vec<u8>>) -> usize {
    let mut bytes = 0;
    let mut wanted: Vec<u64> = reduced.pieces.iter().map(|piece| piece.chunk).collect();
    while let Some(id) = wanted.pop() {
        let Some(row) = chunks.get(&id) else { continue };
        if adoption.chunks.contains_key(&id) {
            continue;
        }
        wanted.extend(&row.bases);
        bytes += 160;
        if let Some(page) = pages.get(&row.page)
            && adoption.pages.insert(row.page, page.clone()).is_none()
        {
            bytes += page.len() + 64;
        }
        adoption.chunks.insert(id, row.clone());
    }
    bytes
}
