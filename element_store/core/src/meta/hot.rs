//! An engine before another one: rows of windows of keys that change all the time, held as a sorted map of what readers may still see.
//!
//! A log-structured tree passes by each version and each deletion that was written since it last flushed and merged. Where a few hundred rows are rewritten
//! ten thousand times, as the mappings of a file that is overwritten in small pieces are, every look at the next row costs what all those writes left behind.
//!
//! A window is all keys with one prefix. Invariants: a window that is held has, for every reader at `since` or later, just the rows that the engine behind has:
//! `apply`, one call at a time, is all that adds, changes, takes in and lets go of windows. Letting go of one loses nothing, at any time: whoever found it
//! before reads at a sequence that it knows in full.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::Result;

use super::engine::{Engine, Mutation, RangeIter, Row};
use super::txn::prefix_end;

/// Rows that an iterator takes at first: most look for one.
const BATCH_ROWS_FIRST: usize = 2;
const BATCH_ROWS_MAX: usize = 64;
/// Windows whose changes are counted; when there are more, counting begins anew.
const COUNTED_MAX: usize = 4096;

/// The prefix that all keys of a key's window share; None for keys that are never held.
pub type WindowOf = fn(&[u8]) -> Option<&[u8]>;

#[derive(Debug, Clone, Copy)]
pub struct HotLimits {
    /// Changes of a window after which it is taken in; at least one.
    pub changes: usize,
    /// A window with more rows, deleted ones that a reader may still see among them, is let go; it is looked at again after as many changes.
    pub window_rows: usize,
    /// Of all windows; the least used go first.
    pub rows: usize,
}

impl Default for HotLimits {
    fn default() -> Self {
        Self {
            changes: 128,
            window_rows: 6 << 10,
            rows: 256 << 10,
        }
    }
}

pub struct HotEngine {
    behind: Arc<dyn Engine>,
    window_of: WindowOf,
    limits: HotLimits,
    windows: RwLock<HashMap<Vec<u8>, Arc<Window>>>,
    /// Changes that a window that is not held may still see before it is looked at. Only `apply` takes it.
    counted: Mutex<HashMap<Vec<u8>, usize>>,
    oldest: AtomicU64,
    /// Counts uses of windows.
    clock: AtomicU64,
}

struct Window {
    since: u64,
    used: AtomicU64,
    rows: Mutex<HotRows>,
}

#[derive(Default)]
struct HotRows {
    /// Versions ascend by sequence; None: deleted.
    rows: BTreeMap<Vec<u8>, Vec<(u64, Option<Vec<u8>>)>>,
    /// Rows that a deletion is the newest version of, or was: to be looked at when nobody reads below.
    deleted: VecDeque<(u64, Vec<u8>)>,
}

impl HotRows {
    fn change(&mut self, sequence: u64, mutation: &Mutation, oldest: u64) {
        let (key, value) = match mutation {
            Mutation::Put { key, value } => (key, Some(value.clone())),
            Mutation::Delete { key } => (key, None),
        };
        if value.is_none() {
            self.deleted.push_back((sequence, key.clone()));
        }
        let versions = self.rows.entry(key.clone()).or_default();
        versions.push((sequence, value));
        prune(versions, oldest);
        while self.deleted.front().is_some_and(|(sequence, _)| *sequence <= oldest) {
            let Some((_, key)) = self.deleted.pop_front() else { break };
            if let Some(versions) = self.rows.get_mut(&key) {
                prune(versions, oldest);
                if versions.is_empty() {
                    self.rows.remove(&key);
                }
            }
        }
    }

    fn at(&self, key: &[u8], at: u64) -> Option<&Vec<u8>> {
        version_at(self.rows.get(key)?, at)
    }
}

fn version_at(versions: &[(u64, Option<Vec<u8>>)], at: u64) -> Option<&Vec<u8>> {
    versions.iter().rev().find(|(sequence, _)| *sequence <= at)?.1.as_ref()
}

/// Drop what nobody at `oldest` or later sees.
fn prune(versions: &mut Vec<(u64, Option<Vec<u8>>)>, oldest: u64) {
    let seen = versions.iter().rposition(|(sequence, _)| *sequence <= oldest).unwrap_or(0);
    versions.drain(..seen);
    if matches!(versions.as_slice(), [(sequence, None)] if *sequence <= oldest) {
        versions.clear();
    }
}

impl Window {
    fn rows(&self) -> MutexGuard<'_, HotRows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HotEngine {
    pub fn new(behind: Arc<dyn Engine>, window_of: WindowOf, limits: HotLimits) -> Self {
        Self {
            behind,
            window_of,
            limits,
            windows: RwLock::default(),
            counted: Mutex::default(),
            oldest: AtomicU64::new(0),
            clock: AtomicU64::new(0),
        }
    }

    /// Rows in memory.
    pub fn rows(&self) -> usize {
        self.windows().values().map(|window| window.rows().rows.len()).sum()
    }

    fn windows(&self) -> RwLockReadGuard<'_, HashMap<Vec<u8>, Arc<Window>>> {
        self.windows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn windows_mut(&self) -> RwLockWriteGuard<'_, HashMap<Vec<u8>, Arc<Window>>> {
        self.windows.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The window of `key`, if a reader at `at` may use it.
    fn held(&self, key: &[u8], at: u64) -> Option<Arc<Window>> {
        let window = self
            .windows()
            .get((self.window_of)(key)?)
            .filter(|window| window.since <= at)?
            .clone();
        window.used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(window)
    }

