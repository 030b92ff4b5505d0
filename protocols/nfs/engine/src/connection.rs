//! One client's TCP connection: what was asked and not answered yet, and the replies on their way out.
//!
//! Sending never blocks the thread that has a reply. What the socket does not take at once is queued and written by the flusher; the calls behind it
//! count as outstanding until their last byte is written, and an outstanding call holds its share of the memory budget. So a client that does not
//! read its replies fills its own bounds and nothing else.

use crate::budget::Permit;
use crate::dispatch::Reply;
use crate::export::Client;
use crate::flusher::Flusher;
use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Replies handed to the socket in one call.
const GATHERED_MAX: usize = 16;

pub struct Connection {
    pub stream: TcpStream,
    pub client: Client,
    flusher: Arc<Flusher>,
    output: Mutex<Output>,
    outstanding: Mutex<usize>,
    settled: Condvar,
}

struct Output {
    queue: VecDeque<(Reply, Ticket)>,
    /// Bytes of the first reply that are out.
    sent: usize,
    broken: bool,
    progressed: Instant,
}

/// One outstanding call.
pub struct Ticket {
    connection: Arc<Connection>,
    _permit: Permit,
}

impl Ticket {
    pub fn new(connection: &Arc<Connection>, permit: Permit) -> Self {
        *connection.outstanding.lock().unwrap() += 1;
        Self {
            connection: connection.clone(),
            _permit: permit,
        }
    }

    pub fn client(&self) -> Client {
        self.connection.client
    }

    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub fn send(self, reply: Reply) {
        let connection = self.connection.clone();
        connection.send(reply, self);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        *self.connection.outstanding.lock().unwrap() -= 1;
        // One thread at most waits: the connection's reader.
        self.connection.settled.notify_one();
    }
}

/// What is left to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    Nothing,
    Something,
}

impl Connection {
    pub fn new(stream: TcpStream, client: Client, flusher: Arc<Flusher>) -> std::io::Result<Arc<Self>> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let output = Output {
            queue: VecDeque::new(),
            sent: 0,
            broken: false,
            progressed: Instant::now(),
        };
        let (output, outstanding, settled) = (Mutex::new(output), Mutex::new(0), Condvar::new());
        Ok(Arc::new(Self {
            stream,
            client,
            flusher,
            output,
            outstanding,
            settled,
        }))
    }

    /// Waits until fewer than `calls` are outstanding; false after `patience`.
    pub fn settle(&self, calls: usize, patience: Duration) -> bool {
        let outstanding = self.outstanding.lock().unwrap();
        let (outstanding, _) = self
            .settled
            .wait_timeout_while(outstanding, patience, |outstanding| *outstanding >= calls)
            .unwrap();
        *outstanding < calls
    }

    fn send(self: &Arc<Self>, reply: Reply, ticket: Ticket) {
        let mut output = self.output.lock().unwrap();
        if output.broken {
            return;
        }
        output.queue.push_back((reply, ticket));
        if output.queue.len() > 1 {
            // The flusher is at it.
            return;
        }
        output.progressed = Instant::now();
        if self.write(&mut output) == Left::Something {
            drop(output);
            self.flusher.add(self.clone());
        }
    }

    /// The flusher's part: writes on, and gives up if nothing went out for `patience`.
    pub fn flush(&self, patience: Duration) -> Left {
        let mut output = self.output.lock().unwrap();
        let left = self.write(&mut output);
        if left == Left::Something && output.progressed.elapsed() > patience {
            self.give_up(&mut output);
            return Left::Nothing;
        }
        left
    }

    pub fn is_late(&self, patience: Duration) -> bool {
        self.output.lock().unwrap().progressed.elapsed() > patience
    }

    fn write(&self, output: &mut Output) -> Left {
        while !output.queue.is_empty() {
            match output.write_once(&self.stream) {
                Ok(0) => {
                    self.give_up(output);
                    return Left::Nothing;
                }
                Ok(bytes) => output.forget(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Left::Something,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.give_up(output);
                    return Left::Nothing;
                }
            }
        }
        Left::Nothing
    }

    /// Nothing more is sent, and the reader finds the stream ended.
    pub fn close(&self) {
        self.give_up(&mut self.output.lock().unwrap());
    }

    fn give_up(&self, output: &mut Output) {
        output.broken = true;
        output.queue.clear();
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Output {
    fn write_once(&self, mut stream: &TcpStream) -> std::io::Result<usize> {
        let mut skip = self.sent;
        let mut slices = Vec::with_capacity(2 * GATHERED_MAX.min(self.queue.len()));
        for (reply, _) in self.queue.iter().take(GATHERED_MAX) {
            for part in [&reply.head, &reply.payload] {
                let skipped = skip.min(part.len());
                skip -= skipped;
                if skipped < part.len() {
                    slices.push(IoSlice::new(&part[skipped..]));
                }
            }
        }
        stream.write_vectored(&slices)
    }

    fn forget(&mut self, bytes: usize) {
        self.progressed = Instant::now();
        self.sent += bytes;
        while let Some((reply, _)) = self.queue.front() {
            let length = reply.head.len() + reply.payload.len();
            if self.sent < length {
                return;
            }
            self.sent -= length;
            self.queue.pop_front();
        }
    }
}
