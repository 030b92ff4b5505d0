//! The journal region of the mirrors: finding whole records in it and making the copies equal. Knows no order of records; the chain is the recovery's.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::record::{ALIGNMENT, HEADER_BYTES, Header};
use crate::codec::checksum;
use crate::device::set::WriteJob;
use crate::pool::Pool;

/// A body is at most this long, and at most an eighth of the journal.
pub const BODY_BYTES_MAX: u64 = 8 << 20;
const BODY_SHARE: u64 = 8;

#[derive(Debug, Clone)]
pub(super) struct Ring {
    pub pool: Arc<Pool>,
}

/// A record that some mirror holds whole.
pub(super) struct Found {
    pub header: Header,
    pub checksum: u64,
    /// The whole record; the padding is zeros.
    pub bytes: Bytes,
}

impl Found {
    pub fn body(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..HEADER_BYTES + self.header.body_bytes as usize]
    }
}

impl Ring {
    pub fn capacity(&self) -> u64 {
        self.pool.geometry.journal_bytes
    }

    pub fn body_bytes_max(&self) -> usize {
        BODY_BYTES_MAX.min(self.capacity() / BODY_SHARE) as usize
    }

    /// On a device.
    pub fn offset(&self, position: u64) -> u64 {
        self.pool.geometry.journal_offset() + position % self.capacity()
    }

    /// Where a record of this padded length goes if the last one ended at `head`.
    pub fn place(&self, head: u64, padded: u64) -> u64 {
        let within = head % self.capacity();
        if within + padded > self.capacity() {
            self.next_lap(head)
        } else {
            head
        }
    }

    /// The first position after `position` that lies at the region's start.
    pub fn next_lap(&self, position: u64) -> u64 {
        position - position % self.capacity() + self.capacity()
    }

    pub fn live_mirrors(&self) -> Vec<u16> {
        let mut mirrors = self.pool.journal_mirrors();
        mirrors.retain(|mirror| self.pool.devices.is_live(*mirror));
        mirrors
    }

    /// A sound header for this position; its body may be torn.
    pub fn header_at(&self, mirror: u16, position: u64) -> Option<(Header, u64)> {
        let mut bytes = [0; HEADER_BYTES];
        self.pool.devices.read(mirror, self.offset(position), &mut bytes).ok()?;
        let (header, sum) = Header::from_bytes(&bytes, &self.pool.secret)?;
        let fits =
            header.body_bytes as usize <= self.body_bytes_max() && position % self.capacity() + header.padded_bytes() <= self.capacity();
        (header.position == position && fits).then_some((header, sum))
    }

    /// The first whole copy of the record at this position among those that `accept` takes.
    pub fn find(&self, mirrors: &[u16], position: u64, accept: &dyn Fn(&Header) -> bool) -> Option<Found> {
        mirrors.iter().find_map(|mirror| {
            let (header, sum) = self.header_at(*mirror, position).filter(|(header, _)| accept(header))?;
            let mut bytes = vec![0; header.padded_bytes() as usize];
            self.pool.devices.read(*mirror, self.offset(position), &mut bytes).ok()?;
            let body_end = HEADER_BYTES + header.body_bytes as usize;
            bytes[body_end..].fill(0);
            // The header is read again with the body: it must be the one that was checked.
            let same = Header::from_bytes(&bytes, &self.pool.secret) == Some((header, sum));
            (same && checksum(&bytes[HEADER_BYTES..body_end]) == header.body_checksum).then(|| Found {
                header,
                checksum: sum,
                bytes: bytes.into(),
            })
        })
    }

    /// Writes the bytes where a target differs; without a flush. Returns how many targets differed. A target that fails is dead, not an error here.
    pub fn equalise(&self, targets: &[u16], position: u64, bytes: &Bytes) -> u64 {
        let mut there = vec![0; bytes.len()];
        let mut jobs = Vec::new();
        for device in targets {
            let offset = self.offset(position);
            match self.pool.devices.read(*device, offset, &mut there) {
                Ok(()) if there == bytes[..] => {}
                Ok(()) => jobs.push(WriteJob {
                    device: *device,
                    offset,
                    bytes: bytes.clone(),
                }),
                Err(_dead) => {}
            }
        }
        let differed = jobs.len() as u64;
        if differed > 0 {
            self.pool.devices.write_all(jobs, false);
        }
        differed
    }

    /// Makes [start, end) equal on all targets, record by record, each from a mirror that holds it whole; without a flush. Where no record can be made out
    /// (a gap before the region's end, or a record whose header was overwritten since) the mirrors keep what they have, because the checksums in
    /// the rows decide when it is read, and a target that is no mirror yet gets the first mirror's bytes. Returns how many copies differed.
    pub fn resilver(&self, start: u64, end: u64, mirrors: &[u16], targets: &[u16]) -> u64 {
        let known: BTreeSet<&u16> = mirrors.iter().collect();
        let newcomers: Vec<u16> = targets.iter().filter(|target| !known.contains(target)).copied().collect();
        let (mut position, mut differed) = (start, 0);
        while position < end {
            if let Some(found) = self.find(mirrors, position, &|header| position + header.padded_bytes() <= end) {
                differed += self.equalise(targets, position, &found.bytes);
                position += found.header.padded_bytes();
                continue;
            }
            let mut block = vec![0; ALIGNMENT as usize];
            let read = |mirror: &u16| self.pool.devices.read(*mirror, self.offset(position), &mut block).is_ok();
            if !newcomers.is_empty() && mirrors.iter().any(read) {
                self.equalise(&newcomers, position, &block.into());
            }
            position += ALIGNMENT;
        }
        differed
    }

    /// The start of the record that contains this position, or the position rounded down if its header is gone.
    pub fn record_start(&self, mirrors: &[u16], position: u64) -> u64 {
        let aligned = position - position % ALIGNMENT;
        let reach = super::record::padded_bytes(self.body_bytes_max());
        let mut start = aligned;
        loop {
            if let Some((header, _)) = mirrors.iter().find_map(|mirror| self.header_at(*mirror, start)) {
                return if start + header.padded_bytes() > position { start } else { aligned };
            }
            if start < ALIGNMENT || aligned - start >= reach || start.is_multiple_of(self.capacity()) {
                return aligned;
            }
            start -= ALIGNMENT;
        }
    }
}
