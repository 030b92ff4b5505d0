//! The reducer's steps: takes landed content out of the journal and out of landing segments, as streams, and names its chunks.
//!
//! Invariants: chunks are durable before the transaction that names them; that transaction leaves an extent alone if it was moved or given up
//! meanwhile, or if a chunk that it would share went: then the extent stays landed and is taken again. Plain bytes are compared with their
//! checksum before they are encoded. Never runs in front of an acknowledgement. Memory is bounded by STEP_BYTES, three times.

use super::Core;
use super::commit::Rank;
use super::landing::Hold;
use super::merge::{self, Block, Found};
use super::reducer::Reducer;
use super::reducer::draft::{Draft, Drafted};
use crate::codec::checksum;
use crate::element::chunks::{self, Adoption};
use crate::element::content;
use crate::element::history::View;
use crate::element::rows::{ChunkRow, ExtentRow, LandedRow, Piece, Placement};
use crate::element::{Rows, keys};
use crate::error::{Error, Result};
use crate::reduction::{ALIGNED_BYTES, Cutting, Mode};
use std::collections::{BTreeMap, HashMap};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Plain bytes that one step takes. A stream is cut where a step ends, which costs one cut in about 400.
const STEP_BYTES: usize = 16 << 20;
/// The same where space is short: what a step stores must fit what is kept for reduction.
const SHORT_STEP_BYTES: usize = 4 << 20;
/// Rows that one step looks at.
const STEP_ROWS: usize = 2048;
/// Rows that one look passes by, those that wait included.
const LOOKED_ROWS_MAX: usize = 8192;
/// Of a block that is exchanged, with what is left of the extents that it had parts of; and of each run that it takes the place of.
const BLOCK_ROWS_BYTES: usize = 4096;
const RUN_BYTES: usize = 512;
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
    pub mode: Mode,
    pub extents: Vec<Taken>,
}

/// What one step encodes anew.
#[derive(Debug, Default)]
pub(super) struct Step {
    pub streams: Vec<Stream>,
    pub blocks: Vec<Block>,
    /// Landed extents that go with them.
    pub moved: usize,
    /// Also what nothing makes smaller: their segment is to become empty.
    pub must_move: bool,
}

/// What becomes of fragments in the journal.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fragments {
    /// Merged, but for blocks with extents from this id on, which wait.
    Merge { hot_from: u64 },
    /// Landed in segments: the journal is short.
    Land,
}

/// Nothing is too new.
#[cfg(test)]
pub(super) const MERGE: Fragments = Fragments::Merge { hot_from: u64::MAX };

/// Neighbours become one stream; the order within the step is that of the elements.
fn streams(mut taken: Vec<Taken>, mut mode: impl FnMut(&LandedRow) -> Result<Mode>) -> Result<Vec<Stream>> {
    taken.sort_by_key(|taken| taken.landed);
    let mut streams: Vec<Stream> = Vec::new();
    let mut end = None;
    for extent in taken {
        let LandedRow {
            element, offset, cutting, ..
        } = extent.landed;
        let begins = (element, offset, cutting, extent.landed.mode);
        let next = (element, offset + u64::from(extent.row.length), cutting, extent.landed.mode);
        match streams.last_mut() {
            Some(stream) if end == Some(begins) => stream.extents.push(extent),
            _ => streams.push(Stream {
                offset,
                cutting,
                mode: mode(&extent.landed)?,
                extents: vec![extent],
            }),
        }
        end = Some(next);
    }
    Ok(streams)
}

/// What a step takes of what a look found: up to its bytes, a fragment for its block.
fn within_step(mut found: Vec<Found>, bytes_max: usize) -> Vec<Found> {
    let mut bytes = 0;
    let size = |found: &Found| (found.row.length as usize).max(if found.is_small() { ALIGNED_BYTES } else { 0 });
    let fits = |found: &Found| {
        let fits = bytes < bytes_max;
        bytes += size(found);
        fits
    };
    let count = found.iter().map(fits).take_while(|fits| *fits).count();
    found.truncate(count);
    found
}

