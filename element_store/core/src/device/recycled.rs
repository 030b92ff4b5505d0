//! Large buffers that are used again. Left to the allocator, a buffer of a row is either given back to the kernel and faulted in again each time, or
//! kept by the thread that freed it, which with many threads is more memory than all streams use.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Smaller ones are the allocator's.
const LARGE_BYTES: usize = 256 << 10;
/// Of buffers that wait for their next use.
const SPARE_BYTES_MAX: usize = 96 << 20;

static SPARE: Mutex<Spare> = Mutex::new(Spare {
    buffers: Vec::new(),
    bytes: 0,
});

struct Spare {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

fn spare() -> MutexGuard<'static, Spare> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spare {
    /// The one used last whose capacity is at least `bytes` and wastes no more than that again.
    fn take(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let fits = |buffer: &Vec<u8>| (bytes..=2 * bytes).contains(&buffer.capacity());
        let found = self.buffers.iter().rposition(fits)?;
        let buffer = self.buffers.remove(found);
        self.bytes -= buffer.capacity();
        Some(buffer)
    }

    fn give(&mut self, buffer: Vec<u8>) {
        if self.bytes + buffer.capacity() <= SPARE_BYTES_MAX {
            self.bytes += buffer.capacity();
            self.buffers.push(buffer);
        }
    }
}

/// A vector whose memory is kept for the next one of about its size.
#[derive(Debug, Default)]
pub struct Recycled(Vec<u8>);

impl Recycled {
    /// Empty.
    pub fn with_capacity(bytes: usize) -> Self {
        let found = if bytes >= LARGE_BYTES { spare().take(bytes) } else { None };
        Self(found.unwrap_or_else(|| Vec::with_capacity(bytes)))
    }

    pub fn zeroed(bytes: usize) -> Self {
        match if bytes >= LARGE_BYTES { spare().take(bytes) } else { None } {
            Some(mut buffer) => {
                buffer.resize(bytes, 0);
                Self(buffer)
            }
            None => Self(vec![0; bytes]),
        }
    }
}

impl Drop for Recycled {
    fn drop(&mut self) {
        if self.0.capacity() >= LARGE_BYTES {
            let mut buffer = std::mem::take(&mut self.0);
            buffer.clear();
            spare().give(buffer);
        }
    }
}

impl Deref for Recycled {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Recycled {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_before_is_zero_or_empty_again() {
        for _ in 0..3 {
            let mut buffer = Recycled::zeroed(LARGE_BYTES + 5);
            assert!(buffer.len() == LARGE_BYTES + 5 && buffer.iter().all(|byte| *byte == 0));
            buffer.fill(7);
            drop(buffer);
            assert!(Recycled::with_capacity(LARGE_BYTES).is_empty());
        }
    }

    #[test]
    fn no_more_is_kept_than_is_said() {
        let mut kept = Spare {
            buffers: Vec::new(),
            bytes: 0,
        };
        for _ in 0..200 {
            kept.give(Vec::with_capacity(1 << 20));
        }
        assert_eq!((kept.bytes, kept.buffers.len()), (SPARE_BYTES_MAX, SPARE_BYTES_MAX >> 20));
        assert!(kept.take(1 << 19).is_some() && kept.take(1 << 18).is_none() && kept.take(2 << 20).is_none());
    }
}
