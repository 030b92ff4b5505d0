//! Reservations of one namespace (NVM Express base specification, section 8.19): who is registered, who holds it, and what others may do meanwhile.
//!
//! Hosts are told apart by their 128-bit identifiers. State is a value that every change replaces, so that I/O looks at it without waiting. A change is
//! complete only when all I/O that was let in before it is done (`gate`): a host that was preempted cannot write afterwards. While "persist through power
//! loss" is on, the record of a change is durable before the change is seen.

mod command;
mod gate;
mod record;
mod rules;
#[cfg(test)]
mod tests;

pub use command::{acquire, register, release, report};
pub use gate::Entered;
pub use rules::{Asker, News, Notice, State};

use crate::status::Status;
use gate::Gate;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use trefoil_core::block::BlockError;

pub type HostId = [u8; 16];

/// Of one namespace.
pub const REGISTRANTS_MAX: usize = 256;

/// What a command does to a namespace that somebody may have reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Read,
    Write,
}

/// What is to become of the stored record.
type Keep<'a> = dyn FnMut(Option<Vec<u8>>) -> Result<(), BlockError> + 'a;

pub struct Reservations {
    state: RwLock<Arc<State>>,
    /// Somebody holds it: without that, I/O looks at nothing else.
    reserved: AtomicBool,
    /// Held over a whole change; true: a record is stored.
    changing: Mutex<bool>,
    gate: Arc<Gate>,
}

impl Reservations {
    /// As the stored record says, if there is one.
    pub fn load(record: Option<&[u8]>) -> Result<Self, BlockError> {
        let state = record.map(record::decode).transpose()?.unwrap_or_default();
        Ok(Self {
            reserved: AtomicBool::new(state.kind.is_some()),
            state: RwLock::new(Arc::new(state)),
            changing: Mutex::new(record.is_some()),
            gate: Arc::default(),
        })
    }

    pub fn state(&self) -> Arc<State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets a command in, until what it returns is dropped.
    pub fn enter(&self, host: &HostId, need: Need) -> Result<Entered, Status> {
        let entered = Gate::enter(&self.gate);
        if self.reserved.load(Ordering::SeqCst) && !self.state().permits(host, need) {
            return Err(Status::RESERVATION_CONFLICT);
        }
        Ok(entered)
    }

    /// Replaces the state by what `act` makes of it, and waits for earlier commands. Blocks.
    fn change(&self, keep: &mut Keep<'_>, act: impl FnOnce(&mut State) -> Result<Vec<Notice>, Status>) -> Result<Vec<Notice>, Status> {
        let mut stored = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.state();
        let mut state = State::clone(&before);
        let notices = act(&mut state)?;
        if state == *before {
            return Ok(notices);
        }
        if state.persists || *stored {
            keep(state.persists.then(|| record::encode(&state))).map_err(Status::from)?;
            *stored = state.persists;
        }
        self.reserved.store(state.kind.is_some(), Ordering::SeqCst);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(state);
        self.gate.turn();
        Ok(notices)
    }
}
