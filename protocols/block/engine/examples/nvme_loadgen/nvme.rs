//! An NVMe/TCP host that knows as much as a load needs: one admin queue for all, one I/O queue a link.

use crate::{Link, Open};
use std::error::Error;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:6c6f6164-6765-4e65-8461-746f72000001";
const DATA_BYTES_MAX: usize = 1 << 20;
const BUFFER_BYTES: usize = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(60);

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::other(what.into())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn entry(opcode: u8, id: u16, namespace: u32) -> [u8; 64] {
    let mut entry = [0; 64];
    (entry[0], entry[1]) = (opcode, 0x40);
    entry[2..4].copy_from_slice(&id.to_le_bytes());
    entry[4..8].copy_from_slice(&namespace.to_le_bytes());
    entry
}

struct Wire {
    stream: BufReader<TcpStream>,
    out: Vec<u8>,
    piece_bytes_max: usize,
    capsule_bytes_max: usize,
    data: Arc<Vec<u8>>,
}

/// What came of one unit.
enum Unit {
    Done { id: u16, status: u16, result: u32, data: Vec<u8> },
    Nothing,
}

impl Wire {
    fn open(address: &str, data: Arc<Vec<u8>>) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut request = [0; 128];
        (request[2], request[4]) = (128, 128);
        stream.write_all(&request)?;
        let mut response = [0; 128];
        stream.read_exact(&mut response)?;
        if response[0] != 1 {
            return Err(wrong("the target did not accept the connection"));
        }
        Ok(Self {
            stream: BufReader::with_capacity(BUFFER_BYTES, stream),
            out: Vec::new(),
            piece_bytes_max: word(&response, 12) as usize,
            capsule_bytes_max: 8192,
            data,
        })
    }

    /// Queues a command; data that does not fit is fetched by the target.
    fn command(&mut self, mut entry: [u8; 64], capsule: &[u8], length: u32) {
        entry[32..36].copy_from_slice(&length.to_le_bytes());
        entry[39] = if capsule.is_empty() { 0x5a } else { 0x01 };
        let offset = if capsule.is_empty() { 0 } else { 72 };
        self.out.extend([4, 0, 72, offset]);
        self.out.extend((72 + capsule.len() as u32).to_le_bytes());
        self.out.extend(entry);
        self.out.extend(capsule);
    }

    fn send(&mut self) -> io::Result<()> {
        let out = std::mem::take(&mut self.out);
        self.stream.get_mut().write_all(&out)?;
        self.out = out;
        self.out.clear();
        Ok(())
    }

    fn receive(&mut self, keep: bool) -> io::Result<Unit> {
        let mut head = [0; 24];
        self.stream.read_exact(&mut head)?;
        let length = word(&head, 4) as usize;
        match head[0] {
            5 => Ok(Unit::Done {
                id: short(&head, 20),
                status: short(&head, 22) >> 1,
                result: word(&head, 8),
                data: Vec::new(),
            }),
            7 => self.data(&head, length, keep),
            9 => {
                self.fetch(
                    short(&head, 8),
                    short(&head, 10),
                    word(&head, 12) as usize,
                    word(&head, 16) as usize,
                )?;
                Ok(Unit::Nothing)
            }
            kind => Err(wrong(format!("a unit of type {kind}"))),
        }
    }

    fn data(&mut self, head: &[u8; 24], length: usize, keep: bool) -> io::Result<Unit> {
        let mut rest = length - head.len();
        let mut data = Vec::new();
        if keep {
            data = vec![0; rest];
            self.stream.read_exact(&mut data)?;
        } else {
            let mut sink = [0; 64 << 10];
            while rest > 0 {
                let some = rest.min(sink.len());
                self.stream.read_exact(&mut sink[..some])?;
                rest -= some;
            }
        }
        let success = head[1] & 8 != 0;
        let id = short(head, 8);
        if success || keep {
            let (status, result) = if success { (0, 0) } else { (u16::MAX, 0) };
            return Ok(Unit::Done { id, status, result, data });
        }
        Ok(Unit::Nothing)
    }

    fn fetch(&mut self, id: u16, tag: u16, offset: usize, length: usize) -> io::Result<()> {
        let data = self.data.clone();
        let mut out = Vec::new();
        for start in (0..length).step_by(self.piece_bytes_max) {
            let piece = (length - start).min(self.piece_bytes_max);
            let last = start + piece == length;
            out.extend([6, u8::from(last) * 4, 24, 24]);
            out.extend((24 + piece as u32).to_le_bytes());
            out.extend(id.to_le_bytes());
            out.extend(tag.to_le_bytes());
            out.extend(((offset + start) as u32).to_le_bytes());
            out.extend((piece as u32).to_le_bytes());
            out.extend([0; 4]);
            out.extend(&data[offset + start..offset + start + piece]);
        }
        self.stream.get_mut().write_all(&out)
    }

    /// One command of the admin queue, or Connect.
    fn run(&mut self, entry: [u8; 64], capsule: &[u8], length: u32) -> io::Result<(u32, Vec<u8>)> {
        self.command(entry, capsule, length);
        self.send()?;
        let mut kept = Vec::new();
        loop {
            match self.receive(true)? {
                Unit::Done {
                    status: u16::MAX, data, ..
                } => kept = data,
                Unit::Done {
                    status: 0, result, data, ..
                } => return Ok((result, if data.is_empty() { kept } else { data })),
                Unit::Done { status, .. } => return Err(wrong(format!("status {status:#x} of command {:#x}", entry[0]))),
                Unit::Nothing => {}
            }
        }
    }

    fn connect(&mut self, nqn: &str, queue: u16, depth: u16, controller: u16) -> io::Result<u16> {
        let mut command = entry(0x7f, 0, 1);
        command[42..44].copy_from_slice(&queue.to_le_bytes());
        command[44..46].copy_from_slice(&(depth - 1).to_le_bytes());
        command[46] = 4;
        let mut data = [0; 1024];
        data[..16].copy_from_slice(b"trefoil loadgen ");
        data[16..18].copy_from_slice(&controller.to_le_bytes());
        data[256..256 + nqn.len()].copy_from_slice(nqn.as_bytes());
        data[512..512 + HOST.len()].copy_from_slice(HOST.as_bytes());
        Ok(self.run(command, &data, 1024)?.0 as u16)
    }
}

