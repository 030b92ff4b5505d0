//! A submission queue entry, taken apart; the numbers of the commands (NVM Express base specification, figures 87, 138 to 140 and NVM command set 1.0, figure 20).

use crate::status::Status;
use crate::wire::{array_at, u16_at, u32_at, u64_at};

pub const COMMAND_BYTES: usize = 64;

pub mod admin {
    pub const GET_LOG_PAGE: u8 = 0x02;
    pub const IDENTIFY: u8 = 0x06;
    pub const ABORT: u8 = 0x08;
    pub const SET_FEATURES: u8 = 0x09;
    pub const GET_FEATURES: u8 = 0x0a;
    pub const EVENT_REQUEST: u8 = 0x0c;
    pub const KEEP_ALIVE: u8 = 0x18;
}

pub mod io {
    pub const FLUSH: u8 = 0x00;
    pub const WRITE: u8 = 0x01;
    pub const READ: u8 = 0x02;
    pub const COMPARE: u8 = 0x05;
    pub const WRITE_ZEROES: u8 = 0x08;
    pub const DATASET_MANAGEMENT: u8 = 0x09;
    pub const VERIFY: u8 = 0x0c;
    pub const RESERVATION_REGISTER: u8 = 0x0d;
    pub const RESERVATION_REPORT: u8 = 0x0e;
    pub const RESERVATION_ACQUIRE: u8 = 0x11;
    pub const RESERVATION_RELEASE: u8 = 0x15;
    pub const COPY: u8 = 0x19;
}

pub const FABRICS: u8 = 0x7f;

pub mod fabrics {
    pub const PROPERTY_SET: u8 = 0x00;
    pub const CONNECT: u8 = 0x01;
    pub const PROPERTY_GET: u8 = 0x04;
    pub const AUTHENTICATION_SEND: u8 = 0x05;
    pub const AUTHENTICATION_RECEIVE: u8 = 0x06;
    pub const DISCONNECT: u8 = 0x08;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fuse {
    None,
    First,
    Second,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    None,
    ToController,
    ToHost,
}

/// Where a command's data is, or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Capsule,
    Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Command {
    pub bytes: [u8; COMMAND_BYTES],
}

impl Command {
    pub fn opcode(&self) -> u8 {
        self.bytes[0]
    }

    pub fn fabrics_type(&self) -> u8 {
        self.bytes[4]
    }

    pub fn is_fabrics(&self, kind: u8) -> bool {
        self.opcode() == FABRICS && self.fabrics_type() == kind
    }

    pub fn id(&self) -> u16 {
        u16_at(&self.bytes, 2)
    }

    pub fn namespace_id(&self) -> u32 {
        u32_at(&self.bytes, 4)
    }

    /// Command word 10 to 15.
    pub fn word(&self, number: usize) -> u32 {
        u32_at(&self.bytes, number * 4)
    }

    pub fn long(&self, at: usize) -> u64 {
        u64_at(&self.bytes, at)
    }

    pub fn short(&self, at: usize) -> u16 {
        u16_at(&self.bytes, at)
    }

    pub fn fuse(&self) -> Result<Fuse, Status> {
        match self.bytes[1] & 3 {
            0 => Ok(Fuse::None),
            1 => Ok(Fuse::First),
            2 => Ok(Fuse::Second),
            _ => Err(Status::INVALID_FIELD),
        }
    }

    pub fn direction(&self) -> Direction {
        let code = if self.opcode() == FABRICS {
            self.fabrics_type()
        } else {
            self.opcode()
        };
        match code & 3 {
            1 => Direction::ToController,
            2 => Direction::ToHost,
            _ => Direction::None,
        }
    }

    /// Bytes that the data pointer describes, and where they are.
    pub fn data_pointer(&self) -> Result<(Place, u32), Status> {
        let pointer: [u8; 16] = array_at(&self.bytes, 24);
        let length = u32_at(&pointer, 8);
        match pointer[15] {
            0x01 if u64_at(&pointer, 0) != 0 => Err(Status::SGL_OFFSET_INVALID),
            0x01 => Ok((Place::Capsule, length)),
            0x5a => Ok((Place::Transport, length)),
            _ => Err(Status::SGL_TYPE_INVALID),
        }
    }
}
