//! The reducer: moves landed content out of the journal, and rewrites what compresses.
//!
//! Invariants: an extent's new place is durable before the transaction that names it; that transaction changes nothing if the extent was
//! moved or given up meanwhile; plain bytes are compared with their checksum before they are encoded. Never runs in front of an acknowledgement.

use super::Core;
use super::commit::Rank;
use super::landing::Hold;
use crate::codec::checksum;
use crate::element::content;
use crate::element::rows::{ChunkRow, Encoding, ExtentRow, Placement};
use crate::element::{Rows, keys};
use crate::error::{Error, Result};
use crate::segment::{Class, Location, Payload};
use std::sync::atomic::Ordering;

/// `PayloadHeader::kind` of a chunk; its owner is the chunk.
pub const KIND_CHUNK: u8 = 1;
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Plain bytes that one step moves.
const STEP_BYTES: usize = 8 << 20;
/// Rows that one step looks at.
const STEP_ROWS: usize = 2048;
const ZSTD_LEVEL: i32 = 1;
/// A chunk stays raw unless it loses at least one part in this many.
const CHUNK_GAIN: usize = 32;
/// A raw extent in a segment is rewritten only if its first chunk loses at least one part in this many.
const REWRITE_GAIN: usize = 8;

/// One extent taken up by a step.
struct Moved {
    id: u64,
    old: ExtentRow,
    chunks: Vec<(u64, ChunkRow)>,
}

/// Plain bytes of a chunk from its stored ones. Raises Damaged.
pub fn decode(row: &ChunkRow, stored: &[u8], into: &mut [u8]) -> Result<()> {
    let length = match row.encoding {
        Encoding::Raw if stored.len() == into.len() => {
            into.copy_from_slice(stored);
            stored.len()
        }
        Encoding::Raw => stored.len(),
        Encoding::Zstd => zstd::bulk::decompress_to_buffer(stored, into).map_err(|error| Error::Damaged(format!("chunk: {error}")))?,
    };
    if length == into.len() {
        Ok(())
    } else {
        Err(Error::Damaged("a chunk is not as long as its row says".into()))
    }
}

fn compress(plain: &[u8]) -> Result<Option<Vec<u8>>> {
    let packed = zstd::bulk::compress(plain, ZSTD_LEVEL)?;
    Ok((packed.len() + plain.len() / CHUNK_GAIN < plain.len()).then_some(packed))
}

