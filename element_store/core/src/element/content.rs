//! The bytes of elements: mappings, extents, chunks and who refers to them.
//!
//! Invariants: the mappings of an element do not overlap, lie within its size and cover all but its holes; an extent's references (1 + shares) equal the mappings
//! that point at it; a segment's live counter equals the footprints of the extents and chunks that lie in it.

use super::Rows;
use super::keys;
use super::rows::{CHECKSUM_BLOCK, ChunkRow, EXTENT_BYTES_MAX, ExtentRow, MappingRow, Placement};
use super::transaction::Transaction;
use crate::codec::checksum;
use crate::error::{Error, Result};
use crate::segment::Location;

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
    fn end(&self) -> u64 {
        self.offset + u64::from(self.length)
    }

    /// The part of this run that lies in [start, stop).
    fn clip(&self, start: u64, stop: u64) -> Option<Run> {
        let (from, to) = (self.offset.max(start), self.end().min(stop));
        (from < to).then(|| Run {
            offset: from,
            extent: self.extent,
            skip: self.skip + (from - self.offset) as u32,
            length: (to - from) as u32,
        })
    }
}

fn run_of(key: &[u8], value: &[u8]) -> Result<Run> {
    let row = MappingRow::decode(value)?;
    Ok(Run {
        offset: keys::offset_of(key),
        extent: row.extent,
        skip: row.skip,
        length: row.length,
    })
}

