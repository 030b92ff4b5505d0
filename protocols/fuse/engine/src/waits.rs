//! Callers that wait for a lock, so that a signal can end their wait.
//!
//! The kernel names the request that a signal interrupts, possibly before the thread that took the request has begun to wait; such early interrupts are
//! remembered for a while. Most of them are of requests that never wait, and those ask nobody to remember.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use trefoil_core::filesystem::locks::{Answer, LockTable, Waiter};
use trefoil_core::filesystem::{Errno, Result};

use crate::device::Ticket;
use crate::known::lock;

/// Requests that were interrupted and did not wait then.
const EARLY_MAX: usize = 256;

#[derive(Debug)]
struct Wait {
    ticket: Ticket,
    /// As soon as the table has named it.
    waiter: Option<Waiter>,
    interrupted: bool,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: HashMap<u64, Wait>,
    early: VecDeque<u64>,
}

/// As many wait as the lock table lets.
#[derive(Debug, Default)]
pub struct Waits(Mutex<Inner>);

impl Waits {
    /// `begin` starts the wait in the lock table, which may answer before it returns.
    pub fn wait(self: &Arc<Self>, unique: u64, ticket: Ticket, table: &LockTable, begin: impl FnOnce(Answer) -> Option<Waiter>) {
        let mut inner = lock(&self.0);
        let interrupted = take(&mut inner.early, unique);
        inner.waiting.insert(
            unique,
            Wait {
                ticket,
                waiter: None,
                interrupted,
            },
        );
        drop(inner);
        let waits = self.clone();
        if let Some(waiter) = begin(Box::new(move |outcome| waits.settle(unique, outcome))) {
            self.named(unique, waiter, table);
        }
    }

    /// A signal came for whoever asked this.
    pub fn interrupt(&self, unique: u64, table: &LockTable) {
        let mut inner = lock(&self.0);
        match inner.waiting.get_mut(&unique) {
            Some(wait) => wait.interrupted = true,
            None => {
                inner.early.truncate(EARLY_MAX - 1);
                inner.early.push_front(unique);
            }
        }
        drop(inner);
        self.give_up(unique, table);
    }

    fn named(&self, unique: u64, waiter: Waiter, table: &LockTable) {
        // Not there any more if the answer has come meanwhile.
        if let Some(wait) = lock(&self.0).waiting.get_mut(&unique) {
            wait.waiter = Some(waiter);
        }
        self.give_up(unique, table);
    }

    /// Ends the wait if it is known to the table and interrupted, and the table has not just answered it.
    fn give_up(&self, unique: u64, table: &LockTable) {
        let waiter = lock(&self.0)
            .waiting
            .get(&unique)
            .filter(|wait| wait.interrupted)
            .and_then(|wait| wait.waiter);
        if waiter.is_some_and(|waiter| table.cancel(waiter)) {
            self.settle(unique, Err(Errno::INTR));
        }
    }

    fn settle(&self, unique: u64, outcome: Result<()>) {
        let wait = lock(&self.0).waiting.remove(&unique);
        if let Some(wait) = wait {
            wait.ticket.settle(outcome);
        }
    }
}

fn take(early: &mut VecDeque<u64>, unique: u64) -> bool {
    let at = early.iter().position(|&one| one == unique);
    at.is_some_and(|at| early.remove(at).is_some())
}
