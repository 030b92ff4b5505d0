//! Chunks, who refers to them, and the pages of the index that know them.
//!
//! Invariants: a chunk's references (1 + shares) are the pieces of extents and the deltas that name it; a delta's bases are full chunks, so
//! dropping one goes one step further and no more; a page's counter is the number of chunks that say they are in it, and the page goes with the
//! last of them; a segment counts a chunk as long as its row is there.

use super::Rows;
use super::blocks::{self, Merged};
use super::content::{self, vacate};
use super::keys;
use super::rows::{ChunkRow, Encoding, ExtentRow, Piece, Placement, begin, open};
use super::transaction::Transaction;
use crate::error::{Error, Result};
use crate::meta::decode_counter;
use crate::reduction::page::{self, PageEntry};
use crate::segment::Location;
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub fn chunk(rows: &dyn Rows, id: u64) -> Result<Option<ChunkRow>> {
    rows.get(&keys::chunk(id))?.map(|bytes| ChunkRow::decode(&bytes)).transpose()
}

/// Chunks that lie in a payload, found without its directory: looks at every chunk of the pool.
pub fn within(rows: &dyn Rows, payload: &Location) -> Result<Vec<(u64, ChunkRow)>> {
    let end = u64::from(payload.offset) + u64::from(payload.length);
    let lies = |row: &ChunkRow| {
        let place = &row.location;
        (place.segment, place.shard) == (payload.segment, payload.shard) && place.offset >= payload.offset && u64::from(place.offset) < end
    };
    let (from, to) = keys::table(keys::CHUNK);
    let mut found = Vec::new();
    for row in rows.range(&from, &to, false) {
        let (key, value) = row?;
        let row = ChunkRow::decode(&value)?;
        if lies(&row) {
            found.push((keys::id_of(&key), row));
        }
    }
    Ok(found)
}

pub fn encode_page(entries: &[PageEntry]) -> Vec<u8> {
    let mut writer = begin(0);
    page::encode(entries, &mut writer);
    writer.bytes
}

pub fn decode_page(bytes: &[u8]) -> Result<Vec<PageEntry>> {
    page::decode(&mut open(bytes)?.1)
}

pub fn page(rows: &dyn Rows, number: u32) -> Result<Option<Vec<PageEntry>>> {
    rows.get(&keys::page(number))?.map(|bytes| decode_page(&bytes)).transpose()
}

/// Gives back one reference.
pub fn drop_chunk(tx: &mut Transaction, id: u64) -> Result<()> {
    if tx.get(&keys::chunk_shares(id))?.is_some() {
        return tx.add(&keys::chunk_shares(id), -1);
    }
    let row = chunk(tx, id)?.ok_or_else(|| Error::Damaged(format!("chunk {id} has no row")))?;
    tx.count_live(row.location.segment, -row.footprint());
    tx.delete(&keys::chunk(id))?;
    leave_page(tx, row.page)?;
    row.bases.iter().try_for_each(|base| drop_chunk(tx, *base))
}

fn leave_page(tx: &mut Transaction, number: u32) -> Result<()> {
    if number == 0 {
        return Ok(());
    }
    let count = tx.get(&keys::page_chunks(number))?.map_or(Ok(0), |value| decode_counter(&value))?;
    if count == 1 {
        tx.delete(&keys::page(number))?;
    }
    tx.add(&keys::page_chunks(number), -1)
}

/// Stored bytes that go if so many references to each of the chunks do, those of bases that only deltas among them keep included.
pub fn stored_bytes_of(rows: &dyn Rows, mut counts: HashMap<u64, i64>) -> Result<u64> {
    counts.remove(&0);
    let (mut bytes, mut gone) = (0, BTreeSet::new());
    // A delta's bases are no deltas: the second look has all their references.
    for _ in 0..2 {
        for (id, count) in counts.clone() {
            if gone.contains(&id) || !content::is_last(rows, &keys::chunk_shares(id), count)? {
                continue;
            }
            let row = chunk(rows, id)?.ok_or_else(|| Error::Damaged(format!("chunk {id} has no row")))?;
            gone.insert(id);
            bytes += u64::from(row.location.length);
            row.bases.iter().for_each(|base| *counts.entry(*base).or_insert(0) += 1);
        }
    }
    Ok(bytes)
}

