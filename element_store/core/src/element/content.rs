//! The bytes of elements: mappings, extents, chunks and who refers to them.
//!
//! Invariants: the mappings of an element do not overlap, lie within its size and cover all but its holes; an extent's references (1 + shares) equal the mappings
//! that point at it; a segment's live counter equals the footprints of the extents and chunks that lie in it.

use super::Rows;
use super::chunks::{self, drop_chunk};
use super::keys;
use super::rows::{CHECKSUM_BLOCK, EXTENT_BYTES_MAX, ExtentRow, LandedRow, MappingRow, Placement, is_tombstone};
use super::transaction::{Taken, Transaction};
use crate::codec::checksum;
use crate::error::{Error, Result};
use crate::meta::decode_counter;
use crate::reduction::{Cutting, Mode};
use std::collections::HashMap;

/// Mappings that a deletion gives back in its own transaction; more are left to the freeing job.
pub const INLINE_MAPPINGS_MAX: usize = 8;

/// Content on its way into an element.
#[derive(Debug, Clone)]
pub enum Source {
    /// Goes into the journal record of the transaction.
    Small(Vec<u8>),
    /// Lies in segments already, in order and without holes: (extent id, row).
    Staged(Vec<(u64, ExtentRow)>),
}

/// A run of bytes of an element that lies in one extent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub offset: u64,
    pub extent: u64,
    pub skip: u32,
    pub length: u32,
}

impl Run {
    pub fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }

    /// The part of this run that lies in [start, stop).
    pub fn clip(&self, start: u64, stop: u64) -> Option<Run> {
        let (from, to) = (self.offset.max(start), self.end().min(stop));
        (from < to).then(|| Run {
            offset: from,
            extent: self.extent,
            skip: self.skip + (from - self.offset) as u32,
            length: (to - from) as u32,
        })
    }
}

/// Of a mapping's row. Raises Damaged.
pub fn run_of(key: &[u8], value: &[u8]) -> Result<Run> {
    let row = MappingRow::decode(value)?;
    let offset = keys::ordinal_of(key).checked_sub(u64::from(row.length));
    Ok(Run {
        offset: offset.ok_or_else(|| Error::Damaged("a mapping begins before its element".into()))?,
        extent: row.extent,
        skip: row.skip,
        length: row.length,
    })
}

/// Whole runs that touch [start, stop), in order, read as they are asked for. What comes after one that reaches `stop` is not looked for: it may be far, with
/// rows that are gone in between.
pub fn each_run(rows: &dyn Rows, element: u64, start: u64, stop: u64) -> impl Iterator<Item = Result<Run>> + '_ {
    // No run is longer than an extent.
    let (from, to) = (start.saturating_add(1), stop.saturating_add(EXTENT_BYTES_MAX as u64));
    let mut found = rows.range(&keys::mapping(element, from), &keys::mapping(element, to), false);
    let mut reached = start;
    std::iter::from_fn(move || {
        if reached >= stop {
            return None;
        }
        let run = found.next()?.and_then(|(key, value)| run_of(&key, &value));
        reached = run.as_ref().map_or(stop, Run::end);
        Some(run).filter(|run| run.as_ref().map_or(true, |run| run.offset < stop))
    })
}

/// The same, at most `limit`.
///
/// Most changes and reads meet one run that covers all they touch and ends with it: it is found by its key, without looking around. Looking around costs more
/// the more often the rows nearby were written since the tree's last flush, as each write of them is passed by.
pub fn runs(rows: &dyn Rows, element: u64, start: u64, stop: u64, limit: usize) -> Result<Vec<Run>> {
    if start >= stop || limit == 0 {
        return Ok(Vec::new());
    }
    let key = keys::mapping(element, stop);
    if let Some(value) = rows.get(&key)? {
        let run = run_of(&key, &value)?;
        if run.offset <= start {
            return Ok(vec![run]);
        }
    }
    each_run(rows, element, start, stop).take(limit).collect()
}

/// Runs cut to [start, stop).
pub fn clipped_runs(rows: &dyn Rows, element: u64, start: u64, stop: u64, limit: usize) -> Result<Vec<Run>> {
    Ok(runs(rows, element, start, stop, limit)?
        .iter()
        .filter_map(|run| run.clip(start, stop))
        .collect())
}

pub fn extent(rows: &dyn Rows, id: u64) -> Result<Option<ExtentRow>> {
    rows.get(&keys::extent(id))?.map(|bytes| ExtentRow::decode(&bytes)).transpose()
}

/// The checksum of each CHECKSUM_BLOCK of a raw extent.
pub fn block_checksums(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks(CHECKSUM_BLOCK).map(checksum).collect()
}

