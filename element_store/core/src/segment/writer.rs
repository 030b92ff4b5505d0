//! Appending: reserve a row under a short lock, build and write it outside.
//!
//! Invariants: rows of one segment never overlap; a row counts only when all its k + m shards were written; a segment under which a
//! device failed takes no more rows.

use super::layout::{Class, Location};
use super::row::{self, HEADER_BYTES, PAYLOAD_BYTES_MAX, Payload, ROW_BYTES_MAX, RowPlan};
use super::{Segment, Segments, WriteJob, add, lock};
use crate::device::aligned::Aligned;
use crate::error::{Error, Result};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

/// Every failed attempt costs a device; a pool that loses more than this under one row has other troubles.
const WRITE_ATTEMPTS_MAX: usize = 8;

/// A row's place; its segment counts a writer as long as this lives.
struct Reservation {
    segment: Arc<Segment>,
    offset: u64,
    plan: RowPlan,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        *lock(&self.segment.writers) -= 1;
        self.segment.idle.notify_all();
    }
}

impl Segments {
    /// Writes the payloads and says where each is, in their order. Durable only after `sync` of these locations. After an error some may have
    /// been written; nothing refers to them, and compaction gets their space back.
    pub fn append(&self, class: Class, payloads: &[Payload<'_>]) -> Result<Vec<Location>> {
        if let Some(large) = payloads.iter().find(|payload| payload.bytes.len() > PAYLOAD_BYTES_MAX) {
            return Err(Error::Invalid(format!(
                "a payload of {} bytes; at most {PAYLOAD_BYTES_MAX} are possible",
                large.bytes.len()
            )));
        }
        let mut locations = Vec::with_capacity(payloads.len());
        while locations.len() < payloads.len() {
            let row = self.append_row(class, &payloads[locations.len()..])?;
            locations.extend(row);
        }
        add(&self.counters.appends, 1);
        add(
            &self.counters.payload_bytes,
            payloads.iter().map(|payload| payload.bytes.len() as u64).sum(),
        );
        Ok(locations)
    }

    /// Everything that was appended at these locations is durable on all its devices. An error says that some of it may not be: append it
    /// again (the devices that failed are out by then) and leave the old locations to whoever frees segments.
    pub fn sync(&self, locations: &[Location]) -> Result<()> {
        match self.flushed_without(locations).first() {
            None => Ok(()),
            Some(segment) => Err(Error::Io(io::Error::other(format!(
                "a device was lost before segment {} was flushed",
                segment.layout.id
            )))),
        }
    }

    /// The same for what cannot be appended again: enough devices have it, as they would if a device were lost a moment later. Raises Closed.
    pub fn sync_redundant(&self, locations: &[Location]) -> Result<()> {
        let suspects = self.flushed_without(locations);
        let live = self.drives.live();
        let is_lost = |segment: &&Arc<Segment>| segment.layout.devices().filter(|device| live.contains(device)).count() < segment.code.k();
        match suspects.iter().find(is_lost) {
            None => Ok(()),
            Some(segment) => Err(Error::Closed(format!(
                "more devices were lost than parity makes up for before segment {} was flushed",
                segment.layout.id
            ))),
        }
    }

    /// Flushes; returns the segments among these that a device was lost from before.
    fn flushed_without(&self, locations: &[Location]) -> Vec<Arc<Segment>> {
        if self.flusher.flush(self.drives.as_ref(), &|segments| self.suspect(segments)) {
            add(&self.counters.flushes, 1);
        }
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut segments: Vec<u64> = locations.iter().map(|location| location.segment).collect();
        segments.dedup();
        let segments = segments.iter().filter_map(|id| known.get(id));
        segments.filter(|segment| segment.suspect.load(Ordering::SeqCst)).cloned().collect()
    }

    fn suspect(&self, segments: &std::collections::HashSet<u64>) {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        for segment in segments.iter().filter_map(|id| known.get(id)) {
            segment.suspect.store(true, Ordering::SeqCst);
            segment.seal();
        }
    }

    /// Places as many leading payloads as fit one row.
    fn append_row(&self, class: Class, payloads: &[Payload<'_>]) -> Result<Vec<Location>> {
        let mut failure = None;
        for _ in 0..WRITE_ATTEMPTS_MAX {
            let reservation = self.reserve(class, payloads)?;
            match self.write_row(&reservation, payloads) {
                Ok(()) => return Ok(locations(&reservation, payloads)),
                Err(error) => failure = Some(error),
            }
            self.close_slot(&reservation.segment);
            add(&self.counters.rewritten_rows, 1);
        }
        Err(Error::Io(failure.unwrap_or_else(|| io::Error::other("devices keep failing"))))
    }

    fn reserve(&self, class: Class, payloads: &[Payload<'_>]) -> Result<Reservation> {
        let mut slot = lock(&self.open[class as usize]);
        let live = self.drives.live();
        if let Some(reservation) = slot.as_ref().and_then(|segment| self.reserve_in(segment, payloads, &live)) {
            return Ok(reservation);
        }
        // Only now: on a full pool the old segment still takes smaller payloads.
        let segment = self.create(class, &live)?;
        if let Some(old) = slot.replace(segment.clone()) {
            old.seal();
        }
        self.reserve_in(&segment, payloads, &live)
            .ok_or_else(|| Error::Invalid("a payload does not fit an empty segment".into()))
    }

    /// The caller holds the class's slot.
    fn reserve_in(&self, segment: &Arc<Segment>, payloads: &[Payload<'_>], live: &[u16]) -> Option<Reservation> {
        if segment.is_sealed() || segment.layout.devices().any(|device| !live.contains(&device)) {
            return None;
        }
        let offset = segment.tail.load(Ordering::SeqCst);
        let room = (self.geometry.zone_bytes - offset).min(ROW_BYTES_MAX);
        let plan = row::plan(payloads, segment.code.k(), room as usize)?;
        *lock(&segment.writers) += 1;
        segment.tail.store(offset + plan.row_bytes as u64, Ordering::SeqCst);
        Some(Reservation {
            segment: segment.clone(),
            offset,
            plan,
        })
    }

    fn create(&self, class: Class, live: &[u16]) -> Result<Arc<Segment>> {
        let layout = lock(&self.space).allocate(class, live)?;
        if let Err(error) = (self.persist)(&layout) {
            lock(&self.space).forget(&layout);
            return Err(error);
        }
        let segment = Arc::new(Segment::new(layout, 0, false)?);
        self.known
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(segment.layout.id, segment.clone());
        add(&self.counters.segments_created, 1);
        Ok(segment)
    }

    fn write_row(&self, row: &Reservation, payloads: &[Payload<'_>]) -> io::Result<()> {
        let layout = &row.segment.layout;
        let shards = row::build(row.segment.code, layout.id, &row.plan, payloads);
        add(&self.counters.written_bytes, (shards.len() * row.plan.row_bytes) as u64);
        let job = |((device, zone), bytes): (&(u16, u32), Aligned)| WriteJob {
            device: *device,
            offset: self.geometry.offset(*zone, row.offset),
            bytes: bytes.into_bytes(),
        };
        let outcomes = self.drives.write_all(layout.zones.iter().zip(shards).map(job).collect(), false);
        let written = outcomes
            .into_iter()
            .map(|(_, outcome)| outcome)
            .collect::<io::Result<Vec<()>>>()?
            .len();
        if written < layout.zones.len() {
            return Err(io::Error::other("a device did not answer a write"));
        }
        self.flusher.mark(layout.id, layout.devices());
        add(&self.counters.rows, 1);
        Ok(())
    }
}

fn locations(row: &Reservation, payloads: &[Payload<'_>]) -> Vec<Location> {
    let locate = |((shard, at), payload): (&(usize, usize), &Payload<'_>)| Location {
        segment: row.segment.layout.id,
        shard: *shard as u8,
        offset: (row.offset as usize + at + HEADER_BYTES) as u32,
        length: payload.bytes.len() as u32,
    };
    row.plan.places.iter().zip(payloads).map(locate).collect()
}
