//! The thread that writes what sockets did not take at once.

use crate::connection::{Connection, Left};
use crate::wait::{Signal, writable};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often late clients are looked for.
const LOOK_MILLISECONDS: u64 = 500;

pub struct Flusher {
    added: Mutex<Vec<Arc<Connection>>>,
    wake: Signal,
    stopped: AtomicBool,
    /// For how long a client may take nothing of its replies.
    patience: Duration,
}

impl Flusher {
    pub fn new(patience: Duration) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            added: Mutex::default(),
            wake: Signal::new()?,
            stopped: AtomicBool::new(false),
            patience,
        }))
    }

    pub fn add(&self, connection: Arc<Connection>) {
        self.added.lock().unwrap().push(connection);
        self.wake.raise();
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.wake.raise();
    }

    pub fn run(&self) {
        let mut waiting: Vec<Arc<Connection>> = Vec::new();
        while !self.stopped.load(Ordering::Relaxed) {
            let streams: Vec<BorrowedFd<'_>> = waiting.iter().map(|connection| connection.stream.as_fd()).collect();
            let ready = writable(&streams, &self.wake, Instant::now() + Duration::from_millis(LOOK_MILLISECONDS));
            // `poll` fails only without memory: all are tried then.
            let ready = ready.unwrap_or_else(|_| vec![true; waiting.len()]);
            let mut ready = ready.into_iter();
            waiting.retain(|connection| {
                let ready = ready.next().unwrap_or(true);
                (!ready && !connection.is_late(self.patience)) || connection.flush(self.patience) == Left::Something
            });
            self.wake.lower();
            waiting.append(&mut self.added.lock().unwrap());
        }
    }
}
