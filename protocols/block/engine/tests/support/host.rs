//! A small NVMe/TCP host that builds and takes apart its units on its own, byte by byte, so that it agrees with the target only where both are right.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

pub const SUCCESS: u16 = 0;
const PATIENCE: Duration = Duration::from_secs(30);

pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

pub fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

pub fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// A submission queue entry in the making.
#[derive(Debug, Clone, Copy)]
pub struct Entry(pub [u8; 64]);

impl Entry {
    pub fn new(opcode: u8) -> Self {
        let mut entry = Self([0; 64]);
        (entry.0[0], entry.0[1]) = (opcode, 0x40);
        entry
    }

    pub fn byte(mut self, at: usize, value: u8) -> Self {
        self.0[at] = value;
        self
    }

    pub fn short(mut self, at: usize, value: u16) -> Self {
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
        self
    }

    pub fn word(mut self, number: usize, value: u32) -> Self {
        self.0[number * 4..number * 4 + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    pub fn long(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
        self
    }

    pub fn namespace(self, id: u32) -> Self {
        self.word(1, id)
    }

    /// First block, and how many.
    pub fn blocks(self, first: u64, count: u32) -> Self {
        self.long(40, first).word(12, count - 1)
    }

    pub fn first_half(self) -> Self {
        self.byte(1, 0x41)
    }

    pub fn second_half(self) -> Self {
        self.byte(1, 0x42)
    }

    pub fn force(self) -> Self {
        let flags = self.0[51] | 0x40;
        self.byte(51, flags)
    }

    fn pointer(self, kind: u8, length: usize) -> Self {
        self.long(24, 0).word(8, length as u32).byte(39, kind)
    }
}

/// What came of a command. The status is without Do Not Retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    pub id: u16,
    pub status: u16,
    pub retry: bool,
    pub result: u64,
    pub data: Vec<u8>,
    pub head: u16,
}

impl Completion {
    pub fn good(self) -> Self {
        assert_eq!(self.status, SUCCESS, "{:#x} of command {}", self.status, self.id);
        self
    }
}

struct Under {
    out: Vec<u8>,
    into: Vec<u8>,
    received: usize,
}

/// How a connection is made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub header_digest: bool,
    pub data_digest: bool,
    /// In units of 4 bytes, less one.
    pub alignment: u8,
    pub flow_control: bool,
    /// Data up to this many bytes goes along with its command.
    pub in_capsule: usize,
    pub depth: u16,
    pub keep_alive_milliseconds: u32,
    /// Bytes in one H2CData at most; 0: as many as the target takes.
    pub piece: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            header_digest: false,
            data_digest: false,
            alignment: 0,
            flow_control: true,
            in_capsule: 8192,
            depth: 128,
            keep_alive_milliseconds: 0,
            piece: 0,
        }
    }
}

pub struct Connection {
    pub stream: TcpStream,
    pub options: Options,
    pub piece_max: usize,
    next: u16,
    under: HashMap<u16, Under>,
    done: HashMap<u16, Completion>,
    /// Units that came, by type.
    pub units: HashMap<u8, usize>,
    /// Data that the target asks for is not sent by itself: it is put down in `asked`, for `supply`.
    pub withholds: bool,
    pub asked: Vec<Asked>,
}

/// Data that the target asked for and did not get whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    pub id: u16,
    tag: u16,
    offset: usize,
    end: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    Closed,
    /// Fatal error status, and its information.
    Terminated(u16, u32),
}

pub fn initialize(options: Options) -> Vec<u8> {
    let mut request = vec![0; 128];
    (request[2], request[4], request[10]) = (128, 128, options.alignment);
    request[11] = u8::from(options.header_digest) | u8::from(options.data_digest) << 1;
    request
}