/// The chunk's bytes now lie elsewhere too; nothing happens if it is gone or was moved meanwhile.
pub fn move_chunk(tx: &mut Transaction, id: u64, old: &ChunkRow, location: Location) -> Result<()> {
    if chunk(tx, id)?.as_ref() != Some(old) {
        return Ok(());
    }
    let new = ChunkRow { location, ..old.clone() };
    tx.count_live(old.location.segment, -old.footprint());
    tx.count_live(location.segment, new.footprint());
    tx.put_chunk(id, &new)
}

/// A chunk that is encoded otherwise and lies elsewhere.
#[derive(Debug, Clone)]
pub struct Recoded {
    pub id: u64,
    pub old: ChunkRow,
    /// Its references are full chunks: what it refers to already, or the first of its group.
    pub new: ChunkRow,
}

/// Nothing happens if the first of the group is gone or changed meanwhile; of the others each is left alone that is. Returns how many changed.
pub fn recode(tx: &mut Transaction, group: &[Recoded]) -> Result<usize> {
    let (mut changed, mut referred) = (0, BTreeMap::<u32, Vec<(u8, u64, u64)>>::new());
    for Recoded { id, old, new } in group {
        if chunk(tx, *id)?.as_ref() != Some(old) {
            if changed == 0 {
                return Ok(0);
            }
            continue;
        }
        changed += 1;
        tx.count_live(old.location.segment, -old.footprint());
        tx.count_live(new.location.segment, new.footprint());
        tx.put_chunk(*id, new)?;
        new.bases.iter().try_for_each(|base| tx.add(&keys::chunk_shares(*base), 1))?;
        old.bases.iter().try_for_each(|base| drop_chunk(tx, *base))?;
        if old.bases.first() != new.bases.first() {
            let reference = new.bases.first().copied().unwrap_or(*id);
            referred.entry(new.page).or_default().push((new.slot, *id, reference));
        }
    }
    for (number, changes) in referred {
        let Some(mut entries) = page(tx, number)? else { continue };
        for (slot, id, reference) in changes {
            if let Some(entry) = entries.get_mut(usize::from(slot)).filter(|entry| entry.chunk == id) {
                entry.reference = reference;
            }
        }
        tx.put(keys::page(number), encode_page(&entries))?;
    }
    Ok(changed)
}

/// An extent that was cut: its row as it was read, and what it consists of now.
#[derive(Debug, Clone)]
pub struct Reduced {
    pub extent: u64,
    pub old: ExtentRow,
    pub pieces: Vec<Piece>,
}

