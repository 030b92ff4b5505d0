//! The threads that answer requests.
//!
//! There is one more than are busy, up to the limit: whoever takes a request while nobody else waits starts the next thread. They end when the mount
//! does. `Live` counts every thread of a mount, so that its end can be waited for without waiting for ever.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use trefoil_core::filesystem::news;

use crate::device::Device;
use crate::engine::Engine;
use crate::handshake::MESSAGE_BYTES_MAX;
use crate::known::lock;
use crate::wire::Writer;

/// An answer's buffer that grew beyond this is not kept.
const PAYLOAD_BYTES_KEPT: usize = 64 << 10;

#[derive(Debug, Default)]
pub struct Live {
    count: Mutex<usize>,
    busy: AtomicUsize,
    changed: Condvar,
}

/// Counts one thread for as long as it is there.
#[derive(Debug)]
pub struct Alive(Arc<Live>);

impl Live {
    pub fn enter(self: &Arc<Self>) -> Alive {
        *lock(&self.count) += 1;
        Alive(self.clone())
    }

    /// Whether a request is being answered.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst) > 0
    }

    /// Whether all ended in time.
    pub fn wait(&self, limit: Duration) -> bool {
        let count = lock(&self.count);
        let (count, _) = self
            .changed
            .wait_timeout_while(count, limit, |count| *count > 0)
            .unwrap_or_else(PoisonError::into_inner);
        *count == 0
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        *lock(&self.0.count) -= 1;
        self.0.changed.notify_all();
    }
}

pub struct Workers {
    engine: Engine,
    device: Arc<Device>,
    threads_max: usize,
    threads: AtomicUsize,
    waiting: AtomicUsize,
}

impl Workers {
    pub fn start(engine: Engine, device: Arc<Device>, threads_max: usize, live: &Arc<Live>) -> std::io::Result<()> {
        let workers = Self {
            engine,
            device,
            threads_max,
            threads: AtomicUsize::new(1),
            waiting: AtomicUsize::new(0),
        };
        Arc::new(workers).spawn(live.enter())
    }

    fn spawn(self: Arc<Self>, alive: Alive) -> std::io::Result<()> {
        std::thread::Builder::new()
            .name("fuse".to_owned())
            .spawn(move || self.work(&alive))
            .map(|_| ())
    }

    fn work(self: &Arc<Self>, alive: &Alive) {
        // What this mount changes is no news to its kernel.
        news::speak_as(self.engine.origin());
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let mut out = Writer::default();
        loop {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let request = self.device.request(&mut buffer);
            let others = self.waiting.fetch_sub(1, Ordering::Relaxed) - 1;
            // Any other error than the mount's end would come again at once.
            let Ok(Some(length)) = request else { return };
            if others == 0 {
                self.grow(alive);
            }
            alive.0.busy.fetch_add(1, Ordering::SeqCst);
            self.engine.serve(&buffer[..length], &mut out);
            alive.0.busy.fetch_sub(1, Ordering::SeqCst);
            if out.len() > PAYLOAD_BYTES_KEPT {
                out = Writer::default();
            }
        }
    }

    fn grow(self: &Arc<Self>, alive: &Alive) {
        let more = |threads| (threads < self.threads_max).then_some(threads + 1);
        if self.threads.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok() && self.clone().spawn(alive.0.enter()).is_err() {
            self.threads.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
