//! NSM version 1 (XNFS, chapter 11), as much of a status monitor as NLM needs: hosts tell us that they restarted, and we tell those that held locks when we
//! did. What `statd` does for programs of its own machine (MON and its like) is refused.

use crate::nfs::Operation;
use crate::nlm::Hosts;
use crate::nlm::Locks;
use crate::nlm::callback::{Callbacks, Outcome};
use crate::rpc::{Call, Unavailable};
use crate::wait::{Signal, paused};
use crate::xdr::{Decoded, Decoder, Encoder};
use std::net::SocketAddr;
use std::time::Duration;

pub const PROGRAM: u32 = 100_024;
pub const VERSION: u32 = 1;
const NAME_BYTES_MAX: usize = 1024;
const NOTIFY: u32 = 6;
const FAILED: u32 = 1;

/// A host that does not answer is told again after so long, and so often: a quarter of an hour together, as sm-notify(8) does.
const NOTIFY_SECONDS: u64 = 30;
const NOTIFY_ATTEMPTS: u32 = 30;

pub fn perform(operation: &Operation<'_>, locks: &Locks, state: u32, call: &Call<'_>, reply: &mut Encoder) -> Result<(), Unavailable> {
    if call.version != VERSION {
        return Err(Unavailable::Version(VERSION, VERSION));
    }
    match call.procedure {
        0 | 5 => Ok(()),
        // STAT and MON answer a result and a state; UNMON and UNMON_ALL the state.
        1 | 2 => {
            reply.words(&[FAILED, state]);
            Ok(())
        }
        3 | 4 => {
            reply.u32(state);
            Ok(())
        }
        NOTIFY => notified(operation, locks, &mut Decoder::new(call.arguments)).map_err(|_| Unavailable::Garbage),
        _ => Err(Unavailable::Procedure),
    }
}

/// Only what comes from a host's own address counts for it.
fn notified(operation: &Operation<'_>, locks: &Locks, arguments: &mut Decoder<'_>) -> Decoded<()> {
    let (name, _state) = (arguments.opaque(NAME_BYTES_MAX)?, arguments.u32()?);
    locks.restarted(operation, name);
    Ok(())
}

/// Tells the hosts from before the restart, until all were told or it is no use any more, or `stop`.
pub fn notify(hosts: &Hosts, callbacks: &Callbacks, stop: &Signal) {
    let mut left: Vec<_> = hosts.before().iter().collect();
    for _ in 0..NOTIFY_ATTEMPTS {
        left.retain(|host| {
            if stop.is_raised() {
                return true;
            }
            let mut body = Encoder::default();
            body.opaque(host.server.to_string().as_bytes());
            body.u32(hosts.state());
            let told = callbacks.port(host.address, PROGRAM, VERSION).map(|port| {
                let call = (PROGRAM, VERSION, NOTIFY);
                callbacks.exchange(SocketAddr::new(host.address, port), call, &body.into_bytes())
            });
            !matches!(told, Ok(Outcome::Answered(_)))
        });
        if left.is_empty() || paused(stop, Duration::from_secs(NOTIFY_SECONDS)) {
            return;
        }
    }
}
