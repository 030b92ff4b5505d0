//! The one writer: runs changes one after another, and puts them into journal records in that order. Whoever holds the pen is the writer: its own thread, or
//! for the time of one lazy change the thread that asks for it.
//!
//! Three promises (`Promise`). A durable change is acknowledged, and seen, after its record is flushed on every mirror; a written one after its record is
//! written there, which outlives this process. A lazy one is seen and acknowledged as soon as it ran, while its record is still being filled. A record is
//! sealed, which is written, at once with a change that asks for it, else when somebody waits for it, when it is full, or LAZY_AGE after it was begun; it is
//! flushed with the next durable change, when somebody waits for it, or at that age. Invariants: changes take effect, and become durable, in the order in
//! which they ran, so a crash costs no durable change, and of the others only the last; what a change put into segments is flushed before its record is
//! written; nothing on a device is given up because of a change that is not durable. Room in the journal is made sure of before anything is applied, so that a checkpoint
//! never waits for a record that waits for it. Three queues by what they may use of the journal's last room (`Rank`): what makes room is never stopped
//! by what waits for room.
//!
//! After an append failed nothing further is acknowledged: the store is closed and the next open recovers.

mod job;
mod pen;
mod queue;
mod record;

use job::Reach;
pub use job::{Flush, Promise};
pub use pen::RECORD_BYTES;
pub use queue::{QUEUE_BYTES_MAX, QUEUE_JOBS_MAX, Rank};
pub use record::replay;

use super::Done;
use crate::element::transaction::{Effects, Shared, Transaction};
use crate::error::{Error, Result};
use crate::journal::{Journal, Start};
use crate::meta::MetaStore;
use job::{Change, Job};
use pen::{Pen, Unflushed};
use queue::{Queue, refuse_payloads};
use record::{BODY_HEADER_BYTES, Record};
use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Changes that are not durable are made so, so long after the first of them: with the flush itself, well within the second that files are promised.
pub const LAZY_AGE: Duration = Duration::from_millis(500);
/// How often a stopped queue looks again whether the tree has caught up.
const RECHECK: Duration = Duration::from_millis(5);

pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

#[derive(Default)]
pub struct CommitCounters {
    pub transactions: AtomicU64,
    /// Changes of users, refused ones included.
    pub users: AtomicU64,
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
    /// None before the writer serves and after it ended. Taken before `queue`.
    pen: Mutex<Option<Pen>>,
    /// Work or room arrived.
    ready: Condvar,
    /// The queue got shorter, or more is durable.
    moved: Condvar,
    /// Segments that lost live bytes since the freeing job last looked.
    lessened: Mutex<HashSet<u64>>,
    behind: Box<dyn Fn() -> bool + Send + Sync>,
    clock: Clock,
    lazy_age: Duration,
    /// Wakes upkeep: the journal is short of room.
    on_pressure: Box<dyn Fn() + Send + Sync>,
}

/// What the writer does next.
enum Next {
    /// As many as fit, into the open record or into a new one whose body may get so long.
    Run(VecDeque<(Rank, Box<dyn Job>)>, usize),
    /// The open record is written; and flushed, with all before it?
    Seal(bool),
    /// What is written is flushed.
    Flush,
    /// Until something comes, or so long.
    Wait(Option<Duration>),
    End,
}

