//! Which devices hold unflushed rows of which segments, and flushing them once for many callers.
//!
//! Invariant: a caller's writes were marked before it calls `flush`, and the flush that lets it go on began after that. A device that
//! fails its flush makes every segment suspect that had unflushed rows on it, however many callers ask for them, and whenever.

use super::{Drives, lock};
use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, PoisonError};

#[derive(Debug, Default)]
pub(super) struct Flusher {
    dirty: Mutex<HashMap<u16, HashSet<u64>>>,
    turns: Mutex<Turns>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct Turns {
    running: bool,
    completed: u64,
}

impl Flusher {
    /// To be called after the write and before its caller may sync: a mark set earlier could be taken by a flush that misses the write.
    pub fn mark(&self, segment: u64, devices: impl Iterator<Item = u16>) {
        let mut dirty = lock(&self.dirty);
        devices.for_each(|device| {
            dirty.entry(device).or_default().insert(segment);
        });
    }

    /// Returns after a flush that began after the call; joins the next one while one runs. `lost` is told the segments of each device that
    /// failed, before any caller goes on. Returns whether this caller did the flush.
    pub fn flush(&self, drives: &dyn Drives, lost: &dyn Fn(&HashSet<u64>)) -> bool {
        let mut turns = lock(&self.turns);
        let wanted = turns.completed + if turns.running { 2 } else { 1 };
        while turns.completed < wanted {
            if turns.running {
                turns = self.done.wait(turns).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            turns.running = true;
            drop(turns);
            let flushed = self.flush_dirty(drives, lost);
            turns = lock(&self.turns);
            turns.running = false;
            turns.completed += 1;
            self.done.notify_all();
            if turns.completed >= wanted {
                return flushed;
            }
        }
        false
    }

    fn flush_dirty(&self, drives: &dyn Drives, lost: &dyn Fn(&HashSet<u64>)) -> bool {
        let dirty = std::mem::take(&mut *lock(&self.dirty));
        let mut devices: Vec<u16> = dirty.keys().copied().collect();
        devices.sort_unstable();
        if devices.is_empty() {
            return false;
        }
        let outcomes = drives.flush_all(&devices);
        let durable: HashSet<u16> = outcomes
            .iter()
            .filter(|(_, outcome)| outcome.is_ok())
            .map(|(device, _)| *device)
            .collect();
        for (_, segments) in dirty.iter().filter(|(device, _)| !durable.contains(device)) {
            lost(segments);
        }
        true
    }
}
