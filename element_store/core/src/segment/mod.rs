//! Segments: erasure-coded, append-only runs of space over k + m devices.
//!
//! Owns: the code, zones and who has them, rows, payload checksums, degraded reads, repair, flushing of what it wrote.
//! Invariants: an append returns only after all k + m shards of its rows were written; a payload lies inside one shard; a zone belongs to
//! at most one segment; nothing is ever overwritten except by the same bytes (repair); no byte leaves that fails its checksum.
//! Never does: know what a payload means, keep metadata (the `Persist` hook and the caller do), move data to other devices.
//!
//! Locks, in the order in which they may be taken: a class's open slot, the table of segments, the space, a segment's writers.
//! None is held during I/O, except a slot while a new segment's layout is persisted.

mod code;
mod flush;
mod gf256;
mod layout;
mod reader;
mod row;
mod scrub;
mod space;
mod writer;

#[cfg(test)]
mod tests;

pub use code::{Code, DATA_SHARDS_MAX, PARITY_SHARDS_MAX};
pub use layout::{Class, Location, ROW_ALIGN, SegmentLayout, ZoneGeometry};
pub use row::{HEADER_BYTES, PAYLOAD_BYTES_MAX, Payload, PayloadHeader, ROW_BYTES_MAX};
pub use scrub::{Scan, ScannedPayload, ScrubReport};
pub use space::{DeviceSpace, ReclaimToken, SpaceStatus};

use crate::error::{Error, Result};
use bytes::Bytes;
use flush::Flusher;
use space::Space;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

#[derive(Debug)]
pub struct WriteJob {
    pub device: u16,
    pub offset: u64,
    pub bytes: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadJob {
    pub device: u16,
    pub offset: u64,
    pub length: usize,
}

/// The pool's devices as segments see them. A failed write or flush makes a device dead: it leaves `live`, and every later call for it
/// fails, a flush above all (that is how writers of unflushed data learn of the loss).
pub trait Drives: Send + Sync {
    fn live(&self) -> Vec<u16>;
    fn read(&self, device: u16, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// In parallel over devices; one result per job.
    fn write_all(&self, jobs: Vec<WriteJob>, flush: bool) -> Vec<(u16, io::Result<()>)>;
    fn flush_all(&self, devices: &[u16]) -> Vec<(u16, io::Result<()>)>;
    fn discard(&self, device: u16, offset: u64, length: u64);

    /// One result per job. Devices with queues of their own should do this in parallel.
    fn read_many(&self, jobs: &[ReadJob]) -> Vec<io::Result<Vec<u8>>> {
        let read = |job: &ReadJob| {
            let mut buffer = vec![0; job.length];
            self.read(job.device, job.offset, &mut buffer).map(|()| buffer)
        };
        jobs.iter().map(read).collect()
    }
}

/// Makes a new segment's layout durable enough for what will refer to it: called once per segment, before the first append to it
/// returns, while other appends of that class wait. It must not append to segments of the same class itself.
pub type Persist = Arc<dyn Fn(&SegmentLayout) -> Result<()> + Send + Sync>;

#[derive(Debug, Default)]
pub struct Counters {
    pub appends: AtomicU64,
    pub rows: AtomicU64,
    pub payload_bytes: AtomicU64,
    /// Bytes sent to devices: payloads, headers, padding, parity.
    pub written_bytes: AtomicU64,
    pub segments_created: AtomicU64,
    /// Rows written again because a device failed under them.
    pub rewritten_rows: AtomicU64,
    pub flushes: AtomicU64,
    pub reads: AtomicU64,
    pub degraded_reads: AtomicU64,
    pub checksum_errors: AtomicU64,
    pub repaired: AtomicU64,
    pub unrecoverable: AtomicU64,
}

fn add(counter: &AtomicU64, value: u64) {
    counter.fetch_add(value, Ordering::Relaxed);
}

/// A poisoned lock is taken over: every critical section here leaves its data consistent at each step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One known segment.
#[derive(Debug)]
struct Segment {
    layout: SegmentLayout,
    code: Code,
    /// Where the next row goes; changed only under its class's slot. The whole zone for a segment of an earlier run, whose end is unknown.
    tail: AtomicU64,
    /// No more rows.
    sealed: AtomicBool,
    /// A device was lost while it may have held unflushed rows of this segment: their writers must not rely on them.
    suspect: AtomicBool,
    /// Appends between reservation and completion.
    writers: Mutex<usize>,
    idle: Condvar,
}

impl Segment {
    fn new(layout: SegmentLayout, tail: u64, sealed: bool) -> Result<Self> {
        let code = layout.check()?;
        Ok(Self {
            layout,
            code,
            tail: AtomicU64::new(tail),
            sealed: AtomicBool::new(sealed),
            suspect: AtomicBool::new(false),
            writers: Mutex::new(0),
            idle: Condvar::new(),
        })
    }

    fn seal(&self) {
        self.sealed.store(true, Ordering::SeqCst);
    }

    fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::SeqCst)
    }

    fn wait_until_idle(&self) {
        let writers = lock(&self.writers);
        drop(
            self.idle
                .wait_while(writers, |count| *count > 0)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

/// All segments of a pool. Shared by any number of threads.
pub struct Segments {
    drives: Arc<dyn Drives>,
    geometry: ZoneGeometry,
    persist: Persist,
    /// The segment that each class appends to.
    open: [Mutex<Option<Arc<Segment>>>; Class::ALL.len()],
    space: Mutex<Space>,
    known: RwLock<HashMap<u64, Arc<Segment>>>,
    flusher: Flusher,
    counters: Counters,
}

impl Segments {
    /// `code`: the pool's. `layouts`: every segment that metadata knows; all start sealed. `next_id`: above every id ever given out.
    pub fn open(
        drives: Arc<dyn Drives>,
        geometry: ZoneGeometry,
        code: Code,
        layouts: Vec<SegmentLayout>,
        next_id: u64,
        persist: Persist,
    ) -> Result<Self> {
        geometry.check(ROW_BYTES_MAX)?;
        let mut space = Space::new(geometry, code, next_id);
        let mut known = HashMap::with_capacity(layouts.len());
        for layout in layouts {
            space.adopt(&layout)?;
            known.insert(layout.id, Arc::new(Segment::new(layout, geometry.zone_bytes, true)?));
        }
        Ok(Self {
            drives,
            geometry,
            persist,
            open: Default::default(),
            space: Mutex::new(space),
            known: RwLock::new(known),
            flusher: Flusher::default(),
            counters: Counters::default(),
        })
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the next segment of a class gets. Payloads in multiples of k of equal size fill rows best: cut the end of a stream accordingly.
    pub fn code(&self, class: Class) -> Code {
        let devices = self.drives.live().len();
        let space = lock(&self.space);
        space.code_for(class, devices).unwrap_or(space.pool_code())
    }

    pub fn status(&self) -> SpaceStatus {
        lock(&self.space).status(&self.drives.live())
    }

    /// Every segment that was not released, by id.
    pub fn layouts(&self) -> Vec<SegmentLayout> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let space = lock(&self.space);
        let mut layouts: Vec<_> = known
            .values()
            .map(|s| &s.layout)
            .filter(|l| !space.is_released(l.id))
            .cloned()
            .collect();
        layouts.sort_by_key(|layout| layout.id);
        layouts
    }

    /// Segments that have a shard on a device that is not live, or fewer parity shards than a new segment would get.
    pub fn degraded(&self) -> Vec<u64> {
        let live = self.drives.live();
        let lost = |layout: &SegmentLayout| layout.devices().any(|device| !live.contains(&device));
        let weak = |layout: &SegmentLayout| {
            lock(&self.space)
                .code_for(layout.class, live.len())
                .is_some_and(|code| layout.m < code.m() as u8)
        };
        self.layouts()
            .iter()
            .filter(|layout| lost(layout) || weak(layout))
            .map(|layout| layout.id)
            .collect()
    }

    /// No more rows go to this segment; waits for those under way.
    pub fn seal(&self, id: u64) -> Result<()> {
        let segment = self.segment(id)?;
        self.close_slot(&segment);
        segment.wait_until_idle();
        Ok(())
    }

    /// Does a class append to it?
    pub fn is_open(&self, id: u64) -> bool {
        self.open
            .iter()
            .any(|slot| lock(slot).as_ref().is_some_and(|segment| segment.layout.id == id))
    }

    /// Above every id given out.
    pub fn next_id(&self) -> u64 {
        lock(&self.space).next_id()
    }

    /// Readers may go on reading the segment until `reclaim`. The caller has removed it from its metadata, or does so before reclaiming.
    pub fn release(&self, id: u64) -> Result<ReclaimToken> {
        self.seal(id)?;
        lock(&self.space).release(id)
    }

    /// No reader is left: the zones are discarded and may be used again.
    pub fn reclaim(&self, token: ReclaimToken) {
        let id = token.id();
        let removed = self.known.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let Some(segment) = removed else { return };
        let live = self.drives.live();
        for (device, zone) in segment.layout.zones.iter().filter(|(device, _)| live.contains(device)) {
            self.drives
                .discard(*device, self.geometry.offset(*zone, 0), self.geometry.zone_bytes);
        }
        lock(&self.space).reclaim(token, &segment.layout);
    }

    fn segment(&self, id: u64) -> Result<Arc<Segment>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&id)
            .cloned()
            .ok_or_else(|| Error::Damaged(format!("segment {id} is not known")))
    }

    fn close_slot(&self, segment: &Arc<Segment>) {
        let mut slot = lock(&self.open[segment.layout.class as usize]);
        segment.seal();
        if slot.as_ref().is_some_and(|open| Arc::ptr_eq(open, segment)) {
            *slot = None;
        }
    }
}