/// Whole runs that touch [start, stop), in order, at most `limit`.
///
/// Most changes and reads meet one run that covers all they touch: it is found by its key, without looking around it. Looking around costs more the more
/// often the rows nearby were written since the tree's last flush, as each write of them is passed by.
pub fn runs(rows: &dyn Rows, element: u64, start: u64, stop: u64, limit: usize) -> Result<Vec<Run>> {
    if start >= stop || limit == 0 {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    found.extend(run_at(rows, element, start)?);
    let at = found.last().map_or(start, Run::end);
    if at >= stop {
        return Ok(found);
    }
    for row in rows.range(&keys::mapping(element, at), &keys::mapping(element, stop), false) {
        if found.len() >= limit {
            break;
        }
        let (key, value) = row?;
        found.push(run_of(&key, &value)?);
    }
    Ok(found)
}

/// The run that covers byte `at`.
fn run_at(rows: &dyn Rows, element: u64, at: u64) -> Result<Option<Run>> {
    let key = keys::mapping(element, at);
    if let Some(value) = rows.get(&key)? {
        return run_of(&key, &value).map(Some);
    }
    // No run is longer than an extent.
    let first = keys::mapping(element, at.saturating_sub(EXTENT_BYTES_MAX as u64 - 1));
    let before = rows.range(&first, &key, true).next().transpose()?;
    let run = before.map(|(key, value)| run_of(&key, &value)).transpose()?;
    Ok(run.filter(|run| run.end() > at))
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

pub fn chunk(rows: &dyn Rows, id: u64) -> Result<Option<ChunkRow>> {
    rows.get(&keys::chunk(id))?.map(|bytes| ChunkRow::decode(&bytes)).transpose()
}

/// The checksum of each CHECKSUM_BLOCK of a raw extent.
pub fn block_checksums(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks(CHECKSUM_BLOCK).map(checksum).collect()
}

fn map(tx: &mut Transaction, element: u64, run: Run) -> Result<()> {
    tx.count_mapped(element, i64::from(run.length));
    tx.put_mapping(
        element,
        run.offset,
        MappingRow {
            born: 0,
            extent: run.extent,
            skip: run.skip,
            length: run.length,
        },
    )
}

/// Lands `bytes` in the journal as one extent of the element at `offset`. The range must be free.
fn land(tx: &mut Transaction, element: u64, offset: u64, bytes: &[u8]) -> Result<()> {
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
    tx.put(keys::landed_journal(position), id.to_be_bytes().to_vec())?;
    map(
        tx,
        element,
        Run {
            offset,
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
        Source::Small(bytes) => land(tx, element, 0, &bytes).map(|()| bytes.len() as u64),
        Source::Staged(extents) => append(tx, element, 0, extents),
    }
}

/// Adds staged extents one after another from `offset` on; returns where they end.
pub fn append(tx: &mut Transaction, element: u64, offset: u64, extents: Vec<(u64, ExtentRow)>) -> Result<u64> {
    extents.into_iter().try_fold(offset, |offset, (id, row)| {
        if let Placement::Raw { location, .. } = &row.placement {
            tx.occupy(location);
            tx.put(keys::landed_raw(id), Vec::new())?;
        }
        tx.put_extent(id, &row)?;
        map(
            tx,
            element,
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

fn drop_chunk(tx: &mut Transaction, id: u64) -> Result<()> {
    if tx.get(&keys::chunk_shares(id))?.is_some() {
        return tx.add(&keys::chunk_shares(id), -1);
    }
    let row = chunk(tx, id)?.ok_or_else(|| Error::Damaged(format!("chunk {id} has no row")))?;
    tx.vacate(&row.location);
    tx.delete(&keys::chunk(id))
}

/// Gives up what an extent row places somewhere, but not the row.
fn vacate(tx: &mut Transaction, id: u64, row: &ExtentRow) -> Result<()> {
    match &row.placement {
        Placement::Journal { position, .. } => tx.delete(&keys::landed_journal(*position)),
        Placement::Raw { location, .. } => {
            tx.vacate(location);
            tx.delete(&keys::landed_raw(id))
        }
        Placement::Chunks(chunks) => chunks.iter().try_for_each(|(chunk, _)| drop_chunk(tx, *chunk)),
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

/// The reducer's swap: the extent's bytes now lie in `placement`. False if the extent is gone or was moved meanwhile.
pub fn replace(tx: &mut Transaction, id: u64, old: &ExtentRow, placement: Placement, chunks: &[(u64, ChunkRow)]) -> Result<bool> {
    if extent(tx, id)?.as_ref() != Some(old) {
        return Ok(false);
    }
    vacate(tx, id, old)?;
    for (chunk_id, row) in chunks {
        tx.occupy(&row.location);
        tx.put_chunk(*chunk_id, row)?;
    }
    if let Placement::Raw { location, .. } = &placement {
        tx.occupy(location);
    }
    tx.put_extent(
        id,
        &ExtentRow {
            length: old.length,
            placement,
        },
    )?;
    Ok(true)
}

/// The chunk's bytes now lie elsewhere too; nothing happens if it is gone or was moved meanwhile.
pub fn move_chunk(tx: &mut Transaction, id: u64, old: &ChunkRow, location: Location) -> Result<()> {
    if chunk(tx, id)?.as_ref() != Some(old) {
        return Ok(());
    }
    tx.vacate(&old.location);
    tx.occupy(&location);
    tx.put_chunk(id, &ChunkRow { location, ..old.clone() })
}

/// Gives back at most `limit` mappings of an element; true if none is left.
pub fn free(tx: &mut Transaction, element: u64, limit: usize) -> Result<bool> {
    let (from, to) = keys::span(keys::MAPPING, element);
    let found = tx.rows_in(&from, &to, limit + 1)?;
    for (key, value) in found.iter().take(limit) {
        drop_extent(tx, run_of(key, value)?.extent)?;
        tx.delete(key)?;
    }
    Ok(found.len() <= limit)
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
        tx.delete(&keys::mapping(element, run.offset))?;
        tx.count_mapped(element, -i64::from(run.length));
        let kept = usize::from(head.is_some()) + usize::from(tail.is_some());
        match kept {
            0 => drop_extent(tx, run.extent)?,
            2 => tx.add(&keys::extent_shares(run.extent), 1)?,
            _ => {}
        }
        for part in head.into_iter().chain(tail) {
            map(tx, element, part)?;
        }
    }
    Ok(reached)
}

/// Content from `offset` on, where there must be none yet.
pub fn place(tx: &mut Transaction, element: u64, offset: u64, source: Source) -> Result<()> {
    match source {
        Source::Small(bytes) if bytes.is_empty() => Ok(()),
        Source::Small(bytes) => land(tx, element, offset, &bytes),
        Source::Staged(extents) => append(tx, element, offset, extents).map(|_| ()),
    }
}
