//! Bytes that arrived and were not taken yet.

use crate::budget::INPUT_BYTES;
use std::io::{ErrorKind, Read};
use std::net::TcpStream;

pub struct Inbox {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

/// What a read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    Bytes(usize),
    Nothing,
    End,
}

pub fn receive(mut socket: &TcpStream, into: &mut [u8]) -> std::io::Result<Arrived> {
    loop {
        return match socket.read(into) {
            Ok(0) => Ok(Arrived::End),
            Ok(bytes) => Ok(Arrived::Bytes(bytes)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Arrived::Nothing),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
    }
}

impl Inbox {
    pub fn new() -> Self {
        Self {
            buffer: vec![0; INPUT_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Moves what there is of it, up to the length of `into`.
    pub fn take(&mut self, into: &mut [u8]) -> usize {
        let taken = into.len().min(self.end - self.start);
        into[..taken].copy_from_slice(&self.buffer[self.start..self.start + taken]);
        self.consume(taken);
        taken
    }

    /// One read. There is always room for a header: what is left of the last one is moved to the front.
    pub fn fill(&mut self, socket: &TcpStream) -> std::io::Result<Arrived> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let arrived = receive(socket, &mut self.buffer[self.end..])?;
        if let Arrived::Bytes(bytes) = arrived {
            self.end += bytes;
        }
        Ok(arrived)
    }
}
