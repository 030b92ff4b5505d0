//! Records out of a TCP stream (RFC 5531, section 11).
//!
//! A record grows as its bytes arrive: what its header promises costs nothing. It must be complete some time after its first byte, in few fragments and
//! few bytes, or the connection ends.

use crate::rpc::fragment;
use crate::wait::{Signal, Woken, readable};
use std::io::{self, ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const FRAGMENTS_MAX: usize = 64;
/// Read at once; calls without content are far smaller, so several come together.
const BUFFER_BYTES: usize = 64 << 10;
/// By how much a record grows ahead of its bytes.
const GROWTH_BYTES_MAX: usize = 256 << 10;
/// Buffers kept for further records, instead of page faults for each large one.
const BUFFERS_KEPT_MAX: usize = 16;

/// Buffers of records that were answered.
#[derive(Default)]
pub struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap().pop().unwrap_or_default()
    }

    pub fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut kept = self.0.lock().unwrap();
        if kept.len() < BUFFERS_KEPT_MAX {
            kept.push(buffer);
        }
    }
}

/// Why there is no further record.
#[derive(Debug)]
pub enum End {
    /// The server stops.
    Stopped,
    /// The client closed.
    Closed,
    /// It is broken, too slow, or sends what cannot be.
    Broken,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Without a call.
    pub idle: Duration,
    /// From a record's first byte to its last.
    pub record: Duration,
}

pub struct Records<'a> {
    stream: &'a TcpStream,
    stop: &'a Signal,
    buffers: &'a Buffers,
    patience: Patience,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    deadline: Instant,
}

impl<'a> Records<'a> {
    /// `stream` does not block.
    pub fn new(stream: &'a TcpStream, stop: &'a Signal, buffers: &'a Buffers, patience: Patience) -> Self {
        let buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        Self {
            stream,
            stop,
            buffers,
            patience,
            buffer,
            start: 0,
            end: 0,
            deadline: Instant::now(),
        }
    }

    /// Whether something of a further record is here already.
    pub fn has_more(&self) -> bool {
        self.start < self.end
    }

    pub fn next(&mut self, bytes_max: usize) -> Result<Vec<u8>, End> {
        if !self.has_more() {
            self.deadline = Instant::now() + self.patience.idle;
            if !self.fill()? {
                return Err(End::Closed);
            }
        }
        self.deadline = Instant::now() + self.patience.record;
        let mut record = self.buffers.take();
        for _ in 0..FRAGMENTS_MAX {
            let (bytes, last) = fragment(self.header()?);
            if record.len() + bytes > bytes_max {
                return Err(End::Broken);
            }
            self.append(&mut record, bytes)?;
            if last {
                return Ok(record);
            }
        }
        Err(End::Broken)
    }

    fn header(&mut self) -> Result<[u8; 4], End> {
        while self.end - self.start < 4 {
            if !self.fill()? {
                return Err(End::Broken);
            }
        }
        let header = std::array::from_fn(|index| self.buffer[self.start + index]);
        self.start += 4;
        Ok(header)
    }

    /// What is buffered, then straight from the stream; a small rest by the buffer again, with what follows it.
    fn append(&mut self, record: &mut Vec<u8>, bytes: usize) -> Result<(), End> {
        let whole = record.len() + bytes;
        while record.len() < whole {
            let left = whole - record.len();
            if !self.has_more() && left >= BUFFER_BYTES / 4 {
                self.append_directly(record, left.min(GROWTH_BYTES_MAX))?;
                continue;
            }
            if !self.has_more() && !self.fill()? {
                return Err(End::Broken);
            }
            let buffered = left.min(self.end - self.start);
            record.extend_from_slice(&self.buffer[self.start..self.start + buffered]);
            self.start += buffered;
        }
        Ok(())
    }

    /// Up to `bytes` bytes.
    fn append_directly(&mut self, record: &mut Vec<u8>, bytes: usize) -> Result<(), End> {
        record.reserve(bytes);
        let before = record.len();
        match Read::take(self.stream, bytes as u64).read_to_end(record) {
            Ok(0) => Err(End::Broken),
            Ok(_) => self.in_time(),
            Err(error) if error.kind() == ErrorKind::WouldBlock && record.len() == before => self.wait(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.in_time(),
            Err(error) => Err(error.into()),
        }
    }

    /// More into the buffer; false at the stream's end.
    fn fill(&mut self) -> Result<bool, End> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        loop {
            match (&mut &*self.stream).read(&mut self.buffer[self.end..]) {
                Ok(read) => {
                    self.end += read;
                    self.in_time()?;
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait()?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait(&self) -> Result<(), End> {
        match readable(self.stream, self.stop, self.deadline)? {
            Woken::Ready => Ok(()),
            Woken::Signal => Err(End::Stopped),
            Woken::Timeout => Err(End::Broken),
        }
    }

    /// Who sends a byte now and then is late all the same.
    fn in_time(&self) -> Result<(), End> {
        if Instant::now() > self.deadline { Err(End::Broken) } else { Ok(()) }
    }
}
