//! The journal record that is being filled, and what a record's body looks like.

use super::job::{Flush, Job, Reach};
use super::{Effects, HashSet, Journal, MetaStore, Result};
use crate::codec::{Reader, Writer};
use crate::element::transaction::{Landing, PAYLOAD_ALIGN};
use crate::meta::Applied;
use std::time::Instant;

/// Body: first transaction's sequence u64, payload length u32, transaction count u32, payloads, transactions.
pub const BODY_HEADER_BYTES: usize = 16;

pub(super) struct Record {
    pub begun: Instant,
    pub body_max: usize,
    /// Of that, what no change may announce.
    history_bytes: usize,
    pub first_sequence: u64,
    pub landing: Landing,
    pub transactions: Vec<Vec<u8>>,
    /// Of the transactions.
    pub row_bytes: usize,
    /// Ran, and are not acknowledged yet.
    pub jobs: Vec<Box<dyn Job>>,
    /// Of changes that readers do not see yet.
    pub effects: Vec<Effects>,
    /// Segments that lost live bytes.
    pub lessened: HashSet<u64>,
    pub leased: Option<u64>,
    flushes: Vec<Flush>,
    /// Of those who wait for it, the furthest.
    reach: Reach,
}

impl Record {
    pub fn begin(journal: &mut Journal, first_sequence: u64, body_max: usize, history_bytes: usize) -> Self {
        let filling = journal.filling();
        filling.begin(journal.next_body_position(body_max) + BODY_HEADER_BYTES as u64);
        Self {
            begun: Instant::now(),
            body_max,
            history_bytes,
            first_sequence,
            landing: Landing {
                filling,
                bytes_max: body_max - BODY_HEADER_BYTES,
            },
            transactions: Vec::new(),
            row_bytes: 0,
            jobs: Vec::new(),
            effects: Vec::new(),
            lessened: HashSet::new(),
            leased: None,
            flushes: Vec::new(),
            reach: Reach::Seen,
        }
    }

    /// What must become of it before its changes are acknowledged, and seen. Ids of a lease must not be in use before it is durable.
    pub fn reach(&self) -> Reach {
        if self.leased.is_some() { Reach::Flushed } else { self.reach }
    }

    /// Nothing ran in it.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.transactions.is_empty()
    }

    pub fn fits(&self, bytes: usize) -> bool {
        self.body_bytes() + bytes + PAYLOAD_ALIGN + self.history_bytes <= self.body_max
    }

    pub fn push(&mut self, job: Box<dyn Job>) {
        self.reach = self.reach.max(job.reach());
        self.jobs.push(job);
    }

    pub fn body_bytes(&self) -> usize {
        BODY_HEADER_BYTES + self.landing.filling.len() + self.row_bytes
    }

    pub fn last_sequence(&self) -> u64 {
        self.first_sequence + self.transactions.len() as u64 - 1
    }

    pub fn lease(&mut self, renewal: Option<u64>) {
        self.leased = renewal.or(self.leased);
    }

    pub fn add(&mut self, job: &mut dyn Job, effects: Effects, applied: Applied) {
        self.flushes.extend(job.take_flush());
        self.lessened
            .extend(effects.live.iter().filter(|(_, delta)| **delta < 0).map(|(segment, _)| *segment));
        self.effects.push(effects);
        if !applied.bytes.is_empty() {
            self.row_bytes += applied.bytes.len();
            self.transactions.push(applied.bytes);
        }
    }

    /// Content in segments that the record's rows name.
    pub fn flush(&mut self) -> Result<()> {
        self.flushes.drain(..).try_for_each(|flush| flush())
    }

    pub fn encode(&self) -> Vec<u8> {
        let payloads = self.landing.filling.len();
        let mut body = Writer {
            bytes: Vec::with_capacity(self.body_bytes()),
        };
        body.u64(self.first_sequence)
            .u32(payloads as u32)
            .u32(self.transactions.len() as u32);
        self.landing.filling.copy_to(&mut body.bytes);
        for transaction in &self.transactions {
            body.raw(transaction);
        }
        body.bytes
    }
}

/// Replays a record's body; returns the last sequence in it.
pub fn replay(meta: &MetaStore, body: &[u8]) -> Result<u64> {
    let mut reader = Reader::new(body);
    let (first, payload, count) = (reader.u64()?, reader.u32()?, reader.u32()?);
    reader.raw(payload as usize)?;
    for index in 0..u64::from(count) {
        meta.replay(first + index, &mut reader)?;
    }
    reader.finish()?;
    Ok((first + u64::from(count)).saturating_sub(1))
}