impl Core {
    /// Moves the oldest extents out of the journal, those at positions below `before`. Returns how many; 0 means that none is left there but what waits.
    pub(super) fn reduce_journal(&self, before: u64, fragments: Fragments) -> Result<usize> {
        let (mut from, mut looked) = (keys::landed_journal(self.oldest_landed().1), 0);
        while looked < LOOKED_ROWS_MAX {
            let inside = self.guard.enter();
            let (view, mut found) = (self.snapshot(), Vec::new());
            let (mut bytes, mut rows) = (0, 0);
            for row in view
                .range(&from, &keys::landed_journal(before), false)
                .take(LOOKED_ROWS_MAX - looked)
            {
                let (key, value) = row?;
                rows += 1;
                from = [key.as_slice(), &[0]].concat();
                let one = self.find(&view, LandedRow::decode(&value)?)?;
                if !is_waiting(&one, fragments) {
                    bytes += one.row.length as usize;
                    found.push(one);
                }
                if bytes >= STEP_BYTES || found.len() == STEP_ROWS {
                    break;
                }
            }
            looked += rows;
            if found.is_empty() {
                return Ok(0);
            }
            let mut landed = 0;
            if matches!(fragments, Fragments::Land) {
                let (whole, small) = merge::fragments(found);
                (found, landed) = (whole, small.len());
                drop(inside);
                self.land_again(small)?;
            } else {
                drop(inside);
            }
            let moved = landed + self.reduce(found, fragments)?;
            if moved > 0 {
                return Ok(moved);
            }
        }
        Ok(0)
    }

    pub(super) fn find(&self, rows: &dyn Rows, landed: LandedRow) -> Result<Found> {
        let id = landed.extent;
        let row = content::extent(rows, id)?.ok_or_else(|| Error::Damaged(format!("landed extent {id} has no row")))?;
        Ok(Found { landed, row })
    }

    /// From memory, if it is what was written.
    fn just_landed(&self, found: &Found) -> Option<Vec<u8>> {
        let Placement::Raw { checksum: expected, .. } = found.row.placement else {
            return None;
        };
        let plain = self.just_landed.take(found.landed.extent)?;
        let is_right = plain.len() == found.row.length as usize && checksum(&plain) == expected;
        is_right.then_some(plain)
    }

    fn take(&self, rows: &dyn Rows, found: Found) -> Result<Taken> {
        let plain = match self.just_landed(&found) {
            Some(plain) => plain,
            None => self.read_extent_with(rows, &found.row, 0, found.row.length)?,
        };
        Ok(Taken {
            landed: found.landed,
            row: found.row,
            plain,
        })
    }

    /// Reads what was found and encodes it anew. Returns how many of them moved.
    fn reduce(&self, found: Vec<Found>, fragments: Fragments) -> Result<usize> {
        let step = self.gather(found, fragments)?;
        let moved = step.moved;
        self.rewrite(step)?;
        Ok(moved)
    }

    /// Reads what was found, fragments with their blocks.
    pub(super) fn gather(&self, found: Vec<Found>, fragments: Fragments) -> Result<Step> {
        let hot_from = match fragments {
            Fragments::Merge { hot_from } => hot_from,
            Fragments::Land => 0,
        };
        let _inside = self.guard.enter();
        let (view, mut modes) = (self.snapshot(), HashMap::new());
        // What was found before may have gone since.
        let mut still = Vec::with_capacity(found.len());
        let bytes_max = if self.is_space_short() { SHORT_STEP_BYTES } else { STEP_BYTES };
        for one in within_step(found, bytes_max) {
            if content::extent(&view, one.landed.extent)?.as_ref() == Some(&one.row) {
                still.push(one);
            }
        }
        let sorted = self.sort_out(&view, still, hot_from, &mut modes)?;
        let mut taken = Vec::with_capacity(sorted.whole.len());
        for one in sorted.whole {
            let extent = one.landed.extent;
            let is_raw = matches!(one.row.placement, Placement::Raw { .. });
            match self.take(&view, one) {
                Ok(extent) => taken.push(extent),
                // Its readers are told; whoever repairs the pool starts it again.
                Err(Error::Damaged(_)) if is_raw => self.reducer().skip(extent),
                Err(error) => return Err(error),
            }
        }
        Ok(Step {
            moved: taken.len() + sorted.merged,
            streams: streams(taken, |landed| self.mode_of(&view, landed, &mut modes))?,
            blocks: sorted.blocks,
            must_move: false,
        })
    }

