//! The one writer: runs changes one after another, puts a batch of them into one journal record, shows them once it is durable.
//!
//! Invariants: a change is acknowledged after its record is flushed on every mirror and visible to readers; changes take effect in the order
//! in which they ran; room in the journal is made sure of before anything is applied, so that a checkpoint never waits for a batch that waits for it.
//! Three queues by what they may use of the journal's last room (`Rank`): what makes room is never stopped by what waits for room.
//!
//! After an append failed nothing further is acknowledged: the store is closed and the next open recovers.

use super::Done;
use crate::codec::{Reader, Writer};
use crate::element::transaction::{Effects, Landing, Shared, Transaction};
use crate::error::{Error, Result};
use crate::journal::{Journal, Start};
use crate::meta::MetaStore;
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Body: first transaction's sequence u64, payload length u32, transaction count u32, payloads, transactions.
pub const BODY_HEADER_BYTES: usize = 16;
/// Waiting changes; more block their callers.
pub const QUEUE_JOBS_MAX: usize = 4096;
/// Payload bytes waiting; more block their callers.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Room announced for a record unless a single change needs more.
pub const RECORD_BYTES: usize = 1 << 20;
/// How often a stopped queue looks again whether the tree has caught up.
const RECHECK: Duration = Duration::from_millis(5);

pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

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
    const ALL: [Rank; 3] = [Rank::Urgent, Rank::Own, Rank::User];

    /// What of the journal it leaves to those before it.
    fn reserve(self, capacity: u64) -> u64 {
        match self {
            Rank::Urgent => 0,
            Rank::Own => capacity / 16,
            Rank::User => capacity / 4,
        }
    }
}

trait Job: Send {
    /// The most that it adds to a record.
    fn bytes_max(&self) -> usize;
    fn has_payload(&self) -> bool;
    fn run(&mut self, tx: &mut Transaction) -> Result<()>;
    fn refuse(&mut self, error: Error);
    fn complete(self: Box<Self>);
}

struct Change<T, F> {
    work: Option<F>,
    result: Option<Result<T>>,
    done: Done<T>,
    bytes_max: usize,
    has_payload: bool,
}

impl<T: Send, F: FnOnce(&mut Transaction) -> Result<T> + Send> Job for Change<T, F> {
    fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    fn has_payload(&self) -> bool {
        self.has_payload
    }

    fn run(&mut self, tx: &mut Transaction) -> Result<()> {
        let work = self.work.take().expect("a change runs once");
        self.result = Some(Ok(work(tx)?));
        Ok(())
    }

    fn refuse(&mut self, error: Error) {
        self.result = Some(Err(error));
    }

    fn complete(self: Box<Self>) {
        let result = self.result.unwrap_or_else(|| Err(Error::Closed("the store is closed".into())));
        (self.done)(result);
    }
}

#[derive(Default)]
struct Queue {
    /// By rank.
    jobs: [VecDeque<Box<dyn Job>>; 3],
    /// Of users' jobs.
    bytes: usize,
    /// Set once: why nothing is taken any more.
    closed: Option<String>,
    /// Users' payloads find no room and nothing can be moved out of the journal.
    pool_full: bool,
    durable: u64,
    /// (last sequence in a record, where replay goes on after it), oldest first.
    records: VecDeque<(u64, Start)>,
    free_bytes: u64,
    capacity: u64,
    trim_to: u64,
    stopped: bool,
}

#[derive(Default)]
pub struct CommitCounters {
    pub transactions: AtomicU64,
    pub records: AtomicU64,
    pub payload_bytes: AtomicU64,
    pub row_bytes: AtomicU64,
    pub refused: AtomicU64,
    pub stalls: AtomicU64,
}

pub struct Committer {
    pub meta: MetaStore,
    pub shared: Shared,
    pub counters: CommitCounters,
    queue: Mutex<Queue>,
    /// Work or room arrived.
    ready: Condvar,
    /// The queue got shorter, or more is durable.
    moved: Condvar,
    /// Segments that lost live bytes since the freeing job last looked.
    lessened: Mutex<HashSet<u64>>,
    behind: Box<dyn Fn() -> bool + Send + Sync>,
    clock: Clock,
    /// Wakes upkeep: the journal is short of room.
    on_pressure: Box<dyn Fn() + Send + Sync>,
}

