//! The mirrored ring: what makes a write durable before anything else does.
//!
//! Owns: placing, appending, replaying and copying records on the m+1 devices that mirror the journal. Invariants: an acknowledged record is flushed on
//! every mirror, and there are min(m+1, live devices) of them; at most one record is in flight, so what a killed process leaves unacknowledged is one record at
//! the end, and power loss takes besides only what was written and not flushed, from some record on; [tail, head) is never overwritten; no acknowledgement while a device's death is known but not yet in the superblocks. Never looks into a body.

mod filling;
mod reader;
mod record;
mod recover;
mod ring;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use bytes::Bytes;

pub use filling::Filling;
pub use reader::{JournalCounters, JournalReader};
pub use record::{ALIGNMENT, HEADER_BYTES};
pub use recover::Record;
pub use ring::BODY_BYTES_MAX;

use crate::device::set::WriteJob;
use crate::error::{Error, Result};
use crate::pool::Pool;
use reader::Shared;
use record::padded_bytes;
use ring::Ring;

/// Where a record is expected: after a checkpoint, or after the last record. The default is the beginning of a new pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Start {
    pub position: u64,
    /// Of the record expected here.
    pub sequence: u64,
    /// Of the record before; 0 for the first.
    pub previous_checksum: u64,
}

/// A durable record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub position: u64,
    pub sequence: u64,
    pub checksum: u64,
    /// Where replay would go on after this record.
    pub next: Start,
}

/// The one writer. Readers come from `reader`.
#[derive(Debug)]
pub struct Journal {
    ring: Ring,
    shared: Arc<Shared>,
    next: Start,
    /// The place promised by `next_body_position`, and for how long a body.
    reserved: Option<(u64, usize)>,
    /// The last so many records are written, and not flushed.
    unflushed: u32,
    /// Set when an append ended in the middle: what the mirrors hold is unknown until the next recovery.
    broken: Option<String>,
}

impl Journal {
    /// For a pool that was just formatted.
    pub fn create(pool: Arc<Pool>) -> Self {
        Self::at(Ring { pool }, Start::default(), 0)
    }

    fn at(ring: Ring, next: Start, tail: u64) -> Self {
        let shared = Shared {
            tail: tail.into(),
            head: next.position.into(),
            ..Shared::default()
        };
        Self {
            ring,
            shared: Arc::new(shared),
            next,
            reserved: None,
            unflushed: 0,
            broken: None,
        }
    }

    pub fn reader(&self) -> JournalReader {
        JournalReader {
            ring: self.ring.clone(),
            shared: self.shared.clone(),
        }
    }

    /// Of the next record.
    pub fn filling(&self) -> Arc<Filling> {
        self.shared.filling.clone()
    }

    pub fn counters(&self) -> JournalCounters {
        self.reader().counters()
    }

    /// The longest body that `append` takes.
    pub fn body_bytes_max(&self) -> usize {
        self.ring.body_bytes_max()
    }

    pub fn capacity(&self) -> u64 {
        self.ring.capacity()
    }

    pub fn tail(&self) -> u64 {
        self.shared.tail()
    }

    pub fn head(&self) -> u64 {
        self.next.position
    }

    /// What a checkpoint of everything appended so far has to remember.
    pub fn next(&self) -> Start {
        self.next
    }

    /// A record needs its body, 64 bytes, rounding up to 4096, and sometimes the gap before the region's end.
    pub fn free_bytes(&self) -> u64 {
        self.capacity()
            .saturating_sub(self.next.position - (self.tail() - self.tail() % ALIGNMENT))
    }

    /// Where the body of the next record will begin, if it is at most this long; rows of that record can name payloads by absolute position.
    pub fn next_body_position(&mut self, body_max: usize) -> u64 {
        assert!(body_max <= self.body_bytes_max(), "the caller bounds its records");
        let position = self.ring.place(self.next.position, padded_bytes(body_max));
        self.reserved = Some((position, body_max));
        position + HEADER_BYTES as u64
    }

    /// Durable on all mirrors when it returns, with all before it. Raises OutOfSpace (nothing happened; trim, then retry), Limit, Closed (only a recovery
    /// helps).
    pub fn append(&mut self, body: &[u8]) -> Result<Appended> {
        self.put(body, true)
    }

    /// On all mirrors when it returns, whatever becomes of the process; `flush` makes it outlive power loss. Raises what `append` does.
    pub fn write(&mut self, body: &[u8]) -> Result<Appended> {
        self.put(body, false)
    }

    /// Everything that was written is durable when it returns. Raises Closed.
    pub fn flush(&mut self) -> Result<()> {
        self.check_whole()?;
        if self.unflushed > 0 {
            let pool = self.ring.pool.clone();
            self.on_mirrors(|mirrors| pool.devices.flush_all(&mirrors))?;
            self.unflushed = 0;
        }
        Ok(())
    }

