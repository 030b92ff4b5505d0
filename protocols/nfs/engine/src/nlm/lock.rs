//! TEST, LOCK, CANCEL and UNLOCK, and the locks that wait.
//!
//! A wait is known by file, owner and range, as a client repeats it. It is told GRANTED by a call; until that was answered, or the client asked again,
//! the lock counts as granted but not acknowledged: CANCEL gives it up, and so do we if the call certainly did not arrive.
//! The table's answers take the lock on the waits: nothing that may lead to an answer is called with that lock held.

use super::callback::{Callbacks, Job, Outcome};
use super::hosts::{Greeting, Hosts};
use super::wire::{CancelArguments, LockArguments, TestArguments, UnlockArguments, WireLock};
use super::{GRANTED_CALL, Locks, Status};
use crate::nfs::{self, Operation, Place};
use crate::permission::READ;
use crate::xdr::Decoder;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use trefoil_core::filesystem::locks::{Family, Hold, Lock, LockOwner, LockTable, Range, Waiter};
use trefoil_core::filesystem::{Errno, Inode};

impl From<nfs::Status> for Status {
    fn from(status: nfs::Status) -> Self {
        match status {
            nfs::Status::STALE | nfs::Status::BAD_HANDLE => Self::STALE_HANDLE,
            nfs::Status::ACCESS => Self::DENIED,
            _ => Self::FAILED,
        }
    }
}

impl From<Errno> for Status {
    fn from(error: Errno) -> Self {
        match error {
            Errno::AGAIN => Self::DENIED,
            Errno::NOLCK => Self::NO_LOCKS,
            Errno::DEADLK => Self::DEADLOCK,
            Errno::OVERFLOW => Self::TOO_BIG,
            _ => Self::FAILED,
        }
    }
}

/// What a wait is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    inode: Inode,
    owner: LockOwner,
    start: u64,
    end: u64,
    exclusive: bool,
}

impl Key {
    fn new(inode: Inode, lock: &Lock) -> Self {
        let (start, end) = (lock.range.start(), lock.range.end());
        Self {
            inode,
            owner: lock.owner,
            start,
            end,
            exclusive: lock.hold == Hold::Exclusive,
        }
    }
}

enum Phase {
    /// The table was not asked to wait yet, or its answer came before it returned.
    Starting(Option<Result<(), Errno>>),
    Waiting(Waiter),
    /// Not acknowledged.
    Granted,
    /// While the table's answer was on its way.
    Cancelled,
}

struct Wait {
    /// Tells repeated waits for the same apart.
    number: u64,
    phase: Phase,
}

#[derive(Default)]
struct Waiting {
    waits: HashMap<Key, Wait>,
    last: u64,
}

pub struct Waits {
    table: Arc<LockTable>,
    callbacks: Arc<Callbacks>,
    waiting: Mutex<Waiting>,
}

/// Whom to tell, and with which words.
struct Told {
    address: IpAddr,
    granted: Vec<u8>,
}

impl Locks {
    fn find(&self, operation: &Operation<'_>, wire: &WireLock<'_>, exclusive: bool) -> Result<(Place, Lock), Status> {
        let place = operation.place(wire.handle)?;
        let owner = LockOwner {
            client: Hosts::identity(operation.client.address, wire.caller),
            owner: u64::from(wire.process),
        };
        let hold = if exclusive { Hold::Exclusive } else { Hold::Shared };
        Ok((
            place,
            Lock {
                owner,
                hold,
                range: Range::with_length(wire.offset, wire.length)?,
                process: wire.process,
            },
        ))
    }

    pub(super) fn test(&self, operation: &Operation<'_>, wanted: &TestArguments<'_>) -> Result<Option<Lock>, Status> {
        let (place, lock) = self.find(operation, &wanted.lock, wanted.exclusive)?;
        if self.in_grace() {
            return Err(Status::GRACE);
        }
        Ok(self.table.test(place.node.inode, Family::Posix, &lock))
    }

    pub(super) fn lock(&self, operation: &Operation<'_>, wanted: &LockArguments<'_>) -> Status {
        self.try_lock(operation, wanted).unwrap_or_else(|status| status)
    }

