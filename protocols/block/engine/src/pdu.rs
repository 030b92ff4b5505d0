//! NVMe/TCP protocol data units (NVM Express TCP transport specification 1.0, section 3.6): what may arrive, what is sent, and what a peer is told
//! when it breaks the rules.
//!
//! `Header::parse` judges the common header alone, before anything is allocated; every length that it lets through is bounded by PDU_BYTES_MAX.

use crate::command::{COMMAND_BYTES, Command};
use crate::wire::{array_at, put, u16_at, u32_at};
use crc_fast::{CrcAlgorithm, checksum};

pub const COMMON_BYTES: usize = 8;
pub const DIGEST_BYTES: usize = 4;
const INITIALIZE_BYTES: usize = 128;
const CAPSULE_BYTES: usize = COMMON_BYTES + COMMAND_BYTES;
const DATA_BYTES: usize = 24;
const TERMINATION_BYTES: usize = 24;
/// Of the header that a termination request quotes.
const QUOTED_BYTES_MAX: usize = 128;
/// The longest header that arrives, with its digest and the most padding.
pub const HEADER_BYTES_MAX: usize = 256;

/// In one H2CData; told to the host.
pub const H2C_BYTES_MAX: usize = 256 << 10;
/// In one C2HData.
pub const C2H_BYTES_MAX: usize = 256 << 10;
/// In a command's own capsule, on I/O queues; admin queues are bound to ADMIN_CAPSULE_BYTES by the transport.
pub const CAPSULE_DATA_BYTES_MAX: usize = 16 << 10;
pub const ADMIN_CAPSULE_DATA_BYTES: usize = 8 << 10;

const HEADER_DIGEST: u8 = 1;
const DATA_DIGEST: u8 = 2;
const LAST: u8 = 4;
const SUCCESS: u8 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    InitializeRequest = 0,
    InitializeResponse = 1,
    HostTermination = 2,
    ControllerTermination = 3,
    Command = 4,
    Response = 5,
    HostData = 6,
    ControllerData = 7,
    ReadyToTransfer = 9,
}

/// Fatal error status (section 3.6.2.4), and at which byte of the header the fault is, or the digest that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub status: u16,
    pub information: u32,
}

impl Fault {
    pub const SEQUENCE: Self = Self { status: 2, information: 0 };
    pub const OUT_OF_RANGE: Self = Self { status: 4, information: 0 };
    pub const LIMIT: Self = Self { status: 5, information: 0 };

    pub fn header(at: u32) -> Self {
        Self {
            status: 1,
            information: at,
        }
    }

    pub fn digest(received: u32) -> Self {
        let information = received;
        Self { status: 3, information }
    }

    pub fn unsupported(at: u32) -> Self {
        Self {
            status: 6,
            information: at,
        }
    }
}

/// What both sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub header_digest: bool,
    pub data_digest: bool,
    /// Of data that is sent to the host.
    pub alignment_bytes: usize,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            header_digest: false,
            data_digest: false,
            alignment_bytes: 4,
        }
    }
}

pub fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// A common header that can be true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    /// Header, its digest and padding: all before the data.
    pub head_bytes: usize,
    pub data_bytes: usize,
    /// A digest of the data follows them.
    pub data_digest: bool,
    header_bytes: usize,
    header_digest: bool,
}

