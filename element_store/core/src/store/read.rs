//! Reading content: from mappings to extents, from extents to the journal, a segment or chunks.
//!
//! Invariant: no byte leaves that was not checked against a checksum in a metadata row. A reader enters the guard before it takes its
//! snapshot, so that what the snapshot names is not overwritten while it reads; a pinned element keeps its mappings.

use super::Core;
use super::content_cache::Key;
use super::reducer::draft::joined;
use crate::device::recycled::Recycled;
use crate::element::info::ElementInfo;
use crate::element::rows::{CHECKSUM_BLOCK, ChunkRow, Encoding, ExtentRow, Piece, Placement};
use crate::element::transaction::Pin;
use crate::element::{Rows, namespace};
use crate::element::{chunks, content};
use crate::error::{Error, Result};
use crate::reduction::encode::{decode_delta, decode_plain};
use crate::segment::Location;
use std::sync::Arc;

/// Bytes that one call reads at most.
pub const READ_BYTES_MAX: u64 = 4 << 20;
/// Content up to this size is read at once when it is opened.
pub const PREFETCH_BYTES_MAX: u64 = 128 << 10;

/// An element's bytes, pinned: whatever happens to its key does not change them. Dropping it lets go.
pub struct Content {
    pub element: ElementInfo,
    /// All bytes of small content.
    pub prefetched: Option<Vec<u8>>,
    /// None for small content.
    pin: Option<Pinned>,
}

impl Content {
    /// Raises NotFound, Damaged.
    pub(super) fn open(core: &Arc<Core>, view: &str, key: &[u8], version: Option<u64>) -> Result<Self> {
        core.note_read();
        loop {
            let inside = core.guard.enter();
            let snapshot = core.snapshot();
            let element = namespace::lookup(&snapshot, view, key, version)?;
            if element.row.size <= PREFETCH_BYTES_MAX {
                let mut bytes = vec![0; element.row.size as usize];
                core.read_with(&snapshot, element.id, 0, &mut bytes)?;
                return Ok(Self {
                    element,
                    prefetched: Some(bytes),
                    pin: None,
                });
            }
            drop((snapshot, inside));
            if let Some((pin, element)) = core.pin(view, key, version, element.id)? {
                return Ok(Self {
                    element,
                    prefetched: None,
                    pin: Some(pin),
                });
            }
        }
    }

    /// Keeps its element's content; None for small content, which is `prefetched`.
    pub(super) fn pin(&self) -> Option<&Pinned> {
        self.pin.as_ref()
    }

    /// Bytes [start, stop), at most READ_BYTES_MAX. Raises Invalid for a range outside, Damaged.
    pub fn read(&self, start: u64, stop: u64) -> Result<Vec<u8>> {
        let length = stop.saturating_sub(start).min(READ_BYTES_MAX);
        let mut bytes = vec![0; length as usize];
        self.read_into(start, stop, &mut bytes).map(|()| bytes)
    }

    /// The same into zeroed memory of the caller's, which must be as long as the range.
    pub fn read_into(&self, start: u64, stop: u64, into: &mut [u8]) -> Result<()> {
        if start > stop || stop > self.element.row.size || stop - start > READ_BYTES_MAX || stop - start != into.len() as u64 {
            return Err(Error::Invalid(format!("bytes {start} to {stop} of {}", self.element.row.size)));
        }
        match (&self.prefetched, &self.pin) {
            (Some(bytes), _) => into.copy_from_slice(&bytes[start as usize..stop as usize]),
            (None, Some(pin)) => return pin.read(start, into),
            (None, None) => {}
        }
        Ok(())
    }
}

/// Content that neither changes nor goes while this lives.
pub(super) struct Pinned {
    core: Arc<Core>,
    pin: Pin,
}

impl Pinned {
    pub fn new(core: &Arc<Core>, element: u64) -> Option<Self> {
        let pin = core.committer.shared.pins.pin(element)?;
        Some(Self { core: core.clone(), pin })
    }

    pub fn pin(&self) -> &Pin {
        &self.pin
    }