    fn try_lock(&self, operation: &Operation<'_>, wanted: &LockArguments<'_>) -> Result<Status, Status> {
        let (place, lock) = self.find(operation, &wanted.lock, wanted.exclusive)?;
        // Whoever opened it for whatever purpose may lock it; the owner may have lost the right to read since.
        if place.caller.uid != place.node.uid {
            place.caller.may(operation.fs(), &place.node, READ).map_err(|_| Status::DENIED)?;
        }
        if self.in_grace() && !wanted.reclaim {
            return Err(Status::GRACE);
        }
        let client = operation.client;
        match self.hosts.greet(client.address, wanted.lock.caller, client.server, wanted.state) {
            None => return Err(Status::NO_LOCKS),
            Some(Greeting::Restarted(client)) => {
                self.waits.forget(client);
                self.table.release_client(client);
            }
            Some(Greeting::Known) => {}
        }
        let inode = place.node.inode;
        if wanted.block {
            let granted = TestArguments {
                cookie: wanted.cookie,
                exclusive: wanted.exclusive,
                lock: wanted.lock,
            }
            .encode();
            return self.waits.wait(
                inode,
                &lock,
                Told {
                    address: client.address,
                    granted,
                },
            );
        }
        self.table.set(inode, Family::Posix, &lock)?;
        Ok(Status::GRANTED)
    }

    pub(super) fn cancel(&self, operation: &Operation<'_>, wanted: &CancelArguments<'_>) -> Status {
        match self.find(operation, &wanted.lock, wanted.exclusive) {
            Ok((place, lock)) => self.waits.cancel(place.node.inode, &lock),
            Err(status) => status,
        }
    }

    pub(super) fn unlock(&self, operation: &Operation<'_>, wanted: &UnlockArguments<'_>) -> Status {
        let unlock = || -> Result<(), Status> {
            let (place, lock) = self.find(operation, &wanted.lock, false)?;
            self.waits.unlocked(place.node.inode, &lock);
            Ok(self.table.unlock(place.node.inode, Family::Posix, lock.owner, lock.range)?)
        };
        unlock().err().unwrap_or(Status::GRANTED)
    }
}

impl Waits {
    pub fn new(table: Arc<LockTable>, callbacks: Arc<Callbacks>) -> Arc<Self> {
        Arc::new(Self {
            table,
            callbacks,
            waiting: Mutex::default(),
        })
    }

    fn wait(self: &Arc<Self>, inode: Inode, lock: &Lock, told: Told) -> Result<Status, Status> {
        let key = Key::new(inode, lock);
        let Some(number) = self.begin(key)? else {
            return Ok(Status::GRANTED);
        };
        let (this, wanted) = (Arc::downgrade(self), *lock);
        let answer = Box::new(move |result| {
            if let Some(this) = this.upgrade() {
                this.answered(key, number, wanted, result, told);
            }
        });
        let waiter = self.table.wait(inode, Family::Posix, lock, answer);
        let mut waiting = self.waiting.lock().unwrap();
        let Some(wait) = waiting.waits.get_mut(&key).filter(|wait| wait.number == number) else {
            return Err(Status::DENIED);
        };
        match (&wait.phase, waiter) {
            (Phase::Starting(None), Some(waiter)) => {
                wait.phase = Phase::Waiting(waiter);
                Ok(Status::BLOCKED)
            }
            (Phase::Starting(Some(result)), _) => {
                let result = *result;
                waiting.waits.remove(&key);
                result?;
                Ok(Status::GRANTED)
            }
            _ => Err(Status::FAILED),
        }
    }

    /// The number of a new wait; none if it was granted meanwhile, BLOCKED if it waits already.
    fn begin(&self, key: Key) -> Result<Option<u64>, Status> {
        let mut waiting = self.waiting.lock().unwrap();
        match waiting.waits.get(&key).map(|wait| &wait.phase) {
            Some(Phase::Granted) => {
                waiting.waits.remove(&key);
                return Ok(None);
            }
            Some(_) => return Err(Status::BLOCKED),
            None => {}
        }
        waiting.last += 1;
        let number = waiting.last;
        waiting.waits.insert(
            key,
            Wait {
                number,
                phase: Phase::Starting(None),
            },
        );
        Ok(Some(number))
    }

