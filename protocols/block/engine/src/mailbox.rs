//! How other threads reach the one that owns a connection: a list, and a wake-up if that thread sleeps.

use crate::budget::Permit;
use crate::reservation::Entered;
use crate::status::{Outcome, Status};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub enum Mail {
    /// A command is done.
    Done(u16, Outcome, Option<Permit>),
    /// Events may wait for the host.
    Events,
    /// There may be memory.
    Memory,
    /// Answer what was begun, then end.
    Stop,
    /// End at once.
    Close,
}

pub struct Mailbox {
    mail: Mutex<Vec<Mail>>,
    asleep: AtomicBool,
    bell: OwnedFd,
}

/// What a sleep ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Woken {
    pub readable: bool,
    pub writable: bool,
}

impl Mailbox {
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            mail: Mutex::default(),
            asleep: AtomicBool::new(false),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        }))
    }

    pub fn push(&self, mail: Mail) {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
        // One ring a sleep, whoever rings.
        if self.asleep.swap(false, Ordering::SeqCst) {
            // It fails only when it was rung 2^64 times.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    pub fn take(&self) -> Vec<Mail> {
        std::mem::take(&mut *self.mail.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_empty(&self) -> bool {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Until mail comes, the socket is ready for what is wanted or has ended, or the deadline. For the owner only.
    pub fn sleep(&self, socket: &impl AsFd, read: bool, write: bool, deadline: Option<Instant>) -> io::Result<Woken> {
        self.asleep.store(true, Ordering::SeqCst);
        let left = if self.is_empty() {
            deadline.map(left)
        } else {
            Some(Duration::ZERO)
        };
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, read);
        wanted.set(PollFlags::OUT, write);
        // A socket of which nothing is wanted is left out: its end would be seen again and again.
        let mut both = [PollFd::new(&self.bell, PollFlags::IN), PollFd::new(socket, wanted)];
        let count = if wanted.is_empty() { 1 } else { 2 };
        let result = wait(&mut both[..count], left);
        self.asleep.store(false, Ordering::SeqCst);
        result?;
        if !both[0].revents().is_empty() {
            let _ = rustix::io::read(&self.bell, &mut [0_u8; 8]);
        }
        let revents = if count == 2 { both[1].revents() } else { PollFlags::empty() };
        let ended = revents.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
        Ok(Woken {
            readable: revents.contains(PollFlags::IN) || ended,
            writable: revents.contains(PollFlags::OUT) || ended,
        })
    }
}

fn left(deadline: Instant) -> Duration {
    // Rounded up, so that a sleep does not end a little early again and again.
    deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(1)
}

fn wait(descriptors: &mut [PollFd<'_>], left: Option<Duration>) -> io::Result<()> {
    let left = left.map(|left| Timespec {
        tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    match poll(descriptors, left.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The right to answer one command, once. Dropped without an answer, it says Internal Error: nothing is left unanswered.
pub struct Reply {
    mailbox: Arc<Mailbox>,
    command_id: u16,
    permit: Option<Permit>,
    /// Reservations that change wait for it; given back when the store is done, whoever still listens.
    entered: Option<Entered>,
    answered: bool,
}

impl Reply {
    pub fn new(mailbox: &Arc<Mailbox>, command_id: u16, permit: Option<Permit>) -> Self {
        Self {
            mailbox: mailbox.clone(),
            command_id,
            permit,
            entered: None,
            answered: false,
        }
    }

    pub fn enter(&mut self, entered: Entered) {
        self.entered = Some(entered);
    }

    pub fn send(mut self, outcome: impl Into<Outcome>) {
        self.finish(outcome.into());
    }

    fn finish(&mut self, outcome: Outcome) {
        self.answered = true;
        self.entered = None;
        self.mailbox.push(Mail::Done(self.command_id, outcome, self.permit.take()));
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.answered {
            self.finish(Status::INTERNAL.into());
        }
    }
}