impl Header {
    pub fn parse(bytes: &[u8; COMMON_BYTES], terms: Terms, capsule_data_bytes_max: usize) -> Result<Self, Fault> {
        let (kind, header_bytes) = match bytes[0] {
            0 => (Kind::InitializeRequest, INITIALIZE_BYTES),
            2 => (Kind::HostTermination, TERMINATION_BYTES),
            4 => (Kind::Command, CAPSULE_BYTES),
            6 => (Kind::HostData, DATA_BYTES),
            _ => return Err(Fault::header(0)),
        };
        let (flags, length) = (bytes[1], u32_at(bytes, 4) as usize);
        let digests = matches!(kind, Kind::Command | Kind::HostData);
        let header_digest = digests && terms.header_digest;
        if usize::from(bytes[2]) != header_bytes {
            return Err(Fault::header(2));
        }
        if (flags & HEADER_DIGEST != 0) != header_digest || (flags & DATA_DIGEST != 0 && !(digests && terms.data_digest)) {
            return Err(Fault::header(1));
        }
        let ended_bytes = header_bytes + if header_digest { DIGEST_BYTES } else { 0 };
        if length < ended_bytes {
            return Err(Fault::header(4));
        }
        let mut header = Self {
            kind,
            head_bytes: ended_bytes,
            data_bytes: 0,
            data_digest: false,
            header_bytes,
            header_digest,
        };
        if kind == Kind::HostTermination && length <= TERMINATION_BYTES + QUOTED_BYTES_MAX {
            header.head_bytes = length;
        } else if length > ended_bytes {
            header.place_data(bytes, terms, capsule_data_bytes_max)?;
        }
        Ok(header)
    }

    fn place_data(&mut self, bytes: &[u8; COMMON_BYTES], terms: Terms, capsule_data_bytes_max: usize) -> Result<(), Fault> {
        let (length, offset) = (u32_at(bytes, 4) as usize, usize::from(bytes[3]));
        let data_bytes_max = match self.kind {
            Kind::Command => capsule_data_bytes_max,
            Kind::HostData => H2C_BYTES_MAX,
            _ => return Err(Fault::header(4)),
        };
        if offset < self.head_bytes || offset % 4 != 0 || offset > HEADER_BYTES_MAX {
            return Err(Fault::header(3));
        }
        self.data_digest = terms.data_digest;
        let around = offset + if self.data_digest { DIGEST_BYTES } else { 0 };
        self.data_bytes = length.checked_sub(around).ok_or(Fault::header(4))?;
        if self.data_digest != (bytes[1] & DATA_DIGEST != 0) {
            return Err(Fault::header(1));
        }
        if self.data_bytes > data_bytes_max {
            return Err(if self.kind == Kind::HostData {
                Fault::LIMIT
            } else {
                Fault::header(4)
            });
        }
        self.head_bytes = offset;
        Ok(())
    }

    /// `head`: the first `head_bytes` of the unit.
    pub fn check_digest(&self, head: &[u8]) -> Result<(), Fault> {
        if self.header_digest {
            let received = u32_at(head, self.header_bytes);
            if received != crc32c(&head[..self.header_bytes]) {
                return Err(Fault::digest(received));
            }
        }
        Ok(())
    }
}

