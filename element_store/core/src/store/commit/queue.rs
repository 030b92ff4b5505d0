//! Changes that wait for the writer, and who waits for what is not durable yet.

use super::Done;
use super::job::Job;
use crate::error::Error;
use crate::journal::Start;
use std::collections::VecDeque;

/// Waiting changes; more block their callers.
pub const QUEUE_JOBS_MAX: usize = 4096;
/// Payload bytes waiting; more block their callers.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// Whose change it is; lower ones may use more of the journal's last room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// A checkpoint waits for it.
    Urgent,
    /// Makes room in the journal or the pool, sooner or later.
    Own,
    User,
}

impl Rank {
    pub(super) const ALL: [Rank; 3] = [Rank::Urgent, Rank::Own, Rank::User];

    /// What of the journal it leaves to those before it.
    pub(super) fn reserve(self, capacity: u64) -> u64 {
        match self {
            Rank::Urgent => 0,
            Rank::Own => capacity / 16,
            Rank::User => capacity / 4,
        }
    }
}

#[derive(Default)]
pub(super) struct Queue {
    /// By rank.
    pub jobs: [VecDeque<Box<dyn Job>>; 3],
    /// Of users' jobs.
    pub bytes: usize,
    /// Set once: why nothing is taken any more.
    pub closed: Option<String>,
    /// Users' payloads find no room and nothing can be moved out of the journal.
    pub pool_full: bool,
    pub durable: u64,
    /// Somebody waits until everything up to this sequence is durable.
    pub wanted: u64,
    /// Who is told when everything up to a sequence is durable.
    pub waiting: Vec<(u64, Done<()>)>,
    /// (last sequence in a record, where replay goes on after it), oldest first.
    pub records: VecDeque<(u64, Start)>,
    pub free_bytes: u64,
    pub capacity: u64,
    pub trim_to: u64,
    /// The writer ends once the queues are empty.
    pub stopped: bool,
    pub ended: bool,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.jobs.iter().all(VecDeque::is_empty)
    }

    pub fn users(&mut self) -> &mut VecDeque<Box<dyn Job>> {
        &mut self.jobs[Rank::User as usize]
    }

    pub fn end_reason(&self) -> Error {
        Error::Closed(self.closed.clone().unwrap_or_else(|| "the journal stopped".into()))
    }

    /// Those whose waiting is over.
    pub fn take_durable(&mut self) -> Vec<Done<()>> {
        let durable = self.durable;
        let over = self.waiting.extract_if(.., |(sequence, _)| *sequence <= durable);
        over.map(|(_, done)| done).collect()
    }
}

/// Nothing can be moved out of the journal: those who bring bytes are told; others wait for what is left of it.
pub(super) fn refuse_payloads(queue: &mut Queue) {
    while queue.users().front().is_some_and(|job| job.has_payload()) {
        let Some(mut job) = queue.users().pop_front() else { return };
        queue.bytes -= job.bytes_max();
        job.refuse(Error::OutOfSpace("the pool is full; delete something".into()));
        job.complete();
    }
}
