//! Data reduction as pure functions and bounded tables: where a stream is cut, what a chunk resembles, how it is encoded, what is worth it.
//!
//! Owns: the keyed gear hash and the cuts and sketches made with it, the encodings of stored chunks, the index of hooks and pages, the rules by
//! which a reference is tried and a delta accepted. Parameters are measured, see `docs/decisions/0008-reduction.md`.
//! Invariants: everything derives from the bytes and the pool secret, so equal bytes are cut, named and sketched alike in one pool, and nobody
//! outside can aim at collisions; a stored chunk is never longer than its plain bytes; a delta needs one or two full chunks and nothing else;
//! the index is a hint, its memory is bounded, and whoever uses it compares the whole fingerprint. Never does: I/O, metadata, time.

pub mod choose;
pub mod encode;
pub mod gear;
pub mod hooks;
pub mod page;
pub mod page_cache;
pub mod sketch;

use std::ops::Range;

/// Bytes of a chunk at most, whatever cut it.
pub const CHUNK_BYTES_MAX: usize = 64 << 10;
/// Of content that is overwritten in place: blocks at multiples of this in the element.
pub const ALIGNED_BYTES: usize = 32 << 10;
/// References of a delta.
pub const BASES_MAX: usize = 2;

/// How hard the reducer tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Mode {
    /// Content is packed as it is.
    Off,
    Fast,
    #[default]
    Balanced,
    Deep,
}

impl Mode {
    pub const NAMES: [(&'static str, Mode); 4] = [
        ("off", Mode::Off),
        ("fast", Mode::Fast),
        ("balanced", Mode::Balanced),
        ("deep", Mode::Deep),
    ];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, mode)| *mode)
    }

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, mode)| *mode == self).map_or("", |(name, _)| name)
    }

    /// Its place in NAMES, from 1.
    pub fn number(self) -> u8 {
        Self::NAMES
            .iter()
            .zip(1..)
            .find(|((_, mode), _)| *mode == self)
            .map_or(0, |(_, number)| number)
    }

    /// None: of no mode.
    pub fn numbered(number: u8) -> Option<Self> {
        Some(Self::NAMES.get(usize::from(number).checked_sub(1)?)?.1)
    }

    /// zstd's level for chunks that stand alone.
    pub fn plain_level(self) -> i32 {
        match self {
            Mode::Off | Mode::Fast => 1,
            Mode::Balanced => 3,
            Mode::Deep => 9,
        }
    }

    /// Level 1 fills the reference sparsely: at 3 a delta of sixteen edits is a third smaller.
    pub fn delta_level(self) -> i32 {
        self.plain_level().max(3)
    }
}

/// Where a stream's chunks begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Cutting {
    /// Where the content says so: what was inserted before does not matter.
    #[default]
    Content,
    /// At multiples of ALIGNED_BYTES of the element's offsets: pages that are overwritten in place.
    Aligned,
}

impl Cutting {
    /// Covers `bytes`, which begin at `offset` of their element.
    pub fn chunks(self, gear: &gear::Gear, offset: u64, bytes: &[u8]) -> Vec<Range<usize>> {
        let mut chunks = Vec::with_capacity(bytes.len() / ALIGNED_BYTES + 1);
        let mut at = 0;
        while at < bytes.len() {
            let length = match self {
                Cutting::Content => gear.cut(&bytes[at..]),
                Cutting::Aligned => aligned_length(offset + at as u64).min(bytes.len() - at),
            };
            chunks.push(at..at + length);
            at += length;
        }
        chunks
    }
}

fn aligned_length(offset: u64) -> usize {
    ALIGNED_BYTES - (offset % ALIGNED_BYTES as u64) as usize
}

/// All zeros: stored nowhere.
pub fn is_zero(bytes: &[u8]) -> bool {
    let words = bytes.chunks_exact(16);
    words.remainder().iter().all(|byte| *byte == 0) && words.into_iter().all(|word| word == [0; 16])
}

#[cfg(test)]
mod tests {
    use super::gear::Gear;
    use super::*;
    use crate::device::random::Seeded;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut random = Seeded::new(seed);
        (0..length).map(|_| random.next_u64() as u8).collect()
    }

    #[test]
    fn zeros_are_seen() {
        for length in [0, 1, 15, 16, 17, 4096, 5000] {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes));
            for at in [0, length / 2, length.saturating_sub(1)].into_iter().filter(|at| *at < length) {
                bytes[at] = 1;
                assert!(!is_zero(&bytes), "{at} of {length}");
                bytes[at] = 0;
            }
        }
    }

    #[test]
    fn aligned_chunks_begin_at_multiples_of_the_element() {
        let gear = Gear::keyed(&[1; 32]);
        let chunks = Cutting::Aligned.chunks(&gear, 40_000, &noise(1, 100_000));
        assert_eq!(chunks, [0..25_536, 25_536..58_304, 58_304..91_072, 91_072..100_000]);
    }

    #[test]
    fn what_is_inserted_moves_few_cuts() {
        let gear = Gear::keyed(&[2; 32]);
        let before = noise(3, 2 << 20);
        let mut after = before.clone();
        after.splice(300_000..300_000, noise(4, 77));
        let ends = |bytes: &[u8]| -> std::collections::HashSet<usize> {
            let chunks = Cutting::Content.chunks(&gear, 0, bytes);
            chunks.iter().map(|chunk| bytes.len() - chunk.end).collect()
        };
        let (before, after) = (ends(&before), ends(&after));
        assert!(
            before.intersection(&after).count() * 4 > before.len() * 3,
            "cuts find themselves again"
        );
        let aligned = |bytes: usize| Cutting::Aligned.chunks(&gear, 0, &vec![1; bytes]).len();
        assert_eq!(aligned(2 << 20), 64);
    }

    #[test]
    fn names_of_modes_are_their_own() {
        for (name, mode) in Mode::NAMES {
            assert_eq!((Mode::from_name(name), mode.name()), (Some(mode), name));
            assert_eq!(Mode::numbered(mode.number()), Some(mode));
        }
        assert_eq!(Mode::from_name("best"), None);
    }
}