/// The session that all links belong to.
struct Session {
    _admin: Mutex<Wire>,
    controller: u16,
    block_bytes: u64,
    blocks: u64,
    capsule_bytes_max: usize,
}

fn session(address: &str, nqn: &str, namespace: u32, data: &Arc<Vec<u8>>) -> io::Result<Session> {
    let mut admin = Wire::open(address, data.clone())?;
    let controller = admin.connect(nqn, 0, 32, 0xffff)?;
    let mut enable = entry(0x7f, 1, 0);
    enable[44..48].copy_from_slice(&0x14_u32.to_le_bytes());
    enable[48..52].copy_from_slice(&0x46_0001_u32.to_le_bytes());
    admin.run(enable, &[], 0)?;
    let mut queues = entry(0x09, 2, 0);
    (queues[40], queues[44], queues[46]) = (7, 31, 31);
    admin.run(queues, &[], 0)?;
    let mut identify = entry(0x06, 3, 0);
    identify[40] = 1;
    let (_, page) = admin.run(identify, &[], 4096)?;
    let capsule_bytes_max = (word(&page, 1792) as usize * 16).saturating_sub(64);
    let (_, page) = admin.run(entry(0x06, 4, namespace), &[], 4096)?;
    let blocks = u64::from(word(&page, 0)) | u64::from(word(&page, 4)) << 32;
    let format = usize::from(page[26] & 0xf);
    if blocks == 0 {
        return Err(wrong(format!("there is no namespace {namespace}")));
    }
    Ok(Session {
        _admin: Mutex::new(admin),
        controller,
        block_bytes: 1 << page[128 + format * 4 + 2],
        blocks,
        capsule_bytes_max,
    })
}

/// The first link of each number is a queue; the sizing look of `main` closes its own before.
pub fn opener(rest: &str, depth: u16) -> Result<Open, Box<dyn Error>> {
    let mut parts = rest.splitn(3, '/');
    let (address, nqn) = (
        parts.next().unwrap_or_default().to_owned(),
        parts.next().ok_or("an NQN is missing")?.to_owned(),
    );
    let namespace = parts.next().map_or(Ok(1), str::parse)?;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let data = Arc::new((0..DATA_BYTES_MAX / 8).flat_map(|_| random().to_le_bytes()).collect::<Vec<u8>>());
    let session = Arc::new(session(&address, &nqn, namespace, &data)?);
    Ok(Box::new(move |queue| {
        let mut wire = Wire::open(&address, data.clone())?;
        // A number may be in use for a moment by a link that was just closed.
        let mut attempts = 0;
        while let Err(error) = wire.connect(&nqn, queue, (depth + 1).max(2), session.controller) {
            attempts += 1;
            if attempts == 100 {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        wire.capsule_bytes_max = session.capsule_bytes_max;
        let session = session.clone();
        Ok(Box::new(Queue { wire, session, namespace }) as Box<dyn Link>)
    }))
}

struct Queue {
    wire: Wire,
    session: Arc<Session>,
    namespace: u32,
}

impl Link for Queue {
    fn bytes(&self) -> u64 {
        self.session.blocks * self.session.block_bytes
    }

    fn submit(&mut self, tag: u16, write: bool, offset: u64, length: u32, durable: bool) {
        let block_bytes = self.session.block_bytes;
        let mut command = entry(if write { 1 } else { 2 }, tag, self.namespace);
        command[40..48].copy_from_slice(&(offset / block_bytes).to_le_bytes());
        command[48..50].copy_from_slice(&((u64::from(length) / block_bytes - 1) as u16).to_le_bytes());
        command[51] = u8::from(write && durable) << 6;
        if write && length as usize <= self.wire.capsule_bytes_max {
            let data = self.wire.data.clone();
            // Other bytes for each tag, so that nothing is told apart by content alone.
            let start = usize::from(tag) * 512 % (DATA_BYTES_MAX - length as usize);
            self.wire.command(command, &data[start..start + length as usize], length);
        } else {
            self.wire.command(command, &[], length);
        }
    }

    fn send(&mut self) -> io::Result<()> {
        self.wire.send()
    }

    fn wait(&mut self, done: &mut Vec<u16>) -> io::Result<()> {
        // Also what has arrived with it, as far as it is whole for sure.
        while done.is_empty() || self.wire.stream.buffer().len() >= 24 {
            match self.wire.receive(false)? {
                Unit::Done { id, status: 0, .. } => done.push(id),
                Unit::Done { id, status, .. } => return Err(wrong(format!("status {status:#x} of command {id}"))),
                Unit::Nothing => {}
            }
        }
        Ok(())
    }
}