    fn check_whole(&self) -> Result<()> {
        match &self.broken {
            Some(reason) => Err(Error::Closed(format!("the journal stopped: {reason}"))),
            None => Ok(()),
        }
    }

    fn put(&mut self, body: &[u8], flush: bool) -> Result<Appended> {
        self.check_whole()?;
        if body.len() > self.body_bytes_max() {
            return Err(Error::Limit(format!(
                "a journal record of {} bytes is longer than {}",
                body.len(),
                self.body_bytes_max()
            )));
        }
        let padded = padded_bytes(body.len());
        let position = match self.reserved.take() {
            Some((position, body_max)) if body.len() <= body_max => position,
            Some((_, body_max)) => return Err(Error::Limit(format!("a body of {} bytes was announced as {body_max}", body.len()))),
            None => self.ring.place(self.next.position, padded),
        };
        if position + padded - self.tail() > self.capacity() {
            return Err(Error::OutOfSpace("journal full".into()));
        }
        let start = Start { position, ..self.next };
        let sequence = start.sequence;
        let pool = self.ring.pool.clone();
        let (record, checksum) = record::encode(&start, pool.membership_epoch(), self.unflushed, body, &pool.secret);
        let (record, offset) = (Bytes::from(record), self.ring.offset(position));
        let copy = |device| WriteJob {
            device,
            offset,
            bytes: record.clone(),
        };
        self.on_mirrors(|mirrors| pool.devices.write_all(mirrors.into_iter().map(copy).collect(), flush))?;
        self.unflushed = if flush { 0 } else { self.unflushed + 1 };
        self.next = Start {
            position: position + padded,
            sequence: sequence + 1,
            previous_checksum: checksum,
        };
        self.shared.head.store(self.next.position, SeqCst);
        self.shared.appends.fetch_add(1, Relaxed);
        self.shared.append_bytes.fetch_add(padded, Relaxed);
        Ok(Appended {
            position,
            sequence,
            checksum,
            next: self.next,
        })
    }

    /// What lies before may be overwritten from now on. The caller has a checkpoint that does not need it, and no reader there. Never goes back.
    pub fn trim(&mut self, tail: u64) {
        let mut kept = self.shared.tail.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        *kept = tail.clamp(*kept, self.next.position.max(*kept));
    }

    /// Does it on every mirror; goes round again until no device died and none is left out.
    fn on_mirrors(&mut self, act: impl Fn(Vec<u16>) -> Vec<(u16, std::io::Result<()>)>) -> Result<()> {
        let mut done = BTreeSet::new();
        loop {
            let mut missing = self.complete_mirrors().inspect_err(|error| self.broken = Some(error.to_string()))?;
            missing.retain(|mirror| !done.contains(mirror));
            if missing.is_empty() {
                return Ok(());
            }
            let results = act(missing);
            done.extend(results.into_iter().filter(|(_, result)| result.is_ok()).map(|(mirror, _)| mirror));
        }
    }

    /// The live mirrors, after lost ones were declared dead and replaced. In the common case two locks and no I/O.
    fn complete_mirrors(&mut self) -> Result<Vec<u16>> {
        loop {
            self.ring.pool.persist_failures()?;
            let mirrors = self.ring.live_mirrors();
            if mirrors.len() >= self.ring.pool.journal_mirrors_wanted() && !mirrors.is_empty() {
                return Ok(mirrors);
            }
            let newcomer = self.ring.pool.devices.live().into_iter().find(|device| !mirrors.contains(device));
            if let Some(newcomer) = newcomer {
                self.add_mirror(mirrors, newcomer)?;
            }
        }
    }

    /// Brings a device up to [tail, head), then names it in the superblocks. If it dies meanwhile, nothing changed.
    fn add_mirror(&mut self, mut mirrors: Vec<u16>, newcomer: u16) -> Result<()> {
        let pool = &self.ring.pool;
        let fill = || -> Result<()> {
            pool.prewrite_journal(&[newcomer])?;
            let tail = self.shared.tail();
            if tail < self.next.position {
                self.ring
                    .resilver(self.ring.record_start(&mirrors, tail), self.next.position, &mirrors, &[newcomer]);
            }
            pool.devices
                .flush_all(&[newcomer])
                .into_iter()
                .try_for_each(|(_, result)| Ok(result?))
        };
        match fill() {
            Err(error) if pool.devices.is_live(newcomer) => Err(error),
            Err(_dead) => Ok(()),
            Ok(()) if !pool.devices.is_live(newcomer) => Ok(()),
            Ok(()) => {
                mirrors.push(newcomer);
                pool.set_journal_mirrors(&mirrors)?;
                self.shared.replacements.fetch_add(1, Relaxed);
                Ok(())
            }
        }
    }
}
