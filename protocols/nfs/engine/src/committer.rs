//! The threads that make changes durable before their replies are sent.
//!
//! Each takes all replies that wait, calls `sync` once, and sends them: however many calls change something at a time, they share the store's flushes,
//! and none of them holds a thread while it waits.

use crate::connection::Ticket;
use crate::counters::{Counters, Span};
use crate::dispatch::Reply;
use crate::duplicates::Key;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex};
use trefoil_core::filesystem::FileSystem;

/// Two: while one waits for the store, the other takes what comes.
pub const COMMITTERS: usize = 2;

/// An answer that must not be sent yet.
pub struct Pending {
    pub ticket: Ticket,
    pub key: Option<Key>,
    pub span: Span,
    pub reply: Reply,
    pub unless_durable: Vec<u8>,
}

#[derive(Default)]
struct Queue {
    pending: Vec<Pending>,
    stopped: bool,
}

#[derive(Default)]
pub struct Committer {
    queue: Mutex<Queue>,
    ready: Condvar,
}

impl Committer {
    pub fn push(&self, pending: Pending) {
        self.queue.lock().unwrap().pending.push(pending);
        self.ready.notify_one();
    }

    pub fn stop(&self) {
        self.queue.lock().unwrap().stopped = true;
        self.ready.notify_all();
    }

    /// One thread's life: until `stop`, and until nothing waits.
    pub fn run(&self, fs: &dyn FileSystem, counters: &Counters, deliver: impl Fn(Ticket, Option<Key>, Span, Reply)) {
        loop {
            let pending = self.take();
            if pending.is_empty() {
                return;
            }
            counters.syncs.add(1);
            let durable = matches!(catch_unwind(AssertUnwindSafe(|| fs.sync())), Ok(Ok(())));
            for Pending {
                ticket,
                key,
                span,
                reply,
                unless_durable,
            } in pending
            {
                deliver(ticket, key, span, if durable { reply } else { unless_durable.into() });
            }
        }
    }

    /// All that waits; nothing after `stop`.
    fn take(&self) -> Vec<Pending> {
        let queue = self.queue.lock().unwrap();
        let mut queue = self
            .ready
            .wait_while(queue, |queue| queue.pending.is_empty() && !queue.stopped)
            .unwrap();
        std::mem::take(&mut queue.pending)
    }
}
