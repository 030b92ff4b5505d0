//! One transaction: reads of the newest state, overlaid with its own writes, and the limits that every engine has in common.
//!
//! Invariants: a key is written at most once (the last write counts); a write that would pass a limit fails and leaves the
//! transaction as it was. The limits are FoundationDB's shape, so that code which runs here also runs on a distributed engine. A transaction never
//! changes the engine: `MetaStore::apply` does, with what `into_mutations` hands out.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};

use super::engine::{Engine, Mutation, RangeIter, Row};

pub const KEY_BYTES_MAX: usize = 2 * 1024;
pub const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Keys and values written by one transaction, in all.
pub const TRANSACTION_BYTES_MAX: usize = 10 * 1000 * 1000;
/// From `begin` to the end of the closure, by the store's clock: of the thread that runs it.
pub const TRANSACTION_TIME_MAX: Duration = Duration::from_secs(5);
/// Above every legal key: the `to` of a range that has no other end.
pub const KEY_END: &[u8] = &[0xff; KEY_BYTES_MAX + 1];

/// Rows that `delete_range` reads before it deletes them.
const DELETE_PAGE_ROWS: usize = 1024;

/// Monotonic time since any fixed moment; passed in so that tests own it.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Reading rows, the same for a transaction and a snapshot.
pub trait Rows: Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Rows with `from` <= key < `to`, in key order or against it, read as the iterator is advanced.
    fn range(&self, from: &[u8], to: &[u8], reverse: bool) -> RangeIter<'_>;

    /// The first `limit` rows of the range.
    fn get_range(&self, from: &[u8], to: &[u8], limit: usize, reverse: bool) -> Result<Vec<Row>> {
        self.range(from, to, reverse).take(limit).collect()
    }
}

/// The smallest key above all keys that start with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    match prefix.iter().rposition(|byte| *byte != 0xff) {
        Some(last) => [&prefix[..last], &[prefix[last] + 1]].concat(),
        None => KEY_END.to_vec(),
    }
}

pub struct Txn<'a> {
    engine: &'a dyn Engine,
    clock: &'a Clock,
    deadline: Duration,
    at: u64,
    /// None: delete.
    writes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
}

impl<'a> Txn<'a> {
    pub(super) fn new(engine: &'a dyn Engine, clock: &'a Clock, at: u64) -> Self {
        Self {
            engine,
            clock,
            deadline: clock() + TRANSACTION_TIME_MAX,
            at,
            writes: BTreeMap::new(),
            bytes: 0,
        }
    }

    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(Error::Limit(format!(
                "a value of {} bytes is longer than {VALUE_BYTES_MAX}",
                value.len()
            )));
        }
        self.write(key, Some(value))
    }

    pub fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.write(key, None)
    }

    /// Delete every row with `from` <= key < `to`, seen one by one: large ranges need several transactions. Returns how many there were.
    pub fn delete_range(&mut self, from: &[u8], to: &[u8]) -> Result<usize> {
        let mut count = 0;
        let mut from = from.to_vec();
        loop {
            let keys = self
                .range(&from, to, false)
                .take(DELETE_PAGE_ROWS)
                .map(|row| Ok(row?.0))
                .collect::<Result<Vec<_>>>()?;
            for key in &keys {
                self.delete(key)?;
            }
            count += keys.len();
            match keys.last() {
                Some(last) if keys.len() == DELETE_PAGE_ROWS => from = [last, &[0][..]].concat(),
                _ => return Ok(count),
            }
        }
    }

    /// Add to a counter row (i64 little-endian, absent means 0). A counter that reaches 0 is deleted. Later reads in this transaction see the sum.
    pub fn add(&mut self, key: &[u8], delta: i64) -> Result<()> {
        let old = self.get(key)?.map_or(Ok(0), |value| decode_counter(&value))?;
        let sum = old.checked_add(delta).ok_or_else(|| Error::Invalid("counter overflows".into()))?;
        if sum == 0 {
            self.delete(key)
        } else {
            self.put(key, &sum.to_le_bytes())
        }
    }

    /// The newest transaction that it sees.
    pub fn sequence(&self) -> u64 {
        self.at
    }

    /// Has it written nothing?
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Keys and values written so far; compare with `TRANSACTION_BYTES_MAX` to cut long work.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keys written so far.
    pub fn rows(&self) -> usize {
        self.writes.len()
    }

    /// In key order, each key once. Fails if the transaction took too long.
    pub fn into_mutations(self) -> Result<Vec<Mutation>> {
        self.check_time()?;
        let mutation = |(key, value)| match value {
            Some(value) => Mutation::Put { key, value },
            None => Mutation::Delete { key },
        };
        Ok(self.writes.into_iter().map(mutation).collect())
    }

    fn write(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        check_key(key)?;
        let size = |value: Option<&[u8]>| key.len() + value.map_or(0, <[u8]>::len);
        let replaced = self.writes.get(key).map_or(0, |old| size(old.as_deref()));
        let bytes = self.bytes - replaced + size(value);
        if bytes > TRANSACTION_BYTES_MAX {
            return Err(Error::Limit(format!(
                "a transaction writes more than {TRANSACTION_BYTES_MAX} bytes"
            )));
        }
        self.bytes = bytes;
        self.writes.insert(key.to_vec(), value.map(<[u8]>::to_vec));
        Ok(())
    }

    fn check_time(&self) -> Result<()> {
        if (self.clock)() > self.deadline {
            return Err(Error::Limit(format!(
                "a transaction took more than {} s",
                TRANSACTION_TIME_MAX.as_secs()
            )));
        }
        Ok(())
    }
}

