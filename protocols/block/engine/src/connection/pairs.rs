//! Fused pairs: found as their commands are received, done when the data of both halves is there.
//!
//! A second half belongs to the first half that was received last, which is the order of the submission queue: when whose data comes is no matter, nor what
//! is between (ESXi sends other commands there). A half without the other fails, and so does one whose other half cannot be done.
//!
//! Nothing waits in a circle, because what waits for the host's data holds nothing that reading it needs:
//! - No data is asked for before both halves are known; then memory for both is taken at once. Who waits for memory has none.
//! - What is in capsules while the other half's data is asked for is counted apart (HALVES_BYTES_MAX), not to what stops the reading of the connection. A pair
//!   beyond it is to be tried again: behind it may be the data that those before it wait for. At most one half in a capsule is counted to the others, the
//!   one whose second has not come.

use super::{Connection, Transfer};
use crate::budget::{HALVES_BYTES_MAX, Permit};
use crate::command::{Command, FABRICS, Fuse};
use crate::counters::Operation;
use crate::io::{self, Io, Ready};
use crate::queue::Queue;
use crate::status::Status;
use std::collections::HashMap;

/// A half that was received.
struct Half {
    command: Command,
    data: Vec<u8>,
    /// Of its data, what the host is to be asked for.
    missing_bytes: usize,
    permit: Option<Permit>,
    damaged: bool,
}

/// Whose second half is the next.
enum First {
    Waits(Half),
    /// It has been answered.
    Failed,
}

/// Halves that match, and miss data.
struct Pair {
    halves: [Half; 2],
    /// In capsules.
    kept_bytes: usize,
}

#[derive(Default)]
pub struct Pairs {
    first: Option<First>,
    /// By the second half's command id.
    waiting: HashMap<u16, Pair>,
    /// The pair of each half that waits.
    seconds: HashMap<u16, u16>,
    kept_bytes: usize,
}

/// None: a command of its own.
pub fn fuse(queue: &Queue, command: &Command) -> Option<Fuse> {
    let fuses = queue.id != 0 && !queue.is_locked() && command.opcode() != FABRICS;
    command.fuse().ok().filter(|fuse| fuses && *fuse != Fuse::None)
}

impl Pairs {
    /// The pair that a half belongs to which misses data.
    pub fn of(&self, id: u16) -> Option<u16> {
        self.seconds.get(&id).copied()
    }

    pub fn is_second(&self, id: u16) -> bool {
        self.waiting.contains_key(&id)
    }

    fn insert(&mut self, pair: Pair) -> u16 {
        let [first, second] = pair.halves.each_ref().map(|half| half.command.id());
        self.kept_bytes += pair.kept_bytes;
        self.seconds.extend([(first, second), (second, second)]);
        self.waiting.insert(second, pair);
        second
    }

    /// If it misses nothing any more.
    fn remove_whole(&mut self, second: u16) -> Option<Pair> {
        let pair = self.waiting.get(&second)?;
        if pair.halves.iter().any(|half| half.missing_bytes > 0) {
            return None;
        }
        let pair = self.waiting.remove(&second)?;
        self.kept_bytes -= pair.kept_bytes;
        for half in &pair.halves {
            self.seconds.remove(&half.command.id());
        }
        Some(pair)
    }
}

impl Connection {
    /// A half as it came in its capsule.
    pub(super) fn take_half(&mut self, fuse: Fuse, command: Command, data: Vec<u8>, damaged: bool) {
        let id = command.id();
        let half = if damaged {
            self.shared.counters.digest_errors.add(1);
            Err(Status::TRANSIENT_TRANSPORT)
        } else {
            self.missing_bytes(&command, &data).map(|missing_bytes| Half {
                command,
                data,
                missing_bytes,
                permit: None,
                damaged: false,
            })
        };
        let before = self.pairs.first.take();
        if fuse == Fuse::First {
            if let Some(First::Waits(older)) = before {
                self.fail_half(older.command.id(), Status::ABORTED_MISSING_FUSED);
            }
            self.pairs.first = Some(match half {
                Ok(half) => First::Waits(half),
                Err(status) => {
                    self.fail_half(id, status);
                    First::Failed
                }
            });
            return;
        }
        match (before, half) {
            (Some(First::Waits(first)), Ok(second)) => self.pair([first, second]),
            (Some(First::Waits(first)), Err(status)) => self.fail_pair([first.command.id(), id], [Status::ABORTED_FAILED_FUSED, status]),
            (Some(First::Failed), _) => self.fail_half(id, Status::ABORTED_FAILED_FUSED),
            (None, _) => self.fail_half(id, Status::ABORTED_MISSING_FUSED),
        }
    }

