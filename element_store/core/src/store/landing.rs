//! Content on its way in: rows of extents in segments, durable but named by nothing.
//!
//! Invariants: a segment that holds staged extents is not freed (`Holds`); a staged extent counts as live only once a transaction publishes it;
//! what is dropped unpublished leaves only dead bytes behind. Memory is bounded by one row (k extents) per stream.

use super::commit::{Flush, Rank};
use super::pressure::Patience;
use super::{Core, SMALL_BYTES_MAX};
use crate::codec::checksum;
use crate::device::recycled::Recycled;
use crate::element::content::{Source, block_checksums};
use crate::element::rows::{EXTENT_BYTES_MAX, ExtentRow, Placement};
use crate::error::{Error, Result};
use crate::segment::{Class, Location, Payload};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// `PayloadHeader::kind` of a raw extent; its owner is the extent.
pub const KIND_EXTENT: u8 = 0;
/// The last row is cut into equal extents of a multiple of this.
const EXTENT_ALIGN: usize = 4096;
/// Appends again after a device died under a row.
const ATTEMPTS_MAX: usize = 4;

/// Which segments hold bytes that no metadata counts yet.
#[derive(Debug, Default)]
pub struct Holds {
    counts: Mutex<HashMap<u64, usize>>,
    /// Segments that somebody let go of since the freeing job last looked.
    dropped: Mutex<HashSet<u64>>,
    /// By users, since open.
    pub landed_bytes: AtomicU64,
    /// Held for reading from before an append until its segments are counted; for writing while the freeing job decides.
    pub appending: RwLock<()>,
}

/// Segments that must not be freed while this lives.
#[derive(Debug)]
pub struct Hold {
    holds: Arc<Holds>,
    segments: Vec<u64>,
}

impl Hold {
    pub fn new(holds: &Arc<Holds>) -> Self {
        Self {
            holds: holds.clone(),
            segments: Vec::new(),
        }
    }

    /// Runs an append and holds the segments it went to.
    pub fn append(&mut self, append: impl FnOnce() -> Result<Vec<Location>>) -> Result<Vec<Location>> {
        let holds = self.holds.clone();
        let _appending = holds.appending.read().unwrap_or_else(PoisonError::into_inner);
        let locations = append()?;
        let mut counts = holds.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for location in &locations {
            if !self.segments.contains(&location.segment) {
                self.segments.push(location.segment);
                *counts.entry(location.segment).or_default() += 1;
            }
        }
        Ok(locations)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds
            .dropped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(&self.segments);
        let mut counts = self.holds.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for segment in &self.segments {
            if let Some(count) = counts.get_mut(segment) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(segment);
                }
            }
        }
    }
}

impl Holds {
    pub fn take_dropped(&self) -> HashSet<u64> {
        std::mem::take(&mut *self.dropped.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn is_held(&self, segment: u64) -> bool {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&segment)
    }
}

/// One writer at a time. Dropping it discards what came in.
pub struct Staging {
    core: Arc<Core>,
    buffer: Recycled,
    row_bytes: usize,
    extents: Vec<(u64, ExtentRow)>,
    size: u64,
    hold: Hold,
}

/// Finished content: durable, waiting for a name. Dropping it discards it.
pub struct Staged {
    pub(super) source: Source,
    pub(super) hold: Hold,
    size: u64,
}

impl Staged {
    /// Makes what came from `finish_lazy` durable, before anything durable names it.
    pub(super) fn flush(&self, core: &Arc<Core>) -> Option<Flush> {
        let Source::Staged(extents) = &self.source else { return None };
        let (core, locations) = (core.clone(), locations(extents));
        Some(Box::new(move || core.segments.sync_redundant(&locations)))
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn runs(&self) -> usize {
        match &self.source {
            Source::Small(_) => 1,
            Source::Staged(extents) => extents.len(),
        }
    }
}

impl Staging {
    pub(super) fn new(core: Arc<Core>) -> Self {
        let row_bytes = core.segments.code(Class::Landing).k() * EXTENT_BYTES_MAX;
        let hold = Hold::new(&core.holds);
        Self {
            core,
            buffer: Recycled::default(),
            row_bytes,
            extents: Vec::new(),
            size: 0,
            hold,
        }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Raises OutOfSpace, Closed.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.buffer.is_empty() && bytes.len() >= self.row_bytes {
                let (row, rest) = bytes.split_at(self.row_bytes);
                self.land(row)?;
                bytes = rest;
                continue;
            }
            let (head, rest) = bytes.split_at(bytes.len().min(self.row_bytes - self.buffer.len()));
            if self.buffer.capacity() < self.row_bytes && self.size > SMALL_BYTES_MAX as u64 {
                let small = std::mem::replace(&mut self.buffer, Recycled::with_capacity(self.row_bytes));
                self.buffer.extend_from_slice(&small);
            }
            self.buffer.extend_from_slice(head);
            bytes = rest;
            if self.buffer.len() == self.row_bytes {
                let row = std::mem::replace(&mut self.buffer, Recycled::with_capacity(self.row_bytes));
                self.land_kept(row)?;
            }
        }
        Ok(())
    }

    /// Everything is durable when it returns.
    pub fn finish(mut self) -> Result<Staged> {
        self.land_rest()?;
        self.sync()?;
        Ok(self.staged())
    }

