//! The in-memory engine: a sorted map of versions. It is the oracle of the contract suite and the engine of tests that need no disk.
//!
//! Invariant: the versions of a row ascend by sequence. Nothing here survives a restart.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::{Error, Result};

use super::engine::{Engine, Mutation, RangeIter, Row};

/// None: deleted at that sequence.
type Versions = Vec<(u64, Option<Vec<u8>>)>;

#[derive(Default)]
pub struct ModelEngine {
    rows: RwLock<BTreeMap<Vec<u8>, Versions>>,
    applied: AtomicU64,
    oldest: AtomicU64,
}

impl ModelEngine {
    pub fn new() -> Self {
        Self::default()
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<Vec<u8>, Versions>> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<Vec<u8>, Versions>> {
        self.rows.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first row of the range that has a value at `at`.
    fn first(&self, range: (Bound<&[u8]>, Bound<&[u8]>), reverse: bool, at: u64) -> Option<Row> {
        let rows = self.read();
        let mut range = rows.range::<[u8], _>(range);
        let next = || if reverse { range.next_back() } else { range.next() };
        std::iter::from_fn(next).find_map(|(key, versions)| Some((key.clone(), version_at(versions, at)?.clone())))
    }
}

fn version_at(versions: &Versions, at: u64) -> Option<&Vec<u8>> {
    let count = versions.partition_point(|(sequence, _)| *sequence <= at);
    versions[..count].last()?.1.as_ref()
}

/// Drop what no reader at `oldest` or later sees.
fn prune(versions: &mut Versions, oldest: u64) {
    let seen = versions.partition_point(|(sequence, _)| *sequence <= oldest);
    versions.drain(..seen.saturating_sub(1));
    if versions
        .first()
        .is_some_and(|(sequence, value)| *sequence <= oldest && value.is_none())
    {
        versions.remove(0);
    }
}

impl Engine for ModelEngine {
    fn apply(&self, sequence: u64, mutations: &[Mutation]) -> Result<()> {
        let mut rows = self.write();
        if sequence <= self.applied() {
            return Err(Error::Invalid(format!("sequence {sequence} is not above {}", self.applied())));
        }
        for mutation in mutations {
            let (key, value) = match mutation {
                Mutation::Put { key, value } => (key, Some(value.clone())),
                Mutation::Delete { key } => (key, None),
            };
            let versions = rows.entry(key.clone()).or_default();
            versions.push((sequence, value));
            prune(versions, self.oldest.load(Ordering::Acquire));
            if versions.is_empty() {
                rows.remove(key);
            }
        }
        self.applied.store(sequence, Ordering::Release);
        Ok(())
    }

    fn get(&self, key: &[u8], at: u64) -> Result<Option<Vec<u8>>> {
        Ok(self.read().get(key).and_then(|versions| version_at(versions, at)).cloned())
    }

    fn range(&self, from: &[u8], to: &[u8], reverse: bool, at: u64) -> RangeIter<'_> {
        let (mut from, mut to) = (Bound::Included(from.to_vec()), Bound::Excluded(to.to_vec()));
        Box::new(std::iter::from_fn(move || {
            let bounds = (from.as_ref().map(Vec::as_slice), to.as_ref().map(Vec::as_slice));
            if is_empty(bounds) {
                return None;
            }
            let row = self.first(bounds, reverse, at)?;
            let past = Bound::Excluded(row.0.clone());
            if reverse {
                to = past
            } else {
                from = past
            }
            Some(Ok(row))
        }))
    }

    fn forget(&self, oldest: u64) {
        self.oldest.fetch_max(oldest, Ordering::AcqRel);
    }

    fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }
}

/// `BTreeMap::range` panics on bounds that cross.
fn is_empty(bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match bounds {
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to)) => from >= to,
        _ => false,
    }
}
