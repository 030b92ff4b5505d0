//! An asynchronous iterator over pinned bytes, read ahead by the pool's threads.
//!
//! Pieces end at multiples of PIECE_BYTES, so that each lies in one extent. Up to PIECES_AHEAD of them are under way at once and are handed out
//! in order. A piece that is there when it is asked for costs no trip through the event loop; content that came with the pin never makes one.
//! After an error the stream is over.

use crate::bridge::Ticket;
use crate::content::Pin;
use crate::errors::Failure;
use crate::pool::{guarded, lock};
use crate::shared::{Lease, Shared};
use pyo3::exceptions::PyMemoryError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use trefoil_core::error::Error;
use trefoil_core::store::Content as Pinned;

/// Bytes of the largest piece.
pub const PIECE_BYTES: u64 = 1024 * 1024;
/// Pieces of one stream that are being read or wait for the reader.
const PIECES_AHEAD: usize = 4;

#[pyclass(module = "element_store._core")]
pub struct Chunks {
    shared: Arc<Shared>,
    pin: Arc<Pin>,
    next: u64,
    stop: u64,
    window: VecDeque<Arc<Slot>>,
    /// Set when an error was handed out, or nobody will ask for more.
    over: Arc<AtomicBool>,
}

/// Where a piece arrives and is picked up.
struct Slot {
    state: Mutex<State>,
    /// None for the piece that the reader wants next: that one is always read.
    _lease: Option<Lease>,
}

enum State {
    Reading,
    Awaited(Ticket),
    Read(std::result::Result<Fresh, Failure>),
    Taken,
}

impl Chunks {
    pub fn new(shared: Arc<Shared>, pin: Arc<Pin>, start: u64, stop: u64) -> Self {
        Self {
            shared,
            pin,
            next: start,
            stop,
            window: VecDeque::new(),
            over: Arc::default(),
        }
    }

    fn take_range(&mut self) -> (u64, u64) {
        let start = self.next;
        self.next = ((start / PIECE_BYTES + 1) * PIECE_BYTES).min(self.stop);
        (start, self.next)
    }

    fn read_ahead(&mut self, py: Python<'_>, pinned: &Arc<Pinned>) -> PyResult<()> {
        while self.next < self.stop && self.window.len() < PIECES_AHEAD {
            let lease = self.shared.read_ahead(PIECE_BYTES as usize);
            if lease.is_none() && !self.window.is_empty() {
                break;
            }
            let (start, stop) = self.take_range();
            let fresh = Fresh::new(py, (stop - start) as usize)?;
            let slot = Arc::new(Slot {
                state: Mutex::new(State::Reading),
                _lease: lease,
            });
            self.window.push_back(slot.clone());
            let (pinned, over) = (pinned.clone(), self.over.clone());
            if !self.shared.pool.submit(move || slot.arrive(fresh, &pinned, start, stop, &over)) {
                self.end();
                return Err(Failure::closed().into());
            }
        }
        Ok(())
    }

    /// The next piece of content that came with the pin.
    fn prefetched(&mut self, py: Python<'_>, bytes: &[u8]) -> PyResult<Py<PyAny>> {
        let (start, stop) = self.take_range();
        let piece = usize::try_from(start)
            .ok()
            .zip(usize::try_from(stop).ok())
            .and_then(|(start, stop)| bytes.get(start..stop));
        let piece = piece.ok_or_else(|| Failure::from(Error::Damaged("content is shorter than its element says".into())))?;
        self.shared.bridge.0.ready(py, PyBytes::new(py, piece).into_any().unbind())
    }

    /// A future of what arrives in the slot. Raises what went wrong if that is known already.
    fn pick_up(&mut self, py: Python<'_>, slot: &Slot) -> PyResult<Py<PyAny>> {
        let mut state = lock(&slot.state);
        match std::mem::replace(&mut *state, State::Taken) {
            State::Read(Ok(fresh)) => self.shared.bridge.0.ready(py, fresh.object.into_any()),
            State::Read(Err(failure)) => {
                self.end();
                Err(failure.into())
            }
            State::Reading | State::Awaited(_) | State::Taken => {
                let (future, ticket) = self.shared.begin(py)?;
                *state = State::Awaited(ticket);
                Ok(future)
            }
        }
    }

    fn end(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.window.clear();
        self.next = self.stop;
    }
}

#[pymethods]
impl Chunks {
    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(&mut self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        if self.over.load(Ordering::Relaxed) || (self.window.is_empty() && self.next >= self.stop) {
            self.end();
            return Ok(None);
        }
        let pinned = self.pin.get()?;
        if let Some(bytes) = &pinned.prefetched {
            return self.prefetched(py, bytes).map(Some);
        }
        self.read_ahead(py, &pinned)?;
        match self.window.pop_front() {
            Some(slot) => self.pick_up(py, &slot).map(Some),
            None => Ok(None),
        }
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        self.end();
    }
}

impl Slot {
    /// Reads the piece, in a thread of the pool, and hands it over.
    fn arrive(&self, mut fresh: Fresh, pinned: &Pinned, start: u64, stop: u64, over: &AtomicBool) {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let result = guarded(|| pinned.read_into(start, stop, fresh.zeroed()));
        let mut state = lock(&self.state);
        let State::Awaited(ticket) = std::mem::replace(&mut *state, State::Taken) else {
            *state = State::Read(result.map(|()| fresh));
            return;
        };
        drop(state);
        match result {
            Ok(()) => ticket.finish(move |_| Ok(fresh.object.into_any())),
            Err(failure) => {
                over.store(true, Ordering::Relaxed);
                ticket.fail(failure);
            }
        }
    }
}

/// A `bytes` object that nobody has seen yet, so that a thread without the interpreter's lock may fill it. Copying a piece while holding the
/// lock would stop the event loop for 0.1 ms and more per MiB.
struct Fresh {
    object: Py<PyBytes>,
    bytes: *mut u8,
    length: usize,
}

// SAFETY: `bytes` points into `object`, which this value owns, alone until it is handed out.
unsafe impl Send for Fresh {}

impl Fresh {
    fn new(py: Python<'_>, length: usize) -> PyResult<Self> {
        let size = ffi::Py_ssize_t::try_from(length).map_err(|_| PyMemoryError::new_err(()))?;
        // SAFETY: a null source makes an uninitialised object of that length (documented for filling it in afterwards), or sets an error.
        let (object, bytes) = unsafe {
            let object = Bound::from_owned_ptr_or_err(py, ffi::PyBytes_FromStringAndSize(std::ptr::null(), size))?;
            let bytes = ffi::PyBytes_AsString(object.as_ptr()).cast::<u8>();
            (object, bytes)
        };
        Ok(Self {
            object: object.cast_into::<PyBytes>()?.unbind(),
            bytes,
            length,
        })
    }

    fn zeroed(&mut self) -> &mut [u8] {
        // SAFETY: `length` bytes were allocated, Python cannot see them before `object` is handed out, and they are initialised here.
        unsafe {
            self.bytes.write_bytes(0, self.length);
            std::slice::from_raw_parts_mut(self.bytes, self.length)
        }
    }
}
