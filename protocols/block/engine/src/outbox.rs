//! What is on its way to one host, in order, gathered for few system calls.

use crate::budget::Permit;
use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Handed to the socket in one call.
const SLICES_MAX: usize = 64;
/// Small pieces are gathered in one buffer up to about this.
const GATHERED_BYTES_MAX: usize = 64 << 10;

/// Data, and the memory that it is counted for.
pub struct Data {
    pub bytes: Vec<u8>,
    pub _permit: Option<Permit>,
}

enum Chunk {
    Small(Vec<u8>),
    Large(Arc<Data>, Range<usize>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Large(data, range) => &data.bytes[range.clone()],
        }
    }
}

pub struct Outbox {
    chunks: VecDeque<Chunk>,
    /// Of the first chunk.
    sent: usize,
    small_bytes: usize,
    spare: Vec<u8>,
    /// When something was sent last, or there was nothing to send.
    pub progressed: Instant,
}

impl Outbox {
    pub fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            sent: 0,
            small_bytes: 0,
            spare: Vec::new(),
            progressed: Instant::now(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Without what the budget counts.
    pub fn small_bytes(&self) -> usize {
        self.small_bytes
    }

    /// The end of the last small chunk, to append to. What `append` returns is counted by it.
    pub fn append<T>(&mut self, act: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        if self.chunks.is_empty() {
            self.progressed = Instant::now();
        }
        match self.chunks.back() {
            Some(Chunk::Small(bytes)) if bytes.len() < GATHERED_BYTES_MAX => {}
            _ => self.chunks.push_back(Chunk::Small(std::mem::take(&mut self.spare))),
        }
        let Some(Chunk::Small(bytes)) = self.chunks.back_mut() else {
            unreachable!("it was just made sure of")
        };
        let before = bytes.len();
        let result = act(bytes);
        self.small_bytes = self.small_bytes + bytes.len() - before;
        if bytes.is_empty() {
            self.drop_first_if_empty();
        }
        result
    }

    fn drop_first_if_empty(&mut self) {
        if let Some(Chunk::Small(bytes)) = self.chunks.pop_back() {
            self.spare = bytes;
        }
    }

    pub fn push(&mut self, data: &Arc<Data>, range: Range<usize>) {
        self.chunks.push_back(Chunk::Large(data.clone(), range));
    }

    /// Sends what the socket takes now. True: nothing is left.
    pub fn flush(&mut self, mut socket: &TcpStream) -> std::io::Result<bool> {
        while !self.chunks.is_empty() {
            let mut skip = self.sent;
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                *slice = IoSlice::new(&chunk.bytes()[std::mem::take(&mut skip)..]);
                count += 1;
            }
            match socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => self.forget(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn forget(&mut self, bytes: usize) {
        self.progressed = Instant::now();
        self.sent += bytes;
        while let Some(chunk) = self.chunks.front() {
            let length = chunk.bytes().len();
            if self.sent < length {
                return;
            }
            self.sent -= length;
            if let Some(Chunk::Small(mut bytes)) = self.chunks.pop_front() {
                self.small_bytes -= length;
                bytes.clear();
                if bytes.capacity() <= 2 * GATHERED_BYTES_MAX {
                    self.spare = bytes;
                }
            }
        }
    }
}