pub(super) fn map(tx: &mut Transaction, element: u64, run: Run) -> Result<()> {
    tx.count_mapped(element, i64::from(run.length));
    tx.put_mapping(
        element,
        run.end(),
        MappingRow {
            born: 0,
            extent: run.extent,
            skip: run.skip,
            length: run.length,
        },
    )
}

/// Where content lands, and how the reducer is to cut it.
#[derive(Debug, Clone, Copy)]
pub struct Spot {
    pub element: u64,
    pub offset: u64,
    pub cutting: Cutting,
}

impl Spot {
    /// Where new content begins.
    pub fn start(element: u64) -> Self {
        Self::at(element, 0)
    }

    /// In content that grows at its end.
    pub fn at(element: u64, offset: u64) -> Self {
        Self {
            element,
            offset,
            cutting: Cutting::Content,
        }
    }

    /// In content that changes in place: what changes is a page, wherever it lies.
    pub fn in_place(element: u64, offset: u64) -> Self {
        Self {
            cutting: Cutting::Aligned,
            ..Self::at(element, offset)
        }
    }

    fn landed(&self, extent: u64, mode: Option<Mode>) -> LandedRow {
        LandedRow {
            element: self.element,
            offset: self.offset,
            cutting: self.cutting,
            extent,
            mode,
        }
    }
}

/// Lands `bytes` in the journal as one extent. The range must be free.
pub(super) fn land(tx: &mut Transaction, spot: Spot, bytes: &[u8]) -> Result<()> {
    let (id, position) = (tx.new_id(), tx.land(bytes)?);
    let length = bytes.len() as u32;
    tx.put_extent(
        id,
        &ExtentRow {
            length,
            placement: Placement::Journal {
                position,
                checksum: checksum(bytes),
            },
        },
    )?;
    tx.put(keys::landed_journal(position), spot.landed(id, tx.landing_mode).encode())?;
    map(
        tx,
        spot.element,
        Run {
            offset: spot.offset,
            extent: id,
            skip: 0,
            length,
        },
    )
}

/// Gives the element its first content; returns the size.
pub fn attach(tx: &mut Transaction, element: u64, source: Source) -> Result<u64> {
    match source {
        Source::Small(bytes) if bytes.is_empty() => Ok(0),
        Source::Small(bytes) => land(tx, Spot::start(element), &bytes).map(|()| bytes.len() as u64),
        Source::Staged(extents) => append(tx, Spot::start(element), extents),
    }
}

/// Adds staged extents one after another from there on; returns where they end.
pub fn append(tx: &mut Transaction, spot: Spot, extents: Vec<(u64, ExtentRow)>) -> Result<u64> {
    extents.into_iter().try_fold(spot.offset, |offset, (id, row)| {
        if let Placement::Raw { location, .. } = &row.placement {
            tx.occupy(location);
            tx.put(keys::landed_raw(id), Spot { offset, ..spot }.landed(id, tx.landing_mode).encode())?;
        }
        tx.put_extent(id, &row)?;
        map(
            tx,
            spot.element,
            Run {
                offset,
                extent: id,
                skip: 0,
                length: row.length,
            },
        )?;
        Ok(offset + u64::from(row.length))
    })
}

/// Makes bytes [start, stop) of `source` bytes [offset, ..) of `target` too. The target range must be free. Returns how far it came (a
/// source offset): at most `limit` runs per call.
pub fn share(tx: &mut Transaction, source: u64, start: u64, stop: u64, target: u64, offset: u64, limit: usize) -> Result<u64> {
    let found = clipped_runs(tx, source, start, stop, limit)?;
    let reached = if found.len() < limit {
        stop
    } else {
        found.last().map_or(stop, Run::end)
    };
    for run in found {
        tx.add(&keys::extent_shares(run.extent), 1)?;
        map(
            tx,
            target,
            Run {
                offset: offset + (run.offset - start),
                ..run
            },
        )?;
    }
    Ok(reached)
}

/// Gives up what an extent row places somewhere, but not the row.
pub(super) fn vacate(tx: &mut Transaction, id: u64, row: &ExtentRow) -> Result<()> {
    match &row.placement {
        Placement::Journal { position, .. } => tx.delete(&keys::landed_journal(*position)),
        Placement::Raw { location, .. } => {
            tx.vacate(location);
            tx.delete(&keys::landed_raw(id))
        }
        Placement::Chunks(pieces) => {
            let mut stored = pieces.iter().filter(|piece| piece.chunk != 0);
            stored.try_for_each(|piece| drop_chunk(tx, piece.chunk))
        }
    }
}

fn drop_extent(tx: &mut Transaction, id: u64) -> Result<()> {
    if tx.get(&keys::extent_shares(id))?.is_some() {
        return tx.add(&keys::extent_shares(id), -1);
    }
    let row = extent(tx, id)?.ok_or_else(|| Error::Damaged(format!("extent {id} has no row")))?;
    vacate(tx, id, &row)?;
    tx.delete(&keys::extent(id))
}

