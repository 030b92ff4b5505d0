//! Memory for calls and their answers: a total, and a share of it for each client's address.
//!
//! What a call needs is taken at once, before it runs, by a thread that holds nothing else of the budget: nobody waits for memory while holding some,
//! so there is no deadlock. A permit gives it back when it is dropped.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

pub struct Budget {
    used: Mutex<Used>,
    freed: Condvar,
    bytes_max: usize,
    client_bytes_max: usize,
}

#[derive(Default)]
struct Used {
    bytes: usize,
    clients: HashMap<IpAddr, usize>,
    /// Threads that wait for some to be freed; without any, freeing wakes nobody and costs no system call.
    waiting: usize,
}

pub struct Permit {
    budget: Arc<Budget>,
    address: IpAddr,
    bytes: usize,
}

impl Budget {
    pub fn new(bytes_max: usize, client_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            used: Mutex::default(),
            freed: Condvar::new(),
            bytes_max,
            client_bytes_max,
        })
    }

    /// Waits until there is room; `None` after `patience`.
    pub fn take(self: &Arc<Self>, address: IpAddr, bytes: usize, patience: Duration) -> Option<Permit> {
        let bytes = bytes.min(self.client_bytes_max);
        let deadline = Instant::now() + patience;
        let mut used = self.used.lock().unwrap();
        loop {
            let of_client = used.clients.get(&address).copied().unwrap_or(0);
            if used.bytes + bytes <= self.bytes_max && of_client + bytes <= self.client_bytes_max {
                used.bytes += bytes;
                used.clients.insert(address, of_client + bytes);
                return Some(Permit {
                    budget: self.clone(),
                    address,
                    bytes,
                });
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            used.waiting += 1;
            used = self.freed.wait_timeout(used, left).unwrap().0;
            used.waiting -= 1;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut used = self.budget.used.lock().unwrap();
        used.bytes -= self.bytes;
        if let Some(of_client) = used.clients.get_mut(&self.address) {
            *of_client -= self.bytes;
            if *of_client == 0 {
                used.clients.remove(&self.address);
            }
        }
        if used.waiting > 0 {
            self.budget.freed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_share_and_gives_it_back() {
        let budget = Budget::new(100, 60);
        let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let now = Duration::ZERO;
        let first = budget.take(one, 60, now).unwrap();
        assert!(budget.take(one, 1, now).is_none());
        let second = budget.take(two, 40, now).unwrap();
        assert!(budget.take(two, 1, now).is_none());
        drop(first);
        assert!(budget.take(one, 1000, now).is_some(), "more than the share is the share");
        drop(second);
        assert_eq!(budget.used.lock().unwrap().bytes, 0);
        assert!(budget.used.lock().unwrap().clients.is_empty());
    }
}
