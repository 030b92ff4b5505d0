//! Walking a segment without metadata, and bringing its rows back to what their payloads say.
//!
//! A row is a pure function of its payloads, so scrubbing computes it anew and compares all k + m shards. Invariant: a row is rewritten
//! only if every payload in it was recovered and everything else in its data shards is known to be zeros; in doubt it is left as it is.

use super::reader::{Good, ShardRange, header_of, solve};
use super::row::{self, HEADER_BYTES, PayloadHeader, ROW_BYTES_MAX, slot_bytes};
use super::{Location, ROW_ALIGN, ReadJob, Segment, Segments, add};
use crate::codec::checksum;
use crate::error::Result;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Read of each shard at a time; a row of any height fits.
const WINDOW_BYTES: u64 = 2 * ROW_BYTES_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScannedPayload {
    pub location: Location,
    pub header: PayloadHeader,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubReport {
    pub rows: u64,
    pub payloads: u64,
    pub payload_bytes: u64,
    /// Payloads that failed their checksum or could not be read where they are.
    pub checksum_errors: u64,
    /// Ranges written anew, data or parity.
    pub repaired: u64,
    /// Payloads in use that could not be rebuilt.
    pub unrecoverable: u64,
    /// Rows not compared as a whole: an append that never completed, or damage past the code.
    pub unclear_rows: u64,
}

/// The payloads of a segment in the order of their offsets, row by row.
pub struct Scan<'a> {
    segments: &'a Segments,
    segment: Arc<Segment>,
    window: Window,
    at: u64,
    end: u64,
    ready: VecDeque<ScannedPayload>,
}

#[derive(Default)]
struct Window {
    start: u64,
    length: u64,
    /// None where a device did not answer.
    shards: Vec<Option<Vec<u8>>>,
}

struct Row {
    start: u64,
    bytes: usize,
    /// In order of shards, then offsets.
    payloads: Vec<ScannedPayload>,
}

impl Segments {
    /// Payloads by their headers. Finds what was appended before the call, and skips what is not a header of this segment.
    pub fn scan(&self, id: u64) -> Result<Scan<'_>> {
        let segment = self.segment(id)?;
        let end = segment.tail.load(Ordering::SeqCst);
        Ok(Scan {
            segments: self,
            segment,
            window: Window::default(),
            at: 0,
            end,
            ready: VecDeque::new(),
        })
    }

    /// Verifies every payload and shard of a segment and repairs what differs. Seals the segment. `in_use` says whether metadata names a
    /// payload: only such a one counts as lost.
    pub fn scrub(&self, id: u64, in_use: &dyn Fn(&ScannedPayload) -> bool) -> Result<ScrubReport> {
        self.seal(id)?;
        let mut scan = self.scan(id)?;
        let mut report = ScrubReport::default();
        while let Some(row) = scan.next_row() {
            report.rows += 1;
            scan.scrub_row(&row, in_use, &mut report);
        }
        Ok(report)
    }
}

impl Iterator for Scan<'_> {
    type Item = ScannedPayload;

    fn next(&mut self) -> Option<ScannedPayload> {
        while self.ready.is_empty() {
            self.ready = self.next_row()?.payloads.into();
        }
        self.ready.pop_front()
    }
}

