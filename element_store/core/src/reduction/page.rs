//! A page of the index: up to 64 chunks in the order in which they came, with fingerprints and features. A metadata row (`docs/FORMAT.md` §5).
//!
//! A page lives as long as one of its chunks; entries of chunks that are gone stay in it and mean nothing. A delta's features lead to its first
//! reference, since it can be none itself.

use super::sketch::Features;
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};

pub const PAGE_ENTRIES: usize = 64;
/// One in so many features and fingerprints is hooked; the rest is found because what is alike comes in runs.
const HOOKED_ONE_IN: u64 = 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageEntry {
    pub chunk: u64,
    /// What a similar chunk should refer to: this one, or its reference if it is a delta.
    pub reference: u64,
    pub fingerprint: [u8; 32],
    pub features: Option<Features>,
}

fn mixed(value: u64) -> u64 {
    let mut value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// One number for a feature and its index.
pub fn feature_hash(index: usize, feature: u32) -> u64 {
    mixed((index as u64) << 32 | u64::from(feature))
}

/// Its first eight bytes: it is keyed, so nobody can choose them.
pub fn fingerprint_hash(fingerprint: &[u8; 32]) -> u64 {
    u64::from_be_bytes(std::array::from_fn(|index| fingerprint[index]))
}

pub fn is_hooked(hash: u64) -> bool {
    hash.is_multiple_of(HOOKED_ONE_IN)
}

/// Both kinds of hashes of an entry.
pub fn feature_hashes(features: &Features) -> impl Iterator<Item = u64> + '_ {
    features.iter().enumerate().map(|(index, feature)| feature_hash(index, *feature))
}

/// `first`: the first of its stream, whose fingerprint is hooked so that even a small object is found again.
pub fn hooks(entry: &PageEntry, first: bool) -> impl Iterator<Item = u64> + '_ {
    let own = fingerprint_hash(&entry.fingerprint);
    let features = entry.features.iter().flat_map(feature_hashes).filter(|hash| is_hooked(*hash));
    features.chain((first || is_hooked(own)).then_some(own))
}

fn zigzag(from: u64, to: u64) -> u64 {
    let difference = to.wrapping_sub(from) as i64;
    ((difference << 1) ^ (difference >> 63)) as u64
}

fn unzigzag(from: u64, value: u64) -> u64 {
    from.wrapping_add((value >> 1) ^ (value & 1).wrapping_neg())
}

const FEATURES_FOLLOW: u8 = 1;
const REFERENCE_FOLLOWS: u8 = 2;

/// Entries of a page as they stand in its row, after the row's head.
pub fn encode(entries: &[PageEntry], writer: &mut Writer) {
    writer.varint(entries.len() as u64);
    let mut last = 0;
    for entry in entries {
        let features = if entry.features.is_some() { FEATURES_FOLLOW } else { 0 };
        let reference = if entry.reference == entry.chunk { 0 } else { REFERENCE_FOLLOWS };
        writer
            .u8(features | reference)
            .varint(zigzag(last, entry.chunk))
            .raw(&entry.fingerprint);
        if reference != 0 {
            writer.varint(entry.reference);
        }
        entry.features.iter().flatten().for_each(|feature| {
            writer.u32(*feature);
        });
        last = entry.chunk;
    }
}

/// Raises Damaged.
pub fn decode(reader: &mut Reader<'_>) -> Result<Vec<PageEntry>> {
    let count = reader.varint()?;
    if count > PAGE_ENTRIES as u64 {
        return Err(Error::Damaged("a page of the index is too long".into()));
    }
    let (mut entries, mut last) = (Vec::with_capacity(count as usize), 0);
    for _ in 0..count {
        let flags = reader.u8()?;
        let chunk = unzigzag(last, reader.varint()?);
        let fingerprint = reader.array()?;
        let reference = if flags & REFERENCE_FOLLOWS != 0 { reader.varint()? } else { chunk };
        let mut features = None;
        if flags & FEATURES_FOLLOW != 0 {
            let mut read = Features::default();
            for feature in &mut read {
                *feature = reader.u32()?;
            }
            features = Some(read);
        }
        entries.push(PageEntry {
            chunk,
            reference,
            fingerprint,
            features,
        });
        last = chunk;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = PageEntry> {
        (any::<u64>(), any::<Option<u64>>(), any::<[u8; 32]>(), any::<Option<Features>>()).prop_map(
            |(chunk, reference, fingerprint, features)| PageEntry {
                chunk,
                reference: reference.unwrap_or(chunk),
                fingerprint,
                features,
            },
        )
    }

    proptest! {
        #[test]
        fn pages_come_back(entries in prop::collection::vec(entry(), 0..=PAGE_ENTRIES)) {
            let mut writer = Writer::new();
            encode(&entries, &mut writer);
            prop_assert!(writer.bytes.len() < crate::meta::VALUE_BYTES_MAX);
            let mut reader = Reader::new(&writer.bytes);
            prop_assert_eq!(decode(&mut reader).unwrap(), entries);
            prop_assert_eq!(reader.remaining(), 0);
        }

        #[test]
        fn foreign_pages_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&mut Reader::new(&bytes));
        }
    }
}
