//! The gear hash: `h = 2h + G[byte]`, so bit i of it depends on the last i + 1 bytes. Chunks are cut where its top bits are zero (FastCDC, ATC'16).
//!
//! Invariant: the table and the factors of sketches come from the pool secret alone.

use super::CHUNK_BYTES_MAX;

pub const CHUNK_BYTES_MIN: usize = 16 << 10;
/// Up to here cuts are made rarer, from here on more frequent.
pub const CHUNK_BYTES_NORMAL: usize = 32 << 10;
/// Normalization 2: two bits more than the 15 of the normal size before it, two fewer after.
const RARE_BITS: u32 = 17;
const FREQUENT_BITS: u32 = 13;
/// Features of a sketch.
pub const FEATURES: usize = 12;

#[derive(Debug)]
pub struct Gear {
    pub(super) table: [u64; 256],
    /// Of a feature: x ↦ ax + b modulo 2^32, a odd.
    pub(super) transforms: [(u32, u32); FEATURES],
}

impl Gear {
    pub fn keyed(secret: &[u8; 32]) -> Self {
        let mut stream = blake3::Hasher::new_keyed(secret).update(b"trefoil gear").finalize_xof();
        let mut number = || {
            let mut bytes = [0; 8];
            stream.fill(&mut bytes);
            u64::from_le_bytes(bytes)
        };
        Self {
            table: std::array::from_fn(|_| number()),
            transforms: std::array::from_fn(|_| {
                let both = number();
                (both as u32 | 1, (both >> 32) as u32)
            }),
        }
    }

    /// Length of the first chunk of a stream that begins with `bytes`: all of them if they are few or end before a cut.
    pub fn cut(&self, bytes: &[u8]) -> usize {
        let end = bytes.len().min(CHUNK_BYTES_MAX);
        let normal = end.min(CHUNK_BYTES_NORMAL);
        let mut hash = 0;
        self.search(&mut hash, bytes, CHUNK_BYTES_MIN.min(end)..normal, RARE_BITS)
            .or_else(|| self.search(&mut hash, bytes, normal.max(CHUNK_BYTES_MIN.min(end))..end, FREQUENT_BITS))
            .unwrap_or(end)
    }

    fn search(&self, hash: &mut u64, bytes: &[u8], range: std::ops::Range<usize>, bits: u32) -> Option<usize> {
        let limit = 1 << (64 - bits);
        let start = range.start;
        for (index, byte) in bytes[range].iter().enumerate() {
            *hash = (*hash << 1).wrapping_add(self.table[usize::from(*byte)]);
            if *hash < limit {
                return Some(start + index + 1);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same, said plainly: the hash of every position from its last 64 bytes past the minimum.
    fn cut_by_the_book(gear: &Gear, bytes: &[u8]) -> usize {
        let end = bytes.len().min(CHUNK_BYTES_MAX);
        for at in CHUNK_BYTES_MIN..end {
            let first = CHUNK_BYTES_MIN.max((at + 1).saturating_sub(64));
            let hash = (first..=at)
                .map(|index| gear.table[usize::from(bytes[index])].wrapping_shl((at - index) as u32))
                .fold(0u64, u64::wrapping_add);
            let bits = if at < CHUNK_BYTES_NORMAL { RARE_BITS } else { FREQUENT_BITS };
            if hash >> (64 - bits) == 0 {
                return at + 1;
            }
        }
        end
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn cuts_are_where_the_book_says(seed: u64, length in 0usize..150_000, key: [u8; 32]) {
            let mut random = crate::device::random::Seeded::new(seed);
            let bytes: Vec<u8> = (0..length).map(|_| random.next_u64() as u8).collect();
            let gear = Gear::keyed(&key);
            let cut = gear.cut(&bytes);
            prop_assert_eq!(cut, cut_by_the_book(&gear, &bytes));
            prop_assert!(cut <= CHUNK_BYTES_MAX && (cut >= CHUNK_BYTES_MIN || cut == length));
        }
    }

    #[test]
    fn another_secret_cuts_elsewhere() {
        let mut random = crate::device::random::Seeded::new(1);
        let bytes: Vec<u8> = (0..100_000).map(|_| random.next_u64() as u8).collect();
        let cuts: std::collections::HashSet<usize> = (0..8).map(|key| Gear::keyed(&[key; 32]).cut(&bytes)).collect();
        assert!(cuts.len() > 4);
    }

    #[test]
    fn chunks_have_about_the_size_that_was_measured() {
        let mut random = crate::device::random::Seeded::new(5);
        let bytes: Vec<u8> = (0..8 << 20).map(|_| random.next_u64() as u8).collect();
        let count = crate::reduction::Cutting::Content.chunks(&Gear::keyed(&[9; 32]), 0, &bytes).len();
        let average = bytes.len() / count;
        assert!((34_000..46_000).contains(&average), "{average}");
    }
}
