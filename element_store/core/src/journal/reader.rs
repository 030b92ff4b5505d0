//! Reading payloads out of retained records, and of the one that is being filled, while appends go on.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, RwLock};

use bytes::Bytes;

use super::filling::Filling;
use super::ring::Ring;
use crate::codec;
use crate::error::{Error, Result};

/// Since open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalCounters {
    pub appends: u64,
    /// With header and padding, on one mirror.
    pub append_bytes: u64,
    pub reads: u64,
    /// Copies found bad by a read and rewritten.
    pub repairs: u64,
    /// Copies that recovery found missing or different and rewrote.
    pub resilvered: u64,
    /// Devices that took the place of a lost mirror.
    pub replacements: u64,
}

/// What the writer and its readers share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Nothing at or after it is overwritten. Held for reading while a copy is repaired, so that a trim (after which the place may hold a new record) waits.
    pub tail: RwLock<u64>,
    pub head: AtomicU64,
    pub filling: Arc<Filling>,
    pub appends: AtomicU64,
    pub append_bytes: AtomicU64,
    pub reads: AtomicU64,
    pub repairs: AtomicU64,
    pub resilvered: AtomicU64,
    pub replacements: AtomicU64,
}

impl Shared {
    pub fn tail(&self) -> u64 {
        *self.tail.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Cheap to clone; usable from any thread while the journal is appended to.
#[derive(Debug, Clone)]
pub struct JournalReader {
    pub(super) ring: Ring,
    pub(super) shared: Arc<Shared>,
}

impl JournalReader {
    /// Fills the buffer from an absolute position inside one record, from whichever mirror has bytes of this xxh3-64; copies found bad are rewritten.
    /// The caller's guard keeps the range from being trimmed. Raises Damaged if no mirror has them.
    pub fn read(&self, position: u64, buffer: &mut [u8], checksum: u64) -> Result<()> {
        self.shared.reads.fetch_add(1, Relaxed);
        if self.shared.filling.read(position, buffer) {
            return match codec::checksum(buffer) == checksum {
                true => Ok(()),
                false => Err(Error::Damaged(format!(
                    "what is to be written at journal position {position} changed in memory"
                ))),
            };
        }
        let within = position % self.ring.capacity();
        let end = position
            .checked_add(buffer.len() as u64)
            .filter(|end| *end <= self.shared.head.load(SeqCst));
        if end.is_none() || within + buffer.len() as u64 > self.ring.capacity() {
            return Err(Error::Damaged(format!(
                "no journal record holds {} bytes at {position}",
                buffer.len()
            )));
        }
        let mut mirrors = self.ring.live_mirrors();
        if !mirrors.is_empty() {
            // Spread over the mirrors by place, so that each caches its share.
            let first = (position / super::record::ALIGNMENT) as usize % mirrors.len();
            mirrors.rotate_left(first);
        }
        let mut bad = Vec::new();
        for mirror in mirrors {
            if self.ring.pool.devices.read(mirror, self.ring.offset(position), buffer).is_err() {
                continue;
            }
            if codec::checksum(buffer) == checksum {
                self.repair(&bad, position, buffer);
                return Ok(());
            }
            bad.push(mirror);
        }
        Err(Error::Damaged(format!(
            "no mirror holds sound bytes for {} at journal position {position}",
            buffer.len()
        )))
    }

    pub fn counters(&self) -> JournalCounters {
        JournalCounters {
            appends: self.shared.appends.load(Relaxed),
            append_bytes: self.shared.append_bytes.load(Relaxed),
            reads: self.shared.reads.load(Relaxed),
            repairs: self.shared.repairs.load(Relaxed),
            resilvered: self.shared.resilvered.load(Relaxed),
            replacements: self.shared.replacements.load(Relaxed),
        }
    }

    /// Without a flush: if the repair is lost, the copy is as bad as before and found again.
    fn repair(&self, bad: &[u16], position: u64, bytes: &[u8]) {
        if bad.is_empty() {
            return;
        }
        let tail = self.shared.tail.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        if *tail <= position {
            let repaired = self.ring.equalise(bad, position, &Bytes::copy_from_slice(bytes));
            self.shared.repairs.fetch_add(repaired, Relaxed);
        }
    }
}
