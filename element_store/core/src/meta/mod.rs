//! The metadata store: ordered key-value transactions, executed one after another, read in parallel.
//!
//! Owns sequences: each transaction that writes gets the next one. `applied` is the newest transaction in the engine, which the next
//! transaction builds on; `visible` is the newest that readers see, raised by `publish` once the journal holds it. Invariant: visible <= applied.
//!
//! Never writes a log and never starts a thread: the caller's writer thread calls `begin`, `apply` and `publish`, journals what `apply` returns, and
//! after a restart hands it back to `replay`.

pub mod checkpoint;
pub mod engine;
pub mod hot;
pub mod lsm;
pub mod model;
pub mod snapshot;
pub mod txn;
mod wire;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::codec::Reader;
use crate::error::{Error, Result};

pub use engine::{Engine, Mutation, RangeIter, Row};
pub use snapshot::Snapshot;
pub use txn::{
    Clock, KEY_BYTES_MAX, KEY_END, Rows, TRANSACTION_BYTES_MAX, TRANSACTION_TIME_MAX, Txn, VALUE_BYTES_MAX, decode_counter, prefix_end,
};
pub use wire::{decode_transaction, encode_transaction};

use snapshot::Readers;

/// What the journal must hold before `sequence` may be published.
#[derive(Debug, PartialEq, Eq)]
pub struct Applied {
    pub sequence: u64,
    /// The transaction as FORMAT.md section 2 has it. Empty if it wrote nothing: then `sequence` is that of the transaction before.
    pub bytes: Vec<u8>,
}

/// How the journal says some mutations in fewer bytes. Whoever knows what keys mean brings it. `expand` gives back what `shorten` was given, both ascending
/// by key; raises Damaged for what it cannot have been.
pub trait Shorthand: Send + Sync {
    fn shorten(&self, mutations: Vec<Mutation>) -> Vec<Mutation>;

    fn expand(&self, mutations: Vec<Mutation>) -> Result<Vec<Mutation>>;
}

pub struct MetaStore {
    engine: Arc<dyn Engine>,
    clock: Clock,
    readers: Arc<Readers>,
    shorthand: Option<Box<dyn Shorthand>>,
}

impl MetaStore {
    /// Everything in the engine counts as durable and is visible.
    pub fn new(engine: Arc<dyn Engine>, clock: Clock) -> Self {
        let readers = Arc::new(Readers::new(engine.applied()));
        Self {
            engine,
            clock,
            readers,
            shorthand: None,
        }
    }

    /// Of all transactions from now on, those that are replayed too.
    pub fn with_shorthand(mut self, shorthand: impl Shorthand + 'static) -> Self {
        self.shorthand = Some(Box::new(shorthand));
        self
    }

    pub fn applied(&self) -> u64 {
        self.engine.applied()
    }

    pub fn visible(&self) -> u64 {
        self.readers.visible()
    }

    /// A reader of the newest visible state.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.engine.clone(), self.readers.clone())
    }

    /// The next transaction, over the newest applied state. One at a time: what a second one read would be stale after the first is applied.
    pub fn begin(&self) -> Txn<'_> {
        Txn::new(self.engine.as_ref(), &self.clock, self.applied())
    }

    /// Hand the transaction's writes to the engine. Later transactions see them, readers not before `publish`. After an error nothing was applied:
    /// Limit if it took too long, Conflict if another one was applied since `begin`.
    pub fn apply(&self, txn: Txn<'_>) -> Result<Applied> {
        if txn.sequence() != self.applied() {
            return Err(Error::Conflict("another transaction was applied since this one began".into()));
        }
        let mutations = txn.into_mutations()?;
        if mutations.is_empty() {
            return Ok(Applied {
                sequence: self.applied(),
                bytes: Vec::new(),
            });
        }
        let sequence = self.applied() + 1;
        self.engine.apply(sequence, &mutations)?;
        let mutations = match &self.shorthand {
            Some(shorthand) => shorthand.shorten(mutations),
            None => mutations,
        };
        Ok(Applied {
            sequence,
            bytes: encode_transaction(&mutations),
        })
    }

    /// The journal holds everything up to `sequence`: show it to readers that start from now on.
    pub fn publish(&self, sequence: u64) {
        assert!(sequence <= self.applied(), "published before it was applied");
        self.engine.forget(self.readers.publish(sequence));
    }

    /// Recovery: apply and publish a transaction of the journal. One that the engine already holds is read and skipped; a gap is Damaged.
    pub fn replay(&self, sequence: u64, transaction: &mut Reader<'_>) -> Result<()> {
        let mutations = decode_transaction(transaction)?;
        let mutations = match &self.shorthand {
            Some(shorthand) => shorthand.expand(mutations)?,
            None => mutations,
        };
        let applied = self.applied();
        if sequence <= applied {
            return Ok(());
        }
        if sequence != applied + 1 {
            return Err(Error::Damaged(format!(
                "the journal continues at transaction {sequence}, the metadata end at {applied}"
            )));
        }
        self.engine.apply(sequence, &mutations)?;
        self.publish(sequence);
        Ok(())
    }

    /// All steps in one, for tests: nothing is journalled.
    pub fn run<T>(&self, closure: impl FnOnce(&mut Txn<'_>) -> Result<T>) -> Result<T> {
        let mut txn = self.begin();
        let value = closure(&mut txn)?;
        let applied = self.apply(txn)?;
        self.publish(applied.sequence);
        Ok(value)
    }
}

/// Time since this call.
pub fn monotonic_clock() -> Clock {
    let start = Instant::now();
    Arc::new(move || start.elapsed())
}

/// CPU time of the calling thread, for transactions that stay on one. A machine that lets the thread wait for its turn, or is stopped for a while, must not
/// make a transaction fail that did little; the change behind it would fail with it, and to a program on a mount a write would be "too large".
pub fn thread_clock() -> Clock {
    Arc::new(|| {
        let spent = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(spent.tv_sec.unsigned_abs(), spent.tv_nsec.unsigned_abs() as u32)
    })
}

#[cfg(test)]
mod tests {
    use super::thread_clock;
    use std::time::Duration;

    #[test]
    fn a_threads_clock_stands_still_while_it_waits() {
        const WORK: Duration = Duration::from_millis(30);
        let clock = thread_clock();
        let (before, other) = (clock(), clock.clone());
        let worked = std::thread::spawn(move || {
            while other() < WORK {}
            other()
        });
        assert!(worked.join().unwrap() >= WORK);
        assert!(clock() - before < WORK);
    }
}
