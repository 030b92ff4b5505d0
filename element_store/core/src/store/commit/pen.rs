//! What the one who writes holds: the journal, the record that is open, and what is not flushed.

use super::record::{BODY_HEADER_BYTES, Record};
use crate::journal::Journal;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// What the changes of a record may announce, unless a single one needs more.
pub const RECORD_BYTES: usize = 1 << 20;
/// Room beside what changes announce, for what it makes history: rows that a snapshot sees are written twice. At most a quarter of the longest record.
const HISTORY_BYTES_MAX: usize = 1 << 20;

pub(super) struct Pen {
    pub journal: Journal,
    pub open: Option<Record>,
    pub unflushed: Unflushed,
}

/// Records that are written and not flushed.
#[derive(Default)]
pub(super) struct Unflushed {
    /// When the first of them was begun; None: there are none.
    pub since: Option<Instant>,
    /// Of the last of them.
    pub last_sequence: u64,
    /// Segments that lost live bytes by them.
    pub lessened: HashSet<u64>,
}

impl Unflushed {
    pub fn add(&mut self, record: &mut Record) {
        self.since.get_or_insert(record.begun);
        self.last_sequence = record.last_sequence();
        self.lessened.extend(record.lessened.drain());
    }
}

impl Pen {
    pub fn new(journal: Journal) -> Self {
        Self {
            journal,
            open: None,
            unflushed: Unflushed::default(),
        }
    }

    /// Of the oldest change that is not durable.
    pub fn age(&self) -> Option<Duration> {
        let since = self.unflushed.since.or(self.open.as_ref().map(|record| record.begun));
        since.map(|since| since.elapsed())
    }

    /// The body's bound of the record that a change goes into which adds so much at most; None: the open one is to be sealed before.
    pub fn body_max_for(&self, bytes: usize) -> Option<usize> {
        match &self.open {
            Some(record) => record.fits(bytes).then_some(record.body_max),
            None => {
                let announced = RECORD_BYTES.max(bytes + BODY_HEADER_BYTES);
                Some((announced + history_bytes(&self.journal)).min(self.journal.body_bytes_max()))
            }
        }
    }

    /// What such a record leaves free. The gap that it may leave before the region's end counts too.
    pub fn room_beside(&self, body_max: usize) -> u64 {
        self.journal.free_bytes().saturating_sub(2 * (body_max as u64 + 8192))
    }

    /// The open record, or a new one whose first transaction is `sequence`.
    pub fn record(&mut self, sequence: u64, body_max: usize) -> &mut Record {
        let journal = &mut self.journal;
        let history = history_bytes(journal);
        self.open.get_or_insert_with(|| Record::begin(journal, sequence, body_max, history))
    }
}

fn history_bytes(journal: &Journal) -> usize {
    HISTORY_BYTES_MAX.min(journal.body_bytes_max() / 4)
}
