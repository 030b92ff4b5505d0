//! Waiting for sockets, with an end: a deadline, or the server's stop.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// A flag that a `poll` can wait for.
pub struct Signal(OwnedFd);

impl Signal {
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    pub fn raise(&self) {
        // It fails only when it has been raised 2^64 times.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    pub fn is_raised(&self) -> bool {
        paused(self, Duration::ZERO)
    }

    pub fn lower(&self) {
        let _ = rustix::io::read(&self.0, &mut [0_u8; 8]);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    Ready,
    Signal,
    Timeout,
}

/// Until `stream` can be read or has ended.
pub fn readable(stream: &impl AsFd, signal: &Signal, deadline: Instant) -> io::Result<Woken> {
    let mut both = [PollFd::new(stream, PollFlags::IN), PollFd::new(&signal.0, PollFlags::IN)];
    wait(&mut both, deadline)?;
    Ok(match (both[1].revents().is_empty(), both[0].revents().is_empty()) {
        (false, _) => Woken::Signal,
        (true, false) => Woken::Ready,
        (true, true) => Woken::Timeout,
    })
}

/// False after `time`, true at the signal.
pub fn paused(signal: &Signal, time: Duration) -> bool {
    let mut one = [PollFd::new(&signal.0, PollFlags::IN)];
    // `poll` fails only without memory: better a pause too short.
    wait(&mut one, Instant::now() + time).is_ok() && !one[0].revents().is_empty()
}

/// Which of `streams` can be written, or are broken.
pub fn writable<F: AsFd>(streams: &[F], signal: &Signal, deadline: Instant) -> io::Result<Vec<bool>> {
    let mut all: Vec<PollFd<'_>> = streams.iter().map(|stream| PollFd::new(stream, PollFlags::OUT)).collect();
    all.push(PollFd::new(&signal.0, PollFlags::IN));
    wait(&mut all, deadline)?;
    Ok(all[..streams.len()].iter().map(|one| !one.revents().is_empty()).collect())
}

fn wait(descriptors: &mut [PollFd<'_>], deadline: Instant) -> io::Result<()> {
    loop {
        // Rounded up, so that a wait does not end a little early again and again.
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_micros(1);
        let left = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(descriptors, Some(&left)) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
