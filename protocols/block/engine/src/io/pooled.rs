//! Commands that wait for devices, on the pool's threads.

use super::{Io, RANGE_BYTES, extent, transfer};
use crate::command::{Command, io};
use crate::controller::Controller;
use crate::identify::COPY_RANGES_MAX;
use crate::mailbox::Reply;
use crate::namespace::Attached;
use crate::reservation::{self, Asker, Need};
use crate::shared::Shared;
use crate::status::{Outcome, Status};
use crate::wire::{u16_at, u64_at};
use std::sync::Arc;
use std::sync::mpsc::channel;
use trefoil_core::block::{BlockError, Done, TRANSFER_BYTES_MAX};

/// Read at once for a comparison or verification; not of the budget, which knows the bound: one a worker.
const PIECE_BYTES: usize = 128 << 10;
const COPY_RANGE_BYTES: usize = 2 * RANGE_BYTES;

/// For the pool's threads only.
fn wait<T: Send + 'static>(begin: impl FnOnce(Done<T>)) -> Result<T, BlockError> {
    let (sender, receiver) = channel();
    begin(Box::new(move |result| _ = sender.send(result)));
    receiver
        .recv()
        .unwrap_or_else(|_| Err(BlockError::Failed("the store dropped a change".into())))
}

/// Calls `look` with pieces of a range, in order.
fn read_pieces(
    attached: &Attached,
    offset: u64,
    length: usize,
    mut look: impl FnMut(usize, &[u8]) -> Result<(), Status>,
) -> Result<(), Status> {
    let mut piece = vec![0; PIECE_BYTES.min(length)];
    for at in (0..length).step_by(PIECE_BYTES) {
        let piece = &mut piece[..PIECE_BYTES.min(length - at)];
        attached.device.read(offset + at as u64, piece)?;
        look(at, piece)?;
    }
    Ok(())
}

impl Io<'_> {
    fn run_pooled(&self, reply: Reply, work: impl FnOnce() -> Result<Outcome, Status> + Send + 'static) {
        self.shared.pool.push(Box::new(move || reply.send(work())));
    }

    pub(super) fn compare(
        &self,
        attached: Arc<Attached>,
        command: &Command,
        data: Vec<u8>,
        mut reply: Reply,
    ) -> Result<(), (Status, Reply)> {
        let checked = transfer(&attached, command, data.len()).and_then(|extent| Ok((extent, self.enter(&attached, Need::Read)?)));
        let (extent, entered) = match checked {
            Ok(checked) => checked,
            Err(status) => return Err((status, reply)),
        };
        reply.enter(entered);
        self.run_pooled(reply, move || {
            read_pieces(&attached, extent.offset, data.len(), |at, piece| {
                let equal = piece == &data[at..at + piece.len()];
                if equal { Ok(()) } else { Err(Status::COMPARE_FAILURE) }
            })?;
            Ok(Outcome::success())
        });
        Ok(())
    }

    pub(super) fn verify(&self, attached: Arc<Attached>, command: &Command, mut reply: Reply) -> Result<(), (Status, Reply)> {
        let checked = extent(&attached, command).and_then(|extent| {
            let fits = extent.length <= TRANSFER_BYTES_MAX as u64;
            let entered = self.enter(&attached, Need::Read)?;
            if fits { Ok((extent, entered)) } else { Err(Status::INVALID_FIELD) }
        });
        let (extent, entered) = match checked {
            Ok(checked) => checked,
            Err(status) => return Err((status, reply)),
        };
        reply.enter(entered);
        self.run_pooled(reply, move || {
            read_pieces(&attached, extent.offset, extent.length as usize, |_, _| Ok(()))?;
            Ok(Outcome::success())
        });
        Ok(())
    }

    /// Source ranges one after another to one place.
    pub(super) fn copy(&self, attached: Arc<Attached>, command: &Command, data: &[u8], mut reply: Reply) -> Result<(), (Status, Reply)> {
        let checked = sources(&attached, command, data).and_then(|copies| Ok((copies, self.enter(&attached, Need::Write)?)));
        let (copies, entered) = match checked {
            Ok(checked) => checked,
            Err(status) => return Err((status, reply)),
        };
        reply.enter(entered);
        let durable = self.durable(command);
        self.run_pooled(reply, move || {
            for (done, (from, to, length)) in copies.into_iter().enumerate() {
                if let Err(error) = wait(|done| attached.device.copy(from, to, length, durable, done)) {
                    // The result says how many ranges were copied.
                    let result = done as u64;
                    return Ok(Outcome {
                        result,
                        ..Status::from(error).into()
                    });
                }
            }
            Ok(Outcome::success())
        });
        Ok(())
    }

    pub(super) fn reserve(&self, attached: Arc<Attached>, command: Command, data: Vec<u8>, reply: Reply) {
        let (shared, controller) = (self.shared.clone(), self.controller.clone());
        self.shared.changes.push(Box::new(move || {
            reply.send(change(&shared, &controller, &attached, &command, &data))
        }));
    }
}

fn change(shared: &Shared, controller: &Controller, attached: &Attached, command: &Command, data: &[u8]) -> Result<Outcome, Status> {
    let on = &attached.reservations;
    let id = attached.namespace.id;
    let asker = Asker {
        host: controller.peer.id,
        controller: controller.id,
    };
    let mut keep = |record| shared.namespaces.volumes.keep_reservation(id, record);
    let notices = match command.opcode() {
        io::RESERVATION_REPORT => return reservation::report(on, command).map(Outcome::data),
        io::RESERVATION_REGISTER => reservation::register(on, asker, command, data, &mut keep),
        io::RESERVATION_ACQUIRE => reservation::acquire(on, asker, command, data, &mut keep),
        _ => reservation::release(on, asker, command, data, &mut keep),
    }?;
    shared.tell(id, &notices);
    Ok(Outcome::success())
}

/// From, to, length of each.
fn sources(attached: &Attached, command: &Command, data: &[u8]) -> Result<Vec<(u64, u64, u64)>, Status> {
    let (word, count) = (command.word(12), (command.word(12) & 0xff) as usize + 1);
    if word >> 8 & 0xf != 0 {
        return Err(Status::INVALID_FIELD);
    }
    if count > COPY_RANGES_MAX {
        return Err(Status::SIZE_LIMIT_EXCEEDED);
    }
    let ranges = data.get(..count * COPY_RANGE_BYTES).ok_or(Status::SGL_LENGTH_INVALID)?;
    let mut to = command.long(40);
    let mut copies = Vec::with_capacity(count);
    for range in ranges.chunks_exact(COPY_RANGE_BYTES) {
        let (first, blocks) = (u64_at(range, 8), u64::from(u16_at(range, 16)) + 1);
        let (from, length) = attached.bytes(first, blocks).ok_or(Status::OUT_OF_RANGE)?;
        let (target, _) = attached.bytes(to, blocks).ok_or(Status::OUT_OF_RANGE)?;
        if length > TRANSFER_BYTES_MAX as u64 {
            return Err(Status::SIZE_LIMIT_EXCEEDED);
        }
        copies.push((from, target, length));
        to += blocks;
    }
    Ok(copies)
}
