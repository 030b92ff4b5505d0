//! What reduction gained, counted from the rows of one state, of the whole pool or of some elements alone.
//!
//! Exact by construction: logical bytes = stored + zeros + the gains of deduplication, similarity and compression, where stored bytes are those of
//! chunks that content names and of what is still landed. Reads every row in question; memory grows with the number of extents and chunks.

use super::rows::{ChunkRow, Encoding, ExtentRow, MappingRow, Placement, is_tombstone};
use super::{Rows, chunks, content, keys};
use crate::error::{Error, Result};
use std::collections::HashMap;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accounting {
    /// Of content, holes left out.
    pub logical_bytes: i64,
    /// Not reduced yet: as long as they are.
    pub landed_bytes: i64,
    pub zero_bytes: i64,
    /// By mapping extents and naming chunks more than once; less what is held of extents that were overwritten in part.
    pub dedupe_gain_bytes: i64,
    pub similarity_gain_bytes: i64,
    pub compression_gain_bytes: i64,
    /// Of chunks that content names, and of what is landed.
    pub stored_bytes: i64,
    /// Of chunks that only deltas need.
    pub held_bytes: i64,
    /// Rows of extents, chunks and pages of the index, keys included; of the whole pool only.
    pub row_bytes: i64,
    pub extents: i64,
    pub pieces: i64,
    pub chunks: i64,
    pub deltas: i64,
    pub raw_chunks: i64,
    pub held_chunks: i64,
}

impl Accounting {
    /// What `stored_bytes` must be if all else is right.
    pub fn expected_stored_bytes(&self) -> i64 {
        self.logical_bytes - self.zero_bytes - self.dedupe_gain_bytes - self.similarity_gain_bytes - self.compression_gain_bytes
    }

    /// By their names in metrics, CLI and JSON.
    pub fn named(&self) -> [(&'static str, i64); 15] {
        [
            ("logical_bytes", self.logical_bytes),
            ("landed_bytes", self.landed_bytes),
            ("zero_bytes", self.zero_bytes),
            ("dedupe_gain_bytes", self.dedupe_gain_bytes),
            ("similarity_gain_bytes", self.similarity_gain_bytes),
            ("compression_gain_bytes", self.compression_gain_bytes),
            ("stored_bytes", self.stored_bytes),
            ("held_bytes", self.held_bytes),
            ("row_bytes", self.row_bytes),
            ("extents", self.extents),
            ("pieces", self.pieces),
            ("chunks", self.chunks),
            ("deltas", self.deltas),
            ("raw_chunks", self.raw_chunks),
            ("held_chunks", self.held_chunks),
        ]
    }

    fn add_extent(&mut self, row: &ExtentRow, mapped: i64, pieces: &mut HashMap<u64, i64>) {
        self.extents += 1;
        self.logical_bytes += mapped;
        self.dedupe_gain_bytes += mapped - i64::from(row.length);
        let Placement::Chunks(list) = &row.placement else {
            self.landed_bytes += i64::from(row.length);
            self.stored_bytes += i64::from(row.length);
            return;
        };
        self.pieces += list.len() as i64;
        for piece in list {
            match piece.chunk {
                0 => self.zero_bytes += i64::from(piece.length),
                chunk => *pieces.entry(chunk).or_default() += i64::from(piece.length),
            }
        }
    }

    fn add_chunk(&mut self, row: &ChunkRow, pieces: i64) {
        let (plain, stored) = (i64::from(row.length), i64::from(row.location.length));
        self.chunks += 1;
        self.dedupe_gain_bytes += pieces - plain;
        self.stored_bytes += stored;
        match row.encoding {
            Encoding::Raw => self.raw_chunks += 1,
            Encoding::Zstd => self.compression_gain_bytes += plain - stored,
            Encoding::Delta => {
                self.deltas += 1;
                self.similarity_gain_bytes += plain - stored;
            }
        }
    }
}

type Mapped = HashMap<u64, i64>;

fn count_mappings(rows: &dyn Rows, from: &[u8], to: &[u8], mapped: &mut Mapped) -> Result<()> {
    for row in rows.range(from, to, false) {
        let (_, value) = row?;
        if is_tombstone(&value) {
            continue;
        }
        let mapping = MappingRow::decode(&value)?;
        *mapped.entry(mapping.extent).or_default() += i64::from(mapping.length);
    }
    Ok(())
}

/// Of some elements: each extent and chunk that they share with others counts here as a whole.
pub fn of_elements(rows: &dyn Rows, elements: impl Iterator<Item = u64>) -> Result<Accounting> {
    let mut mapped = Mapped::new();
    for element in elements {
        let (from, to) = keys::span(keys::MAPPING, element);
        count_mappings(rows, &from, &to, &mut mapped)?;
    }
    let (mut accounting, mut pieces) = (Accounting::default(), HashMap::new());
    for (extent, mapped) in mapped {
        let row = content::extent(rows, extent)?.ok_or_else(|| Error::Damaged(format!("extent {extent} has no row")))?;
        accounting.add_extent(&row, mapped, &mut pieces);
    }
    for (chunk, pieces) in pieces {
        let row = chunks::chunk(rows, chunk)?.ok_or_else(|| Error::Damaged(format!("chunk {chunk} has no row")))?;
        accounting.add_chunk(&row, pieces);
    }
    Ok(accounting)
}

/// Of everything that the pool keeps: uploads, old versions, and what only snapshots see included; what a clone did not change is its origin's alone.
/// `rows`: as they lie.
pub fn of_pool(rows: &dyn Rows) -> Result<Accounting> {
    let (mut accounting, mut mapped, mut pieces) = (Accounting::default(), Mapped::new(), HashMap::new());
    for (from, to) in [keys::table(keys::MAPPING), keys::history_table(keys::MAPPING)] {
        count_mappings(rows, &from, &to, &mut mapped)?;
    }
    for row in table(rows, keys::EXTENT) {
        let (key, value) = row?;
        accounting.row_bytes += (key.len() + value.len()) as i64;
        let mapped = mapped.get(&keys::id_of(&key)).copied().unwrap_or(0);
        accounting.add_extent(&ExtentRow::decode(&value)?, mapped, &mut pieces);
    }
    for row in table(rows, keys::CHUNK) {
        let (key, value) = row?;
        accounting.row_bytes += (key.len() + value.len()) as i64;
        let row = ChunkRow::decode(&value)?;
        match pieces.get(&keys::id_of(&key)) {
            Some(pieces) => accounting.add_chunk(&row, *pieces),
            None => {
                accounting.held_chunks += 1;
                accounting.held_bytes += i64::from(row.location.length);
            }
        }
    }
    for letter in [keys::EXTENT_SHARES, keys::CHUNK_SHARES, keys::PAGE, keys::PAGE_CHUNKS] {
        for row in table(rows, letter) {
            let (key, value) = row?;
            accounting.row_bytes += (key.len() + value.len()) as i64;
        }
    }
    Ok(accounting)
}

fn table(rows: &dyn Rows, letter: u8) -> crate::meta::RangeIter<'_> {
    let (from, to) = keys::table(letter);
    rows.range(&from, &to, false)
}