/// What one record collects.
struct Batch {
    jobs: Vec<Box<dyn Job>>,
    effects: Vec<Effects>,
    landing: Landing,
    transactions: Vec<Vec<u8>>,
    first_sequence: u64,
    last_sequence: u64,
    row_bytes: usize,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.jobs.iter().all(VecDeque::is_empty)
    }

    fn users(&mut self) -> &mut VecDeque<Box<dyn Job>> {
        &mut self.jobs[Rank::User as usize]
    }
}

impl Committer {
    pub fn new(
        meta: MetaStore,
        shared: Shared,
        clock: Clock,
        behind: Box<dyn Fn() -> bool + Send + Sync>,
        on_pressure: Box<dyn Fn() + Send + Sync>,
    ) -> Self {
        let durable = meta.applied();
        Self {
            meta,
            shared,
            counters: CommitCounters::default(),
            queue: Mutex::new(Queue {
                durable,
                ..Queue::default()
            }),
            ready: Condvar::new(),
            moved: Condvar::new(),
            lessened: Mutex::default(),
            behind,
            clock,
            on_pressure,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A user's change. `payload`: bytes that it lands in the journal; `rows`: the most it writes in rows. Blocks only while the queue is full.
    pub fn submit<T: Send + 'static>(
        &self,
        payload: usize,
        rows: usize,
        done: Done<T>,
        work: impl FnOnce(&mut Transaction) -> Result<T> + Send + 'static,
    ) {
        let job = Box::new(Change {
            work: Some(work),
            result: None,
            done,
            bytes_max: payload + rows,
            has_payload: payload > 0,
        });
        let mut queue = self.queue();
        while queue.closed.is_none() && (queue.users().len() >= QUEUE_JOBS_MAX || queue.bytes >= QUEUE_BYTES_MAX) {
            queue = self.moved.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.closed.is_some() {
            drop(queue);
            return job.complete();
        }
        queue.bytes += job.bytes_max;
        queue.users().push_back(job);
        self.ready.notify_all();
    }

    /// A change of the store's own, in the calling thread's time. Raises Closed and what `work` raises.
    pub fn run_own<T: Send + 'static>(
        &self,
        rank: Rank,
        rows: usize,
        work: impl FnOnce(&mut Transaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        super::wait(|done| {
            let job = Box::new(Change {
                work: Some(work),
                result: None,
                done,
                bytes_max: rows,
                has_payload: false,
            });
            let mut queue = self.queue();
            if queue.stopped {
                drop(queue);
                return job.complete();
            }
            queue.jobs[rank as usize].push_back(job);
            self.ready.notify_all();
        })
    }

    /// No user's change is taken from now on; those in the queue still run. Idempotent.
    pub fn close(&self, reason: &str) {
        self.queue().closed.get_or_insert_with(|| reason.into());
        self.ready.notify_all();
        self.moved.notify_all();
    }

    /// Ends the writer once both queues are empty.
    pub fn stop(&self) {
        self.close("the store is closed");
        self.queue().stopped = true;
        self.ready.notify_all();
    }

    pub fn closed_reason(&self) -> Option<String> {
        self.queue().closed.clone()
    }

    pub fn set_pool_full(&self, full: bool) {
        let mut queue = self.queue();
        if queue.pool_full != full {
            queue.pool_full = full;
            self.ready.notify_all();
        }
    }

    /// (used, capacity) of the journal, bytes.
    pub fn journal_use(&self) -> (u64, u64) {
        let queue = self.queue();
        (queue.capacity.saturating_sub(queue.free_bytes), queue.capacity)
    }

    pub fn queued(&self) -> usize {
        self.queue().users().len()
    }

    /// Returns once everything up to the sequence is durable. Raises Closed.
    pub fn wait_durable(&self, sequence: u64) -> Result<()> {
        let mut queue = self.queue();
        while queue.durable < sequence {
            if queue.stopped {
                return Err(Error::Closed("the journal stopped".into()));
            }
            queue = self.moved.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Where replay must start for a tree that holds everything up to `sequence`.
    pub fn start_after(&self, sequence: u64) -> Option<Start> {
        let queue = self.queue();
        queue
            .records
            .iter()
            .rev()
            .find(|(last, _)| *last <= sequence)
            .map(|(_, start)| *start)
    }

    /// A root that starts at `start` is durable: earlier records are not needed for replay, and journal bytes before `tail` by nobody.
    pub fn trim(&self, start: Start, tail: u64) {
        let mut queue = self.queue();
        while queue.records.len() > 1 && queue.records[1].1.position <= start.position {
            queue.records.pop_front();
        }
        queue.trim_to = queue.trim_to.max(tail);
        self.ready.notify_all();
    }

    pub fn take_lessened(&self) -> HashSet<u64> {
        std::mem::take(&mut *self.lessened.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn add_lessened(&self, segments: impl IntoIterator<Item = u64>) {
        self.lessened.lock().unwrap_or_else(PoisonError::into_inner).extend(segments);
    }

    /// The writer thread's life. Ends when stopped or when the journal fails.
    pub fn serve(&self, mut journal: Journal, replayed: (u64, Start)) {
        {
            let mut queue = self.queue();
            queue.records.push_back(replayed);
            (queue.free_bytes, queue.capacity) = (journal.free_bytes(), journal.capacity());
        }
        while let Some((jobs, body_max)) = self.next_jobs(&mut journal) {
            if let Err(error) = self.commit(&mut journal, jobs, body_max) {
                self.fail(&error);
                break;
            }
        }
        let mut queue = self.queue();
        queue.stopped = true;
        queue.closed.get_or_insert_with(|| "the store is closed".into());
        let left: Vec<_> = queue.jobs.iter_mut().flat_map(std::mem::take).collect();
        drop(queue);
        self.moved.notify_all();
        left.into_iter().for_each(Job::complete);
    }

    fn fail(&self, error: &Error) {
        self.close(&error.to_string());
    }

    /// What goes into the next record, and how long its body may get; waits for it. None: the end.
    fn next_jobs(&self, journal: &mut Journal) -> Option<(Vec<Box<dyn Job>>, usize)> {
        let mut queue = self.queue();
        let mut stalled = false;
        loop {
            if queue.trim_to > journal.tail() {
                journal.trim(queue.trim_to);
                queue.free_bytes = journal.free_bytes();
            }
            if let Some(jobs) = self.take(&mut queue, journal) {
                self.moved.notify_all();
                return Some(jobs);
            }
            if queue.is_empty() {
                if queue.stopped {
                    return None;
                }
                queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            if !stalled {
                self.counters.stalls.fetch_add(1, Ordering::Relaxed);
                stalled = true;
            }
            (self.on_pressure)();
            queue = self.ready.wait_timeout(queue, RECHECK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn take(&self, queue: &mut Queue, journal: &Journal) -> Option<(Vec<Box<dyn Job>>, usize)> {
        let first = queue.jobs.iter().find_map(VecDeque::front)?.bytes_max();
        let body_max = (first + BODY_HEADER_BYTES).max(RECORD_BYTES).min(journal.body_bytes_max());
        // The gap that such a record may leave before the region's end counts too.
        let room = journal.free_bytes().saturating_sub(2 * (body_max as u64 + 8192));
        let (mut jobs, mut bytes): (Vec<Box<dyn Job>>, usize) = (Vec::new(), BODY_HEADER_BYTES);
        for rank in Rank::ALL {
            if room < rank.reserve(journal.capacity()).max(1) || (rank == Rank::User && (self.behind)()) {
                if rank == Rank::User && queue.pool_full {
                    refuse_payloads(queue);
                }
                break;
            }
            while let Some(job) = queue.jobs[rank as usize].front() {
                if !jobs.is_empty() && bytes + job.bytes_max() > body_max {
                    return Some((jobs, body_max));
                }
                bytes += job.bytes_max();
                if rank == Rank::User {
                    queue.bytes -= job.bytes_max();
                }
                jobs.extend(queue.jobs[rank as usize].pop_front());
            }
        }
        (!jobs.is_empty()).then_some((jobs, body_max))
    }

    fn commit(&self, journal: &mut Journal, jobs: Vec<Box<dyn Job>>, body_max: usize) -> Result<()> {
        let base = journal.next_body_position(body_max) + BODY_HEADER_BYTES as u64;
        let landing = Landing {
            base,
            bytes: Vec::new(),
            bytes_max: body_max - BODY_HEADER_BYTES,
        };
        let first_sequence = self.meta.applied() + 1;
        let mut batch = Batch {
            jobs: Vec::new(),
            effects: Vec::new(),
            landing,
            transactions: Vec::new(),
            first_sequence,
            last_sequence: first_sequence - 1,
            row_bytes: 0,
        };
        for mut job in jobs {
            if let Err(error) = self.run(&mut batch, job.as_mut(), body_max) {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                job.refuse(error);
            }
            batch.jobs.push(job);
        }
        if !batch.transactions.is_empty() {
            self.append(journal, &batch).inspect_err(|error| {
                for job in &mut batch.jobs {
                    job.refuse(Error::Closed(error.to_string()));
                }
                std::mem::take(&mut batch.jobs).into_iter().for_each(Job::complete);
            })?;
        }
        batch.effects.iter().for_each(|effects| effects.settle(&self.shared));
        batch.jobs.into_iter().for_each(Job::complete);
        Ok(())
    }

    /// Runs one change and applies it. After an error nothing of it is left.
    fn run(&self, batch: &mut Batch, job: &mut dyn Job, body_max: usize) -> Result<()> {
        let renewal = self.shared.ids.renewal();
        let mut tx = Transaction::new(self.meta.begin(), &self.shared, &mut batch.landing, (self.clock)());
        if let Err(error) = job
            .run(&mut tx)
            .and_then(|()| renewal.map_or(Ok(()), |leased| tx.put_lease(leased)))
        {
            return Err(tx.abort(error));
        }
        if BODY_HEADER_BYTES + tx.landed_bytes() + batch.row_bytes + tx.encoded_bytes_max() > body_max {
            return Err(tx.abort(Error::Limit("the change is too large for one journal record".into())));
        }
        let (rows, effects) = tx.finish()?;
        let applied = self.meta.apply(rows).inspect_err(|_| effects.settle(&self.shared))?;
        if let Some(leased) = renewal {
            self.shared.ids.renewed(leased);
        }
        if !applied.bytes.is_empty() {
            batch.row_bytes += applied.bytes.len();
            batch.last_sequence = applied.sequence;
            batch.transactions.push(applied.bytes);
        }
        batch.effects.push(effects);
        Ok(())
    }

    fn append(&self, journal: &mut Journal, batch: &Batch) -> Result<()> {
        let body = encode_body(batch);
        let appended = journal.append(&body)?;
        self.meta.publish(batch.last_sequence);
        self.add_lessened(
            batch
                .effects
                .iter()
                .flat_map(|effects| &effects.live)
                .filter(|(_, delta)| **delta < 0)
                .map(|(segment, _)| *segment),
        );
        let counters = &self.counters;
        counters.transactions.fetch_add(batch.transactions.len() as u64, Ordering::Relaxed);
        counters.records.fetch_add(1, Ordering::Relaxed);
        counters
            .payload_bytes
            .fetch_add(batch.landing.bytes.len() as u64, Ordering::Relaxed);
        counters.row_bytes.fetch_add(batch.row_bytes as u64, Ordering::Relaxed);
        let mut queue = self.queue();
        queue.durable = batch.last_sequence;
        queue.free_bytes = journal.free_bytes();
        queue.records.push_back((batch.last_sequence, appended.next));
        self.moved.notify_all();
        Ok(())
    }
}

/// Nothing can be moved out of the journal: those who bring bytes are told; others wait for what is left of it.
fn refuse_payloads(queue: &mut Queue) {
    while queue.users().front().is_some_and(|job| job.has_payload()) {
        let Some(mut job) = queue.users().pop_front() else { return };
        queue.bytes -= job.bytes_max();
        job.refuse(Error::OutOfSpace("the pool is full; delete something".into()));
        job.complete();
    }
}

fn encode_body(batch: &Batch) -> Vec<u8> {
    let payloads = &batch.landing.bytes;
    let mut body = Writer {
        bytes: Vec::with_capacity(BODY_HEADER_BYTES + payloads.len() + 8 + batch.row_bytes),
    };
    body.u64(batch.first_sequence)
        .u32(payloads.len() as u32)
        .u32(batch.transactions.len() as u32)
        .raw(payloads);
    for transaction in &batch.transactions {
        body.raw(transaction);
    }
    body.bytes
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
