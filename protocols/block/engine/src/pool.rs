//! Threads for what may wait for devices: slow reads, comparisons, copies. Reservations have one of their own (`Shared::changes`), as they wait for what
//! waits for these.
//!
//! The queue is bounded by what all connections together may have outstanding.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, PoisonError};

pub type Work = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Work>,
    stopped: bool,
}

#[derive(Default)]
pub struct Pool {
    queue: Mutex<Queue>,
    ready: Condvar,
}

impl Pool {
    pub fn push(&self, work: Work) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).waiting.push_back(work);
        self.ready.notify_one();
    }

    pub fn stop(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).stopped = true;
        self.ready.notify_all();
    }

    /// One thread's life: until `stop`, and until nothing waits.
    pub fn run(&self) {
        while let Some(work) = self.next() {
            // A panic is answered by the reply that it drops; the thread goes on.
            let _ = catch_unwind(AssertUnwindSafe(work));
        }
    }

    fn next(&self) -> Option<Work> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(work) = queue.waiting.pop_front() {
                return Some(work);
            }
            if queue.stopped {
                return None;
            }
            queue = self.ready.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