impl Connection {
    pub fn open(address: SocketAddr, options: Options) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&initialize(options)).unwrap();
        let mut response = [0; 128];
        stream.read_exact(&mut response).unwrap();
        assert_eq!((response[0], response[2], word(&response, 4)), (1, 128, 128));
        let digests = u8::from(options.header_digest) | u8::from(options.data_digest) << 1;
        assert_eq!(response[11], digests);
        let piece_max = word(&response, 12) as usize;
        Self {
            stream,
            options,
            piece_max,
            next: 0,
            under: HashMap::new(),
            done: HashMap::new(),
            units: HashMap::new(),
            withholds: false,
            asked: Vec::new(),
        }
    }

    fn unit(&self, kind: u8, flags: u8, header: &[u8], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, flags, header.len() as u8 + 8, 0, 0, 0, 0, 0];
        bytes.extend(header);
        let digest = usize::from(self.options.header_digest) * 4;
        let mut length = bytes.len() + digest;
        bytes[1] |= u8::from(self.options.header_digest);
        if !data.is_empty() {
            bytes[3] = length as u8;
            length += data.len();
            if self.options.data_digest {
                bytes[1] |= 2;
                length += 4;
            }
        }
        bytes[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        if self.options.header_digest {
            bytes.extend(crc32c(&bytes).to_le_bytes());
        }
        bytes.extend(data);
        if !data.is_empty() && self.options.data_digest {
            bytes.extend(crc32c(data).to_le_bytes());
        }
        bytes
    }

    /// The bytes of a command, under a new id; `wanted` bytes are expected.
    pub fn encode(&mut self, entry: Entry, out: Vec<u8>, wanted: usize) -> (u16, Vec<u8>) {
        self.next = self.next.wrapping_add(1) & 0x7fff;
        self.encode_as(self.next, entry, out, wanted)
    }

    pub fn encode_as(&mut self, id: u16, entry: Entry, out: Vec<u8>, wanted: usize) -> (u16, Vec<u8>) {
        let fabrics = entry.0[0] == 0x7f;
        let capsule = !out.is_empty() && (fabrics || out.len() <= self.options.in_capsule);
        let entry = entry.short(2, id).pointer(if capsule { 0x01 } else { 0x5a }, out.len().max(wanted));
        let bytes = self.unit(4, 0, &entry.0, if capsule { &out } else { &[] });
        let into = vec![0; wanted];
        self.under.insert(id, Under { out, into, received: 0 });
        (id, bytes)
    }

    pub fn submit(&mut self, entry: Entry, out: Vec<u8>, wanted: usize) -> u16 {
        let (id, bytes) = self.encode(entry, out, wanted);
        // A target that has closed is noticed by who reads.
        let _ = self.stream.write_all(&bytes);
        id
    }

    pub fn try_wait(&mut self, id: u16) -> Result<Completion, Lost> {
        while !self.done.contains_key(&id) {
            self.receive()?;
        }
        Ok(self.done.remove(&id).unwrap())
    }

    pub fn wait(&mut self, id: u16) -> Completion {
        self.try_wait(id)
            .unwrap_or_else(|lost| panic!("{lost:?} before command {id} was answered"))
    }

    /// Whichever is done next.
    pub fn wait_any(&mut self) -> Completion {
        while self.done.is_empty() {
            self.receive().unwrap();
        }
        let id = *self.done.keys().next().unwrap();
        self.done.remove(&id).unwrap()
    }

    /// Of what has come already.
    pub fn take_done(&mut self) -> Option<Completion> {
        let id = *self.done.keys().next()?;
        self.done.remove(&id)
    }

    pub fn run(&mut self, entry: Entry, out: Vec<u8>, wanted: usize) -> Completion {
        let id = self.submit(entry, out, wanted);
        self.wait(id)
    }

    pub fn outstanding(&self) -> usize {
        self.under.len()
    }

    fn exact(&mut self, length: usize) -> Result<Vec<u8>, Lost> {
        let mut bytes = vec![0; length];
        match self.stream.read_exact(&mut bytes) {
            Ok(()) => Ok(bytes),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!("the target is silent"),
            Err(_) => Err(Lost::Closed),
        }
    }

    /// One unit.
    pub fn receive(&mut self) -> Result<(), Lost> {
        let common = self.exact(8)?;
        let rest = self.exact(word(&common, 4) as usize - 8)?;
        let unit = [common, rest].concat();
        let (kind, flags, header) = (unit[0], unit[1], usize::from(unit[2]));
        *self.units.entry(kind).or_default() += 1;
        if kind == 3 {
            return Err(Lost::Terminated(short(&unit, 8), word(&unit, 10)));
        }
        assert_eq!(flags & 1 == 1, self.options.header_digest);
        if self.options.header_digest {
            assert_eq!(word(&unit, header), crc32c(&unit[..header]), "header digest");
        }
        match kind {
            5 => self.response(&unit[8..24]),
            7 => self.data(&unit, flags),
            9 => self.ready(&unit),
            _ => panic!("unit of type {kind}"),
        }
        Ok(())
    }

    fn response(&mut self, entry: &[u8]) {
        let (id, status) = (short(entry, 12), short(entry, 14) >> 1);
        let under = self
            .under
            .remove(&id)
            .unwrap_or_else(|| panic!("an answer to {id}, which nobody asked: {status:#x}"));
        let completion = Completion {
            id,
            status: status & 0x3fff,
            retry: status & 0x4000 == 0,
            result: long(entry, 0),
            data: under.into[..under.received].to_vec(),
            head: short(entry, 8),
        };
        self.done.insert(id, completion);
    }

    fn data(&mut self, unit: &[u8], flags: u8) {
        let (id, offset, length) = (short(unit, 8), word(unit, 12) as usize, word(unit, 16) as usize);
        let start = usize::from(unit[3]);
        let aligned = (usize::from(self.options.alignment) + 1) * 4;
        assert_eq!(start % aligned, 0, "alignment");
        let data = &unit[start..start + length];
        if self.options.data_digest {
            assert_eq!(flags & 2, 2);
            assert_eq!(word(unit, start + length), crc32c(data), "data digest");
        } else {
            assert_eq!(unit.len(), start + length);
        }
        let under = self.under.get_mut(&id).unwrap();
        assert_eq!(offset, under.received, "data in order");
        under.into[offset..offset + length].copy_from_slice(data);
        under.received += length;
        if flags & 8 != 0 {
            assert!(!self.options.flow_control && flags & 4 != 0);
            let under = self.under.remove(&id).unwrap();
            let (status, retry, result, head) = (SUCCESS, false, 0, u16::MAX);
            let data = under.into[..under.received].to_vec();
            self.done.insert(
                id,
                Completion {
                    id,
                    status,
                    retry,
                    result,
                    data,
                    head,
                },
            );
        }
    }

    fn ready(&mut self, unit: &[u8]) {
        let (offset, length) = (word(unit, 12) as usize, word(unit, 16) as usize);
        self.asked.push(Asked {
            id: short(unit, 8),
            tag: short(unit, 10),
            offset,
            end: offset + length,
        });
        while !self.withholds && !self.asked.is_empty() {
            self.supply(0);
        }
    }

    /// The next piece of what is asked for.
    pub fn supply(&mut self, index: usize) {
        let Asked { id, tag, offset, end } = self.asked[index];
        let piece = if self.options.piece == 0 {
            self.piece_max
        } else {
            self.options.piece.min(self.piece_max)
        };
        let until = end.min(offset + piece);
        let bytes = self.piece(id, tag, offset, &self.under[&id].out[offset..until], until == end);
        let _ = self.stream.write_all(&bytes);
        if until == end {
            self.asked.remove(index);
        } else {
            self.asked[index].offset = until;
        }
    }

    /// One H2CData.
    pub fn piece(&self, id: u16, tag: u16, offset: usize, data: &[u8], last: bool) -> Vec<u8> {
        let mut header = [0; 16];
        header[..2].copy_from_slice(&id.to_le_bytes());
        header[2..4].copy_from_slice(&tag.to_le_bytes());
        header[4..8].copy_from_slice(&(offset as u32).to_le_bytes());
        header[8..12].copy_from_slice(&(data.len() as u32).to_le_bytes());
        self.unit(6, u8::from(last) * 4, &header, data)
    }
}