    /// Readable, not durable: see `Staged::flush`.
    pub(super) fn finish_lazy(mut self) -> Result<Staged> {
        self.land_rest()?;
        Ok(self.staged())
    }

    fn staged(mut self) -> Staged {
        let source = if self.extents.is_empty() {
            Source::Small(std::mem::take(&mut *self.buffer))
        } else {
            Source::Staged(self.extents)
        };
        Staged {
            source,
            hold: self.hold,
            size: self.size,
        }
    }

    /// Small content stays in memory: it goes into a journal record.
    fn land_rest(&mut self) -> Result<()> {
        if self.size > self.core.small_bytes_max as u64 && !self.buffer.is_empty() {
            let rest = std::mem::take(&mut self.buffer);
            self.land_kept(rest)?;
        }
        Ok(())
    }

    /// A row that the reducer may find in memory.
    fn land_kept(&mut self, row: Recycled) -> Result<()> {
        let before = self.extents.len();
        self.land(&row)?;
        let landed = self.extents[before..].iter().map(|(id, row)| (*id, row.length as usize));
        self.core.just_landed.keep(row, &landed.collect::<Vec<_>>());
        Ok(())
    }

    /// One row: as many equal extents as the code has data shards.
    fn land(&mut self, row: &[u8]) -> Result<()> {
        let shards = self.row_bytes / EXTENT_BYTES_MAX;
        let piece = row.len().div_ceil(shards).next_multiple_of(EXTENT_ALIGN).min(EXTENT_BYTES_MAX);
        let pieces: Vec<(u64, &[u8])> = row
            .chunks(piece)
            .map(|bytes| Ok((self.core.staged_id()?, bytes)))
            .collect::<Result<_>>()?;
        let space = self.core.segments.status();
        let free_percent = space.free_bytes as f64 * 100.0 / space.usable_bytes.max(1) as f64;
        self.core.pressure.admit(row.len(), free_percent);
        let locations = self.append(&pieces)?;
        self.extents.extend(
            pieces
                .iter()
                .zip(locations)
                .map(|((id, bytes), location)| (*id, raw_extent(bytes, location))),
        );
        Ok(())
    }

    fn append(&mut self, pieces: &[(u64, &[u8])]) -> Result<Vec<Location>> {
        let payloads: Vec<Payload> = pieces
            .iter()
            .map(|(owner, bytes)| Payload {
                kind: KIND_EXTENT,
                owner: *owner,
                bytes,
            })
            .collect();
        let core = self.core.clone();
        let bytes = pieces.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        core.holds.landed_bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut patience = None;
        loop {
            match self.hold.append(|| core.append(Class::Landing, &payloads)) {
                Err(Error::OutOfSpace(_)) if core.wait_for_room(&mut patience) => {}
                result => return result,
            }
        }
    }

    /// A device that dies takes unflushed rows with it: what is suspect is read back through the code and appended again.
    fn sync(&mut self) -> Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            match self.core.segments.sync(&locations(&self.extents)) {
                Err(Error::Io(_)) => self.append_again()?,
                result => return result,
            }
        }
        Err(Error::Closed("devices keep failing under new content".into()))
    }

    fn append_again(&mut self) -> Result<()> {
        for index in 0..self.extents.len() {
            let (id, row) = &self.extents[index];
            let (id, bytes) = (*id, self.core.read_extent(row, 0, row.length)?);
            let locations = self.append(&[(id, &bytes)])?;
            self.extents[index].1 = raw_extent(&bytes, locations[0]);
        }
        Ok(())
    }
}

fn locations(extents: &[(u64, ExtentRow)]) -> Vec<Location> {
    let location = |row: &ExtentRow| match &row.placement {
        Placement::Raw { location, .. } => Some(*location),
        _ => None,
    };
    extents.iter().filter_map(|(_, row)| location(row)).collect()
}

pub(super) fn raw_extent(bytes: &[u8], location: Location) -> ExtentRow {
    let placement = Placement::Raw {
        location,
        checksum: checksum(bytes),
        blocks: block_checksums(bytes),
    };
    ExtentRow {
        length: bytes.len() as u32,
        placement,
    }
}

impl Core {
    /// There was none: the reducer is asked for it. False if the pool is full.
    fn wait_for_room(&self, patience: &mut Option<Patience>) -> bool {
        self.wake.reducer.notify();
        self.wake.upkeep.notify();
        let freed = self.upkeep_counters.segments_freed.load(Ordering::Relaxed);
        let patience = patience.get_or_insert_with(|| self.pressure.patience(freed));
        self.pressure.wait_for_room(patience, freed)
    }

    /// Append, again where a device died under it. Raises OutOfSpace, Closed.
    pub(super) fn append(&self, class: Class, payloads: &[Payload]) -> Result<Vec<Location>> {
        for _ in 0..ATTEMPTS_MAX {
            match self.segments.append(class, payloads) {
                Err(Error::Io(_)) => {}
                result => return result,
            }
        }
        Err(Error::Closed("devices keep failing under new content".into()))
    }

    /// An id for content that no transaction names yet.
    pub(super) fn staged_id(&self) -> Result<u64> {
        loop {
            if let Some(id) = self.committer.shared.ids.take_leased() {
                return Ok(id);
            }
            self.committer.run_own(Rank::Own, 64, |_| Ok(()))?;
        }
    }
}
