//! From the store's threads to the event loop: a queue of completions and one eventfd that the loop watches.
//!
//! A completion that finds the queue empty writes the eventfd; one wake-up of the loop takes the whole queue and settles its futures. Threads
//! never touch Python: values become Python objects on the loop's thread, when the queue is taken. A future that was cancelled meanwhile is
//! skipped and what was meant for it is dropped, which releases it.

use crate::errors::Failure;
use crate::pool::lock;
use crate::values::ToPython;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyCFunction;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use trefoil_core::error::Result;

/// Makes the Python value, on the loop's thread.
type Finish = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

struct Completion {
    future: Py<PyAny>,
    finish: Finish,
}

#[derive(Default)]
struct Queue {
    done: Vec<Completion>,
    detached: bool,
}

pub struct Bridge {
    event_loop: Py<PyAny>,
    create_future: Py<PyAny>,
    get_running_loop: Py<PyAny>,
    /// Close-on-exec. Closed with the last ticket, after `detach` made the loop forget it.
    event: OwnedFd,
    queue: Mutex<Queue>,
}

impl Bridge {
    /// Attaches to the running loop.
    pub fn attach(py: Python<'_>) -> PyResult<Arc<Self>> {
        let asyncio = py.import("asyncio")?;
        let get_running_loop = asyncio.getattr("get_running_loop")?;
        let event_loop = get_running_loop.call0()?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(std::io::Error::from)?;
        let bridge = Arc::new(Self {
            create_future: event_loop.getattr("create_future")?.unbind(),
            get_running_loop: get_running_loop.unbind(),
            event_loop: event_loop.clone().unbind(),
            event,
            queue: Mutex::default(),
        });
        // Weak, or the loop and the bridge would keep each other alive.
        let weak = Arc::downgrade(&bridge);
        let drain = PyCFunction::new_closure(py, None, None, move |args, _| {
            weak.upgrade().map_or((), |bridge| bridge.drain(args.py()))
        })?;
        event_loop.call_method1("add_reader", (bridge.event.as_raw_fd(), drain))?;
        Ok(bridge)
    }

    /// A future of the loop and the ticket that settles it. Raises Closed; RuntimeError on another loop.
    pub fn begin(self: &Arc<Self>, py: Python<'_>) -> PyResult<(Py<PyAny>, Ticket)> {
        if !self.get_running_loop.call0(py)?.is(&self.event_loop) {
            return Err(PyRuntimeError::new_err("a store is used from the event loop that opened it"));
        }
        if lock(&self.queue).detached {
            return Err(Failure::closed().into());
        }
        let future = self.create_future.call0(py)?;
        let ticket = Ticket {
            bridge: self.clone(),
            future: Some(future.clone_ref(py)),
        };
        Ok((future, ticket))
    }

    /// A future that has its value already: awaiting it does not suspend.
    pub fn ready(&self, py: Python<'_>, value: Py<PyAny>) -> PyResult<Py<PyAny>> {
        let future = self.create_future.call0(py)?;
        future.call_method1(py, intern!(py, "set_result"), (value,))?;
        Ok(future)
    }

    fn push(self: &Arc<Self>, future: Py<PyAny>, finish: Finish) {
        let mut queue = lock(&self.queue);
        let (first, detached) = (queue.done.is_empty(), queue.detached);
        queue.done.push(Completion { future, finish });
        drop(queue);
        if detached {
            // The loop no longer watches: whoever still waits is told the slow way. Fails if the loop is closed, and then nobody waits.
            let _ = Python::try_attach(|py| self.later(py, |bridge, py| bridge.drain(py)));
        } else if first {
            // Fails only if the counter is full, and then the loop is woken anyway.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }

    /// Has the loop's thread do something, from any thread.
    fn later(self: &Arc<Self>, py: Python<'_>, work: impl Fn(&Self, Python<'_>) + Send + Sync + 'static) -> PyResult<()> {
        let bridge = self.clone();
        let call = PyCFunction::new_closure(py, None, None, move |args, _| work(&bridge, args.py()))?;
        self.event_loop.call_method1(py, "call_soon_threadsafe", (call,)).map(drop)
    }

    fn drain(&self, py: Python<'_>) {
        // Before the queue is taken: a completion that comes between the two wakes the loop once more for nothing, never not at all.
        let _ = rustix::io::read(&self.event, &mut [0u8; 8]);
        let done = std::mem::take(&mut lock(&self.queue).done);
        for completion in done {
            if let Err(error) = completion.settle(py) {
                error.write_unraisable(py, None);
            }
        }
    }

    /// Settles what is done and takes the eventfd from the loop. On the loop's thread. Idempotent.
    pub fn detach(&self, py: Python<'_>) -> PyResult<()> {
        if std::mem::replace(&mut lock(&self.queue).detached, true) {
            return Ok(());
        }
        self.drain(py);
        if !self.event_loop.call_method0(py, "is_closed")?.is_truthy(py)? {
            self.event_loop.call_method1(py, "remove_reader", (self.event.as_raw_fd(),))?;
        }
        Ok(())
    }

    /// `detach` for whoever may be on any thread, or after the loop's end.
    fn abandon(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        if lock(&self.queue).detached {
            return Ok(());
        }
        self.later(py, |bridge, py| {
            if let Err(error) = bridge.detach(py) {
                error.write_unraisable(py, None);
            }
        })
    }
}

impl Completion {
    fn settle(self, py: Python<'_>) -> PyResult<()> {
        if self.future.call_method0(py, intern!(py, "done"))?.is_truthy(py)? {
            return Ok(());
        }
        match (self.finish)(py) {
            Ok(value) => self.future.call_method1(py, intern!(py, "set_result"), (value,))?,
            Err(error) => self
                .future
                .call_method1(py, intern!(py, "set_exception"), (error.into_value(py),))?,
        };
        Ok(())
    }
}

/// Detaches when dropped.
pub struct Attached(pub Arc<Bridge>);

impl Drop for Attached {
    fn drop(&mut self) {
        // Fails if the loop is closed, which has then forgotten the eventfd already; without an interpreter there is no loop.
        let _ = Python::try_attach(|py| self.0.abandon(py));
    }
}

/// Settles one future, from any thread, once. Dropped unsettled, it raises Closed: a call never hangs because somebody forgot it.
pub struct Ticket {
    bridge: Arc<Bridge>,
    future: Option<Py<PyAny>>,
}

impl Ticket {
    pub fn settle<T: ToPython>(self, result: Result<T>) {
        self.finish(move |py| result.map_err(Failure::from)?.to_python(py));
    }

    pub fn fail(self, failure: Failure) {
        self.finish(move |_| Err(failure.into()));
    }

    pub fn finish(mut self, finish: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send + 'static) {
        if let Some(future) = self.future.take() {
            self.bridge.push(future, Box::new(finish));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(future) = self.future.take() {
            self.bridge.push(future, Box::new(|_| Err(Failure::closed().into())));
        }
    }
}