    /// The same as they lie, and wherever they are: their segment is to become empty. Raises Damaged.
    pub(super) fn reduce_whole(&self, found: Vec<Found>) -> Result<()> {
        let step = {
            let _inside = self.guard.enter();
            let (view, mut modes, mut taken) = (self.snapshot(), HashMap::new(), Vec::with_capacity(found.len()));
            for one in found {
                if content::extent(&view, one.landed.extent)?.as_ref() == Some(&one.row) {
                    taken.push(self.take(&view, one)?);
                }
            }
            Step {
                moved: taken.len(),
                streams: streams(taken, |landed| self.mode_of(&view, landed, &mut modes))?,
                must_move: true,
                ..Step::default()
            }
        };
        self.rewrite(step)
    }

    /// Takes extents that landed raw in segments, in the order of their elements, up to a step's bytes. Returns how many; 0 means that none is left but
    /// what waits: blocks with extents from `hot_from` on.
    pub(super) fn reduce_raw(&self, hot_from: u64) -> Result<usize> {
        let mut looked = 0;
        while looked < LOOKED_ROWS_MAX {
            let mut found = {
                let _inside = self.guard.enter();
                let view = self.snapshot();
                self.landed_raw(&view, hot_from, &mut looked)?
            };
            if found.is_empty() {
                return Ok(0);
            }
            let first = found.iter().map(|found| found.landed.extent).max().unwrap_or(0);
            found.sort_unstable_by_key(|found| found.landed);
            let moved = self.reduce(found, Fragments::Merge { hot_from })?;
            if moved > 0 {
                return Ok(moved);
            }
            // All of them are hot: what came later may not be.
            *self.reducer().raw_floor() = first + 1;
        }
        Ok(0)
    }

    /// Some of those that wait, from the oldest on. Ids are taken when content arrives and rows written when it is named: once no row is left above
    /// the floor, the search begins at the start again.
    fn landed_raw(&self, view: &View, hot_from: u64, looked: &mut usize) -> Result<Vec<Found>> {
        let (_, to) = keys::table(keys::LANDED_RAW);
        let mut reducer = self.reducer();
        loop {
            let (floor, mut waiting) = (*reducer.raw_floor(), Vec::new());
            let (mut next, left) = (0, LOOKED_ROWS_MAX.saturating_sub(*looked));
            for row in view.range(&keys::landed_raw(floor), &to, false).take(left) {
                let landed = LandedRow::decode(&row?.1)?;
                *looked += 1;
                next = landed.extent + 1;
                if !reducer.is_skipped(landed.extent) {
                    let one = self.find(view, landed)?;
                    if !is_waiting(&one, Fragments::Merge { hot_from }) {
                        waiting.push(one);
                    }
                }
                if waiting.len() == STEP_ROWS {
                    break;
                }
            }
            *reducer.raw_floor() = waiting.first().map_or(next, |found| found.landed.extent);
            if !waiting.is_empty() || floor == 0 || *looked >= LOOKED_ROWS_MAX {
                return Ok(waiting);
            }
        }
    }

