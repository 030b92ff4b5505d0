//! The threads that run calls which their connection's reader does not run itself.
//!
//! Connections take turns: one call of the next connection that has any. A connection has at most half of the threads at once, so that one with many
//! slow calls leaves room for the others. The queue is bounded by the connections' bounds on outstanding calls.

use crate::connection::{Connection, Ticket};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex};

pub struct Work {
    pub ticket: Ticket,
    pub record: Vec<u8>,
}

#[derive(Default)]
struct Queue {
    /// By connection: calls, and how many of its calls run.
    waiting: HashMap<usize, (VecDeque<Work>, usize)>,
    /// Connections that have a call which may run now, each once.
    turns: VecDeque<usize>,
    stopped: bool,
}

pub struct Pool {
    queue: Mutex<Queue>,
    ready: Condvar,
    running_max: usize,
}

/// A connection's identity for as long as one of its tickets lives.
fn identity(connection: &Arc<Connection>) -> usize {
    Arc::as_ptr(connection) as usize
}

impl Pool {
    pub fn new(threads: usize) -> Self {
        Self {
            queue: Mutex::default(),
            ready: Condvar::new(),
            running_max: threads.div_ceil(2),
        }
    }

    pub fn push(&self, work: Work) {
        let connection = identity(work.ticket.connection());
        let mut queue = self.queue.lock().unwrap();
        let (waiting, running) = queue.waiting.entry(connection).or_default();
        waiting.push_back(work);
        if waiting.len() == 1 && *running < self.running_max {
            queue.turns.push_back(connection);
            self.ready.notify_one();
        }
    }

    pub fn stop(&self) {
        self.queue.lock().unwrap().stopped = true;
        self.ready.notify_all();
    }

    /// One thread's life: until `stop`, and until nothing waits.
    pub fn run(&self, act: impl Fn(Work)) {
        while let Some((connection, work)) = self.next() {
            // Its identity is taken away with its ticket, which `act` consumes: the entry must outlive that.
            let connection_alive = work.ticket.connection().clone();
            act(work);
            self.done(connection);
            drop(connection_alive);
        }
    }

    fn next(&self) -> Option<(usize, Work)> {
        let mut queue = self.queue.lock().unwrap();
        loop {
            if let Some(connection) = queue.turns.pop_front() {
                let (waiting, running) = queue.waiting.get_mut(&connection)?;
                let work = waiting.pop_front()?;
                *running += 1;
                if !waiting.is_empty() && *running < self.running_max {
                    queue.turns.push_back(connection);
                    self.ready.notify_one();
                }
                return Some((connection, work));
            }
            if queue.stopped {
                return None;
            }
            queue = self.ready.wait(queue).unwrap();
        }
    }

    fn done(&self, connection: usize) {
        let mut queue = self.queue.lock().unwrap();
        let Some((waiting, running)) = queue.waiting.get_mut(&connection) else {
            return;
        };
        *running -= 1;
        if waiting.is_empty() && *running == 0 {
            queue.waiting.remove(&connection);
        } else if !waiting.is_empty() && *running + 1 == self.running_max {
            queue.turns.push_back(connection);
            self.ready.notify_one();
        }
    }
}
