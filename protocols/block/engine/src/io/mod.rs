//! Commands of I/O queues: checked here, done by the store.
//!
//! A command that changes something enters the namespace's reservations before it is handed to the store, and leaves when the store is done. What may
//! block runs in the pool; what is begun here ends in a callback of the store that does no more than leave a message.

mod fused;
mod pooled;
mod several;

pub use fused::{Ready, match_halves, run_pair};

use crate::command::{Command, Fuse, io};
use crate::controller::Controller;
use crate::counters::Operation;
use crate::mailbox::Reply;
use crate::namespace::Attached;
use crate::reservation::{Entered, Need};
use crate::shared::Shared;
use crate::status::{Outcome, Status};
use several::Several;
use std::sync::Arc;
use trefoil_core::block::{TRANSFER_BYTES_MAX, VolumeId};

const ALL_NAMESPACES: VolumeId = VolumeId::MAX;
const FORCE_UNIT_ACCESS: u32 = 1 << 30;
const DEALLOCATE: u32 = 1 << 2;
const RANGE_BYTES: usize = 16;

/// A read that passed all checks: whoever has the memory does it.
pub struct Read {
    pub attached: Arc<Attached>,
    pub entered: Entered,
    pub offset: u64,
    pub length: usize,
}

pub struct Io<'a> {
    pub shared: &'a Arc<Shared>,
    pub controller: &'a Arc<Controller>,
}

/// Blocks that a command names, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    offset: u64,
    length: u64,
}

pub fn operation(command: &Command) -> Option<Operation> {
    Some(match command.opcode() {
        io::READ => Operation::Read,
        io::WRITE => Operation::Write,
        io::FLUSH => Operation::Flush,
        io::WRITE_ZEROES => Operation::Zero,
        io::DATASET_MANAGEMENT => Operation::Deallocate,
        io::COMPARE => Operation::Compare,
        io::VERIFY => Operation::Verify,
        io::COPY => Operation::Copy,
        io::RESERVATION_REGISTER | io::RESERVATION_REPORT | io::RESERVATION_ACQUIRE | io::RESERVATION_RELEASE => Operation::Reservation,
        _ => return None,
    })
}

fn extent(attached: &Attached, command: &Command) -> Result<Extent, Status> {
    let (first, blocks) = (command.long(40), u64::from(command.word(12) & 0xffff) + 1);
    let (offset, length) = attached.bytes(first, blocks).ok_or(Status::OUT_OF_RANGE)?;
    Ok(Extent { offset, length })
}

/// The same, for commands that carry the blocks.
fn transfer(attached: &Attached, command: &Command, data_bytes: usize) -> Result<Extent, Status> {
    let extent = extent(attached, command)?;
    // Metadata and protection information are not on offer.
    if extent.length > TRANSFER_BYTES_MAX as u64 || command.word(12) >> 26 & 0xf != 0 {
        return Err(Status::INVALID_FIELD);
    }
    if extent.length != data_bytes as u64 {
        return Err(Status::SGL_LENGTH_INVALID);
    }
    Ok(extent)
}

