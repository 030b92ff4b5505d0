//! Rows that landed in segments last, as they came in: the reducer need not read them back.
//!
//! Bounded by bytes of memory; the oldest row goes first. A row's buffer is handed over, not copied, unless most of it is empty. What is in here is a
//! copy: whoever takes it compares it with the extent's checksum, and reads the segment where it does not fit.

use crate::device::recycled::Recycled;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Of what was just written.
pub const LANDED_BYTES_MAX: usize = 64 << 20;

#[derive(Debug)]
pub struct JustLanded {
    bytes_max: usize,
    inner: Mutex<Inner>,
    pub hits: AtomicU64,
    pub misses: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    extents: HashMap<u64, (Arc<Recycled>, Range<usize>)>,
    /// Extents of each row, and what it takes.
    rows: VecDeque<(Vec<u64>, usize)>,
    bytes: usize,
}

impl JustLanded {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            inner: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// The extents of a row, in order from its beginning, and their lengths.
    pub fn keep(&self, row: Recycled, extents: &[(u64, usize)]) {
        let row = match row.len() * 2 < row.capacity() {
            true => {
                let mut copied = Recycled::with_capacity(row.len());
                copied.extend_from_slice(&row);
                copied
            }
            false => row,
        };
        let (bytes, row) = (row.capacity(), Arc::new(row));
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = 0;
        for (id, length) in extents {
            inner.extents.insert(*id, (row.clone(), at..at + length));
            at += length;
        }
        inner.rows.push_back((extents.iter().map(|(id, _)| *id).collect(), bytes));
        inner.bytes += bytes;
        while inner.bytes > self.bytes_max {
            let Some((ids, bytes)) = inner.rows.pop_front() else { break };
            inner.bytes -= bytes;
            ids.iter().for_each(|id| drop(inner.extents.remove(id)));
        }
    }

    /// For the one who needs it: gone afterwards.
    pub fn take(&self, extent: u64) -> Option<Vec<u8>> {
        let found = self.inner.lock().unwrap_or_else(PoisonError::into_inner).extents.remove(&extent);
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found.and_then(|(row, range)| row.get(range).map(<[u8]>::to_vec))
    }

    pub fn bytes(&self) -> u64 {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).bytes as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: u8, length: usize) -> Recycled {
        let mut row = Recycled::with_capacity(length);
        row.resize(length, value);
        row
    }

    #[test]
    fn the_newest_rows_are_there_once_within_the_bound() {
        let landed = JustLanded::new(1000);
        for value in 0..20u8 {
            landed.keep(row(value, 100), &[(u64::from(value) * 2, 60), (u64::from(value) * 2 + 1, 40)]);
            assert!(landed.bytes() <= 1000);
        }
        assert_eq!(landed.take(0), None);
        assert_eq!((landed.take(38), landed.take(38)), (Some(vec![19; 60]), None));
        assert_eq!(landed.take(39), Some(vec![19; 40]));
        let mut roomy = Recycled::with_capacity(900);
        roomy.extend_from_slice(&[7; 50]);
        landed.keep(roomy, &[(100, 50)]);
        assert!(landed.take(37).is_some(), "what is mostly empty takes its length");
        landed.keep(row(8, 5000), &[(101, 5000)]);
        assert_eq!(
            (landed.bytes(), landed.take(101)),
            (0, None),
            "what is larger than the bound is not kept"
        );
    }
}
