//! Content on its way in: hashed and written by one job of the pool at a time, in order, while more of it arrives.
//!
//! `write` only queues; a job starts when JOB_BYTES have come together, and the writer waits when more than WAITING_BYTES_MAX are queued or under
//! way. `bytes` objects are kept, not copied. What went wrong in the background is raised by the next call. Dropped, it discards.

use crate::arguments;
use crate::bridge::Ticket;
use crate::errors::{Failure, raise};
use crate::pool::{Pool, guarded, lock};
use crate::shared::Shared;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use std::sync::{Arc, Mutex};
use trefoil_core::error::{Error, Result};
use trefoil_core::store::digest::Hasher;
use trefoil_core::store::{Staged as Finished, Staging};

/// Bytes for which it pays to wake a thread.
const JOB_BYTES: usize = 1024 * 1024;
/// Bytes for which it pays to hash beside writing: MD5 takes longer than landing, and one after the other both bound a stream.
const PARALLEL_BYTES_MIN: usize = 512 * 1024;
/// Bytes of one writer in memory, before the store's own row.
const WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The writer goes on when as few as this are left: the thread has enough to do until the next arrive.
const WAITING_BYTES_LOW: usize = 2 * 1024 * 1024;
/// Smaller pieces are gathered: below this, holding on to a Python object costs more than copying it.
const KEEP_BYTES_MIN: usize = 64 * 1024;

enum Piece {
    Gathered(Vec<u8>),
    Kept(PyBackedBytes),
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        match self {
            Piece::Gathered(bytes) => bytes,
            Piece::Kept(bytes) => bytes,
        }
    }
}

struct Work {
    staging: Staging,
    hasher: Hasher,
}

#[derive(Default)]
struct State {
    queue: Vec<Piece>,
    queued: usize,
    under_way: usize,
    /// None while a job has it, and after the end.
    work: Option<Work>,
    /// A job is submitted or runs.
    busy: bool,
    failure: Option<Failure>,
    writer: Option<Ticket>,
    finisher: Option<Ticket>,
    finished: Option<Finished>,
    discarded: bool,
}

impl State {
    fn push(&mut self, piece: Piece) {
        self.queued += piece.as_ref().len();
        self.queue.push(piece);
    }

    fn gather(&mut self, bytes: &[u8]) {
        self.queued += bytes.len();
        match self.queue.last_mut() {
            Some(Piece::Gathered(last)) if last.len() + bytes.len() <= last.capacity() => last.extend_from_slice(bytes),
            _ => {
                let mut gathered = Vec::with_capacity(bytes.len().max(JOB_BYTES));
                gathered.extend_from_slice(bytes);
                self.queue.push(Piece::Gathered(gathered));
            }
        }
    }

    fn wants_thread(&self) -> bool {
        self.queued >= JOB_BYTES || self.finisher.is_some() || self.discarded
    }
}

/// What the jobs of one writer share with it.
struct Lane {
    state: Mutex<State>,
    pool: Arc<Pool>,
}

#[pyclass(module = "element_store._core")]
pub struct Staged {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    #[pyo3(get)]
    size: u64,
    finished: bool,
}

impl Staged {
    pub fn new(shared: Arc<Shared>, staging: Staging, hasher: Hasher) -> Self {
        let state = State {
            work: Some(Work { staging, hasher }),
            ..State::default()
        };
        let lane = Lane {
            state: Mutex::new(state),
            pool: shared.pool.clone(),
        };
        Self {
            shared,
            lane: Arc::new(lane),
            size: 0,
            finished: false,
        }
    }

    /// The finished content, once: whoever takes it publishes or drops it. Raises Invalid.
    pub fn take(&self) -> PyResult<Finished> {
        let finished = lock(&self.lane.state).finished.take();
        finished.ok_or_else(|| raise(Error::Invalid("content is not finished, or was published or discarded".into())))
    }
}

#[pymethods]
impl Staged {
    /// A future to await before the next write, or None.
    fn write(&mut self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        if self.finished {
            return Err(raise(Error::Invalid("content is finished".into())));
        }
        let bytes = match data.cast::<PyBytes>() {
            Ok(bytes) if bytes.as_bytes().len() >= KEEP_BYTES_MIN => Piece::Kept(bytes.clone().into()),
            _ => Piece::Gathered(arguments::content(data)?),
        };
        let mut state = lock(&self.lane.state);
        if let Some(failure) = &state.failure {
            return Err(failure.clone().into());
        }
        self.size += bytes.as_ref().len() as u64;
        match bytes {
            Piece::Gathered(bytes) if bytes.len() < KEEP_BYTES_MIN => state.gather(&bytes),
            piece => state.push(piece),
        }
        let waiting = if state.queued + state.under_way > WAITING_BYTES_MAX {
            let (future, ticket) = self.shared.begin(py)?;
            state.writer = Some(ticket);
            Some(future)
        } else {
            None
        };
        drop(state);
        self.lane.start();
        Ok(waiting)
    }

