//! Reading content: from mappings to extents, from extents to the journal, a segment or chunks.
//!
//! Invariant: no byte leaves that was not checked against a checksum in a metadata row. A reader enters the guard before it takes its
//! snapshot, so that what the snapshot names is not overwritten while it reads; a pinned element keeps its mappings.

use super::Core;
use super::reduce;
use crate::element::content::{self, Run};
use crate::element::info::ElementInfo;
use crate::element::rows::{CHECKSUM_BLOCK, ChunkRow, ExtentRow, Placement};
use crate::element::{Rows, namespace};
use crate::error::{Error, Result};
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
    core: Arc<Core>,
    pinned: bool,
}

impl Content {
    /// Raises NotFound, Damaged.
    pub(super) fn open(core: &Arc<Core>, view: &str, key: &[u8], version: Option<u64>) -> Result<Self> {
        loop {
            let inside = core.guard.enter();
            let snapshot = core.committer.meta.snapshot();
            let element = namespace::lookup(&snapshot, view, key, version)?;
            if element.row.size <= PREFETCH_BYTES_MAX {
                let bytes = core.read_with(&snapshot, element.id, 0, element.row.size)?;
                return Ok(Self {
                    element,
                    prefetched: Some(bytes),
                    core: core.clone(),
                    pinned: false,
                });
            }
            drop((snapshot, inside));
            if let Some(element) = core.pin(view, key, version, element.id)? {
                return Ok(Self {
                    element,
                    prefetched: None,
                    core: core.clone(),
                    pinned: true,
                });
            }
        }
    }

    /// Bytes [start, stop), at most READ_BYTES_MAX. Raises Invalid for a range outside, Damaged.
    pub fn read(&self, start: u64, stop: u64) -> Result<Vec<u8>> {
        if start > stop || stop > self.element.row.size || stop - start > READ_BYTES_MAX {
            return Err(Error::Invalid(format!("bytes {start} to {stop} of {}", self.element.row.size)));
        }
        if let Some(bytes) = &self.prefetched {
            return Ok(bytes[start as usize..stop as usize].to_vec());
        }
        let _inside = self.core.guard.enter();
        self.core
            .read_with(&self.core.committer.meta.snapshot(), self.element.id, start, stop)
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        if self.pinned {
            self.core.unpin(self.element.id);
        }
    }
}

/// An element that is not given up while this lives.
pub(super) struct Pinned {
    core: Arc<Core>,
    element: u64,
}

impl Pinned {
    pub fn new(core: &Arc<Core>, element: u64) -> Option<Self> {
        core.committer.shared.pins.pin(element).then(|| Self {
            core: core.clone(),
            element,
        })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.core.unpin(self.element);
    }
}

impl Core {
    fn unpin(&self, element: u64) {
        if self.committer.shared.pins.unpin(element) {
            self.wake_upkeep();
        }
    }

    /// Pins the element if the key, or that version of it, still names it; looked up again after the pin, so that a deletion that saw no pin is seen here.
    fn pin(self: &Arc<Self>, view: &str, key: &[u8], version: Option<u64>, id: u64) -> Result<Option<ElementInfo>> {
        if !self.committer.shared.pins.pin(id) {
            std::thread::yield_now();
            return Ok(None);
        }
        let found = namespace::lookup(&self.committer.meta.snapshot(), view, key, version);
        match found {
            Ok(element) if element.id == id => Ok(Some(element)),
            other => {
                self.unpin(id);
                other.map(|_| None)
            }
        }
    }

    /// Bytes [start, stop) of an element as `rows` show it; holes are zeros. The caller is inside the guard.
    fn read_with(&self, rows: &dyn Rows, element: u64, start: u64, stop: u64) -> Result<Vec<u8>> {
        let mut bytes: Vec<u8> = Vec::with_capacity((stop - start) as usize);
        let runs = content::clipped_runs(rows, element, start, stop, usize::MAX)?;
        for Run {
            offset,
            extent,
            skip,
            length,
        } in runs
        {
            bytes.resize((offset - start) as usize, 0);
            let row = content::extent(rows, extent)?.ok_or_else(|| Error::Damaged(format!("extent {extent} has no row")))?;
            let piece = self.read_extent_with(rows, &row, skip, skip + length)?;
            if bytes.is_empty() && u64::from(length) == stop - start {
                return Ok(piece);
            }
            bytes.extend_from_slice(&piece);
        }
        bytes.resize((stop - start) as usize, 0);
        Ok(bytes)
    }

    /// For extents that do not lie in chunks: staged content.
    pub(super) fn read_extent(&self, row: &ExtentRow, start: u32, stop: u32) -> Result<Vec<u8>> {
        self.read_extent_with(&self.committer.meta.snapshot(), row, start, stop)
    }

    pub(super) fn read_extent_with(&self, rows: &dyn Rows, row: &ExtentRow, start: u32, stop: u32) -> Result<Vec<u8>> {
        if start > stop || stop > row.length {
            return Err(Error::Damaged(format!(
                "a mapping names bytes {start} to {stop} of an extent of {}",
                row.length
            )));
        }
        match &row.placement {
            Placement::Journal { position, checksum } => {
                let mut bytes = vec![0; row.length as usize];
                self.journal.read(*position, &mut bytes, *checksum)?;
                Ok(cut(bytes, start, stop))
            }
            Placement::Raw {
                location,
                checksum,
                blocks,
            } => self.read_raw(location, *checksum, blocks, start, stop),
            Placement::Chunks(chunks) => self.read_chunks(rows, chunks, start, stop),
        }
    }

    /// The whole at once, or the checksum blocks that the range touches.
    fn read_raw(&self, location: &Location, checksum: u64, blocks: &[u64], start: u32, stop: u32) -> Result<Vec<u8>> {
        const BLOCK: u32 = CHECKSUM_BLOCK as u32;
        let (first, last) = (start / BLOCK, stop.div_ceil(BLOCK));
        if (last - first) as usize * 2 >= blocks.len() {
            return Ok(cut(self.segments.read(location, 0..location.length, checksum)?, start, stop));
        }
        let mut bytes = Vec::with_capacity((last - first) as usize * CHECKSUM_BLOCK);
        for block in first..last {
            let range = block * BLOCK..((block + 1) * BLOCK).min(location.length);
            let expected = blocks
                .get(block as usize)
                .ok_or_else(|| Error::Damaged("an extent has too few checksums".into()))?;
            bytes.extend_from_slice(&self.segments.read(location, range, *expected)?);
        }
        Ok(cut(bytes, start - first * BLOCK, stop - first * BLOCK))
    }

    fn read_chunks(&self, rows: &dyn Rows, chunks: &[(u64, u32)], start: u32, stop: u32) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity((stop - start) as usize);
        let mut at = 0;
        for (id, length) in chunks {
            let (from, to) = (start.max(at), stop.min(at + length));
            if from < to {
                let row = content::chunk(rows, *id)?.ok_or_else(|| Error::Damaged(format!("chunk {id} has no row")))?;
                bytes.extend_from_slice(&self.read_chunk(&row)?[(from - at) as usize..(to - at) as usize]);
            }
            at += length;
        }
        Ok(bytes)
    }

    fn read_chunk(&self, row: &ChunkRow) -> Result<Vec<u8>> {
        let stored = self.segments.read(&row.location, 0..row.location.length, row.checksum)?;
        reduce::decode(row, stored)
    }
}

fn cut(mut bytes: Vec<u8>, start: u32, stop: u32) -> Vec<u8> {
    bytes.truncate(stop as usize);
    bytes.drain(..start as usize);
    bytes
}