    /// Brings what is held up to date; returns the windows that are to be taken in, and those to be let go.
    fn change(&self, sequence: u64, mutations: &[Mutation]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let (windows, oldest) = (self.windows(), self.oldest.load(Ordering::Acquire));
        let (mut hot, mut large) = (Vec::new(), Vec::new());
        for mutation in mutations {
            let Some(prefix) = (self.window_of)(mutation.key()) else { continue };
            if let Some(window) = windows.get(prefix) {
                let mut rows = window.rows();
                rows.change(sequence, mutation, oldest);
                if rows.rows.len() > self.limits.window_rows {
                    large.push(prefix.to_vec());
                }
                continue;
            }
            if counted.len() >= COUNTED_MAX && !counted.contains_key(prefix) {
                counted.clear();
            }
            let left = counted.entry(prefix.to_vec()).or_insert(self.limits.changes);
            *left -= 1;
            if *left == 0 {
                counted.remove(prefix);
                hot.push(prefix.to_vec());
            }
        }
        for prefix in &large {
            counted.insert(prefix.clone(), self.limits.window_rows);
        }
        (hot, large)
    }

    /// Takes the window in as it is at `at`, the newest sequence. An error is left to those who read.
    fn take_in(&self, prefix: Vec<u8>, at: u64) {
        let found = self.behind.range(&prefix, &prefix_end(&prefix), false, at);
        let Ok(rows) = found.take(self.limits.window_rows + 1).collect::<Result<Vec<Row>>>() else {
            return;
        };
        if rows.len() > self.limits.window_rows {
            let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
            counted.insert(prefix, self.limits.window_rows);
            return;
        }
        let rows = rows.into_iter().map(|(key, value)| (key, vec![(at, Some(value))])).collect();
        let window = Window {
            since: at,
            used: AtomicU64::new(self.clock.fetch_add(1, Ordering::Relaxed)),
            rows: Mutex::new(HotRows {
                rows,
                deleted: VecDeque::new(),
            }),
        };
        self.windows_mut().insert(prefix, Arc::new(window));
    }

    fn keep_within_limits(&self) {
        let mut rows = self.rows();
        while rows > self.limits.rows {
            let mut windows = self.windows_mut();
            let least = windows.iter().min_by_key(|(_, window)| window.used.load(Ordering::Relaxed));
            let Some(prefix) = least.map(|(prefix, _)| prefix.clone()) else {
                return;
            };
            rows -= windows.remove(&prefix).map_or(0, |window| window.rows().rows.len());
        }
    }
}

impl Engine for HotEngine {
    fn apply(&self, sequence: u64, mutations: &[Mutation]) -> Result<()> {
        self.behind.apply(sequence, mutations)?;
        let (hot, large) = self.change(sequence, mutations);
        if !hot.is_empty() || !large.is_empty() {
            large.iter().for_each(|prefix| drop(self.windows_mut().remove(prefix)));
            hot.into_iter().for_each(|prefix| self.take_in(prefix, sequence));
            self.keep_within_limits();
        }
        Ok(())
    }

    fn get(&self, key: &[u8], at: u64) -> Result<Option<Vec<u8>>> {
        match self.held(key, at) {
            Some(window) => Ok(window.rows().at(key, at).cloned()),
            None => self.behind.get(key, at),
        }
    }

    fn range(&self, from: &[u8], to: &[u8], reverse: bool, at: u64) -> RangeIter<'_> {
        if from >= to {
            return Box::new(std::iter::empty());
        }
        let held = if reverse { None } else { self.held(from, at) };
        let Some(window) = held else {
            return self.behind.range(from, to, reverse, at);
        };
        let end = (self.window_of)(from).map(prefix_end).unwrap_or_default();
        Box::new(Walk {
            engine: self,
            window,
            at,
            from: Bound::Included(from.to_vec()),
            to: if to < end.as_slice() { to.to_vec() } else { end },
            stop: to.to_vec(),
            batch: VecDeque::new(),
            rows: BATCH_ROWS_FIRST,
            rest: None,
        })
    }

    fn forget(&self, oldest: u64) {
        self.oldest.fetch_max(oldest.min(self.applied()), Ordering::AcqRel);
        self.behind.forget(oldest);
    }

    fn applied(&self) -> u64 {
        self.behind.applied()
    }
}

/// Rows of a window up to `to`, then whatever comes up to `stop`.
struct Walk<'a> {
    engine: &'a HotEngine,
    window: Arc<Window>,
    at: u64,
    from: Bound<Vec<u8>>,
    to: Vec<u8>,
    stop: Vec<u8>,
    batch: VecDeque<Row>,
    /// That the next batch takes.
    rows: usize,
    rest: Option<RangeIter<'a>>,
}

impl Walk<'_> {
    fn fill(&mut self) {
        let rows = self.window.rows();
        let range = rows.rows.range((self.from.clone(), Bound::Excluded(self.to.clone())));
        let seen = range.filter_map(|(key, versions)| Some((key.clone(), version_at(versions, self.at)?.clone())));
        self.batch.extend(seen.take(self.rows));
        if let Some((key, _)) = self.batch.back() {
            self.from = Bound::Excluded(key.clone());
        }
        self.rows = (self.rows * 4).min(BATCH_ROWS_MAX);
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        if let Some(rest) = &mut self.rest {
            return rest.next();
        }
        if self.batch.is_empty() {
            self.fill();
        }
        if let Some(row) = self.batch.pop_front() {
            return Some(Ok(row));
        }
        let engine = self.engine;
        self.rest.insert(engine.range(&self.to, &self.stop, false, self.at)).next()
    }
}
