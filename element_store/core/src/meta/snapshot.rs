//! A reader at a fixed sequence. While it lives, the engine keeps what it can see.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;

use super::engine::{Engine, RangeIter};
use super::txn::Rows;

/// Sees every transaction up to its sequence and nothing later, for ever. Cheap; any number may live, on any thread. While one lives, all that is
/// written after it stays in memory or on disk twice: long work takes a new one for every page of rows.
pub struct Snapshot {
    engine: Arc<dyn Engine>,
    readers: Arc<Readers>,
    at: u64,
}

impl Snapshot {
    pub(super) fn new(engine: Arc<dyn Engine>, readers: Arc<Readers>) -> Self {
        let at = readers.enter();
        Self { engine, readers, at }
    }

    pub fn sequence(&self) -> u64 {
        self.at
    }
}

impl Rows for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.engine.get(key, self.at)
    }

    fn range(&self, from: &[u8], to: &[u8], reverse: bool) -> RangeIter<'_> {
        self.engine.range(from, to, reverse, self.at)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.engine.forget(self.readers.leave(self.at));
    }
}

/// Who reads at which sequence. One lock covers the visible sequence and the set of readers, so that no reader can start below what was just forgotten.
pub(super) struct Readers(Mutex<State>);

struct State {
    visible: u64,
    /// Sequence -> number of snapshots there.
    live: BTreeMap<u64, usize>,
}

impl State {
    fn oldest(&self) -> u64 {
        self.live.keys().next().map_or(self.visible, |oldest| self.visible.min(*oldest))
    }
}

impl Readers {
    pub(super) fn new(visible: u64) -> Self {
        Self(Mutex::new(State {
            visible,
            live: BTreeMap::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn visible(&self) -> u64 {
        self.state().visible
    }

    /// Raise the visible sequence; returns the oldest sequence that may still be read.
    pub(super) fn publish(&self, sequence: u64) -> u64 {
        let mut state = self.state();
        state.visible = state.visible.max(sequence);
        state.oldest()
    }

    fn enter(&self) -> u64 {
        let mut state = self.state();
        let at = state.visible;
        *state.live.entry(at).or_default() += 1;
        at
    }

    fn leave(&self, at: u64) -> u64 {
        let mut state = self.state();
        if let Some(count) = state.live.get_mut(&at) {
            *count -= 1;
            if *count == 0 {
                state.live.remove(&at);
            }
        }
        state.oldest()
    }
}