impl Rows for Txn<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.check_time()?;
        match self.writes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.engine.get(key, self.at),
        }
    }

    fn range(&self, from: &[u8], to: &[u8], reverse: bool) -> RangeIter<'_> {
        if let Err(error) = self.check_time() {
            return Box::new(std::iter::once(Err(error)));
        }
        if from >= to {
            return Box::new(std::iter::empty());
        }
        let stored = self.engine.range(from, to, reverse, self.at);
        let written = self.writes.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        if reverse {
            Box::new(Overlay {
                stored: stored.peekable(),
                written: written.rev().peekable(),
                reverse,
            })
        } else {
            Box::new(Overlay {
                stored: stored.peekable(),
                written: written.peekable(),
                reverse,
            })
        }
    }
}

/// Stored rows with the transaction's writes laid over them.
struct Overlay<'a, W: Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>> {
    stored: Peekable<RangeIter<'a>>,
    written: Peekable<W>,
    reverse: bool,
}

impl<'a, W: Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>> Overlay<'a, W> {
    /// Does the next write come before the next stored row, or take its place?
    fn written_is_next(&mut self) -> bool {
        match (self.stored.peek(), self.written.peek()) {
            (Some(Ok((stored, _))), Some((written, _))) if self.reverse => *written >= stored,
            (Some(Ok((stored, _))), Some((written, _))) => *written <= stored,
            (Some(_), _) => false,
            (None, _) => true,
        }
    }
}

impl<'a, W: Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>> Iterator for Overlay<'a, W> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        loop {
            if !self.written_is_next() {
                return self.stored.next();
            }
            let (key, value) = self.written.next()?;
            self.stored.next_if(|row| row.as_ref().is_ok_and(|(stored, _)| stored == key));
            if let Some(value) = value {
                return Some(Ok((key.clone(), value.clone())));
            }
        }
    }
}

pub fn decode_counter(value: &[u8]) -> Result<i64> {
    let bytes = value
        .try_into()
        .map_err(|_| Error::Damaged("a counter row is not 8 bytes".into()))?;
    Ok(i64::from_le_bytes(bytes))
}

pub(super) fn check_key(key: &[u8]) -> Result<()> {
    if key.is_empty() {
        return Err(Error::Invalid("a key is empty".into()));
    }
    if key.len() > KEY_BYTES_MAX {
        return Err(Error::Limit(format!("a key of {} bytes is longer than {KEY_BYTES_MAX}", key.len())));
    }
    Ok(())
}
