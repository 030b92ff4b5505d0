//! Rows that change all the time are answered without asking the engine behind; all else is in the contract suite and the property test of recovery.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use trefoil_core::error::Result;
use trefoil_core::meta::hot::{HotEngine, HotLimits};
use trefoil_core::meta::model::ModelEngine;
use trefoil_core::meta::*;

const LIMITS: HotLimits = HotLimits {
    changes: 4,
    window_rows: 8,
    rows: 12,
};

/// Counts what it is asked.
#[derive(Default)]
struct Counting {
    behind: ModelEngine,
    asked: AtomicUsize,
}

impl Engine for Counting {
    fn apply(&self, sequence: u64, mutations: &[Mutation]) -> Result<()> {
        self.behind.apply(sequence, mutations)
    }

    fn get(&self, key: &[u8], at: u64) -> Result<Option<Vec<u8>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.behind.get(key, at)
    }

    fn range(&self, from: &[u8], to: &[u8], reverse: bool, at: u64) -> RangeIter<'_> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.behind.range(from, to, reverse, at)
    }

    fn forget(&self, oldest: u64) {
        self.behind.forget(oldest)
    }

    fn applied(&self) -> u64 {
        self.behind.applied()
    }
}

struct World {
    behind: Arc<Counting>,
    hot: HotEngine,
    sequence: u64,
}

impl World {
    fn new() -> Self {
        let behind = Arc::new(Counting::default());
        let hot = HotEngine::new(behind.clone(), |key| key.get(..1), LIMITS);
        Self { behind, hot, sequence: 0 }
    }

    fn put(&mut self, key: &[u8]) {
        self.sequence += 1;
        let (key, value) = (key.to_vec(), self.sequence.to_le_bytes().to_vec());
        self.hot.apply(self.sequence, &[Mutation::Put { key, value }]).unwrap();
    }

    fn delete(&mut self, key: &[u8]) {
        self.sequence += 1;
        self.hot.apply(self.sequence, &[Mutation::Delete { key: key.to_vec() }]).unwrap();
    }

    /// Questions that reading this cost the engine behind, and the keys found.
    fn keys(&self, from: &[u8], to: &[u8], at: u64) -> (usize, Vec<Vec<u8>>) {
        let before = self.behind.asked.load(Ordering::Relaxed);
        let found = self.hot.range(from, to, false, at).map(|row| row.unwrap().0).collect();
        (self.behind.asked.load(Ordering::Relaxed) - before, found)
    }
}

#[test]
fn a_window_that_changes_often_is_answered_from_memory() {
    let mut world = World::new();
    (0..4).for_each(|key| world.put(&[b'a', key]));
    assert_eq!(world.hot.rows(), 4);
    let all: Vec<_> = (0..4).map(|key| vec![b'a', key]).collect();
    assert_eq!(world.keys(b"a", b"b", world.sequence), (0, all[..].to_vec()));
    assert_eq!(world.keys(&[b'a', 2], &[b'a', 3], world.sequence), (0, all[2..3].to_vec()));
    let before = world.behind.asked.load(Ordering::Relaxed);
    assert_eq!(world.hot.get(&[b'a', 3], world.sequence).unwrap().unwrap(), 4u64.to_le_bytes());
    assert_eq!(world.behind.asked.load(Ordering::Relaxed), before);
    assert_eq!(
        world.keys(b"a", b"c", world.sequence),
        (1, all.clone()),
        "what follows the window is asked for"
    );
    assert_eq!(
        world.keys(b"a", b"b", 3),
        (1, all[..3].to_vec()),
        "readers of the past are not answered from it"
    );
    world.put(b"b");
    assert_eq!(world.keys(b"b", b"c", world.sequence).0, 1, "one change is not often");
}

#[test]
fn rows_go_when_nobody_can_see_them() {
    let mut world = World::new();
    (0..4).for_each(|key| world.put(&[b'a', key]));
    let then = world.sequence;
    (0..4).for_each(|key| world.delete(&[b'a', key]));
    assert_eq!(world.keys(b"a", b"b", then).1.len(), 4);
    assert_eq!(world.keys(b"a", b"b", world.sequence), (0, vec![]));
    assert_eq!(world.hot.rows(), 4, "a reader may still be there");
    world.hot.forget(world.sequence);
    world.put(&[b'a', 9]);
    assert_eq!(world.hot.rows(), 1);
    assert_eq!(world.keys(b"a", b"b", world.sequence), (0, vec![vec![b'a', 9]]));
}

#[test]
fn memory_is_bounded() {
    let mut world = World::new();
    (0..9).for_each(|key| world.put(&[b'a', key]));
    assert_eq!(world.hot.rows(), 0, "too large to be held");
    (0..4).for_each(|key| world.delete(&[b'a', key]));
    assert_eq!(world.keys(b"a", b"b", world.sequence).0, 1, "it is not looked at again at once");
    (0..4).for_each(|_| world.put(&[b'a', 8]));
    assert_eq!(world.hot.rows(), 5, "but after as many changes");
    (0..4).for_each(|key| world.put(&[b'b', key]));
    assert_eq!(world.hot.rows(), 9);
    world.keys(b"a", b"b", world.sequence);
    (0..4).for_each(|key| world.put(&[b'c', key]));
    assert_eq!(world.hot.rows(), 9, "the least used goes");
    assert_eq!(world.keys(b"a", b"b", world.sequence).0, 0);
    assert_eq!(world.keys(b"b", b"c", world.sequence).0, 1);
}
