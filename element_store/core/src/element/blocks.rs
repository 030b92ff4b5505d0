//! Blocks of content that changed in place, as the reducer writes them anew: one extent where small overwrites had left many runs.
//!
//! Invariants: the content of an element stays what it was, and so do its row, its size and its holes; a block is exchanged only if its runs are those
//! that it was read by (what an extent holds never changes); extents of which a part is dead are cut down to what is named only if nobody
//! else names them.

use super::content::{self, Run};
use super::rows::{self, ExtentRow, LandedRow, Piece, Placement, is_tombstone};
use super::space::Spaces;
use super::transaction::Transaction;
use super::{Rows, chunks, history, keys};
use crate::error::Result;
use crate::meta::decode_counter;
use std::collections::{BTreeMap, BTreeSet};

/// Runs of one extent that are looked at to see whether they are all that names it.
const ALONE_RUNS_MAX: usize = 64;

/// Bytes of an element in one run from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    pub element: u64,
    /// What they were read by, in order and without holes.
    pub runs: Vec<Run>,
    /// A new one.
    pub extent: u64,
    pub pieces: Vec<Piece>,
}

impl Merged {
    pub fn start(&self) -> u64 {
        self.runs.first().map_or(0, |run| run.offset)
    }

    pub fn stop(&self) -> u64 {
        self.runs.last().map_or(0, Run::end)
    }
}

/// May it be exchanged: are the runs what they were, and may the element change at all?
pub fn is_as_it_was(tx: &Transaction, merged: &Merged) -> Result<bool> {
    if tx.check_writable(merged.element).is_err() {
        return Ok(false);
    }
    let (start, stop) = (merged.start(), merged.stop());
    Ok(content::clipped_runs(tx, merged.element, start, stop, merged.runs.len() + 1)? == merged.runs)
}

/// The references that the pieces take are the caller's to count.
pub fn exchange(tx: &mut Transaction, merged: &Merged) -> Result<()> {
    let (start, stop) = (merged.start(), merged.stop());
    content::cut(tx, merged.element, start, stop, usize::MAX)?;
    let row = ExtentRow {
        length: (stop - start) as u32,
        placement: Placement::Chunks(merged.pieces.clone()),
    };
    tx.put_extent(merged.extent, &row)?;
    content::map(
        tx,
        merged.element,
        Run {
            offset: start,
            extent: merged.extent,
            skip: 0,
            length: row.length,
        },
    )
}

/// Is the row under this key the space's own, and seen by no snapshot and no clone?
fn is_own(raw: &dyn Rows, spaces: &Spaces, key: &[u8]) -> Result<bool> {
    let Some(own) = raw.get(key)?.filter(|own| !is_tombstone(own)) else {
        return Ok(false);
    };
    let hold = match history::space_of(key) {
        Some(space) => spaces.known(space)?.hold_max(),
        None => None,
    };
    let born = rows::born(&own)?;
    Ok(hold.is_none_or(|hold| born > hold))
}

/// All runs of the extent that one of its runs belongs to, if they lie where it was written and nothing else names it.
pub fn alone(rows: &dyn Rows, raw: &dyn Rows, spaces: &Spaces, element: u64, run: &Run, length: u32) -> Result<Option<Vec<Run>>> {
    let Some(start) = run.offset.checked_sub(u64::from(run.skip)) else {
        return Ok(None);
    };
    let mut found = content::runs(rows, element, start, start + u64::from(length), ALONE_RUNS_MAX + 1)?;
    if found.len() > ALONE_RUNS_MAX {
        return Ok(None);
    }
    found.retain(|other| other.extent == run.extent);
    let shares = raw
        .get(&keys::extent_shares(run.extent))?
        .map_or(Ok(0), |value| decode_counter(&value))?;
    if found.len() as i64 != 1 + shares {
        return Ok(None);
    }
    for other in &found {
        if !is_own(raw, spaces, &keys::mapping(element, other.end()))? {
            return Ok(None);
        }
    }
    Ok(Some(found))
}

/// Pieces of [skip, skip + length) of an extent.
pub fn clipped(pieces: &[Piece], skip: u32, length: u32) -> Vec<Piece> {
    let (mut at, mut found) = (0, Vec::new());
    for piece in pieces {
        let (from, to) = (at.max(skip), (at + piece.length).min(skip + length));
        if from < to {
            found.push(Piece {
                chunk: piece.chunk,
                skip: if piece.chunk == 0 { 0 } else { piece.skip + (from - at) },
                length: to - from,
            });
        }
        at += piece.length;
    }
    found
}

/// Chunks that no run of the extent needs any more.
pub fn dead(pieces: &[Piece], runs: &[Run]) -> BTreeSet<u64> {
    let needed: BTreeSet<u64> = runs
        .iter()
        .flat_map(|run| clipped(pieces, run.skip, run.length))
        .map(|piece| piece.chunk)
        .collect();
    let all = pieces.iter().map(|piece| piece.chunk).filter(|chunk| *chunk != 0);
    all.filter(|chunk| !needed.contains(chunk)).collect()
}

/// Gives up what the extent that this was a run of keeps although nobody reads it: each of its runs becomes an extent of its own. Nothing happens if no chunk would
/// go, or if somebody else names the extent.
pub fn trim(tx: &mut Transaction, element: u64, run: &Run) -> Result<()> {
    let Some(ExtentRow {
        length,
        placement: Placement::Chunks(pieces),
    }) = content::extent(tx, run.extent)?
    else {
        return Ok(());
    };
    let Some(runs) = alone(tx, tx.raw_view(), tx.spaces(), element, run, length)? else {
        return Ok(());
    };
    if dead(&pieces, &runs).is_empty() {
        return Ok(());
    }
    let mut references = BTreeMap::<u64, i64>::new();
    pieces.iter().for_each(|piece| *references.entry(piece.chunk).or_default() -= 1);
    for run in &runs {
        let kept = clipped(&pieces, run.skip, run.length);
        kept.iter().for_each(|piece| *references.entry(piece.chunk).or_default() += 1);
        let extent = tx.new_id();
        let row = ExtentRow {
            length: run.length,
            placement: Placement::Chunks(kept),
        };
        tx.put_extent(extent, &row)?;
        content::map(tx, element, Run { extent, skip: 0, ..*run })?;
        tx.count_mapped(element, -i64::from(run.length));
    }
    if runs.len() > 1 {
        tx.add(&keys::extent_shares(run.extent), 1 - runs.len() as i64)?;
    }
    tx.delete(&keys::extent(run.extent))?;
    references.remove(&0);
    for (chunk, change) in references {
        if change > 0 {
            tx.add(&keys::chunk_shares(chunk), change)?;
        }
        (change..0).try_for_each(|_| chunks::drop_chunk(tx, chunk))?;
    }
    Ok(())
}

/// A landed extent's bytes lie raw in a segment now, waiting for the reducer as before; nothing happens if it is gone or changed meanwhile.
pub fn land_again(tx: &mut Transaction, landed: &LandedRow, old: &ExtentRow, new: &ExtentRow) -> Result<()> {
    if content::extent(tx, landed.extent)?.as_ref() != Some(old) {
        return Ok(());
    }
    content::vacate(tx, landed.extent, old)?;
    if let Placement::Raw { location, .. } = &new.placement {
        tx.occupy(location);
    }
    tx.put(keys::landed_raw(landed.extent), landed.encode())?;
    tx.put_extent(landed.extent, new)
}