    /// Does it, or asks the host for what is missing.
    fn pair(&mut self, halves: [Half; 2]) {
        let ids = halves.each_ref().map(|half| half.command.id());
        let missing = halves.iter().any(|half| half.missing_bytes > 0);
        let kept_bytes = halves.iter().map(|half| half.data.len()).sum();
        let bytes = halves.each_ref().map(|half| half.data.len() + half.missing_bytes);
        let mut matched = io::match_halves(&halves[0].command, &halves[1].command, bytes);
        if missing && self.pairs.kept_bytes + kept_bytes > HALVES_BYTES_MAX {
            matched = matched.and(Err(Status::COMMAND_INTERRUPTED));
        }
        if let Err(status) = matched {
            self.fail_pair(ids, [status, Status::ABORTED_FAILED_FUSED]);
        } else if missing {
            self.capsules_bytes -= kept_bytes;
            let second = self.pairs.insert(Pair { halves, kept_bytes });
            if !self.request_pair(second) {
                self.park(second);
            }
        } else {
            self.run_pair(halves);
        }
    }

    /// Asks for a pair's data, if there is memory for all of it.
    pub(super) fn request_pair(&mut self, second: u16) -> bool {
        let Some(pair) = self.pairs.waiting.get(&second) else { return true };
        let missing = pair.halves.each_ref().map(|half| (half.command.id(), half.missing_bytes));
        let bytes = missing.iter().map(|(_, bytes)| bytes).sum();
        let Some(mut permit) = self.account.take(bytes, &self.mailbox) else {
            return false;
        };
        for (id, bytes) in missing.into_iter().filter(|(_, bytes)| *bytes > 0) {
            let part = permit.split(bytes);
            self.request_with(id, bytes, part);
        }
        true
    }

    /// A half's data has come.
    pub(super) fn fill_half(&mut self, second: u16, id: u16, transfer: Transfer) {
        if let Some(pair) = self.pairs.waiting.get_mut(&second)
            && let Some(half) = pair.halves.iter_mut().find(|half| half.command.id() == id)
        {
            half.missing_bytes = 0;
            half.data = transfer.data;
            half.permit = Some(transfer.permit);
            half.damaged = transfer.damaged;
        }
        if let Some(pair) = self.pairs.remove_whole(second) {
            self.capsules_bytes += pair.kept_bytes;
            self.run_pair(pair.halves);
        }
    }

    fn run_pair(&mut self, halves: [Half; 2]) {
        let ids = halves.each_ref().map(|half| half.command.id());
        if halves.iter().any(|half| half.damaged) {
            let statuses = halves.each_ref().map(|half| {
                self.shared.counters.digest_errors.add(u64::from(half.damaged));
                if half.damaged {
                    Status::TRANSIENT_TRANSPORT
                } else {
                    Status::ABORTED_FAILED_FUSED
                }
            });
            return self.fail_pair(ids, statuses);
        }
        let Some(controller) = self.queue.as_ref().map(|queue| queue.controller.clone()) else {
            return;
        };
        let namespace = controller.namespace(halves[1].command.namespace_id()).ok();
        if let Some(started) = self.started.get_mut(&ids[1]) {
            started.operation = namespace.map(|namespace| (namespace, Operation::CompareAndWrite));
        }
        let [first, second] = halves.map(|half| Ready {
            reply: self.reply(half.command.id(), half.permit),
            command: half.command,
            data: half.data,
        });
        let shared = self.shared.clone();
        let io = Io {
            shared: &shared,
            controller: &controller,
        };
        io::run_pair(&io, first, second);
    }

    fn fail_half(&mut self, id: u16, status: Status) {
        self.respond(id, status.into(), None);
    }

    fn fail_pair(&mut self, ids: [u16; 2], statuses: [Status; 2]) {
        self.fail_half(ids[0], statuses[0]);
        self.fail_half(ids[1], statuses[1]);
    }
}