    /// The table's answer to a wait.
    fn answered(self: &Arc<Self>, key: Key, number: u64, lock: Lock, result: Result<(), Errno>, told: Told) {
        let mut waiting = self.waiting.lock().unwrap();
        let wait = waiting.waits.get_mut(&key).filter(|wait| wait.number == number);
        match (wait.map(|wait| &mut wait.phase), result) {
            (Some(Phase::Starting(early)), result) => *early = Some(result),
            (Some(phase @ Phase::Waiting(_)), Ok(())) => {
                *phase = Phase::Granted;
                drop(waiting);
                self.tell(key, number, lock, told);
            }
            (Some(_), Err(_)) => drop(waiting.waits.remove(&key)),
            // Cancelled, or forgotten with its host.
            (left, Ok(())) => {
                if left.is_some() {
                    waiting.waits.remove(&key);
                }
                drop(waiting);
                self.give_up(key, &lock);
            }
            (None, Err(_)) => {}
        }
    }

    fn tell(self: &Arc<Self>, key: Key, number: u64, lock: Lock, told: Told) {
        let this = Arc::downgrade(self);
        let done = move |outcome: Outcome| {
            let Some(this) = this.upgrade() else { return };
            let accepted = match outcome {
                Outcome::Undelivered => false,
                // It may have arrived: who believes to hold a lock must hold it.
                Outcome::Unknown => return,
                Outcome::Answered(results) => accepts(&results),
            };
            if this.settle(key, number) && !accepted {
                this.give_up(key, &lock);
            }
        };
        self.callbacks.push(Job {
            address: told.address,
            procedure: GRANTED_CALL,
            body: told.granted,
            done: Box::new(done),
        });
    }

    /// Whether it was still unacknowledged.
    fn settle(&self, key: Key, number: u64) -> bool {
        let mut waiting = self.waiting.lock().unwrap();
        let granted = waiting
            .waits
            .get(&key)
            .is_some_and(|wait| wait.number == number && matches!(wait.phase, Phase::Granted));
        if granted {
            waiting.waits.remove(&key);
        }
        granted
    }

    fn give_up(&self, key: Key, lock: &Lock) {
        // NOLCK: the table is full and this would cut a range in two. It stays held until its host gives it up.
        let _ = self.table.unlock(key.inode, Family::Posix, lock.owner, lock.range);
    }

    fn cancel(&self, inode: Inode, lock: &Lock) -> Status {
        let key = Key::new(inode, lock);
        let mut waiting = self.waiting.lock().unwrap();
        let Some(wait) = waiting.waits.get_mut(&key) else {
            return Status::DENIED;
        };
        match wait.phase {
            Phase::Starting(_) | Phase::Cancelled => Status::DENIED,
            Phase::Waiting(waiter) if !self.table.cancel(waiter) => {
                wait.phase = Phase::Cancelled;
                Status::GRANTED
            }
            Phase::Waiting(_) => {
                waiting.waits.remove(&key);
                Status::GRANTED
            }
            Phase::Granted => {
                waiting.waits.remove(&key);
                drop(waiting);
                self.give_up(key, lock);
                Status::GRANTED
            }
        }
    }

    /// What was granted in this range needs no acknowledgement any more.
    fn unlocked(&self, inode: Inode, lock: &Lock) {
        let (start, end) = (lock.range.start(), lock.range.end());
        self.waiting.lock().unwrap().waits.retain(|key, wait| {
            let inside = key.inode == inode && key.owner == lock.owner && start <= key.start && key.end <= end;
            !(inside && matches!(wait.phase, Phase::Granted))
        });
    }

    /// A host's unacknowledged locks; what waits is answered by the table.
    pub fn forget(&self, client: u64) {
        let mut waiting = self.waiting.lock().unwrap();
        waiting
            .waits
            .retain(|key, wait| key.owner.client != client || !matches!(wait.phase, Phase::Granted));
    }
}

/// `nlm4_res` of GRANTED.
fn accepts(results: &[u8]) -> bool {
    let mut results = Decoder::new(results);
    results.opaque(super::wire::NAME_BYTES_MAX).is_ok() && results.u32() == Ok(Status::GRANTED.0)
}