    fn read(&self, start: u64, into: &mut [u8]) -> Result<()> {
        self.core.note_read();
        let _inside = self.core.guard.enter();
        // If files change the element, a copy is made and seen before the pin leads to it: the same answer before and after names what this snapshot has.
        loop {
            let element = self.pin.element();
            let snapshot = self.core.snapshot();
            if self.pin.element() == element {
                return self.core.read_with(&snapshot, element, start, into);
            }
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.core.committer.shared.pins.unpin(&self.pin) {
            self.core.wake_upkeep();
        }
    }
}

impl Core {
    pub(super) fn note_read(&self) {
        self.reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// Pins the element if the key, or that version of it, still names it; looked up again after the pin, so that a change that saw no pin is seen here.
    fn pin(self: &Arc<Self>, view: &str, key: &[u8], version: Option<u64>, id: u64) -> Result<Option<(Pinned, ElementInfo)>> {
        let Some(pin) = Pinned::new(self, id) else {
            std::thread::yield_now();
            return Ok(None);
        };
        let element = namespace::lookup(&self.snapshot(), view, key, version)?;
        Ok((element.id == id).then_some((pin, element)))
    }

    /// An element's bytes from `start` on as `rows` show them, into zeroed memory: holes are left alone. The caller is inside the guard.
    pub(super) fn read_with(&self, rows: &dyn Rows, element: u64, start: u64, into: &mut [u8]) -> Result<()> {
        let stop = start + into.len() as u64;
        for run in content::clipped_runs(rows, element, start, stop, usize::MAX)? {
            let row = content::extent(rows, run.extent)?.ok_or_else(|| Error::Damaged(format!("extent {} has no row", run.extent)))?;
            let at = (run.offset - start) as usize;
            self.read_extent_into(rows, Some(run.extent), &row, run.skip, &mut into[at..at + run.length as usize])?;
        }
        Ok(())
    }

    /// For extents that do not lie in chunks: staged content.
    pub(super) fn read_extent(&self, row: &ExtentRow, start: u32, stop: u32) -> Result<Vec<u8>> {
        self.read_extent_with(&self.committer.meta.snapshot(), row, start, stop)
    }

    pub(super) fn read_extent_with(&self, rows: &dyn Rows, row: &ExtentRow, start: u32, stop: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; stop.saturating_sub(start).min(row.length) as usize];
        self.read_extent_into(rows, None, row, start, &mut bytes).map(|()| bytes)
    }

    /// Bytes of an extent from `start` on. `id`: if what is read in part may be kept.
    fn read_extent_into(&self, rows: &dyn Rows, id: Option<u64>, row: &ExtentRow, start: u32, into: &mut [u8]) -> Result<()> {
        let end = u64::from(start) + into.len() as u64;
        if end > u64::from(row.length) {
            return Err(Error::Damaged(format!(
                "a mapping names bytes {start} to {end} of an extent of {}",
                row.length
            )));
        }
        match &row.placement {
            Placement::Journal { position, checksum } => {
                let key = id.map(|id| Key { id, block: 0 });
                self.whole_or_part(key, row.length, start, into, |whole| self.journal.read(*position, whole, *checksum))
            }
            Placement::Raw {
                location,
                checksum,
                blocks,
            } => self.read_raw(id, location, *checksum, blocks, start, into),
            Placement::Chunks(pieces) => self.read_pieces(rows, pieces, start, into),
        }
    }

    /// The whole at once, or the checksum blocks that the range touches.
    fn read_raw(&self, id: Option<u64>, location: &Location, checksum: u64, blocks: &[u64], start: u32, into: &mut [u8]) -> Result<()> {
        const BLOCK: u32 = CHECKSUM_BLOCK as u32;
        let stop = start + into.len() as u32;
        let (first, last) = (start / BLOCK, stop.div_ceil(BLOCK));
        if last - first > 1 && (last - first) as usize * 2 >= blocks.len() {
            return self.whole_or_part(None, location.length, start, into, |whole| {
                self.segments.read_into(location, 0..location.length, checksum, whole)
            });
        }
        let mut left = into;
        for block in first..last {
            let range = block * BLOCK..((block + 1) * BLOCK).min(location.length);
            let expected = *blocks
                .get(block as usize)
                .ok_or_else(|| Error::Damaged("an extent has too few checksums".into()))?;
            let from = start.max(range.start);
            let (piece, rest) = left.split_at_mut((range.end.min(stop) - from) as usize);
            let key = id.map(|id| Key { id, block });
            self.whole_or_part(key, range.len() as u32, from - range.start, piece, |whole| {
                self.segments.read_into(location, range, expected, whole)
            })?;
            left = rest;
        }
        Ok(())
    }

