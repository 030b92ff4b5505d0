//! Reading a range of a payload: one device when all is well, any k of the others when not.
//!
//! Invariant: bytes are returned only after `good` accepted them. A shard that was unreadable or wrong is written back once rebuilt, but
//! only the range at hand; the rest is found by later reads and by scrubbing.

use super::code::Code;
use super::layout::Location;
use super::row::{HEADER_BYTES, PAYLOAD_BYTES_MAX, PayloadHeader};
use super::{ReadJob, Segment, Segments, WriteJob, add};
use crate::codec::checksum;
use crate::error::{Error, Result};
use std::ops::Range;

/// A range of one shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShardRange {
    pub shard: usize,
    /// From the start of the zone.
    pub offset: u64,
    pub length: usize,
}

pub(super) type Good<'a> = &'a dyn Fn(&[u8]) -> bool;

impl Segments {
    /// Bytes `range` of the payload at `location`; `expected` is the xxh3-64 of exactly these bytes.
    pub fn read(&self, location: &Location, range: Range<u32>, expected: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; range.len()];
        self.read_into(location, range, expected, &mut bytes).map(|()| bytes)
    }

    /// The same into memory of the caller's, which must be as long as the range.
    pub fn read_into(&self, location: &Location, range: Range<u32>, expected: u64, into: &mut [u8]) -> Result<()> {
        if range.start > range.end || range.end > location.length || range.len() != into.len() {
            return Err(Error::Invalid(format!("bytes {range:?} of a payload of {} bytes", location.length)));
        }
        let segment = self.located(location)?;
        let offset = u64::from(location.offset) + u64::from(range.start);
        let wanted = ShardRange {
            shard: usize::from(location.shard),
            offset,
            length: range.len(),
        };
        self.fetch_into(&segment, wanted, &|bytes| checksum(bytes) == expected, into)
    }

    /// The header of the payload at `location`, which must name one.
    pub fn read_header(&self, location: &Location) -> Result<PayloadHeader> {
        let segment = self.located(location)?;
        let wanted = ShardRange {
            shard: usize::from(location.shard),
            offset: u64::from(location.offset) - HEADER_BYTES as u64,
            length: HEADER_BYTES,
        };
        let header = PayloadHeader::decode(&self.fetch(&segment, wanted, &|bytes| header_of(&segment, bytes).is_some())?)?;
        if header.length == location.length {
            Ok(header)
        } else {
            Err(Error::Damaged(format!("no payload at {location:?}")))
        }
    }

    /// The location's segment, if the location lies inside it.
    fn located(&self, location: &Location) -> Result<std::sync::Arc<Segment>> {
        let segment = self.segment(location.segment)?;
        let end = u64::from(location.offset) + u64::from(location.length);
        let inside = usize::from(location.shard) < segment.code.k()
            && location.length as usize <= PAYLOAD_BYTES_MAX
            && location.offset as usize >= HEADER_BYTES
            && end <= self.geometry.zone_bytes;
        if inside {
            Ok(segment)
        } else {
            Err(Error::Damaged(format!("{location:?} is outside its segment")))
        }
    }

    pub(super) fn fetch(&self, segment: &Segment, wanted: ShardRange, good: Good<'_>) -> Result<Vec<u8>> {
        let mut bytes = vec![0; wanted.length];
        self.fetch_into(segment, wanted, good, &mut bytes).map(|()| bytes)
    }

    fn fetch_into(&self, segment: &Segment, wanted: ShardRange, good: Good<'_>, into: &mut [u8]) -> Result<()> {
        add(&self.counters.reads, 1);
        let job = self.read_job(segment, wanted);
        if self.drives.read(job.device, job.offset, into).is_ok() {
            if good(into) {
                return Ok(());
            }
            add(&self.counters.checksum_errors, 1);
        }
        let Some(rebuilt) = self.rebuild(segment, wanted, good) else {
            add(&self.counters.unrecoverable, 1);
            let (id, ShardRange { shard, offset, length }) = (segment.layout.id, wanted);
            return Err(Error::Damaged(format!(
                "segment {id} shard {shard}: {length} bytes at {offset} cannot be rebuilt"
            )));
        };
        add(&self.counters.degraded_reads, 1);
        self.repair(segment, wanted, &rebuilt);
        into.copy_from_slice(&rebuilt);
        Ok(())
    }

    /// From the first k other shards; if that is wrong or they are not all readable, from every choice of k.
    fn rebuild(&self, segment: &Segment, wanted: ShardRange, good: Good<'_>) -> Option<Vec<u8>> {
        let k = segment.code.k();
        let mut others = (0..segment.code.shards()).filter(|shard| *shard != wanted.shard);
        let mut present: Vec<(usize, Vec<u8>)> = Vec::with_capacity(segment.code.shards());
        loop {
            let batch: Vec<usize> = others.by_ref().take(k.saturating_sub(present.len()).max(1)).collect();
            if batch.is_empty() {
                return None;
            }
            let jobs: Vec<ReadJob> = batch
                .iter()
                .map(|&shard| self.read_job(segment, ShardRange { shard, ..wanted }))
                .collect();
            let read = batch.into_iter().zip(self.drives.read_many(&jobs));
            for (shard, bytes) in read.filter_map(|(shard, outcome)| Some((shard, outcome.ok()?))) {
                present.push((shard, bytes));
                let slices: Vec<(usize, &[u8])> = present.iter().map(|(shard, bytes)| (*shard, bytes.as_slice())).collect();
                if let Some(rebuilt) = solve_with_last(segment.code, &slices, wanted.shard, good) {
                    return Some(rebuilt);
                }
            }
        }
    }

    pub(super) fn repair(&self, segment: &Segment, wanted: ShardRange, bytes: &[u8]) -> bool {
        let job = self.read_job(segment, wanted);
        if !self.drives.live().contains(&job.device) {
            return false;
        }
        let job = WriteJob {
            device: job.device,
            offset: job.offset,
            bytes: bytes.to_vec().into(),
        };
        let device = job.device;
        let done = self
            .drives
            .write_all(vec![job], false)
            .into_iter()
            .all(|(_, outcome)| outcome.is_ok());
        if done {
            self.flusher.mark(segment.layout.id, std::iter::once(device));
            add(&self.counters.repaired, 1);
        }
        done
    }

    pub(super) fn read_job(&self, segment: &Segment, range: ShardRange) -> ReadJob {
        let (device, zone) = segment.layout.zones[range.shard];
        ReadJob {
            device,
            offset: self.geometry.offset(zone, range.offset),
            length: range.length,
        }
    }
}

