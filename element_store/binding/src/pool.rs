//! Threads for the store's blocking calls.
//!
//! Jobs start in the order in which they were submitted. `admit` says whether a new call may come: it refuses when JOBS_WAITING_MAX jobs wait,
//! so that a store that hangs on its devices makes its callers fail instead of collecting their memory. Jobs that free something or go on with
//! an admitted call are always taken. A job that panics ends alone; its thread goes on.

use crate::errors::Failure;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use trefoil_core::error::{Error, Result};

/// As many calls as wait for devices at once. More threads than cores, because a call mostly waits.
pub const THREADS: usize = 16;
/// Calls that may wait for a thread; the next one gets LimitExceeded.
pub const JOBS_WAITING_MAX: usize = 16 * 1024;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    closed: bool,
}

#[derive(Default)]
struct Inner {
    queue: Mutex<Queue>,
    wake: Condvar,
}

pub struct Pool {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// No invariant spans a lock here, so a panic while it is held breaks nothing.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs work that others wait for: a panic in it is their failure, not their hanging.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> std::result::Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| Failure::internal())?
        .map_err(Failure::from)
}

impl Pool {
    pub fn new() -> Result<Arc<Self>> {
        let inner = Arc::new(Inner::default());
        let pool = Arc::new(Self {
            inner: inner.clone(),
            threads: Mutex::default(),
        });
        for number in 0..THREADS {
            let inner = inner.clone();
            let thread = std::thread::Builder::new()
                .name(format!("store-call-{number}"))
                .spawn(move || inner.work())?;
            lock(&pool.threads).push(thread);
        }
        Ok(pool)
    }

    /// Raises Closed and, when too many calls wait, Limit.
    pub fn admit(&self) -> Result<()> {
        let queue = lock(&self.inner.queue);
        if queue.closed {
            Err(Error::Closed("store".into()))
        } else if queue.jobs.len() >= JOBS_WAITING_MAX {
            Err(Error::Limit(format!("{JOBS_WAITING_MAX} calls wait for the store")))
        } else {
            Ok(())
        }
    }

    /// False after `close`: the job is dropped, not run.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) -> bool {
        let mut queue = lock(&self.inner.queue);
        if queue.closed {
            return false;
        }
        queue.jobs.push_back(Box::new(job));
        let wake = queue.idle > 0;
        drop(queue);
        if wake {
            self.inner.wake.notify_one();
        }
        true
    }

    /// Takes no more jobs, runs those that wait, and ends the threads. Blocks; must not be called from a job.
    pub fn close(&self) {
        self.inner.close();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // A thread ends by itself only; there is nothing to learn from how.
            let _ = thread.join();
        }
    }
}

impl Drop for Pool {
    /// Does not wait: the last owner may be a thread that must go on.
    fn drop(&mut self) {
        self.inner.close();
    }
}

impl Inner {
    fn close(&self) {
        lock(&self.queue).closed = true;
        self.wake.notify_all();
    }

    fn next(&self) -> Option<Job> {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue.idle += 1;
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            queue.idle -= 1;
        }
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            // The caller hears of it through its ticket, which is dropped; the panic's message is on standard error.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    }
}
