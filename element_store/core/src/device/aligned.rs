//! Memory that a drive can fetch by itself: starts at a multiple of the page size, so that a direct write needs no copy.

use super::recycled::Recycled;
use bytes::Bytes;
use std::ops::{Deref, DerefMut};

/// What direct I/O asks of addresses, offsets and lengths on every drive in use.
pub const ALIGNMENT: usize = 4096;

/// Zeros at first.
#[derive(Debug)]
pub struct Aligned {
    /// Longer by one alignment than what counts, which begins at `start`.
    memory: Recycled,
    start: usize,
    length: usize,
}

impl Aligned {
    pub fn zeroed(length: usize) -> Self {
        let memory = Recycled::zeroed(length + ALIGNMENT);
        let start = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { memory, start, length }
    }

    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.length]
    }
}

/// Can a direct write take these bytes to this offset as they are?
pub fn is_aligned(offset: u64, bytes: &[u8]) -> bool {
    offset.is_multiple_of(ALIGNMENT as u64) && bytes.len().is_multiple_of(ALIGNMENT) && bytes.as_ptr().addr().is_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_aligned_as_bytes() {
        for length in [0, 1, 4096, 1 << 20] {
            let mut memory = Aligned::zeroed(length);
            memory.fill(7);
            let bytes = memory.into_bytes();
            assert!(bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) && bytes.len() == length && bytes.iter().all(|byte| *byte == 7));
        }
    }
}
