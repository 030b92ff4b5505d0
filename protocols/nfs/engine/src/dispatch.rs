//! From a call to its answer: which program, and what a reply consists of. No sockets, no threads.

use crate::export::Client;
use crate::mount::Mounts;
use crate::nfs::{Effect, Operation, Service, Status};
use crate::rpc::{Call, Unavailable, accepted, finish, unavailable};
use crate::{mount, nfs, portmap};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bytes that a reply without content rarely exceeds.
const REPLY_BYTES: usize = 384;
/// Of the arguments and results of one call besides bytes of files and listings: headers, handles, attributes, names.
pub const CALL_BYTES_MAX: usize = 4096;

/// A record, complete with its mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub head: Vec<u8>,
    /// Sent after the head.
    pub payload: Vec<u8>,
}

impl From<Vec<u8>> for Reply {
    fn from(head: Vec<u8>) -> Self {
        Self { head, payload: Vec::new() }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub reply: Reply,
    /// What it tells must be made durable before it is sent; if that fails, this is sent instead.
    pub unless_durable: Option<Vec<u8>>,
}

impl From<Vec<u8>> for Answer {
    fn from(head: Vec<u8>) -> Self {
        Self {
            reply: head.into(),
            unless_durable: None,
        }
    }
}

/// Everything that answers.
pub struct Programs {
    pub service: Service,
    pub mounts: Mounts,
    /// Where they are served.
    pub port: u16,
}

impl Programs {
    pub fn answer(&self, client: Client, call: &Call<'_>) -> Answer {
        let operation = Operation {
            service: &self.service,
            client,
            credential: call.credential.as_ref(),
        };
        let mut reply = accepted(call.xid, REPLY_BYTES);
        let done = match call.program {
            // A procedure that panics is our bug and this call's misfortune, nobody else's.
            nfs::PROGRAM => match catch_unwind(AssertUnwindSafe(|| nfs::perform(&operation, call, &mut reply))) {
                Ok(done) => done,
                Err(_) => return failure(call, Status::SERVER_FAULT).into(),
            },
            mount::PROGRAM => mount::perform(&operation, &self.mounts, call, &mut reply).map(|()| Effect::Nothing),
            portmap::PROGRAM => portmap::perform(self.port, call, &mut reply).map(|()| Effect::Nothing),
            _ => Err(Unavailable::Program),
        };
        match done {
            Ok(Effect::Nothing) => finish(reply, 0).into(),
            Ok(Effect::Durable) => Answer {
                reply: finish(reply, 0).into(),
                unless_durable: Some(failure(call, Status::IO)),
            },
            Ok(Effect::Payload(payload)) => Answer {
                reply: Reply {
                    head: finish(reply, payload.len()),
                    payload,
                },
                unless_durable: None,
            },
            Err(why) => unavailable(call.xid, why).into(),
        }
    }
}

/// The reply to an NFS call that could not be done, whatever it was.
pub fn failure(call: &Call<'_>, status: Status) -> Vec<u8> {
    let mut reply = accepted(call.xid, 64);
    nfs::encode_failure(call.procedure, status, &mut reply);
    finish(reply, 0)
}

/// Bytes that the answer may take besides CALL_BYTES_MAX: READ, READDIR and READDIRPLUS say how many they want. Trailing bytes that lie about it cost
/// their sender nothing but an inexact account: what is allocated follows what was parsed, at most a transfer.
pub fn answer_bytes_max(call: &Call<'_>) -> usize {
    let bulky = call.program == nfs::PROGRAM && matches!(call.procedure, nfs::READ | nfs::READDIR | nfs::READDIRPLUS);
    if bulky {
        trefoil_core::filesystem::TRANSFER_BYTES_MAX.min(last_word(call.arguments))
    } else {
        0
    }
}

fn last_word(arguments: &[u8]) -> usize {
    arguments.last_chunk().map_or(0, |word| u32::from_be_bytes(*word) as usize)
}
