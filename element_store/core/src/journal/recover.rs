//! What the journal holds after a start: adopt, copy to every mirror, apply.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::record::{ALIGNMENT, HEADER_BYTES, Header, padded_bytes};
use super::ring::{Found, Ring};
use super::{Journal, Start};
use crate::error::{Error, Result};
use crate::pool::Pool;

/// One record as replay hands it out.
#[derive(Debug)]
pub struct Record<'a> {
    pub position: u64,
    pub sequence: u64,
    /// Of this record; with `next` a checkpoint after it can be described.
    pub checksum: u64,
    pub body: &'a [u8],
    /// Where replay would go on after this record.
    pub next: Start,
}

impl Record<'_> {
    /// Absolute, as rows name payloads.
    pub fn body_position(&self) -> u64 {
        self.position + HEADER_BYTES as u64
    }
}

impl Journal {
    /// Replays every record from `from` on, in order, and returns the journal ready for appending. A record counts if any mirror holds it whole;
    /// before `apply` sees it the other mirrors have it too, and before this returns everything from `keep_from` (the oldest position whose payloads must
    /// survive, at most `from.position`) is flushed on all mirrors: a record adopted from one mirror only would be lost with it.
    /// Raises Damaged if a record is missing although later ones exist, Closed, and what `apply` raises.
    pub fn recover(pool: Arc<Pool>, from: Start, keep_from: u64, apply: &mut dyn FnMut(Record<'_>) -> Result<()>) -> Result<Self> {
        let ring = Ring { pool };
        if !from.position.is_multiple_of(ALIGNMENT) || keep_from > from.position || from.position - keep_from > ring.capacity() {
            return Err(Error::Damaged(format!(
                "the checkpoint names impossible journal positions {keep_from} and {}",
                from.position
            )));
        }
        ring.pool.persist_failures()?;
        let mirrors = ring.live_mirrors();
        let mut resilvered = 0;
        if keep_from < from.position {
            resilvered += ring.resilver(ring.record_start(&mirrors, keep_from), from.position, &mirrors, &mirrors);
        }
        let (end, copied) = replay(&ring, &mirrors, from, apply)?;
        refuse_gap(&ring, &mirrors, end)?;
        // Also what is equal everywhere may be in volatile caches only: the process may have died between write and flush. Failures show below.
        ring.pool.devices.flush_all(&mirrors);
        ring.pool.persist_failures()?;

        let mut journal = Self::at(ring, end, keep_from);
        journal.shared.resilvered.store(resilvered + copied, Relaxed);
        journal.shared.head.store(end.position, SeqCst);
        journal.complete_mirrors()?;
        Ok(journal)
    }
}

/// Returns where the chain ends, and how many copies were rewritten.
fn replay(ring: &Ring, mirrors: &[u16], from: Start, apply: &mut dyn FnMut(Record<'_>) -> Result<()>) -> Result<(Start, u64)> {
    let (mut at, mut epoch, mut copied) = (from, 0, 0);
    while let Some(found) = next_record(ring, mirrors, at, epoch) {
        let Header {
            position,
            sequence,
            membership_epoch,
            ..
        } = found.header;
        copied += ring.equalise(mirrors, position, &found.bytes);
        let next = Start {
            position: position + found.header.padded_bytes(),
            sequence: sequence + 1,
            previous_checksum: found.checksum,
        };
        apply(Record {
            position,
            sequence,
            checksum: found.checksum,
            body: found.body(),
            next,
        })?;
        (at, epoch) = (next, membership_epoch);
    }
    Ok((at, copied))
}

/// Where the last record ended, or at the region's start if the writer found too little room.
fn next_record(ring: &Ring, mirrors: &[u16], at: Start, epoch: u64) -> Option<Found> {
    let newest = ring.pool.membership_epoch();
    let continues = |header: &Header| {
        header.sequence == at.sequence
            && header.previous_checksum == at.previous_checksum
            && (epoch..=newest).contains(&header.membership_epoch)
    };
    ring.find(mirrors, at.position, &continues)
        .or_else(|| ring.find(mirrors, ring.next_lap(at.position), &continues))
}

/// A sound header of a later record that knew the missing one to be flushed shows that it is damaged on all mirrors; to go on would silently drop what follows it.
fn refuse_gap(ring: &Ring, mirrors: &[u16], end: Start) -> Result<()> {
    let reach = (2 * padded_bytes(ring.body_bytes_max())).min(ring.capacity());
    for position in (end.position..end.position + reach).step_by(ALIGNMENT as usize) {
        let later = |mirror: &u16| {
            ring.header_at(*mirror, position)
                .is_some_and(|(header, _)| header.sequence.saturating_sub(header.unflushed.into()) > end.sequence)
        };
        if mirrors.iter().any(later) {
            return Err(Error::Damaged(format!(
                "journal record {} is damaged on all its mirrors {mirrors:?} though later records exist; restore a device that held it",
                end.sequence
            )));
        }
    }
    Ok(())
}
