//! Who may still be reading what was given up: zones and journal bytes are reused only after every reader that could know them has left.
//!
//! A reader enters before it looks at metadata. What is deferred is given up in metadata already, so a reader that enters afterwards cannot find it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub struct Guard<T> {
    state: Arc<Mutex<State<T>>>,
}

#[derive(Debug)]
struct State<T> {
    generation: u64,
    readers: BTreeMap<u64, usize>,
    deferred: VecDeque<(u64, T)>,
}

/// A reader that is inside; leaves when dropped.
#[derive(Debug)]
pub struct Inside<T> {
    state: Arc<Mutex<State<T>>>,
    generation: u64,
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Default for Guard<T> {
    fn default() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                generation: 0,
                readers: BTreeMap::new(),
                deferred: VecDeque::new(),
            })),
        }
    }
}

impl<T> Guard<T> {
    pub fn enter(&self) -> Inside<T> {
        let mut state = lock(&self.state);
        let generation = state.generation;
        *state.readers.entry(generation).or_default() += 1;
        Inside {
            state: self.state.clone(),
            generation,
        }
    }

    /// `item` is named nowhere any more, visibly to all who enter from now on.
    pub fn defer(&self, item: T) {
        let mut state = lock(&self.state);
        let generation = state.generation;
        state.deferred.push_back((generation, item));
        state.generation += 1;
    }

    /// What no reader can know any more, in the order in which it was deferred.
    pub fn take_ready(&self) -> Vec<T> {
        let mut state = lock(&self.state);
        let oldest = state.readers.keys().next().copied().unwrap_or(u64::MAX);
        let ready = state.deferred.iter().take_while(|(generation, _)| *generation < oldest).count();
        state.deferred.drain(..ready).map(|(_, item)| item).collect()
    }

    pub fn waiting(&self) -> usize {
        lock(&self.state).deferred.len()
    }
}

impl<T> Drop for Inside<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if let Some(count) = state.readers.get_mut(&self.generation) {
            *count -= 1;
            if *count == 0 {
                state.readers.remove(&self.generation);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_readers_from_before_and_not_for_later_ones() {
        let guard = Guard::default();
        let before = guard.enter();
        guard.defer("zone");
        let after = guard.enter();
        assert!(guard.take_ready().is_empty());
        drop(before);
        assert_eq!(guard.take_ready(), ["zone"]);
        drop(after);
    }
}