impl Committer {
    pub fn new(
        meta: MetaStore,
        shared: Shared,
        clock: Clock,
        lazy_age: Duration,
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
            pen: Mutex::default(),
            ready: Condvar::new(),
            moved: Condvar::new(),
            lessened: Mutex::default(),
            behind,
            clock,
            lazy_age,
            on_pressure,
        }
    }

    pub fn now_ns(&self) -> i64 {
        (self.clock)()
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
        self.submit_with(Promise::Durable, payload, rows, done, work);
    }

    pub fn submit_with<T: Send + 'static>(
        &self,
        promise: Promise,
        payload: usize,
        rows: usize,
        done: Done<T>,
        work: impl FnOnce(&mut Transaction) -> Result<T> + Send + 'static,
    ) {
        self.enqueue(Box::new(Change::new(promise, payload, rows, done, work)));
    }

    /// A user's lazy change; returns when it is seen. `flush`: as `Promise` has it. It runs on the calling thread where it can: to hand it to the writer, and
    /// the answer back, costs more than most changes do. Raises Closed and what `work` raises.
    pub fn run_lazy<T: Send + 'static>(
        &self,
        flush: Option<Flush>,
        payload: usize,
        rows: usize,
        work: impl FnOnce(&mut Transaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        super::wait(|done| {
            let job = Box::new(Change::new(Promise::Lazy(flush), payload, rows, done, work));
            if let Some(job) = self.run_here(job) {
                self.enqueue(job);
            }
        })
    }

    fn enqueue(&self, job: Box<dyn Job>) {
        let mut queue = self.queue();
        while queue.closed.is_none() && (queue.users().len() >= QUEUE_JOBS_MAX || queue.bytes >= QUEUE_BYTES_MAX) {
            queue = self.moved.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.closed.is_some() {
            drop(queue);
            return job.complete();
        }
        queue.bytes += job.bytes_max();
        queue.users().push_back(job);
        self.ready.notify_all();
    }

    /// A change of the store's own, durable, in the calling thread's time. Raises Closed and what `work` raises.
    pub fn run_own<T: Send + 'static>(
        &self,
        rank: Rank,
        rows: usize,
        work: impl FnOnce(&mut Transaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        super::wait(|done| {
            let job = Box::new(Change::new(Promise::Durable, 0, rows, done, work));
            let mut queue = self.queue();
            if queue.stopped {
                drop(queue);
                return job.complete();
            }
            queue.jobs[rank as usize].push_back(job);
            self.ready.notify_all();
        })
    }

    /// A change of the store's own, lazy; never waits, so it may be asked for on the writer's own thread.
    pub fn post_own(&self, rows: usize, work: impl FnOnce(&mut Transaction) -> Result<()> + Send + 'static) {
        // If it fails, nobody would know what to do about it.
        let job = Box::new(Change::new(Promise::Lazy(None), 0, rows, Box::new(drop::<Result<()>>), work));
        let mut queue = self.queue();
        if queue.stopped {
            return;
        }
        queue.jobs[Rank::Own as usize].push_back(job);
        self.ready.notify_all();
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
        if queue.durable < sequence {
            queue.wanted = queue.wanted.max(sequence);
            self.ready.notify_all();
        }
        while queue.durable < sequence {
            if queue.ended {
                return Err(queue.end_reason());
            }
            queue = self.moved.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// `done` is called, perhaps on the writer's thread, once everything that was acknowledged before is durable. Raises Closed.
    pub fn when_durable(&self, done: Done<()>) {
        let sequence = self.meta.visible();
        let mut queue = self.queue();
        if queue.durable < sequence && !queue.ended {
            queue.wanted = queue.wanted.max(sequence);
            queue.waiting.push((sequence, done));
            self.ready.notify_all();
            return;
        }
        let result = if queue.durable < sequence {
            Err(queue.end_reason())
        } else {
            Ok(())
        };
        drop(queue);
        done(result);
    }

    /// Everything that was acknowledged before is durable when it returns. Raises Closed.
    pub fn sync(&self) -> Result<()> {
        self.wait_durable(self.meta.visible())
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
    pub fn serve(&self, journal: Journal, replayed: (u64, Start)) {
        {
            let mut queue = self.queue();
            queue.records.push_back(replayed);
            (queue.free_bytes, queue.capacity) = (journal.free_bytes(), journal.capacity());
        }
        *self.pen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Pen::new(journal));
        // A change may panic here as well: nobody may be left waiting for a writer that is gone.
        let written = catch_unwind(AssertUnwindSafe(|| self.write_records()));
        if let Err(error) = written.unwrap_or_else(|_| Err(panicked())) {
            self.close(&error.to_string());
        }
        self.pen.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut queue = self.queue();
        (queue.stopped, queue.ended) = (true, true);
        queue.closed.get_or_insert_with(|| "the store is closed".into());
        let left: Vec<_> = queue.jobs.iter_mut().flat_map(std::mem::take).collect();
        let (waiting, reason) = (std::mem::take(&mut queue.waiting), queue.end_reason().to_string());
        drop(queue);
        self.moved.notify_all();
        left.into_iter().for_each(Job::complete);
        waiting.into_iter().for_each(|(_, done)| done(Err(Error::Closed(reason.clone()))));
    }

    fn write_records(&self) -> Result<()> {
        let mut is_stalled = false;
        loop {
            let Ok(mut held) = self.pen.lock() else {
                return Err(panicked());
            };
            let Some(pen) = held.as_mut() else { return Ok(()) };
            let mut queue = self.queue();
            let next = self.next(&mut queue, pen);
            if let Next::Wait(patience) = next {
                drop(held);
                let is_empty = queue.is_empty();
                if !is_empty && !is_stalled {
                    self.counters.stalls.fetch_add(1, Ordering::Relaxed);
                }
                is_stalled = !is_empty;
                self.wait(queue, patience);
                continue;
            }
            drop(queue);
            is_stalled = false;
            match next {
                Next::Run(jobs, body_max) => {
                    let record = pen.record(self.meta.applied() + 1, body_max);
                    self.run(record, jobs);
                    if record.reach() == Reach::Seen {
                        self.show(record);
                    }
                }
                Next::Seal(flush) => self.seal(pen, flush)?,
                Next::Flush => self.flush(pen)?,
                Next::Wait(_) => {}
                Next::End => return Ok(()),
            }
        }
    }

    fn wait(&self, queue: MutexGuard<'_, Queue>, patience: Option<Duration>) {
        if !queue.is_empty() {
            (self.on_pressure)();
        }
        match patience {
            Some(patience) => drop(self.ready.wait_timeout(queue, patience)),
            None => drop(self.ready.wait(queue)),
        }
    }

    fn next(&self, queue: &mut Queue, pen: &mut Pen) -> Next {
        if queue.trim_to > pen.journal.tail() {
            pen.journal.trim(queue.trim_to);
            queue.free_bytes = pen.journal.free_bytes();
        }
        let is_due = self.is_due(queue, pen);
        match pen.open.as_ref().map(Record::reach) {
            Some(reach) if reach > Reach::Seen || is_due => return Next::Seal(reach == Reach::Flushed || is_due),
            None if pen.unflushed.since.is_some() && is_due => return Next::Flush,
            _ => {}
        }
        if let Some(next) = self.take(queue, pen) {
            self.moved.notify_all();
            return next;
        }
        if !queue.is_empty() {
            return Next::Wait(Some(RECHECK));
        }
        match pen.age() {
            Some(_) if queue.stopped && pen.open.is_some() => Next::Seal(true),
            Some(_) if queue.stopped => Next::Flush,
            None if queue.stopped => Next::End,
            age => Next::Wait(age.map(|age| self.lazy_age.saturating_sub(age))),
        }
    }

    /// Is what is not durable to be made so?
    fn is_due(&self, queue: &Queue, pen: &Pen) -> bool {
        queue.durable < queue.wanted || pen.age().is_some_and(|age| age >= self.lazy_age)
    }

    /// What may run now. None: nothing is there, or it may not run yet.
    fn take(&self, queue: &mut Queue, pen: &Pen) -> Option<Next> {
        let first = queue.jobs.iter().find_map(VecDeque::front)?.bytes_max();
        let Some(body_max) = pen.body_max_for(first) else {
            let is_durable = pen.open.as_ref().is_some_and(|record| record.reach() == Reach::Flushed);
            return Some(Next::Seal(is_durable));
        };
        let mut jobs = VecDeque::new();
        for rank in Rank::ALL {
            if !self.may_run(rank, pen, body_max) {
                if rank == Rank::User && queue.pool_full {
                    refuse_payloads(queue);
                }
                break;
            }
            let waiting = std::mem::take(&mut queue.jobs[rank as usize]);
            if rank == Rank::User {
                queue.bytes = 0;
            }
            jobs.extend(waiting.into_iter().map(|job| (rank, job)));
        }
        (!jobs.is_empty()).then_some(Next::Run(jobs, body_max))
    }

    fn may_run(&self, rank: Rank, pen: &Pen, body_max: usize) -> bool {
        pen.room_beside(body_max) >= rank.reserve(pen.journal.capacity()).max(1) && (rank != Rank::User || !(self.behind)())
    }

    /// Runs a user's lazy change on the calling thread, if the pen is free and nothing is to be done before it; else gives it back.
    fn run_here(&self, job: Box<dyn Job>) -> Option<Box<dyn Job>> {
        let Ok(mut held) = self.pen.try_lock() else { return Some(job) };
        let Some(pen) = held.as_mut() else { return Some(job) };
        let Some(body_max) = self.may_run_here(pen, job.bytes_max()) else {
            return Some(job);
        };
        let is_first = pen.open.is_none();
        let record = pen.record(self.meta.applied() + 1, body_max);
        self.run(record, VecDeque::from([(Rank::User, job)]));
        let is_shown = record.reach() == Reach::Seen;
        if is_shown {
            self.show(record);
        }
        drop(held);
        if is_first || !is_shown {
            // The writer minds its age, or seals it.
            let _queue = self.queue();
            self.ready.notify_all();
        }
        None
    }

    /// The bound of the record's body, if it may.
    fn may_run_here(&self, pen: &Pen, bytes: usize) -> Option<usize> {
        let queue = self.queue();
        let is_next = queue.closed.is_none() && queue.is_empty() && !self.is_due(&queue, pen);
        let is_open = pen.open.as_ref().is_none_or(|record| record.reach() == Reach::Seen);
        let body_max = pen.body_max_for(bytes)?;
        (is_next && is_open && self.may_run(Rank::User, pen, body_max)).then_some(body_max)
    }

    /// What does not fit goes back to where it was.
    fn run(&self, record: &mut Record, mut jobs: VecDeque<(Rank, Box<dyn Job>)>) {
        while jobs
            .front()
            .is_some_and(|(_, job)| record.is_empty() || record.fits(job.bytes_max()))
        {
            let Some((rank, mut job)) = jobs.pop_front() else { break };
            if rank == Rank::User {
                self.counters.users.fetch_add(1, Ordering::Relaxed);
            }
            if let Err(error) = self.change(record, job.as_mut()) {
                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                job.refuse(error);
            }
            record.push(job);
        }
        if !jobs.is_empty() {
            let mut queue = self.queue();
            for (rank, job) in jobs.into_iter().rev() {
                if rank == Rank::User {
                    queue.bytes += job.bytes_max();
                }
                queue.jobs[rank as usize].push_front(job);
            }
        }
    }

    /// Runs one change and applies it. After an error nothing of it is left.
    fn change(&self, record: &mut Record, job: &mut dyn Job) -> Result<()> {
        let renewal = self.shared.ids.renewal();
        let mut tx = Transaction::new(self.meta.begin(), &self.shared, &record.landing, (self.clock)());
        if let Err(error) = job
            .run(&mut tx)
            .and_then(|()| renewal.map_or(Ok(()), |leased| tx.put_lease(leased)))
        {
            return Err(tx.abort(error));
        }
        if BODY_HEADER_BYTES + tx.landed_bytes() + record.row_bytes + tx.encoded_bytes_max() > record.body_max {
            return Err(tx.abort(Error::Limit("the change is too large for one journal record".into())));
        }
        let (rows, mut effects) = tx.finish()?;
        let applied = self.meta.apply(rows).inspect_err(|_| effects.settle(&self.shared))?;
        effects.install(&self.shared);
        record.lease(renewal);
        record.add(job, effects, applied);
        self.counters.transactions.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Readers see what the record holds so far; whoever made it goes on.
    fn show(&self, record: &mut Record) {
        self.meta.publish(record.last_sequence());
        record.effects.drain(..).for_each(|effects| effects.settle(&self.shared));
        record.jobs.drain(..).for_each(Job::complete);
    }

    /// Writes the open record, or makes it durable, then shows it.
    fn seal(&self, pen: &mut Pen, flush: bool) -> Result<()> {
        let Some(mut record) = pen.open.take() else { return Ok(()) };
        if let Err(error) = self.append(pen, &mut record, flush) {
            for job in &mut record.jobs {
                job.refuse(Error::Closed(error.to_string()));
            }
            record.effects.iter().for_each(|effects| effects.settle(&self.shared));
            record.jobs.into_iter().for_each(Job::complete);
            return Err(error);
        }
        self.show(&mut record);
        Ok(())
    }

    fn append(&self, pen: &mut Pen, record: &mut Record, flush: bool) -> Result<()> {
        if record.transactions.is_empty() {
            // Who was told of what is there may rely on it too.
            return if flush && pen.unflushed.since.is_some() {
                self.flush(pen)
            } else {
                Ok(())
            };
        }
        record.flush()?;
        let (body, journal) = (record.encode(), &mut pen.journal);
        let appended = if flush { journal.append(&body)? } else { journal.write(&body)? };
        if let Some(leased) = record.leased {
            self.shared.ids.renewed(leased);
        }
        pen.unflushed.add(record);
        let counters = &self.counters;
        counters.records.fetch_add(1, Ordering::Relaxed);
        counters
            .payload_bytes
            .fetch_add(record.landing.filling.len() as u64, Ordering::Relaxed);
        counters.row_bytes.fetch_add(record.row_bytes as u64, Ordering::Relaxed);
        // What is durable may be waited for only once it can be seen.
        self.meta.publish(record.last_sequence());
        let mut queue = self.queue();
        queue.free_bytes = pen.journal.free_bytes();
        queue.records.push_back((record.last_sequence(), appended.next));
        drop(queue);
        if flush {
            self.flushed(&mut pen.unflushed);
        }
        Ok(())
    }

    fn flush(&self, pen: &mut Pen) -> Result<()> {
        pen.journal.flush()?;
        self.flushed(&mut pen.unflushed);
        Ok(())
    }

    /// All that was written is durable.
    fn flushed(&self, unflushed: &mut Unflushed) {
        let Unflushed {
            last_sequence, lessened, ..
        } = std::mem::take(unflushed);
        self.add_lessened(lessened);
        let mut queue = self.queue();
        queue.durable = last_sequence;
        let waited = queue.take_durable();
        drop(queue);
        self.moved.notify_all();
        waited.into_iter().for_each(|done| done(Ok(())));
    }
}

fn panicked() -> Error {
    Error::Closed("a change panicked, see the log; restart".into())
}

#[cfg(test)]
mod tests;
