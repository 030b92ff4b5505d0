//! From a call to its answer: which program, and what a reply consists of. No sockets, no threads.

use crate::export::Client;
use crate::mount::Mounts;
use crate::nfs::{Effect, Operation, Service, Status};
use crate::nlm::{Hosts, Locks};
use crate::portmap::Ports;
use crate::rpc::{Call, MARK_BYTES, Unavailable, accepted, finish, unavailable};
use crate::xdr::Encoder;
use crate::{mount, nfs, nlm, nsm, portmap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

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

/// Locks, if they are served, and who has them.
pub struct Locking {
    pub locks: Locks,
    pub hosts: Arc<Hosts>,
}

/// Everything that answers.
pub struct Programs {
    pub service: Service,
    pub mounts: Mounts,
    pub ports: Ports,
    pub locking: Option<Locking>,
}

impl Programs {
    pub fn answer(&self, client: Client, call: &Call<'_>) -> Answer {
        let operation = Operation {
            service: &self.service,
            client,
            credential: call.credential.as_ref(),
        };
        let mut reply = accepted(call.xid, REPLY_BYTES);
        // A procedure that panics is our bug and this call's misfortune, nobody else's.
        let done = catch_unwind(AssertUnwindSafe(|| self.perform(&operation, call, &mut reply))).unwrap_or(Err(Unavailable::System));
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
            Err(Unavailable::System) if call.program == nfs::PROGRAM => failure(call, Status::SERVER_FAULT).into(),
            Err(why) => unavailable(call.xid, why).into(),
        }
    }

    fn perform(&self, operation: &Operation<'_>, call: &Call<'_>, reply: &mut Encoder) -> Result<Effect, Unavailable> {
        match (call.program, &self.locking) {
            (nfs::PROGRAM, _) => return nfs::perform(operation, call, reply),
            (mount::PROGRAM, _) => mount::perform(operation, &self.mounts, call, reply)?,
            (portmap::PROGRAM, _) => portmap::perform(self.ports, call, reply)?,
            (nlm::PROGRAM, Some(locking)) => locking.locks.perform(operation, call, reply)?,
            (nsm::PROGRAM, Some(locking)) => nsm::perform(operation, &locking.locks, locking.hosts.state(), call, reply)?,
            _ => return Err(Unavailable::Program),
        }
        Ok(Effect::Nothing)
    }

    /// The answer to a datagram, without a mark; only what says where services are, or that a host restarted, is asked by datagrams.
    pub fn answer_datagram(&self, client: Client, datagram: &[u8]) -> Option<Vec<u8>> {
        let call = Call::parse(datagram)
            .ok()
            .filter(|call| matches!(call.program, portmap::PROGRAM | nsm::PROGRAM))?;
        self.service
            .exports
            .admits_address(client.address)
            .then(|| self.answer(client, &call).reply.head.split_off(MARK_BYTES))
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