/// Would rewriting gain enough to be worth the writes?
fn is_worth_rewriting(sample: &[u8]) -> Result<bool> {
    let packed = zstd::bulk::compress(sample, ZSTD_LEVEL)?;
    Ok(packed.len() + sample.len() / REWRITE_GAIN <= sample.len())
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
                let (_, value) = row?;
                let id = u64::from_be_bytes(
                    value
                        .as_slice()
                        .try_into()
                        .map_err(|_| Error::Damaged("a landed row is not 8 bytes".into()))?,
                );
                let extent = content::extent(&snapshot, id)?.ok_or_else(|| Error::Damaged(format!("landed extent {id} has no row")))?;
                let plain = self.read_extent_with(&snapshot, &extent, 0, extent.length)?;
                bytes += plain.len();
                taken.push((id, extent, plain));
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

    /// Looks at raw extents in segments above extent `after`: rewrites those worth it, forgets the others. Returns where to go on; None at the end.
    pub(super) fn reduce_raw(&self, after: u64) -> Result<Option<u64>> {
        let (mut taken, mut kept, mut bytes, mut last) = (Vec::new(), Vec::new(), 0, None);
        {
            let _inside = self.guard.enter();
            let snapshot = self.committer.meta.snapshot();
            let (_, to) = keys::table(keys::LANDED_RAW);
            for row in snapshot.range(&keys::landed_raw(after + 1), &to, false).take(STEP_ROWS) {
                let id = keys::id_of(&row?.0);
                last = Some(id);
                let extent = content::extent(&snapshot, id)?.ok_or_else(|| Error::Damaged(format!("landed extent {id} has no row")))?;
                let sample = self.read_extent_with(&snapshot, &extent, 0, extent.length.min(CHUNK_BYTES as u32))?;
                bytes += sample.len();
                if is_worth_rewriting(&sample)? {
                    let plain = self.read_extent_with(&snapshot, &extent, 0, extent.length)?;
                    bytes += plain.len();
                    taken.push((id, extent, plain));
                } else {
                    kept.push(id);
                }
                if bytes >= STEP_BYTES {
                    break;
                }
            }
        }
        self.rewrite(taken)?;
        if !kept.is_empty() {
            self.committer.run_own(Rank::Own, 32 * kept.len(), move |tx| {
                kept.iter().try_for_each(|id| tx.delete(&keys::landed_raw(*id)))
            })?;
        }
        Ok(last)
    }

    /// Encodes the extents anew and names their new places.
    pub(super) fn rewrite(&self, taken: Vec<(u64, ExtentRow, Vec<u8>)>) -> Result<()> {
        if taken.is_empty() {
            return Ok(());
        }
        let mut moved = Vec::with_capacity(taken.len());
        let mut stored = Vec::new();
        for (id, old, plain) in taken {
            let mut chunks = Vec::new();
            for piece in plain.chunks(CHUNK_BYTES) {
                let packed = compress(piece)?;
                let encoding = if packed.is_some() { Encoding::Zstd } else { Encoding::Raw };
                let bytes = packed.unwrap_or_else(|| piece.to_vec());
                let fingerprint = *blake3::keyed_hash(&self.pool.secret, piece).as_bytes();
                let chunk = self.staged_id()?;
                let row = ChunkRow {
                    fingerprint,
                    length: piece.len() as u32,
                    encoding,
                    bases: Vec::new(),
                    location: Location::default(),
                    checksum: checksum(&bytes),
                };
                chunks.push((chunk, row));
                stored.push((chunk, bytes));
            }
            moved.push(Moved { id, old, chunks });
        }
        let mut hold = Hold::new(&self.holds);
        let locations = self.store_chunks(&mut hold, &stored)?;
        let mut location = locations.into_iter();
        moved
            .iter_mut()
            .flat_map(|extent| &mut extent.chunks)
            .zip(&mut location)
            .for_each(|((_, row), location)| row.location = location);
        self.commit_moved(moved)
    }

    /// Appended and flushed; again as a whole if a device was lost in between.
    pub(super) fn store_chunks<B: AsRef<[u8]>>(&self, hold: &mut Hold, stored: &[(u64, B)]) -> Result<Vec<Location>> {
        const ATTEMPTS_MAX: usize = 4;
        let payloads: Vec<Payload> = stored
            .iter()
            .map(|(owner, bytes)| Payload {
                kind: KIND_CHUNK,
                owner: *owner,
                bytes: bytes.as_ref(),
            })
            .collect();
        for _ in 0..ATTEMPTS_MAX {
            let locations = hold.append(|| self.append(Class::Reduced, &payloads))?;
            match self.segments.sync(&locations) {
                Err(Error::Io(_)) => {}
                result => return result.map(|()| locations),
            }
        }
        Err(Error::Closed("devices keep failing under reduced content".into()))
    }

    fn commit_moved(&self, moved: Vec<Moved>) -> Result<()> {
        let mut left = moved;
        while !left.is_empty() {
            let rest = left.split_off(left.len().min(256));
            let batch = std::mem::replace(&mut left, rest);
            let rows: usize = batch.iter().map(|extent| 256 + 128 * extent.chunks.len()).sum();
            self.committer.run_own(Rank::Own, rows, move |tx| {
                for Moved { id, old, chunks } in batch {
                    let placement = Placement::Chunks(chunks.iter().map(|(chunk, row)| (*chunk, row.length)).collect());
                    content::replace(tx, id, &old, placement, &chunks)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
