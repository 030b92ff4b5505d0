//! One thread that makes things durable: all callers of fsync that wait at one moment share one `sync` of the store.
//!
//! A thread that answers requests never waits for a device's cache: with every thread in `fsync` no cached read would be answered.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use trefoil_core::filesystem::{Errno, FileSystem};

use crate::device::Ticket;

/// As many tickets wait as processes are in fsync.
#[derive(Debug)]
pub struct Syncs(Sender<Ticket>);

impl Syncs {
    pub fn new() -> (Self, Receiver<Ticket>) {
        let (sender, receiver) = channel();
        (Self(sender), receiver)
    }

    /// Answers when everything acknowledged until now is durable.
    pub fn after_sync(&self, ticket: Ticket) {
        // Refused only when the thread has ended; the ticket then answers EIO.
        let _ = self.0.send(ticket);
    }
}

/// Until the engine is gone.
pub fn serve(fs: &Arc<dyn FileSystem>, tickets: &Receiver<Ticket>) {
    while let Ok(first) = tickets.recv() {
        let waiting: Vec<Ticket> = std::iter::once(first).chain(tickets.try_iter()).collect();
        let outcome = catch_unwind(AssertUnwindSafe(|| fs.sync())).unwrap_or(Err(Errno::IO));
        waiting.into_iter().for_each(|ticket| ticket.settle(outcome));
    }
}
