//! Calls of ours to clients: over TCP, to the port that their port mapper names.
//!
//! Each client that is being called has its own thread and its own bounded queue, so that one that does not answer keeps only its own calls waiting.

use crate::rpc::{self, fragment};
use crate::xdr::{Decoder, Encoder};
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Builder;
use std::time::Duration;

/// Clients that are called at a time.
const CLIENTS_MAX: usize = 32;
/// Calls that wait for one client.
const JOBS_MAX: usize = 64;
const CONNECT_SECONDS: u64 = 3;
const ANSWER_SECONDS: u64 = 5;
const ANSWER_BYTES_MAX: usize = 8192;
const TCP: u32 = 6;
const GETPORT: u32 = 3;

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It certainly did not arrive.
    Undelivered,
    Unknown,
    /// The results.
    Answered(Vec<u8>),
}

/// A call of a procedure of NLM.
pub struct Job {
    pub address: IpAddr,
    pub procedure: u32,
    pub body: Vec<u8>,
    pub done: Box<dyn FnOnce(Outcome) + Send>,
}

pub struct Callbacks {
    queues: Mutex<HashMap<IpAddr, VecDeque<Job>>>,
    /// Where clients' port mappers listen.
    portmapper_port: u16,
    xid: AtomicU32,
}

impl Callbacks {
    pub fn new(portmapper_port: u16) -> Arc<Self> {
        Arc::new(Self {
            queues: Mutex::default(),
            portmapper_port,
            xid: AtomicU32::new(1),
        })
    }

    pub fn push(self: &Arc<Self>, job: Job) {
        if let Err(job) = self.enqueue(job) {
            (job.done)(Outcome::Undelivered);
        }
    }

    fn enqueue(self: &Arc<Self>, job: Job) -> Result<(), Job> {
        let mut queues = self.queues.lock().unwrap();
        if let Some(queue) = queues.get_mut(&job.address) {
            if queue.len() >= JOBS_MAX {
                return Err(job);
            }
            queue.push_back(job);
            return Ok(());
        }
        if queues.len() >= CLIENTS_MAX {
            return Err(job);
        }
        let (this, address) = (self.clone(), job.address);
        let thread = Builder::new().name("nfs-callback".into()).spawn(move || this.run(address));
        if thread.is_err() {
            return Err(job);
        }
        queues.insert(address, VecDeque::from([job]));
        Ok(())
    }

    /// Until nothing waits for this client.
    fn run(&self, address: IpAddr) {
        loop {
            let job = {
                let mut queues = self.queues.lock().unwrap();
                let Some(job) = queues.get_mut(&address).and_then(VecDeque::pop_front) else {
                    queues.remove(&address);
                    return;
                };
                job
            };
            let outcome = self.call(address, job.procedure, &job.body);
            (job.done)(outcome);
        }
    }

    fn call(&self, address: IpAddr, procedure: u32, body: &[u8]) -> Outcome {
        let Ok(port) = self.port(address, super::PROGRAM, super::VERSION) else {
            return Outcome::Undelivered;
        };
        self.exchange(SocketAddr::new(address, port), (super::PROGRAM, super::VERSION, procedure), body)
    }

    /// Where a client serves a program. An error if it does not, or cannot be asked.
    pub fn port(&self, address: IpAddr, program: u32, version: u32) -> io::Result<u16> {
        let mut body = Encoder::default();
        body.words(&[program, version, TCP, 0]);
        let portmapper = SocketAddr::new(address, self.portmapper_port);
        let call = (crate::portmap::PROGRAM, crate::portmap::VERSION, GETPORT);
        let Outcome::Answered(results) = self.exchange(portmapper, call, &body.into_bytes()) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let port = Decoder::new(&results)
            .u32()
            .ok()
            .and_then(|port| u16::try_from(port).ok())
            .filter(|&port| port > 0);
        port.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub fn exchange(&self, to: SocketAddr, call: (u32, u32, u32), body: &[u8]) -> Outcome {
        let Ok(mut stream) = TcpStream::connect_timeout(&to, Duration::from_secs(CONNECT_SECONDS)) else {
            return Outcome::Undelivered;
        };
        let xid = self.xid.fetch_add(1, Ordering::Relaxed);
        let answer = send(&mut stream, &rpc::call(xid, call, body)).and_then(|()| receive(&mut stream, xid));
        answer.map_or(Outcome::Unknown, Outcome::Answered)
    }
}

fn send(stream: &mut TcpStream, call: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(Duration::from_secs(ANSWER_SECONDS)))?;
    stream.set_read_timeout(Some(Duration::from_secs(ANSWER_SECONDS)))?;
    stream.write_all(call)
}

/// The results of the one call that was made.
fn receive(stream: &mut TcpStream, xid: u32) -> io::Result<Vec<u8>> {
    let mut record = Vec::new();
    loop {
        let mut header = [0; 4];
        stream.read_exact(&mut header)?;
        let (bytes, last) = fragment(header);
        if bytes == 0 || record.len() + bytes > ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let start = record.len();
        record.resize(start + bytes, 0);
        stream.read_exact(&mut record[start..])?;
        if last {
            break;
        }
    }
    rpc::results(&record, xid)
        .map(<[u8]>::to_vec)
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}
