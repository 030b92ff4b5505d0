//! What a chunk resembles: twelve features, each the largest transform of a content-defined sample of its gear hashes (Odess, ICDE'21).
//!
//! Two chunks that share most of their bytes share most of their samples, hence some of the maxima. Equal features say "perhaps similar"; only
//! an encoded delta says how much.

use super::gear::{FEATURES, Gear};

pub type Features = [u32; FEATURES];

/// One position in 128 is a sample.
const SAMPLE_BITS: u32 = 7;
/// Fewer say nothing.
const SAMPLES_MIN: usize = 4;
/// Smaller chunks are not sketched.
pub const SKETCH_BYTES_MIN: usize = 4 << 10;
/// The hash of an earlier position depends on what was before the chunk.
const WINDOW: usize = 64;

/// None: too small or too uniform to say.
pub fn sketch(gear: &Gear, bytes: &[u8]) -> Option<Features> {
    if bytes.len() < SKETCH_BYTES_MIN {
        return None;
    }
    let (mut features, mut samples, mut hash) = ([0; FEATURES], 0, 0u64);
    for byte in &bytes[..WINDOW] {
        hash = (hash << 1).wrapping_add(gear.table[usize::from(*byte)]);
    }
    for byte in &bytes[WINDOW..] {
        hash = (hash << 1).wrapping_add(gear.table[usize::from(*byte)]);
        if hash >> (64 - SAMPLE_BITS) == 0 {
            samples += 1;
            raise(gear, &mut features, (hash >> 24) as u32);
        }
    }
    (samples >= SAMPLES_MIN).then_some(features)
}

fn raise(gear: &Gear, features: &mut Features, sample: u32) {
    for (feature, (factor, summand)) in features.iter_mut().zip(&gear.transforms) {
        *feature = (*feature).max(sample.wrapping_mul(*factor).wrapping_add(*summand));
    }
}

/// How many features two sketches share.
pub fn shared(one: &Features, other: &Features) -> usize {
    one.iter().zip(other).filter(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::random::Seeded;
    use proptest::prelude::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut random = Seeded::new(seed);
        (0..length).map(|_| random.next_u64() as u8).collect()
    }

    fn by_the_book(gear: &Gear, bytes: &[u8]) -> Option<Features> {
        let hash_at = |at: usize| {
            bytes[at - 63..=at]
                .iter()
                .fold(0u64, |hash, byte| hash.wrapping_mul(2).wrapping_add(gear.table[usize::from(*byte)]))
        };
        let samples: Vec<u32> = (WINDOW..bytes.len())
            .map(hash_at)
            .filter(|hash| hash >> 57 == 0)
            .map(|hash| (hash >> 24) as u32)
            .collect();
        let feature = |index: usize| {
            let (factor, summand) = gear.transforms[index];
            let transformed = samples.iter().map(|sample| sample.wrapping_mul(factor).wrapping_add(summand));
            transformed.max().unwrap_or(0)
        };
        (bytes.len() >= SKETCH_BYTES_MIN && samples.len() >= SAMPLES_MIN).then(|| std::array::from_fn(feature))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn features_are_the_maxima_of_the_samples(seed: u64, length in 0usize..40_000) {
            let (gear, bytes) = (Gear::keyed(&[7; 32]), noise(seed, length));
            prop_assert_eq!(sketch(&gear, &bytes), by_the_book(&gear, &bytes));
        }
    }

    #[test]
    fn similar_chunks_share_features_and_others_do_not() {
        let gear = Gear::keyed(&[3; 32]);
        let bytes = noise(1, 40_000);
        let mut edited = bytes.clone();
        edited.splice(9_000..9_010, noise(2, 300));
        edited[30_000] ^= 1;
        let (one, two) = (sketch(&gear, &bytes).unwrap(), sketch(&gear, &edited).unwrap());
        assert!(shared(&one, &two) >= 9, "{}", shared(&one, &two));
        assert_eq!(shared(&one, &sketch(&gear, &noise(9, 40_000)).unwrap()), 0);
        assert_eq!(sketch(&gear, &[0; 40_000]), None, "uniform bytes have no samples");
    }
}
