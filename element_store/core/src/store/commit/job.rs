//! One change on its way through the writer.

use super::Done;
use crate::element::transaction::Transaction;
use crate::error::{Error, Result};

/// Makes durable, in segments, what a lazy change refers to.
pub type Flush = Box<dyn FnOnce() -> Result<()> + Send>;

/// What an acknowledgement says. Where it is not durable yet, it becomes so in order, with everything before it.
pub enum Promise {
    Durable,
    /// It outlives the process. With what its content in segments needs to be durable.
    Written(Option<Flush>),
    /// It is seen by all. With the same.
    Lazy(Option<Flush>),
}

/// What must have become of a record before its changes are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    Seen,
    Written,
    Flushed,
}

pub(super) trait Job: Send {
    /// The most that it adds to a record.
    fn bytes_max(&self) -> usize;
    fn has_payload(&self) -> bool;
    fn reach(&self) -> Reach;
    fn take_flush(&mut self) -> Option<Flush>;
    fn run(&mut self, tx: &mut Transaction) -> Result<()>;
    fn refuse(&mut self, error: Error);
    fn complete(self: Box<Self>);
}

pub(super) struct Change<T, F> {
    work: Option<F>,
    result: Option<Result<T>>,
    done: Done<T>,
    promise: Promise,
    bytes_max: usize,
    has_payload: bool,
}

impl<T, F> Change<T, F> {
    pub fn new(promise: Promise, payload: usize, rows: usize, done: Done<T>, work: F) -> Self {
        Self {
            work: Some(work),
            result: None,
            done,
            promise,
            bytes_max: payload + rows,
            has_payload: payload > 0,
        }
    }
}

impl<T: Send, F: FnOnce(&mut Transaction) -> Result<T> + Send> Job for Change<T, F> {
    fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    fn has_payload(&self) -> bool {
        self.has_payload
    }

    fn reach(&self) -> Reach {
        match self.promise {
            Promise::Durable => Reach::Flushed,
            Promise::Written(_) => Reach::Written,
            Promise::Lazy(_) => Reach::Seen,
        }
    }

    fn take_flush(&mut self) -> Option<Flush> {
        match &mut self.promise {
            Promise::Written(flush) | Promise::Lazy(flush) => flush.take(),
            Promise::Durable => None,
        }
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