    /// A future of the digests.
    fn finish(&mut self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if std::mem::replace(&mut self.finished, true) {
            return Err(raise(Error::Invalid("content is finished".into())));
        }
        let mut state = lock(&self.lane.state);
        if let Some(failure) = &state.failure {
            return Err(failure.clone().into());
        }
        let (future, ticket) = self.shared.begin(py)?;
        state.finisher = Some(ticket);
        drop(state);
        self.lane.start();
        Ok(future)
    }

    /// Returns at once; space is given back in the background.
    fn discard(&mut self) {
        self.finished = true;
        let mut state = lock(&self.lane.state);
        let before = std::mem::replace(&mut state.discarded, true);
        let finished = state.finished.take();
        drop(state);
        if before {
            return;
        }
        self.lane.fail(&Failure::from(Error::Invalid("content was discarded".into())));
        if let Some(finished) = finished {
            // Giving space back may wait for a lock that writers hold.
            self.lane.pool.submit(move || {
                let _discarded = finished;
            });
        }
        self.lane.start();
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.discard();
    }
}

impl Lane {
    /// Submits a job if there is reason to and none is under way.
    fn start(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        if state.busy || state.work.is_none() || !state.wants_thread() {
            return;
        }
        state.busy = true;
        drop(state);
        let lane = self.clone();
        if !self.pool.submit(move || lane.run()) {
            self.fail(&Failure::closed());
        }
    }

    /// Nothing more will be written; whoever waits hears why, and so does the next call.
    fn fail(&self, failure: &Failure) {
        let mut state = lock(&self.state);
        state.failure = Some(failure.clone());
        state.queue.clear();
        state.queued = 0;
        let waiting = [state.writer.take(), state.finisher.take()];
        drop(state);
        waiting.into_iter().flatten().for_each(|ticket| ticket.fail(failure.clone()));
    }

    /// One job: what has come so far. More goes to the end of the pool's queue, so that no writer keeps a thread for itself.
    fn run(self: Arc<Self>) {
        let Some((work, pieces)) = self.take() else { return };
        let outcome = guarded(|| self.go_on(work, pieces));
        let mut state = lock(&self.state);
        state.busy = false;
        match outcome {
            Ok(work) => state.work = work,
            Err(failure) => {
                drop(state);
                return self.fail(&failure);
            }
        }
        drop(state);
        self.start();
    }

    fn take(&self) -> Option<(Work, Vec<Piece>)> {
        let mut state = lock(&self.state);
        state.under_way = std::mem::take(&mut state.queued);
        Some((state.work.take()?, std::mem::take(&mut state.queue)))
    }

    /// Writes the pieces; then, where that is wanted, finishes or discards. None at the end.
    fn go_on(&self, mut work: Work, pieces: Vec<Piece>) -> Result<Option<Work>> {
        if pieces.iter().map(|piece| piece.as_ref().len()).sum::<usize>() < PARALLEL_BYTES_MIN {
            pieces.iter().for_each(|piece| work.hasher.update(piece.as_ref()));
            self.write_all(&mut work.staging, &pieces)?;
        } else {
            let Work { staging, hasher } = &mut work;
            std::thread::scope(|scope| {
                scope.spawn(|| pieces.iter().for_each(|piece| hasher.update(piece.as_ref())));
                self.write_all(staging, &pieces)
            })?;
        }
        let mut state = lock(&self.state);
        if state.discarded {
            return Ok(None);
        }
        if state.queued > 0 || state.finisher.is_none() {
            return Ok(Some(work));
        }
        let finisher = state.finisher.take();
        drop(state);
        let result = self.end(work);
        if let Some(ticket) = finisher {
            ticket.settle(result);
        }
        Ok(None)
    }

    /// Stops early if the content was discarded.
    fn write_all(&self, staging: &mut Staging, pieces: &[Piece]) -> Result<()> {
        for piece in pieces {
            if lock(&self.state).discarded {
                break;
            }
            staging.write(piece.as_ref())?;
            self.written(piece.as_ref().len());
        }
        Ok(())
    }

    fn end(&self, work: Work) -> Result<trefoil_core::element::info::Digests> {
        let finished = work.staging.finish()?;
        let mut state = lock(&self.state);
        if !state.discarded {
            state.finished = Some(finished);
        }
        drop(state);
        Ok(work.hasher.finish())
    }

    fn written(&self, bytes: usize) {
        let mut state = lock(&self.state);
        state.under_way -= bytes;
        if state.queued + state.under_way > WAITING_BYTES_LOW {
            return;
        }
        let writer = state.writer.take();
        drop(state);
        if let Some(ticket) = writer {
            ticket.settle(Ok(()));
        }
    }
}