/// A header of this very segment.
pub(super) fn header_of(segment: &Segment, bytes: &[u8]) -> Option<PayloadHeader> {
    PayloadHeader::decode(bytes)
        .ok()
        .filter(|header| header.segment == segment.layout.id)
}

/// Tries every choice of k shards out of `present`.
pub(super) fn solve(code: Code, present: &[(usize, &[u8])], wanted: usize, good: Good<'_>) -> Option<Vec<u8>> {
    (code.k()..=present.len()).find_map(|count| solve_with_last(code, &present[..count], wanted, good))
}

/// Tries every choice of k shards that has the last of `present` in it, so that adding shards one by one tries each choice once.
/// At most C(19, 16) = 969 choices in all.
fn solve_with_last(code: Code, present: &[(usize, &[u8])], wanted: usize, good: Good<'_>) -> Option<Vec<u8>> {
    let (last, earlier) = present.split_last()?;
    let mut bytes = vec![0; last.1.len()];
    let mut chosen: Vec<usize> = (0..code.k() - 1).collect();
    if earlier.len() < chosen.len() {
        return None;
    }
    loop {
        let sources: Vec<(usize, &[u8])> = chosen.iter().map(|&index| earlier[index]).chain([*last]).collect();
        code.rebuild(&sources, wanted, &mut bytes);
        if good(&bytes) {
            return Some(bytes);
        }
        next_choice(&mut chosen, earlier.len()).then_some(())?;
    }
}

/// The next ascending choice of indexes below `count`, in lexical order; false after the last.
fn next_choice(chosen: &mut [usize], count: usize) -> bool {
    let size = chosen.len();
    let Some(at) = (0..size).rev().find(|&at| chosen[at] < count - size + at) else {
        return false;
    };
    chosen[at] += 1;
    for index in at + 1..size {
        chosen[index] = chosen[index - 1] + 1;
    }
    true
}
