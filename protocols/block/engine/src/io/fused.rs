//! Fused Compare and Write: two commands of one queue that are one step.
//!
//! The first half waits for the second, whatever comes between: ESXi sends other commands there. A half without the other fails. If the comparison fails,
//! both do, each with its own status.

use super::{Io, transfer};
use crate::command::{Command, io};
use crate::mailbox::Reply;
use crate::namespace::Attached;
use crate::queue::Held;
use crate::reservation::{Entered, Need};
use crate::status::{Outcome, Status};
use std::sync::Arc;
use trefoil_core::block::COMPARE_BYTES_MAX;

struct Checked {
    attached: Arc<Attached>,
    entered: Entered,
    offset: u64,
}

/// The halves may be a pair: a Compare, then a Write.
fn pair(first: &Command, second: &Command) -> bool {
    (first.opcode(), second.opcode()) == (io::COMPARE, io::WRITE)
}

fn check(io: &Io<'_>, first: &Held, command: &Command, data_bytes: usize) -> Result<Checked, Status> {
    let same = |at: std::ops::Range<usize>| first.command.bytes[at.clone()] == command.bytes[at];
    // Namespace, first block, number of blocks.
    if !pair(&first.command, command) || !same(4..8) || !same(40..48) || !same(48..50) {
        return Err(Status::INVALID_FIELD);
    }
    let attached = io.attached(command)?;
    let extent = transfer(&attached, command, data_bytes)?;
    transfer(&attached, &first.command, first.data.len())?;
    if extent.length > COMPARE_BYTES_MAX as u64 {
        return Err(Status::ATOMIC_UNIT_EXCEEDED);
    }
    let entered = io.enter(&attached, Need::Write)?;
    let offset = extent.offset;
    Ok(Checked { attached, entered, offset })
}

pub fn run_pair(io: &Io<'_>, first: Held, command: &Command, data: Vec<u8>, mut reply: Reply) {
    let checked = match check(io, &first, command, data.len()) {
        Ok(checked) => checked,
        Err(status) => return fail(first.reply, status, reply),
    };
    reply.enter(checked.entered);
    let durable = io.durable(command) || io.durable(&first.command);
    let Held {
        data: expected,
        reply: compare,
        ..
    } = first;
    let done = move |result| match result {
        Ok(true) => {
            compare.send(Outcome::success());
            reply.send(Outcome::success());
        }
        Ok(false) => fail(compare, Status::COMPARE_FAILURE, reply),
        Err(error) => fail(compare, Status::from(error), reply),
    };
    checked
        .attached
        .device
        .compare_and_write(checked.offset, expected, data, durable, Box::new(done));
}

fn fail(compare: Reply, status: Status, write: Reply) {
    compare.send(status);
    write.send(Status::ABORTED_FAILED_FUSED);
}
