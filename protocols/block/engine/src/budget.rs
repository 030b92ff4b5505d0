//! Memory for data that is asked for, or was read and not sent yet.
//!
//! Each connection has FLOOR_BYTES that nobody else can take, so whatever others hold, its next command can run; what it takes beyond is of a pool that
//! all share. Nobody waits here: a connection that gets nothing hears of it through its mailbox when something was given back.

use crate::mailbox::{Mail, Mailbox};
use crate::pdu::CAPSULE_DATA_BYTES_MAX;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trefoil_core::block::{COMPARE_BYTES_MAX, TRANSFER_BYTES_MAX};

const _: () = assert!(2 * COMPARE_BYTES_MAX <= FLOOR_BYTES, "a pair's memory is taken at once");

/// One transfer, or both halves of a fused pair.
pub const FLOOR_BYTES: usize = TRANSFER_BYTES_MAX;
/// Data that came in capsules and whose commands are not done; beyond it the connection is not read.
pub const CAPSULES_BYTES_MAX: usize = 32 * CAPSULE_DATA_BYTES_MAX;
/// Data that came in capsules of fused halves whose partner's data is asked for: not counted above, because the connection must be read for them to go on.
/// A pair beyond it is to be tried again.
pub const HALVES_BYTES_MAX: usize = 16 * CAPSULE_DATA_BYTES_MAX;
/// Buffered input.
pub const INPUT_BYTES: usize = 128 << 10;
/// Answers that are not sent, without what the budget counts; beyond it no command is begun. One more answer fits.
pub const OUTPUT_BYTES_MAX: usize = 256 << 10;
/// What a connection may hold without asking anybody.
pub const CONNECTION_BYTES_MAX: usize = FLOOR_BYTES + CAPSULES_BYTES_MAX + HALVES_BYTES_MAX + INPUT_BYTES + 2 * OUTPUT_BYTES_MAX;

pub struct Budget {
    pool: Mutex<Pool>,
}

struct Pool {
    left_bytes: usize,
    waiting: Vec<Arc<Mailbox>>,
}

/// A connection's.
pub struct Account {
    budget: Arc<Budget>,
    /// Changed under the pool's lock only.
    used_bytes: Mutex<usize>,
}

/// Gives back what it stands for when it is dropped.
pub struct Permit {
    account: Arc<Account>,
    bytes: usize,
}

fn beyond(bytes: usize) -> usize {
    bytes.saturating_sub(FLOOR_BYTES)
}

impl Budget {
    /// None: not enough for so many connections.
    pub fn new(bytes: usize, connections: usize) -> Option<Arc<Self>> {
        let left_bytes = bytes.checked_sub(connections.checked_mul(CONNECTION_BYTES_MAX)?)?;
        let pool = Pool {
            left_bytes,
            waiting: Vec::new(),
        };
        Some(Arc::new(Self { pool: Mutex::new(pool) }))
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn account(self: &Arc<Self>) -> Arc<Account> {
        Arc::new(Account {
            budget: self.clone(),
            used_bytes: Mutex::new(0),
        })
    }
}

impl Account {
    /// None: `mailbox` will be told when it is worth another try. At most FLOOR_BYTES.
    pub fn take(self: &Arc<Self>, bytes: usize, mailbox: &Arc<Mailbox>) -> Option<Permit> {
        let mut pool = self.budget.pool();
        let mut used = self.used_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let more = beyond(*used + bytes) - beyond(*used);
        if more > pool.left_bytes {
            if !pool.waiting.iter().any(|waiting| Arc::ptr_eq(waiting, mailbox)) {
                pool.waiting.push(mailbox.clone());
            }
            return None;
        }
        pool.left_bytes -= more;
        *used += bytes;
        let account = self.clone();
        Some(Permit { account, bytes })
    }
}

impl Permit {
    /// Another one, for this many of its bytes.
    pub fn split(&mut self, bytes: usize) -> Self {
        debug_assert!(bytes <= self.bytes, "more than there is");
        self.bytes -= bytes;
        let account = self.account.clone();
        Self { account, bytes }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let waiting = {
            let mut pool = self.account.budget.pool();
            let mut used = self.account.used_bytes.lock().unwrap_or_else(PoisonError::into_inner);
            pool.left_bytes += beyond(*used) - beyond(*used - self.bytes);
            *used -= self.bytes;
            std::mem::take(&mut pool.waiting)
        };
        for mailbox in waiting {
            mailbox.push(Mail::Memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_keeps_a_floor_and_shares_the_rest() {
        let budget = Budget::new(2 * CONNECTION_BYTES_MAX + 1000, 2).unwrap();
        let (one, two) = (budget.account(), budget.account());
        let mailbox = Mailbox::new().unwrap();
        let first = one.take(FLOOR_BYTES, &mailbox).unwrap();
        let second = one.take(1000, &mailbox).unwrap();
        assert!(one.take(1, &mailbox).is_none());
        let floor = two.take(FLOOR_BYTES, &mailbox).unwrap();
        assert!(two.take(1, &mailbox).is_none());
        assert!(mailbox.take().is_empty());
        drop(second);
        assert!(matches!(mailbox.take()[..], [Mail::Memory]));
        let third = two.take(1000, &mailbox).unwrap();
        drop((first, floor));
        let mut whole = one.take(FLOOR_BYTES, &mailbox).unwrap();
        let part = whole.split(1001);
        drop(whole);
        assert!(one.take(FLOOR_BYTES, &mailbox).is_none(), "a part is a permit");
        drop(part);
        assert!(one.take(FLOOR_BYTES, &mailbox).is_some());
        drop(third);
        assert_eq!(budget.pool().left_bytes, 1000);
        assert!(Budget::new(CONNECTION_BYTES_MAX, 2).is_none());
    }
}
