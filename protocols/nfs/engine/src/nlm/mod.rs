//! NLM version 4 (RFC 1813, appendix II; XNFS, chapters 9 to 14): byte-range locks for NFS clients, in the table that all faces share.
//!
//! A lock that must wait is answered BLOCKED; when it is granted its client is called back, and a client that cannot be called asks again by itself.
//! The locks of a host that restarted are given up when its status monitor says so (`nsm`), or when it next locks with another state number. After our
//! own restart the hosts that held locks are told, and for GRACE_SECONDS only they may lock: what they reclaim.

pub mod callback;
mod hosts;
mod lock;
mod wire;

pub use hosts::Hosts;

use crate::nfs::Operation;
use crate::rpc::{Call, Unavailable};
use crate::xdr::{Decoded, Decoder, Encoder};
use callback::{Callbacks, Job};
use lock::Waits;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trefoil_core::filesystem::locks::LockTable;
use wire::{CancelArguments, LockArguments, TestArguments, UnlockArguments};

pub const PROGRAM: u32 = 100_021;
pub const VERSION: u32 = 4;

/// How long after a restart only reclaimed locks are granted, if anybody had any.
const GRACE_SECONDS: u64 = 45;

const NULL: u32 = 0;
const TEST: u32 = 1;
const LOCK: u32 = 2;
const CANCEL: u32 = 3;
const UNLOCK: u32 = 4;
const GRANTED_CALL: u32 = 5;
/// From here on the same five, answered by a call of ours.
const TEST_MESSAGE: u32 = 6;
const UNLOCK_MESSAGE: u32 = 9;
const TEST_RESULT: u32 = 11;
const GRANTED_RESULT: u32 = 15;
/// LOCK by a host that has no status monitor.
const UNMONITORED_LOCK: u32 = 22;
const FREE_ALL: u32 = 23;

/// As for NFS: UNLOCK done late and twice would take a newer lock away.
pub fn is_non_idempotent(procedure: u32) -> bool {
    matches!(procedure, LOCK | CANCEL | UNLOCK | UNMONITORED_LOCK)
}

/// `nlm4_stats`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    pub const GRANTED: Self = Self(0);
    pub const DENIED: Self = Self(1);
    pub const NO_LOCKS: Self = Self(2);
    pub const BLOCKED: Self = Self(3);
    pub const GRACE: Self = Self(4);
    pub const DEADLOCK: Self = Self(5);
    pub const STALE_HANDLE: Self = Self(7);
    pub const TOO_BIG: Self = Self(8);
    pub const FAILED: Self = Self(9);
}

/// The lock manager.
pub struct Locks {
    table: Arc<LockTable>,
    hosts: Arc<Hosts>,
    waits: Arc<Waits>,
    callbacks: Arc<Callbacks>,
    /// Until when only reclaimed locks are granted.
    grace: Option<Instant>,
}

impl Locks {
    /// `callbacks` reach clients; `hosts` knows who had locks before.
    pub fn new(table: Arc<LockTable>, hosts: Arc<Hosts>, callbacks: Arc<Callbacks>) -> Self {
        let grace = hosts.had_any().then(|| Instant::now() + Duration::from_secs(GRACE_SECONDS));
        Self {
            waits: Waits::new(table.clone(), callbacks.clone()),
            table,
            hosts,
            callbacks,
            grace,
        }
    }

    fn in_grace(&self) -> bool {
        self.grace.is_some_and(|end| Instant::now() < end)
    }

    pub fn perform(&self, operation: &Operation<'_>, call: &Call<'_>, reply: &mut Encoder) -> Result<(), Unavailable> {
        if call.version != VERSION {
            return Err(Unavailable::Version(VERSION, VERSION));
        }
        let arguments = &mut Decoder::new(call.arguments);
        let done = match call.procedure {
            NULL | TEST_RESULT..=GRANTED_RESULT => Ok(()),
            TEST..=UNLOCK => self.answer(operation, call.procedure, arguments, reply),
            UNMONITORED_LOCK => self.answer(operation, LOCK, arguments, reply),
            TEST_MESSAGE..=UNLOCK_MESSAGE => self.answer_by_call(operation, call.procedure - TEST_MESSAGE + TEST, arguments),
            FREE_ALL => wire::decode_free_all(arguments).map(|name| self.release(operation, name)),
            _ => return Err(Unavailable::Procedure),
        };
        done.map_err(|_| Unavailable::Garbage)
    }

    fn answer(&self, operation: &Operation<'_>, procedure: u32, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<()> {
        match procedure {
            TEST => {
                let wanted = TestArguments::decode(arguments)?;
                let (status, holder) = match self.test(operation, &wanted) {
                    Ok(None) => (Status::GRANTED, None),
                    Ok(Some(holder)) => (Status::DENIED, Some(holder)),
                    Err(status) => (status, None),
                };
                wire::encode_test(reply, wanted.cookie, status, holder.as_ref());
            }
            LOCK => {
                let wanted = LockArguments::decode(arguments)?;
                wire::encode_status(reply, wanted.cookie, self.lock(operation, &wanted));
            }
            CANCEL => {
                let wanted = CancelArguments::decode(arguments)?;
                wire::encode_status(reply, wanted.cookie, self.cancel(operation, &wanted));
            }
            _ => {
                let wanted = UnlockArguments::decode(arguments)?;
                wire::encode_status(reply, wanted.cookie, self.unlock(operation, &wanted));
            }
        }
        Ok(())
    }

    /// The result goes out as a call of its own; nobody answers that with anything worth knowing.
    fn answer_by_call(&self, operation: &Operation<'_>, procedure: u32, arguments: &mut Decoder<'_>) -> Decoded<()> {
        let mut result = Encoder::default();
        self.answer(operation, procedure, arguments, &mut result)?;
        let procedure = procedure - TEST + TEST_RESULT;
        self.callbacks.push(Job {
            address: operation.client.address,
            procedure,
            body: result.into_bytes(),
            done: Box::new(|_| ()),
        });
        Ok(())
    }

    fn release(&self, operation: &Operation<'_>, name: &[u8]) {
        for client in self.hosts.forget(operation.client.address, name) {
            self.waits.forget(client);
            self.table.release_client(client);
        }
    }

    /// Gives up what clients hold and wait for: the table may outlive us, and after a restart they reclaim.
    pub fn close(&self) {
        for client in self.hosts.clients() {
            self.waits.forget(client);
            self.table.release_client(client);
        }
    }

    /// A host says that it restarted: what it held is nobody's any more.
    pub fn restarted(&self, operation: &Operation<'_>, name: &[u8]) {
        self.release(operation, name);
    }
}
