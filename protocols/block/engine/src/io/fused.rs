//! Fused Compare and Write: two commands of one queue that are one step.
//!
//! `connection::pairs` finds the halves and brings their data; here they are checked and done. If the comparison fails, both do, each with its own status.

use super::{Io, transfer};
use crate::command::{Command, io};
use crate::mailbox::Reply;
use crate::namespace::Attached;
use crate::reservation::{Entered, Need};
use crate::status::{Outcome, Status};
use std::sync::Arc;
use trefoil_core::block::COMPARE_BYTES_MAX;

/// A half whose data is there.
pub struct Ready {
    pub command: Command,
    pub data: Vec<u8>,
    pub reply: Reply,
}

struct Checked {
    attached: Arc<Attached>,
    entered: Entered,
    offset: u64,
}

/// What can be said before the data is there: a Compare, then a Write of the same blocks, of no more than is atomic.
pub fn match_halves(first: &Command, second: &Command, data_bytes: [usize; 2]) -> Result<(), Status> {
    let same = |at: std::ops::Range<usize>| first.bytes[at.clone()] == second.bytes[at];
    let opcodes = (first.opcode(), second.opcode()) == (io::COMPARE, io::WRITE);
    // Namespace, first block, number of blocks.
    if !opcodes || !same(4..8) || !same(40..48) || !same(48..50) {
        return Err(Status::INVALID_FIELD);
    }
    if data_bytes.iter().any(|&bytes| bytes > COMPARE_BYTES_MAX) {
        return Err(Status::ATOMIC_UNIT_EXCEEDED);
    }
    Ok(())
}

fn check(io: &Io<'_>, first: &Ready, second: &Ready) -> Result<Checked, Status> {
    let attached = io.attached(&second.command)?;
    let extent = transfer(&attached, &second.command, second.data.len())?;
    transfer(&attached, &first.command, first.data.len())?;
    if extent.length > COMPARE_BYTES_MAX as u64 {
        return Err(Status::ATOMIC_UNIT_EXCEEDED);
    }
    let entered = io.enter(&attached, Need::Write)?;
    let offset = extent.offset;
    Ok(Checked { attached, entered, offset })
}

/// Of halves that match.
pub fn run_pair(io: &Io<'_>, first: Ready, second: Ready) {
    let checked = match check(io, &first, &second) {
        Ok(checked) => checked,
        Err(status) => return fail(first.reply, status, second.reply),
    };
    let durable = io.durable(&first.command) || io.durable(&second.command);
    let (expected, compare) = (first.data, first.reply);
    let (data, mut reply) = (second.data, second.reply);
    reply.enter(checked.entered);
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