/// Gives up a live row of a mapping, with its reference if nobody else sees it.
fn free_mapping(tx: &mut Transaction, key: &[u8], value: &[u8]) -> Result<()> {
    let taken = tx.take_own(key)?;
    if taken == Taken::Gone {
        forget_mapping(tx, value)?;
    }
    Ok(())
}

/// Bytes in segments and the journal that go if so many references to each of the extents do.
pub fn stored_bytes_of(rows: &dyn Rows, extents: &HashMap<u64, i64>) -> Result<u64> {
    let (mut bytes, mut pieces) = (0, HashMap::new());
    for (id, count) in extents {
        if !is_last(rows, &keys::extent_shares(*id), *count)? {
            continue;
        }
        let row = extent(rows, *id)?.ok_or_else(|| Error::Damaged(format!("extent {id} has no row")))?;
        match row.placement {
            Placement::Chunks(list) => list.iter().for_each(|piece| *pieces.entry(piece.chunk).or_insert(0) += 1),
            _ => bytes += u64::from(row.length),
        }
    }
    Ok(bytes + chunks::stored_bytes_of(rows, pieces)?)
}

/// Would nobody refer to it without so many references? `shares`: the key of its counter.
pub(super) fn is_last(rows: &dyn Rows, shares: &[u8], count: i64) -> Result<bool> {
    Ok(rows.get(shares)?.map_or(Ok(0), |shares| decode_counter(&shares))? < count)
}

/// What a mapping's row, or a tombstone, referred to.
pub fn forget_mapping(tx: &mut Transaction, value: &[u8]) -> Result<()> {
    if is_tombstone(value) {
        return Ok(());
    }
    drop_extent(tx, MappingRow::decode(value)?.extent)
}

/// Gives back at most `limit` mappings of an element, of those that end after `after`: what ends before is gone already, and looking there again would pass by
/// all that was deleted. Returns where to go on; None: nothing is left.
pub fn free(tx: &mut Transaction, element: u64, after: u64, limit: usize) -> Result<Option<u64>> {
    let (_, to) = keys::span(keys::MAPPING, element);
    // Nobody can reach what is an origin's: an id never returns.
    let found = tx.raw_rows(&keys::mapping(element, after.saturating_add(1)), &to, limit + 1)?;
    for (key, value) in found.iter().take(limit) {
        free_mapping(tx, key, value)?;
    }
    let is_all = found.len() <= limit;
    Ok(found
        .iter()
        .take(limit)
        .next_back()
        .filter(|_| !is_all)
        .map(|(key, _)| keys::ordinal_of(key)))
}

/// Frees bytes [start, stop) of an element: a hole is left. At most `limit` runs; returns how far it came.
pub fn cut(tx: &mut Transaction, element: u64, start: u64, stop: u64, limit: usize) -> Result<u64> {
    let found = runs(tx, element, start, stop, limit)?;
    let reached = if found.len() < limit {
        stop
    } else {
        found.last().map_or(stop, |run| run.end().min(stop))
    };
    for run in found {
        let (head, tail) = (run.clip(0, start), run.clip(stop, u64::MAX));
        let taken = tx.take(&keys::mapping(element, run.end()))?;
        tx.count_mapped(element, -i64::from(run.length));
        let kept = i64::from(head.is_some()) + i64::from(tail.is_some());
        // What is gone leaves its reference to the parts that are kept.
        match kept - i64::from(taken == Taken::Gone) {
            -1 => drop_extent(tx, run.extent)?,
            0 => {}
            more => tx.add(&keys::extent_shares(run.extent), more)?,
        }
        for part in head.into_iter().chain(tail) {
            map(tx, element, part)?;
        }
    }
    Ok(reached)
}

/// Content from there on, where there must be none yet.
pub fn place(tx: &mut Transaction, spot: Spot, source: Source) -> Result<()> {
    match source {
        Source::Small(bytes) if bytes.is_empty() => Ok(()),
        Source::Small(bytes) => land(tx, spot, &bytes),
        Source::Staged(extents) => append(tx, spot, extents).map(|_| ()),
    }
}

/// Bytes [from, from + length) of an element are at `to` too, instead of what was there. The ranges may overlap.
pub fn copy_within(tx: &mut Transaction, element: u64, from: u64, to: u64, length: u64) -> Result<()> {
    let found = clipped_runs(tx, element, from, from + length, usize::MAX)?;
    for run in &found {
        tx.add(&keys::extent_shares(run.extent), 1)?;
    }
    cut(tx, element, to, to + length, usize::MAX)?;
    found.into_iter().try_for_each(|run| {
        let offset = to + (run.offset - from);
        map(tx, element, Run { offset, ..run })
    })
}
