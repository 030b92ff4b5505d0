//! The bytes of a stored chunk: raw, a zstd frame, or a zstd frame whose window begins with one or two reference chunks.
//!
//! Frames are stored without their magic number. A delta ends in the low 32 bits of the xxh3-64 of its plain bytes, so that a wrong reference
//! can never give wrong bytes. Invariants: encoders are deterministic for one version of zstd; a delta is decoded and compared before it is
//! stored; decoders write no more than they were given room for.

use crate::codec::checksum;
use crate::error::{Error, Result};
use std::cell::RefCell;
use zstd::zstd_safe::{CCtx, DCtx, compress_bound};

const MAGIC: [u8; 4] = 0xfd2f_b528_u32.to_le_bytes();
const SUM_BYTES: usize = 4;

thread_local! {
    /// Contexts are worth keeping: making one costs as much as decoding a chunk.
    static DECODER: RefCell<(DCtx<'static>, Vec<u8>)> = RefCell::new((DCtx::create(), Vec::new()));
}

fn damaged(code: usize) -> Error {
    Error::Damaged(format!("chunk: {}", zstd::zstd_safe::get_error_name(code)))
}

/// Runs `work` on the whole frame, magic number included.
fn decode(stored: &[u8], into: &mut [u8], work: impl FnOnce(&mut DCtx, &[u8], &mut [u8]) -> zstd::zstd_safe::SafeResult) -> Result<()> {
    DECODER.with_borrow_mut(|(context, frame)| {
        frame.clear();
        frame.extend_from_slice(&MAGIC);
        frame.extend_from_slice(stored);
        match work(context, frame, into).map_err(damaged)? {
            length if length == into.len() => Ok(()),
            length => Err(Error::Damaged(format!(
                "a chunk has {length} bytes where {} are expected",
                into.len()
            ))),
        }
    })
}

/// Raises Damaged.
pub fn decode_plain(stored: &[u8], into: &mut [u8]) -> Result<()> {
    decode(stored, into, |context, frame, into| context.decompress(into, frame))
}

/// `references`: as they were given to `delta`. Raises Damaged.
pub fn decode_delta(stored: &[u8], references: &[u8], into: &mut [u8]) -> Result<()> {
    let (frame, sum) = stored
        .split_last_chunk::<SUM_BYTES>()
        .ok_or_else(|| Error::Damaged("a delta is too short".into()))?;
    decode(frame, into, |context, frame, into| {
        context.decompress_using_dict(into, frame, references)
    })?;
    if sum_of(into) == *sum {
        Ok(())
    } else {
        Err(Error::Damaged("a delta does not fit its references".into()))
    }
}

fn sum_of(plain: &[u8]) -> [u8; SUM_BYTES] {
    (checksum(plain) as u32).to_le_bytes()
}

/// What one thread encodes with.
pub struct Encoder {
    context: CCtx<'static>,
    room: Vec<u8>,
    decoded: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            context: CCtx::create(),
            room: Vec::new(),
            decoded: Vec::new(),
        }
    }
}

impl Encoder {
    fn encode(&mut self, plain: &[u8], work: impl FnOnce(&mut CCtx, &mut Vec<u8>) -> zstd::zstd_safe::SafeResult) -> Result<Vec<u8>> {
        self.room.clear();
        self.room.reserve(compress_bound(plain.len()));
        work(&mut self.context, &mut self.room).map_err(damaged)?;
        match self.room.strip_prefix(&MAGIC) {
            Some(frame) => Ok(frame.to_vec()),
            None => Err(Error::Invalid("zstd made no frame".into())),
        }
    }

    pub fn plain(&mut self, plain: &[u8], level: i32) -> Result<Vec<u8>> {
        self.encode(plain, |context, room| context.compress(room, plain, level))
    }

    /// None if it cannot be decoded with these references: bytes that happen to look like a trained dictionary.
    pub fn delta(&mut self, plain: &[u8], references: &[u8], level: i32) -> Result<Option<Vec<u8>>> {
        let encoded = self.encode(plain, |context, room| context.compress_using_dict(room, plain, references, level));
        let Ok(mut stored) = encoded else { return Ok(None) };
        stored.extend_from_slice(&sum_of(plain));
        let mut decoded = std::mem::take(&mut self.decoded);
        decoded.clear();
        decoded.resize(plain.len(), 0);
        let fits = decode_delta(&stored, references, &mut decoded).is_ok() && decoded == plain;
        self.decoded = decoded;
        Ok(fits.then_some(stored))
    }
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn what_is_encoded_is_decoded(seed: u64, length in 0usize..70_000, alphabet in 1u8..=255, edits in prop::collection::vec((any::<u16>(), any::<u8>()), 0..20)) {
            let plain: Vec<u8> = noise(seed, length).iter().map(|byte| byte % alphabet).collect();
            let mut reference = plain.clone();
            for (at, value) in edits {
                if let Some(byte) = reference.get_mut(usize::from(at)) {
                    *byte = value;
                }
            }
            let mut encoder = Encoder::default();
            let mut decoded = vec![1; length];
            for level in [1, 3, 9] {
                decode_plain(&encoder.plain(&plain, level).unwrap(), &mut decoded).unwrap();
                prop_assert_eq!(&decoded, &plain);
                if let Some(stored) = encoder.delta(&plain, &reference, level).unwrap() {
                    decode_delta(&stored, &reference, &mut decoded).unwrap();
                    prop_assert_eq!(&decoded, &plain);
                }
            }
        }

        #[test]
        fn foreign_bytes_are_an_error_or_nothing(stored in prop::collection::vec(any::<u8>(), 0..300), room in 0usize..5000) {
            let mut into = vec![0; room];
            let _ = decode_plain(&stored, &mut into);
            let _ = decode_delta(&stored, &noise(1, 500), &mut into);
            let mut framed = vec![0x20, room as u8];
            framed.extend_from_slice(&stored);
            let _ = decode_plain(&framed, &mut into);
        }
    }

    #[test]
    fn a_delta_against_a_similar_chunk_is_tiny_and_needs_that_chunk() {
        let reference = noise(1, 40_000);
        let mut plain = reference.clone();
        plain[7_000] ^= 9;
        plain.splice(20_000..20_000, *b"inserted");
        let mut encoder = Encoder::default();
        let stored = encoder.delta(&plain, &reference, 3).unwrap().unwrap();
        assert!(stored.len() < 120, "{}", stored.len());
        let mut decoded = vec![0; plain.len()];
        let mut wrong = reference.clone();
        wrong[100] ^= 1;
        assert!(matches!(decode_delta(&stored, &wrong, &mut decoded), Err(Error::Damaged(_))));
        decode_delta(&stored, &reference, &mut decoded).unwrap();
        assert_eq!(decoded, plain);
    }

    /// zstd takes bytes that begin with this number for a trained dictionary, and refuses them if they are none.
    #[test]
    fn a_reference_that_looks_like_a_dictionary_does_no_harm() {
        let mut reference = noise(1, 40_000);
        reference[..4].copy_from_slice(&0xec30_a437_u32.to_le_bytes());
        let plain = reference.clone();
        let mut encoder = Encoder::default();
        if let Some(stored) = encoder.delta(&plain, &reference, 3).unwrap() {
            let mut decoded = vec![0; plain.len()];
            decode_delta(&stored, &reference, &mut decoded).unwrap();
            assert_eq!(decoded, plain);
        }
    }
}