impl Scan<'_> {
    /// Every row starts with a header in shard 0; where there is none, the search goes on at the next possible start.
    fn next_row(&mut self) -> Option<Row> {
        while self.at + ROW_ALIGN <= self.end {
            self.load(HEADER_BYTES as u64);
            let found = self
                .window
                .header(&self.segment, 0, self.at)
                .map(|header| u64::from(header.row_bytes));
            let Some(bytes) = found.filter(|bytes| self.at + bytes <= self.end) else {
                self.at += ROW_ALIGN;
                continue;
            };
            self.load(bytes);
            let payloads = (0..self.segment.code.k()).flat_map(|shard| self.walk(shard, bytes)).collect();
            let row = Row {
                start: self.at,
                bytes: bytes as usize,
                payloads,
            };
            self.at += bytes;
            return Some(row);
        }
        None
    }

    /// Makes the window hold `bytes` from `at` on.
    fn load(&mut self, bytes: u64) {
        let window = &self.window;
        if self.at >= window.start && self.at + bytes <= window.start + window.length {
            return;
        }
        let length = WINDOW_BYTES.min(self.end - self.at);
        let range = |shard| ShardRange {
            shard,
            offset: self.at,
            length: length as usize,
        };
        let jobs: Vec<ReadJob> = (0..self.segment.code.shards())
            .map(|shard| self.segments.read_job(&self.segment, range(shard)))
            .collect();
        let shards = self
            .segments
            .drives
            .read_many(&jobs)
            .into_iter()
            .map(|outcome| outcome.ok())
            .collect();
        self.window = Window {
            start: self.at,
            length,
            shards,
        };
    }

    fn walk(&self, shard: usize, row_bytes: u64) -> Vec<ScannedPayload> {
        let (mut at, end, mut found) = (self.at, self.at + row_bytes, Vec::new());
        while at + HEADER_BYTES as u64 <= end {
            let header = self.window.header(&self.segment, shard, at);
            let next = |header: &PayloadHeader| at + slot_bytes(header.length as usize) as u64;
            let Some(header) = header.filter(|header| u64::from(header.row_bytes) == row_bytes && next(header) <= end) else {
                break;
            };
            let offset = (at + HEADER_BYTES as u64) as u32;
            let location = Location {
                segment: self.segment.layout.id,
                shard: shard as u8,
                offset,
                length: header.length,
            };
            found.push(ScannedPayload { location, header });
            at = next(&header);
        }
        found
    }

    fn scrub_row(&self, row: &Row, in_use: &dyn Fn(&ScannedPayload) -> bool, report: &mut ScrubReport) {
        let mut shards = vec![vec![0; row.bytes]; self.segment.code.shards()];
        let mut ends = vec![0; self.segment.code.k()];
        let mut clear = true;
        for payload in &row.payloads {
            report.payloads += 1;
            report.payload_bytes += u64::from(payload.location.length);
            let (shard, at) = (
                usize::from(payload.location.shard),
                (u64::from(payload.location.offset) - row.start) as usize,
            );
            ends[shard] = at + (payload.location.length as usize).next_multiple_of(8);
            match self.recover(payload, report) {
                Some(bytes) => {
                    shards[shard][at - HEADER_BYTES..at].copy_from_slice(&payload.header.encode());
                    shards[shard][at..at + bytes.len()].copy_from_slice(&bytes);
                }
                None if in_use(payload) => {
                    report.unrecoverable += 1;
                    add(&self.segments.counters.unrecoverable, 1);
                    clear = false;
                }
                None => clear = false,
            }
        }
        if clear && (0..ends.len()).all(|shard| self.ends_in_zeros(row, shard, ends[shard])) {
            row::encode_parity(self.segment.code, &mut shards);
            self.compare(row, &shards, report);
        } else {
            report.unclear_rows += 1;
        }
    }

    /// The payload's bytes, from its shard or the others; rebuilt ones are written back at once, whatever becomes of their row.
    fn recover(&self, payload: &ScannedPayload, report: &mut ScrubReport) -> Option<Vec<u8>> {
        let Location { shard, offset, length, .. } = payload.location;
        let range = ShardRange {
            shard: usize::from(shard),
            offset: u64::from(offset),
            length: length as usize,
        };
        let good = |bytes: &[u8]| checksum(bytes) == payload.header.checksum;
        if let Some(bytes) = self.window.slice(range).filter(|bytes| good(bytes)) {
            return Some(bytes.to_vec());
        }
        report.checksum_errors += 1;
        if self.window.shards[range.shard].is_some() {
            add(&self.segments.counters.checksum_errors, 1);
        }
        let rebuilt = self.window.solve(&self.segment, range, &good)?;
        report.repaired += u64::from(self.segments.repair(&self.segment, range, &rebuilt));
        Some(rebuilt)
    }

    /// Behind the last payload of a data shard there is padding, unless a header there is damaged past recognition. Zeros as read, or as
    /// the other shards have them, tell.
    fn ends_in_zeros(&self, row: &Row, shard: usize, from: usize) -> bool {
        let range = ShardRange {
            shard,
            offset: row.start + from as u64,
            length: row.bytes - from,
        };
        self.window.slice(range).is_some_and(is_zero) || self.window.solve(&self.segment, range, &is_zero).is_some()
    }

    fn compare(&self, row: &Row, shards: &[Vec<u8>], report: &mut ScrubReport) {
        for (shard, bytes) in shards.iter().enumerate() {
            let range = ShardRange {
                shard,
                offset: row.start,
                length: row.bytes,
            };
            if self.window.slice(range) != Some(bytes.as_slice()) {
                report.repaired += u64::from(self.segments.repair(&self.segment, range, bytes));
            }
        }
    }
}

impl Window {
    fn slice(&self, range: ShardRange) -> Option<&[u8]> {
        let start = (range.offset - self.start) as usize;
        self.shards.get(range.shard)?.as_ref()?.get(start..start + range.length)
    }

    /// Out of the other shards.
    fn solve(&self, segment: &Segment, range: ShardRange, good: Good<'_>) -> Option<Vec<u8>> {
        let others = (0..self.shards.len()).filter(|shard| *shard != range.shard);
        let present: Vec<(usize, &[u8])> = others
            .filter_map(|shard| Some((shard, self.slice(ShardRange { shard, ..range })?)))
            .collect();
        solve(segment.code, &present, range.shard, good)
    }

    fn header(&self, segment: &Segment, shard: usize, offset: u64) -> Option<PayloadHeader> {
        let range = ShardRange {
            shard,
            offset,
            length: HEADER_BYTES,
        };
        if let Some(header) = self.slice(range).and_then(|bytes| header_of(segment, bytes)) {
            return Some(header);
        }
        // Space never written is zeros in all shards: not worth solving for.
        if (0..self.shards.len()).all(|shard| self.slice(ShardRange { shard, ..range }).is_none_or(is_zero)) {
            return None;
        }
        header_of(segment, &self.solve(segment, range, &|bytes| header_of(segment, bytes).is_some())?)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
