//! What the classes of one open store have in common: the store, its threads, its event loop.

use crate::bridge::{Attached, Ticket};
use crate::errors::{Failure, raise};
use crate::pool::{Pool, lock};
use crate::values::ToPython;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use trefoil_core::error::Result;
use trefoil_core::filesystem::locks::LockTable;
use trefoil_core::store::commit::{QUEUE_BYTES_MAX, QUEUE_JOBS_MAX};
use trefoil_core::store::{Done, Store};

/// Bytes that all streams of the store together read ahead of their readers; beyond, each has one piece under way.
const READ_AHEAD_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Of a transaction besides what its caller names: so many of them fill the store's queue of bytes as fill its queue of jobs.
const COMMIT_BYTES: usize = QUEUE_BYTES_MAX / QUEUE_JOBS_MAX;
/// Half of the store's queue: the estimate of a transaction's bytes may be too low by as much.
const COMMITTING_BYTES_MAX: usize = QUEUE_BYTES_MAX / 2;

pub struct Shared {
    /// None once it is closing: its devices close with the last who holds it.
    store: Mutex<Option<Arc<Store>>>,
    pub pool: Arc<Pool>,
    pub bridge: Attached,
    /// Of all file faces: whoever locks by one sees who locked by another.
    pub locks: Arc<LockTable>,
    ahead: Arc<AtomicUsize>,
    committing: Arc<AtomicUsize>,
}

impl Shared {
    pub fn new(store: Arc<Store>, pool: Arc<Pool>, bridge: Attached) -> Self {
        Self {
            store: Mutex::new(Some(store)),
            pool,
            bridge,
            locks: Arc::default(),
            ahead: Arc::default(),
            committing: Arc::default(),
        }
    }

    /// Raises Closed.
    pub fn store(&self) -> PyResult<Arc<Store>> {
        lock(&self.store).clone().ok_or_else(|| Failure::closed().into())
    }

    /// None the second time. Every later call raises Closed.
    pub fn take_store(&self) -> Option<Arc<Store>> {
        lock(&self.store).take()
    }

    pub fn begin(&self, py: Python<'_>) -> PyResult<(Py<PyAny>, Ticket)> {
        self.bridge.0.begin(py)
    }

    /// Runs a blocking call in the pool. The future has its value.
    pub fn call<T: ToPython>(&self, py: Python<'_>, work: impl FnOnce(&Store) -> Result<T> + Send + 'static) -> PyResult<Py<PyAny>> {
        self.pool.admit().map_err(raise)?;
        let store = self.store()?;
        let (future, ticket) = self.begin(py)?;
        self.pool.submit(move || ticket.settle(work(&store)));
        Ok(future)
    }

    /// Starts a transaction; `bytes`: about what it adds to the store's queue. The future has its value when it is durable.
    ///
    /// Starting costs nothing, until the store's own queue is full; then it waits, which the loop's thread must not. So the loop's thread starts
    /// transactions only while those under way fill less than half of that queue; beyond, threads of the pool do it and wait.
    pub fn commit<T: ToPython>(
        &self,
        py: Python<'_>,
        bytes: usize,
        start: impl FnOnce(&Store, Done<T>) + Send + 'static,
    ) -> PyResult<Py<PyAny>> {
        let (lease, under_way) = Lease::take(&self.committing, bytes + COMMIT_BYTES);
        if under_way > COMMITTING_BYTES_MAX {
            return self.commit_aside(py, move |store, done| start(store, holding(lease, done)));
        }
        let store = self.store()?;
        let (future, ticket) = self.begin(py)?;
        start(&store, holding(lease, done(ticket)));
        Ok(future)
    }

    /// Starts a transaction, in the pool, that may have to read or wait before it can start.
    pub fn commit_aside<T: ToPython>(&self, py: Python<'_>, start: impl FnOnce(&Store, Done<T>) + Send + 'static) -> PyResult<Py<PyAny>> {
        self.pool.admit().map_err(raise)?;
        let store = self.store()?;
        let (future, ticket) = self.begin(py)?;
        self.pool.submit(move || start(&store, done(ticket)));
        Ok(future)
    }

    /// Room for bytes read ahead, if there is any.
    pub fn read_ahead(&self, bytes: usize) -> Option<Lease> {
        let (lease, ahead) = Lease::take(&self.ahead, bytes);
        (ahead <= READ_AHEAD_BYTES_MAX).then_some(lease)
    }
}

impl Drop for Shared {
    /// A store that nobody closed is let go by a thread of the pool: its end may block, and this may be the loop's thread.
    fn drop(&mut self) {
        if let Some(store) = self.take_store() {
            self.pool.submit(move || drop(store));
        }
    }
}

pub fn done<T: ToPython>(ticket: Ticket) -> Done<T> {
    Box::new(move |result| ticket.settle(result))
}

fn holding<T: 'static>(lease: Lease, done: Done<T>) -> Done<T> {
    Box::new(move |result| {
        drop(lease);
        done(result);
    })
}

/// Bytes counted until this is dropped.
pub struct Lease {
    of: Arc<AtomicUsize>,
    bytes: usize,
}

impl Lease {
    /// With what is counted in all, this included.
    fn take(of: &Arc<AtomicUsize>, bytes: usize) -> (Self, usize) {
        let before = of.fetch_add(bytes, Ordering::Relaxed);
        (Self { of: of.clone(), bytes }, before + bytes)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
