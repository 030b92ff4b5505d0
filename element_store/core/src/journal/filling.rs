//! Payloads of the record that is being filled: readable at their positions before the record is written.
//!
//! Invariant: from the moment a payload is pushed until readers can get it from the mirrors, one of the two has it. Never writes anything.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Capacity kept for the next record.
const KEPT_BYTES: usize = 2 << 20;

/// One writer pushes, any number of threads read.
#[derive(Debug, Default)]
pub struct Filling(RwLock<Payloads>);

#[derive(Debug, Default)]
struct Payloads {
    /// Absolute position of the first byte.
    base: u64,
    bytes: Vec<u8>,
}

impl Filling {
    fn read_lock(&self) -> RwLockReadGuard<'_, Payloads> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_lock(&self) -> RwLockWriteGuard<'_, Payloads> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record whose payloads will lie from `base` on. What the last one held must be on the mirrors, or named by nothing.
    pub fn begin(&self, base: u64) {
        let mut payloads = self.write_lock();
        payloads.bytes.clear();
        payloads.bytes.shrink_to(KEPT_BYTES);
        payloads.base = base;
    }

    pub fn len(&self) -> usize {
        self.read_lock().bytes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a payload at the next multiple of `align`, if the record then has at most `bytes_max`; returns its position.
    pub fn push(&self, payload: &[u8], align: usize, bytes_max: usize) -> Option<u64> {
        let mut payloads = self.write_lock();
        let start = payloads.bytes.len().next_multiple_of(align);
        if start + payload.len() > bytes_max {
            return None;
        }
        payloads.bytes.resize(start, 0);
        payloads.bytes.extend_from_slice(payload);
        Some(payloads.base + start as u64)
    }

    /// Takes back what no reader was shown.
    pub fn truncate(&self, length: usize) {
        self.write_lock().bytes.truncate(length);
    }

    /// Appends all of it to `body`.
    pub fn copy_to(&self, body: &mut Vec<u8>) {
        body.extend_from_slice(&self.read_lock().bytes);
    }

    /// False: these bytes are not here.
    pub(super) fn read(&self, position: u64, buffer: &mut [u8]) -> bool {
        let payloads = self.read_lock();
        let start = position.checked_sub(payloads.base).map(|start| start as usize);
        let found = start.and_then(|start| payloads.bytes.get(start..start.checked_add(buffer.len())?));
        if let Some(bytes) = found {
            buffer.copy_from_slice(bytes);
        }
        found.is_some()
    }
}