pub fn command(head: &[u8]) -> Command {
    Command {
        bytes: array_at(head, COMMON_BYTES),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostData {
    pub command_id: u16,
    pub tag: u16,
    pub offset: usize,
    pub length: usize,
    pub last: bool,
}

pub fn host_data(head: &[u8]) -> HostData {
    HostData {
        command_id: u16_at(head, 8),
        tag: u16_at(head, 10),
        offset: u32_at(head, 12) as usize,
        length: u32_at(head, 16) as usize,
        last: head[1] & LAST != 0,
    }
}

/// What a host asked for, and the answer.
pub fn initialize(head: &[u8]) -> Result<(Terms, [u8; INITIALIZE_BYTES]), Fault> {
    if u16_at(head, 8) != 0 {
        return Err(Fault::unsupported(8));
    }
    if head[10] > 31 {
        return Err(Fault::header(10));
    }
    let digests = head[11] & (HEADER_DIGEST | DATA_DIGEST);
    let terms = Terms {
        header_digest: digests & HEADER_DIGEST != 0,
        data_digest: digests & DATA_DIGEST != 0,
        alignment_bytes: (usize::from(head[10]) + 1) * 4,
    };
    let mut response = [0; INITIALIZE_BYTES];
    put(
        &mut response,
        0,
        &common(Kind::InitializeResponse, 0, INITIALIZE_BYTES, 0, INITIALIZE_BYTES),
    );
    response[11] = digests;
    put(&mut response, 12, &(H2C_BYTES_MAX as u32).to_le_bytes());
    Ok((terms, response))
}

fn common(kind: Kind, flags: u8, header_bytes: usize, data_offset: usize, length: usize) -> [u8; COMMON_BYTES] {
    let mut bytes = [kind as u8, flags, header_bytes as u8, data_offset as u8, 0, 0, 0, 0];
    put(&mut bytes, 4, &(length as u32).to_le_bytes());
    bytes
}

/// Appends a header of `rest` after the common one, with its digest.
fn put_header(into: &mut Vec<u8>, terms: Terms, mut flags: u8, kind: Kind, rest: &[u8]) {
    let header_bytes = COMMON_BYTES + rest.len();
    let mut length = header_bytes;
    if terms.header_digest {
        (flags, length) = (flags | HEADER_DIGEST, length + DIGEST_BYTES);
    }
    let start = into.len();
    into.extend_from_slice(&common(kind, flags, header_bytes, 0, length));
    into.extend_from_slice(rest);
    put_digest(into, terms, start);
}

fn put_digest(into: &mut Vec<u8>, terms: Terms, start: usize) {
    if terms.header_digest {
        let digest = crc32c(&into[start..]);
        into.extend_from_slice(&digest.to_le_bytes());
    }
}

pub fn put_response(into: &mut Vec<u8>, terms: Terms, completion: &[u8; 16]) {
    put_header(into, terms, 0, Kind::Response, completion);
}

pub fn put_ready(into: &mut Vec<u8>, terms: Terms, command_id: u16, tag: u16, offset: usize, length: usize) {
    let mut rest = [0; 16];
    put(&mut rest, 0, &command_id.to_le_bytes());
    put(&mut rest, 2, &tag.to_le_bytes());
    put(&mut rest, 4, &(offset as u32).to_le_bytes());
    put(&mut rest, 8, &(length as u32).to_le_bytes());
    put_header(into, terms, 0, Kind::ReadyToTransfer, &rest);
}

/// All of C2HData before its data. `success`: no response follows.
pub fn put_data_header(into: &mut Vec<u8>, terms: Terms, command_id: u16, offset: usize, length: usize, last: bool, success: bool) {
    let digest = |on: bool| if on { DIGEST_BYTES } else { 0 };
    let data_offset = (DATA_BYTES + digest(terms.header_digest)).next_multiple_of(terms.alignment_bytes);
    let flags = [
        (terms.header_digest, HEADER_DIGEST),
        (terms.data_digest, DATA_DIGEST),
        (last, LAST),
        (last && success, SUCCESS),
    ];
    let flags = flags.iter().filter(|(on, _)| *on).fold(0, |flags, (_, flag)| flags | flag);
    let total = data_offset + length + digest(terms.data_digest);
    let start = into.len();
    into.extend_from_slice(&common(Kind::ControllerData, flags, DATA_BYTES, data_offset, total));
    let mut rest = [0; 16];
    put(&mut rest, 0, &command_id.to_le_bytes());
    put(&mut rest, 4, &(offset as u32).to_le_bytes());
    put(&mut rest, 8, &(length as u32).to_le_bytes());
    into.extend_from_slice(&rest);
    put_digest(into, terms, start);
    into.resize(start + data_offset, 0);
}

/// The last that a peer hears.
pub fn termination(fault: Fault, head: &[u8]) -> Vec<u8> {
    let quoted = &head[..head.len().min(QUOTED_BYTES_MAX)];
    let mut bytes = common(
        Kind::ControllerTermination,
        0,
        TERMINATION_BYTES,
        0,
        TERMINATION_BYTES + quoted.len(),
    )
    .to_vec();
    bytes.extend_from_slice(&fault.status.to_le_bytes());
    bytes.extend_from_slice(&fault.information.to_le_bytes());
    bytes.resize(TERMINATION_BYTES, 0);
    bytes.extend_from_slice(quoted);
    bytes
}

#[cfg(test)]
mod tests;