    /// Taken by one step at a time; nobody else waits for it.
    pub(super) fn reducer(&self) -> std::sync::MutexGuard<'_, Reducer> {
        self.reducer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Encodes the extents and blocks anew and names their new places.
    pub(super) fn rewrite(&self, step: Step) -> Result<()> {
        if step.streams.is_empty() && step.blocks.is_empty() {
            return Ok(());
        }
        let short = self.is_space_short();
        let mut reducer = self.reducer();
        reducer.lease(self, &step)?;
        // Left before the swap: what makes room waits for those inside, and the swap may wait for room.
        let inside = self.guard.enter();
        let mut draft = Draft::new(self, &mut reducer);
        let mut kept = Vec::new();
        for stream in step.streams {
            let is_raw = stream
                .extents
                .iter()
                .all(|taken| matches!(taken.row.placement, Placement::Raw { .. }));
            let may_stay = is_raw && !step.must_move;
            let ids: Vec<u64> = stream.extents.iter().map(|taken| taken.landed.extent).collect();
            if may_stay && stream.mode == Mode::Off {
                kept.extend(ids);
                continue;
            }
            let gains = draft.add(stream)?;
            if may_stay && short && !gains {
                draft.withdraw(&ids);
                kept.extend(ids);
            }
        }
        step.blocks.into_iter().try_for_each(|block| draft.add_block(block))?;
        let mut drafted = draft.finish();
        drop(inside);
        let started = Instant::now();
        let mut hold = Hold::new(&self.holds);
        let locations = self.store_chunks(&mut hold, &drafted.stored)?;
        for ((id, _), location) in std::mem::take(&mut drafted.stored).iter().zip(locations) {
            if let Some(row) = drafted.chunks.get_mut(id) {
                row.location = location;
            }
        }
        let spent = |counter: &std::sync::atomic::AtomicU64, since: Instant| {
            counter.fetch_add(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
        };
        spent(&self.reduction_counters.store_ns, started);
        let started = Instant::now();
        self.swap(drafted)?;
        if !kept.is_empty() {
            self.committer.run_own(Rank::Own, 32 * kept.len(), move |tx| {
                kept.iter().try_for_each(|id| tx.delete(&keys::landed_raw(*id)))
            })?;
        }
        spent(&self.reduction_counters.swap_ns, started);
        Ok(())
    }

    pub(super) fn is_space_short(&self) -> bool {
        let space = self.segments.status();
        space.free_bytes * 100 < space.usable_bytes * SPACE_SHORT_PERCENT
    }

    /// In transactions of a bounded size: each brings the new chunks that its extents and blocks need first.
    fn swap(&self, drafted: Drafted) -> Result<()> {
        let Drafted {
            extents,
            blocks,
            mut chunks,
            pages,
            ..
        } = drafted;
        let (mut extents, mut blocks) = (extents.into_iter(), blocks.into_iter());
        loop {
            let (mut adoption, mut bytes) = (Adoption::default(), 0);
            while bytes < SWAP_BYTES && adoption.extents.len() + adoption.blocks.len() < SWAP_EXTENTS {
                let pieces = if let Some(reduced) = extents.next() {
                    bytes += 200 + 16 * reduced.pieces.len();
                    adoption.extents.push(reduced);
                    adoption.extents.last().map(|reduced| reduced.pieces.clone())
                } else if let Some(merged) = blocks.next() {
                    bytes += BLOCK_ROWS_BYTES + RUN_BYTES * merged.runs.len();
                    adoption.blocks.push(merged);
                    adoption.blocks.last().map(|merged| merged.pieces.clone())
                } else {
                    None
                };
                let Some(pieces) = pieces else { break };
                bytes += include(&mut adoption, &pieces, &chunks, &pages);
            }
            if adoption.extents.is_empty() && adoption.blocks.is_empty() {
                return Ok(());
            }
            let rows = 2 * bytes + 16 * 1024;
            let adopted = self.committer.run_own(Rank::Own, rows, move |tx| chunks::adopt(tx, &adoption))?;
            chunks.retain(|id, _| !adopted.chunks.contains(id));
            let count = |swapped: &[bool]| swapped.iter().filter(|swapped| **swapped).count() as u64;
            let (all, counters) = ((adopted.extents.len() + adopted.blocks.len()) as u64, &self.reduction_counters);
            let (extents, blocks) = (count(&adopted.extents), count(&adopted.blocks));
            counters.extents.fetch_add(extents, Ordering::Relaxed);
            counters.merged.fetch_add(blocks, Ordering::Relaxed);
            counters.missed.fetch_add(all - extents - blocks, Ordering::Relaxed);
        }
    }
}

/// Must it wait by what its own row says?
fn is_waiting(found: &Found, fragments: Fragments) -> bool {
    matches!(fragments, Fragments::Merge { hot_from } if found.is_small() && found.landed.extent >= hot_from)
}

/// Adds the new chunks, bases and pages that an extent needs; returns about how many bytes their rows take.
fn include(adoption: &mut Adoption, pieces: &[Piece], chunks: &BTreeMap<u64, ChunkRow>, pages: &BTreeMap<u32, Vec<u8>>) -> usize {
    let mut bytes = 0;
    let mut wanted: Vec<u64> = pieces.iter().map(|piece| piece.chunk).collect();
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
