//! One open `/dev/fuse`: where requests come from and answers go to. Any number of threads share it; the kernel hands each request to one of them.
//!
//! An answer that the kernel no longer wants (its caller was killed) is not an error. An answer that it does not accept is a defect here, and its
//! caller is told EIO instead of waiting for ever.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec};
use trefoil_core::filesystem::Errno;

use crate::wire::{HEADER_OUT_BYTES, Writer};

#[derive(Debug)]
pub struct Device(OwnedFd);

impl Device {
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Whether the mount is still there; asks nobody.
    pub fn connected(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
        let asked = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        asked.is_ok() && !fds[0].revents().contains(PollFlags::ERR)
    }

    /// Whether a request waits to be taken.
    pub fn asked(&self) -> bool {
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let asked = rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        asked.is_ok() && fds[0].revents() == PollFlags::IN
    }

    /// Returns when the mount is gone.
    pub fn wait_gone(&self) {
        while self.connected() {
            let mut fds = [PollFd::new(&self.0, PollFlags::empty())];
            // A signal ends a wait early.
            let _ = rustix::event::poll(&mut fds, None);
        }
    }

    /// The next request's bytes; `None` when the mount is gone.
    pub fn request(&self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        loop {
            match rustix::io::read(&self.0, &mut *buffer) {
                Ok(count) => return Ok(Some(count)),
                // ENOENT: the caller was killed before its request was read.
                Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => {}
                Err(Errno::NODEV | Errno::CONNABORTED) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    pub fn answer(&self, unique: u64, payload: &[u8], content: &[u8]) {
        if let Err(error) = self.send(unique, 0, payload, content)
            && !matches!(error, Errno::NOENT | Errno::NODEV | Errno::CONNABORTED)
        {
            self.refuse(unique, Errno::IO);
        }
    }

    pub fn refuse(&self, unique: u64, error: Errno) {
        // Whoever asked is gone if even this fails.
        let _ = self.send(unique, -error.raw_os_error(), &[], &[]);
    }

    /// Tells the kernel something that it did not ask for. False: it does not know what this is about.
    pub fn notify(&self, notification: u32, payload: &[u8]) -> Result<bool, Errno> {
        match self.send(0, notification as i32, payload, &[]) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            sent => sent.map(|()| true),
        }
    }

    fn send(&self, unique: u64, error: i32, payload: &[u8], content: &[u8]) -> Result<(), Errno> {
        let mut head = [0; HEADER_OUT_BYTES];
        let length = u32::try_from(HEADER_OUT_BYTES + payload.len() + content.len()).map_err(|_| Errno::OVERFLOW)?;
        head[..4].copy_from_slice(&length.to_ne_bytes());
        head[4..8].copy_from_slice(&error.to_ne_bytes());
        head[8..].copy_from_slice(&unique.to_ne_bytes());
        let parts = [IoSlice::new(&head), IoSlice::new(payload), IoSlice::new(content)];
        let used = if !content.is_empty() {
            3
        } else if !payload.is_empty() {
            2
        } else {
            1
        };
        rustix::io::writev(&self.0, &parts[..used]).map(|_| ())
    }
}

/// The right to answer one request later, from any thread. Dropped unused it answers EIO: nobody waits for ever.
#[derive(Debug)]
pub struct Ticket {
    device: Arc<Device>,
    unique: Option<u64>,
    payload: Vec<u8>,
}

impl Ticket {
    /// `payload` is what success says.
    pub fn new(device: Arc<Device>, unique: u64, payload: Writer) -> Self {
        Self {
            device,
            unique: Some(unique),
            payload: payload.into_bytes(),
        }
    }

    pub fn settle(mut self, outcome: Result<(), Errno>) {
        if let Some(unique) = self.unique.take() {
            match outcome {
                Ok(()) => self.device.answer(unique, &self.payload, &[]),
                Err(error) => self.device.refuse(unique, error),
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(unique) = self.unique.take() {
            self.device.refuse(unique, Errno::IO);
        }
    }
}