    /// Into zeroed memory: pieces of zeros are left alone.
    fn read_pieces(&self, rows: &dyn Rows, pieces: &[Piece], start: u32, into: &mut [u8]) -> Result<()> {
        let stop = start + into.len() as u32;
        let (mut at, mut left) = (0, into);
        for piece in pieces {
            let (from, to) = (start.max(at), stop.min(at + piece.length));
            if from < to {
                let (part, rest) = left.split_at_mut((to - from) as usize);
                if piece.chunk != 0 {
                    self.read_chunk(rows, piece.chunk, piece.skip + (from - at), part)?;
                }
                left = rest;
            }
            at += piece.length;
        }
        Ok(())
    }

    /// Bytes of a chunk from `skip` on. One that is read in part is kept: the next read often wants the rest.
    fn read_chunk(&self, rows: &dyn Rows, id: u64, skip: u32, into: &mut [u8]) -> Result<()> {
        let key = Key { id, block: 0 };
        if let Some(plain) = self.part_cache.get(key) {
            return copy_part(&plain, skip, into);
        }
        let row = chunks::chunk(rows, id)?.ok_or_else(|| Error::Damaged(format!("chunk {id} has no row")))?;
        if skip == 0 && into.len() == row.length as usize {
            return self.decode_chunk(rows, &row, into);
        }
        let mut plain = vec![0; row.length as usize];
        self.decode_chunk(rows, &row, &mut plain)?;
        copy_part(&plain, skip, into)?;
        self.part_cache.insert(key, plain.into());
        Ok(())
    }

    /// Reads what can only be checked as a whole of `length` bytes: in place if all of it is wanted, else aside, for the part from `start` on; and keeps it
    /// under the key.
    fn whole_or_part(
        &self,
        key: Option<Key>,
        length: u32,
        start: u32,
        into: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        if start == 0 && into.len() == length as usize {
            return read(into);
        }
        let Some(key) = key else {
            let mut whole = Recycled::zeroed(length as usize);
            read(&mut whole)?;
            return copy_part(&whole, start, into);
        };
        if let Some(plain) = self.part_cache.get(key) {
            return copy_part(&plain, start, into);
        }
        let mut whole = vec![0; length as usize];
        read(&mut whole)?;
        copy_part(&whole, start, into)?;
        self.part_cache.insert(key, whole.into());
        Ok(())
    }

    pub(super) fn decode_chunk(&self, rows: &dyn Rows, row: &ChunkRow, into: &mut [u8]) -> Result<()> {
        let stored = 0..row.location.length;
        match row.encoding {
            Encoding::Raw if row.location.length == row.length => self.segments.read_into(&row.location, stored, row.checksum, into),
            Encoding::Raw => Err(Error::Damaged("a chunk is not as long as its row says".into())),
            Encoding::Zstd => decode_plain(&self.segments.read(&row.location, stored, row.checksum)?, into),
            Encoding::Delta => {
                let base = |id: &u64| {
                    let row = chunks::chunk(rows, *id)?.ok_or_else(|| Error::Damaged(format!("reference {id} has no row")))?;
                    self.read_base(*id, &row)
                };
                let bases: Vec<Arc<[u8]>> = row.bases.iter().map(base).collect::<Result<_>>()?;
                let stored = self.segments.read(&row.location, stored, row.checksum)?;
                match bases.as_slice() {
                    [one] => decode_delta(&stored, one, into),
                    many => decode_delta(&stored, &joined(&many.iter().map(AsRef::as_ref).collect::<Vec<_>>()), into),
                }
            }
        }
    }

    /// Plain bytes of a full chunk, as a reference. Raises Damaged.
    pub(super) fn read_base(&self, id: u64, row: &ChunkRow) -> Result<Arc<[u8]>> {
        if let Some(plain) = self.base_cache.get(Key { id, block: 0 }) {
            return Ok(plain);
        }
        if row.encoding == Encoding::Delta {
            return Err(Error::Damaged(format!("reference {id} is a delta")));
        }
        let mut plain = vec![0; row.length as usize];
        let stored = self.segments.read(&row.location, 0..row.location.length, row.checksum)?;
        match row.encoding {
            Encoding::Zstd => decode_plain(&stored, &mut plain)?,
            _ => copy_part(&stored, 0, &mut plain)?,
        }
        let plain: Arc<[u8]> = plain.into();
        self.base_cache.insert(Key { id, block: 0 }, plain.clone());
        Ok(plain)
    }
}

fn copy_part(whole: &[u8], skip: u32, into: &mut [u8]) -> Result<()> {
    let skip = skip as usize;
    let part = whole.get(skip..skip + into.len());
    into.copy_from_slice(part.ok_or_else(|| Error::Damaged("a chunk is shorter than its extent says".into()))?);
    Ok(())
}