impl Io<'_> {
    pub fn attached(&self, command: &Command) -> Result<Arc<Attached>, Status> {
        if !self.controller.is_ready() {
            return Err(Status::SEQUENCE_ERROR);
        }
        self.controller.attach(command.namespace_id(), &self.shared.namespaces)
    }

    fn enter(&self, attached: &Attached, need: Need) -> Result<Entered, Status> {
        if need == Need::Write && attached.namespace.is_read_only() {
            return Err(Status::WRITE_PROTECTED);
        }
        attached.reservations.enter(&self.controller.peer.id, need)
    }

    /// Durable when it is answered.
    fn durable(&self, command: &Command) -> bool {
        command.word(12) & FORCE_UNIT_ACCESS != 0 || self.controller.writes_through()
    }

    pub fn plan_read(&self, command: &Command, data_bytes: usize) -> Result<Read, Status> {
        let attached = self.attached(command)?;
        let extent = transfer(&attached, command, data_bytes)?;
        let entered = self.enter(&attached, Need::Read)?;
        let (offset, length) = (extent.offset, extent.length as usize);
        Ok(Read {
            attached,
            entered,
            offset,
            length,
        })
    }

    /// Everything but reads and fused pairs. Whatever happens, `reply` is answered.
    pub fn run(&self, command: &Command, data: Vec<u8>, reply: Reply) {
        if let Err((status, reply)) = self.begin(command, data, reply) {
            reply.send(status);
        }
    }

    fn begin(&self, command: &Command, data: Vec<u8>, reply: Reply) -> Result<(), (Status, Reply)> {
        if command.fuse() != Ok(Fuse::None) {
            return Err((Status::INVALID_FIELD, reply));
        }
        if operation(command).is_none() {
            return Err((Status::INVALID_OPCODE, reply));
        }
        if command.opcode() == io::FLUSH && command.namespace_id() == ALL_NAMESPACES {
            self.flush_all(reply);
            return Ok(());
        }
        let attached = match self.attached(command) {
            Ok(attached) => attached,
            Err(status) => return Err((status, reply)),
        };
        match command.opcode() {
            io::WRITE => self.write(&attached, command, data, reply),
            io::FLUSH => self.flush(&attached, reply),
            io::WRITE_ZEROES => self.zero(&attached, command, reply),
            io::DATASET_MANAGEMENT => self.deallocate(&attached, command, &data, reply),
            io::COMPARE => self.compare(attached, command, data, reply),
            io::VERIFY => self.verify(attached, command, reply),
            io::COPY => self.copy(attached, command, &data, reply),
            _ => {
                self.reserve(attached, *command, data, reply);
                Ok(())
            }
        }
    }

    fn write(&self, attached: &Attached, command: &Command, data: Vec<u8>, mut reply: Reply) -> Result<(), (Status, Reply)> {
        let checked = transfer(attached, command, data.len()).and_then(|extent| Ok((extent, self.enter(attached, Need::Write)?)));
        match checked {
            Ok((extent, entered)) => {
                reply.enter(entered);
                attached
                    .device
                    .write(extent.offset, data, self.durable(command), several::answer(reply));
                Ok(())
            }
            Err(status) => Err((status, reply)),
        }
    }

    fn flush(&self, attached: &Attached, mut reply: Reply) -> Result<(), (Status, Reply)> {
        // Reservations count Flush to what changes something; what is read-only may be flushed all the same.
        match attached.reservations.enter(&self.controller.peer.id, Need::Write) {
            Ok(entered) => reply.enter(entered),
            Err(status) => return Err((status, reply)),
        }
        attached.device.flush(several::answer(reply));
        Ok(())
    }

    fn flush_all(&self, reply: Reply) {
        let several = Several::new(reply);
        for attached in self.controller.attached() {
            attached.device.flush(several.done());
        }
    }

    fn zero(&self, attached: &Attached, command: &Command, mut reply: Reply) -> Result<(), (Status, Reply)> {
        let checked = extent(attached, command).and_then(|extent| Ok((extent, self.enter(attached, Need::Write)?)));
        match checked {
            Ok((Extent { offset, length }, entered)) => {
                reply.enter(entered);
                attached.device.zero(offset, length, self.durable(command), several::answer(reply));
                Ok(())
            }
            Err(status) => Err((status, reply)),
        }
    }

    fn deallocate(&self, attached: &Attached, command: &Command, data: &[u8], mut reply: Reply) -> Result<(), (Status, Reply)> {
        let count = (command.word(10) & 0xff) as usize + 1;
        let Some(ranges) = data.get(..count * RANGE_BYTES) else {
            return Err((Status::SGL_LENGTH_INVALID, reply));
        };
        if command.word(11) & DEALLOCATE == 0 {
            // Hints of how it will be used.
            reply.send(Outcome::success());
            return Ok(());
        }
        let range = |bytes: &[u8]| {
            let (blocks, first) = (crate::wire::u32_at(bytes, 4), crate::wire::u64_at(bytes, 8));
            attached.bytes(first, blocks.into()).ok_or(Status::OUT_OF_RANGE)
        };
        let extents: Result<Vec<_>, Status> = ranges.chunks_exact(RANGE_BYTES).map(range).collect();
        let checked = extents.and_then(|extents| Ok((extents, self.enter(attached, Need::Write)?)));
        match checked {
            Ok((extents, entered)) => {
                reply.enter(entered);
                let several = Several::new(reply);
                let durable = self.controller.writes_through();
                for (offset, length) in extents.into_iter().filter(|(_, length)| *length > 0) {
                    attached.device.zero(offset, length, durable, several.done());
                }
                Ok(())
            }
            Err(status) => Err((status, reply)),
        }
    }
}