/// What the reducer swaps in one transaction.
#[derive(Debug, Clone, Default)]
pub struct Adoption {
    pub extents: Vec<Reduced>,
    pub blocks: Vec<Merged>,
    /// Stored and durable, named by nothing yet.
    pub chunks: BTreeMap<u64, ChunkRow>,
    /// Pages as they are to be if a chunk of theirs is adopted.
    pub pages: BTreeMap<u32, Vec<u8>>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Adopted {
    /// For each extent, whether it was swapped. One that was not is gone, was moved, or refers to a chunk that went meanwhile.
    pub extents: Vec<bool>,
    /// For each block the same: it was changed again, or refers to such a chunk.
    pub blocks: Vec<bool>,
    /// Chunks that have rows now.
    pub chunks: BTreeSet<u64>,
}

/// Swaps what is as it was; counts a reference for each piece and for each delta among the new chunks that are needed.
pub fn adopt(tx: &mut Transaction, adoption: &Adoption) -> Result<Adopted> {
    let (mut adopted, mut references) = (Adopted::default(), BTreeMap::<u64, i64>::new());
    let mut usable = HashMap::new();
    let mut refer_to = |tx: &Transaction, is_same: bool, pieces: &[Piece]| -> Result<bool> {
        let chunks = || pieces.iter().map(|piece| piece.chunk).filter(|chunk| *chunk != 0);
        let swapped = is_same
            && chunks().try_fold(true, |all, chunk| {
                Ok::<_, Error>(all && is_usable(tx, adoption, chunk, &mut usable)?)
            })?;
        if swapped {
            chunks().for_each(|chunk| *references.entry(chunk).or_default() += 1);
        }
        Ok(swapped)
    };
    for reduced in &adoption.extents {
        let is_same = content::extent(tx, reduced.extent)?.as_ref() == Some(&reduced.old);
        adopted.extents.push(refer_to(tx, is_same, &reduced.pieces)?);
    }
    for merged in &adoption.blocks {
        let is_same = blocks::is_as_it_was(tx, merged)?;
        adopted.blocks.push(refer_to(tx, is_same, &merged.pieces)?);
    }
    let needed: Vec<u64> = references.keys().copied().filter(|id| adoption.chunks.contains_key(id)).collect();
    for base in needed.iter().flat_map(|id| &adoption.chunks[id].bases) {
        *references.entry(*base).or_default() += 1;
    }
    refer(tx, adoption, &references, &mut adopted)?;
    // Only now: what an extent gives up may be what another one takes.
    for (reduced, _) in adoption.extents.iter().zip(&adopted.extents).filter(|(_, swapped)| **swapped) {
        vacate(tx, reduced.extent, &reduced.old)?;
        let row = ExtentRow {
            length: reduced.old.length,
            placement: Placement::Chunks(reduced.pieces.clone()),
        };
        tx.put_extent(reduced.extent, &row)?;
    }
    let exchanged = || adoption.blocks.iter().zip(&adopted.blocks).filter(|(_, swapped)| **swapped);
    exchanged().try_for_each(|(merged, _)| blocks::exchange(tx, merged))?;
    for (merged, _) in exchanged() {
        // What is left of extents that the block had a part of.
        merged.runs.iter().try_for_each(|run| blocks::trim(tx, merged.element, run))?;
    }
    Ok(adopted)
}

/// New with its bases, or there.
fn is_usable(tx: &Transaction, adoption: &Adoption, id: u64, known: &mut HashMap<u64, bool>) -> Result<bool> {
    if let Some(usable) = known.get(&id) {
        return Ok(*usable);
    }
    let usable = match adoption.chunks.get(&id) {
        Some(row) => row.bases.iter().try_fold(true, |all, base| {
            let is_full = |row: &ChunkRow| row.encoding != Encoding::Delta;
            let there = match adoption.chunks.get(base) {
                Some(row) => is_full(row),
                None => chunk(tx, *base)?.as_ref().is_some_and(is_full),
            };
            Ok::<_, Error>(all && there)
        })?,
        None => chunk(tx, id)?.is_some(),
    };
    known.insert(id, usable);
    Ok(usable)
}

fn refer(tx: &mut Transaction, adoption: &Adoption, references: &BTreeMap<u64, i64>, adopted: &mut Adopted) -> Result<()> {
    let mut joined = BTreeMap::<u32, i64>::new();
    for (id, count) in references {
        let Some(row) = adoption.chunks.get(id) else {
            tx.add(&keys::chunk_shares(*id), *count)?;
            continue;
        };
        tx.count_live(row.location.segment, row.footprint());
        tx.put_chunk(*id, row)?;
        if *count > 1 {
            tx.add(&keys::chunk_shares(*id), count - 1)?;
        }
        if row.page != 0 {
            *joined.entry(row.page).or_default() += 1;
        }
        adopted.chunks.insert(*id);
    }
    for (number, count) in joined {
        if let Some(row) = adoption.pages.get(&number) {
            tx.put(keys::page(number), row.clone())?;
        }
        tx.add(&keys::page_chunks(number), count)?;
    }
    Ok(())
}
