//! Packs: many chunks in one payload of a segment, so that a small delta does not pay for a payload's header and padding.
//!
//! A pack begins with a directory: count varint, then for each chunk its id (difference to the one before, zigzag varint) and stored length varint; then
//! their bytes in that order. Metadata names each chunk's bytes directly; the directory is for whoever walks a segment. Invariant: a pack
//! lies in one payload, hence in one shard; its chunks are found by its bytes alone.

use super::Core;
use super::landing::Hold;
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};
use crate::segment::{Class, Location, PAYLOAD_BYTES_MAX, Payload, PayloadHeader};

/// `PayloadHeader::kind` of a pack; its owner is its first chunk.
pub const KIND_PACK: u8 = 1;
/// Larger ones would save no more headers.
const PACK_BYTES: usize = 256 << 10;
/// Smaller ones are not made only to fill all shards of a row.
const PACK_BYTES_MIN: usize = 4 << 10;
/// Appends again after a device died before the flush.
const ATTEMPTS_MAX: usize = 4;

/// Its bytes, and for each chunk where its own begin.
struct Pack {
    owner: u64,
    bytes: Vec<u8>,
    places: Vec<(usize, usize)>,
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> u64 {
    (value >> 1) ^ (value & 1).wrapping_neg()
}

fn pack<B: AsRef<[u8]>>(chunks: &[(u64, B)]) -> Pack {
    let mut directory = Writer::new();
    directory.varint(chunks.len() as u64);
    let mut last = 0u64;
    for (id, bytes) in chunks {
        directory
            .varint(zigzag(id.wrapping_sub(last) as i64))
            .varint(bytes.as_ref().len() as u64);
        last = *id;
    }
    let mut bytes = directory.bytes;
    let mut places = Vec::with_capacity(chunks.len());
    for (_, stored) in chunks {
        places.push((bytes.len(), stored.as_ref().len()));
        bytes.extend_from_slice(stored.as_ref());
    }
    Pack {
        owner: chunks.first().map_or(0, |(id, _)| *id),
        bytes,
        places,
    }
}

/// Chunks of a pack: id, and where in the pack its bytes are. Raises Damaged.
pub fn directory(bytes: &[u8]) -> Result<Vec<(u64, std::ops::Range<usize>)>> {
    let mut reader = Reader::new(bytes);
    let (count, mut last, mut listed) = (reader.varint()?, 0u64, Vec::new());
    for _ in 0..count {
        last = last.wrapping_add(unzigzag(reader.varint()?));
        listed.push((last, reader.varint()?));
    }
    let mut at = bytes.len() - reader.remaining();
    let place = |(id, length): (u64, u64)| {
        let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length));
        let end = end
            .filter(|end| *end <= bytes.len())
            .ok_or_else(|| Error::Damaged("a pack ends early".into()))?;
        Ok((id, std::mem::replace(&mut at, end)..end))
    };
    listed.into_iter().map(place).collect()
}

/// Where a part of a payload is.
pub fn place(payload: &Location, range: &std::ops::Range<usize>) -> Location {
    Location {
        offset: payload.offset + range.start as u32,
        length: range.len() as u32,
        ..*payload
    }
}

/// So many chunks to each pack that the packs fill the shards of their rows evenly.
fn split<B: AsRef<[u8]>>(chunks: &[(u64, B)], shards: usize) -> Vec<&[(u64, B)]> {
    const ENTRY_BYTES_MAX: usize = 20;
    let size = |(_, bytes): &(u64, B)| bytes.as_ref().len() + ENTRY_BYTES_MAX;
    let total: usize = chunks.iter().map(size).sum();
    let rounds = total.div_ceil(shards * PACK_BYTES).max(1);
    let wanted = total.div_ceil(shards * rounds).max(PACK_BYTES_MIN);
    let (mut packs, mut from, mut bytes) = (Vec::new(), 0, 0);
    for (index, chunk) in chunks.iter().enumerate() {
        if bytes > 0 && bytes + size(chunk) / 2 > wanted {
            packs.push(&chunks[from..index]);
            (from, bytes) = (index, 0);
        }
        bytes += size(chunk);
    }
    packs.push(&chunks[from..]);
    packs
}

impl Core {
    /// Packed, appended and flushed; again as a whole if a device was lost in between. Where each chunk is, in their order.
    pub(super) fn store_chunks<B: AsRef<[u8]>>(&self, hold: &mut Hold, chunks: &[(u64, B)]) -> Result<Vec<Location>> {
        if chunks.is_empty() {
            return Ok(Vec::new());
        }
        let shards = self.segments.code(Class::Reduced).k();
        let packs: Vec<Pack> = split(chunks, shards).into_iter().map(pack).collect();
        debug_assert!(packs.iter().all(|pack| pack.bytes.len() <= PAYLOAD_BYTES_MAX));
        let payloads: Vec<Payload> = packs
            .iter()
            .map(|pack| Payload {
                kind: KIND_PACK,
                owner: pack.owner,
                bytes: &pack.bytes,
            })
            .collect();
        for _ in 0..ATTEMPTS_MAX {
            let locations = hold.append(|| self.append(Class::Reduced, &payloads))?;
            match self.segments.sync(&locations) {
                Err(Error::Io(_)) => {}
                result => return result.map(|()| places(&packs, &locations)),
            }
        }
        Err(Error::Closed("devices keep failing under reduced content".into()))
    }

    /// The whole of a pack that a walk found.
    pub(super) fn read_pack(&self, location: &Location, header: &PayloadHeader) -> Result<Vec<u8>> {
        self.segments.read(location, 0..location.length, header.checksum)
    }
}

fn places(packs: &[Pack], locations: &[Location]) -> Vec<Location> {
    let of_pack = |(pack, location): (&Pack, &Location)| -> Vec<Location> {
        let range = |(start, length): &(usize, usize)| *start..start + length;
        pack.places.iter().map(|found| place(location, &range(found))).collect()
    };
    packs.iter().zip(locations).flat_map(of_pack).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packs_list_what_is_in_them(chunks in prop::collection::vec((any::<u64>(), prop::collection::vec(any::<u8>(), 0..200)), 0..50)) {
            let pack = pack(&chunks);
            let listed = directory(&pack.bytes).unwrap();
            let found: Vec<(u64, Vec<u8>)> = listed.iter().map(|(id, range)| (*id, pack.bytes[range.clone()].to_vec())).collect();
            prop_assert_eq!(found, chunks);
            let ranges: Vec<_> = pack.places.iter().map(|(start, length)| *start..start + length).collect();
            prop_assert_eq!(listed.into_iter().map(|(_, range)| range).collect::<Vec<_>>(), ranges);
        }

        #[test]
        fn foreign_packs_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(listed) = directory(&bytes) {
                prop_assert!(listed.iter().all(|(_, range)| range.end <= bytes.len()));
            }
        }

        #[test]
        fn all_chunks_are_packed_within_bounds(lengths in prop::collection::vec(0usize..65_536, 1..200), shards in 1usize..8) {
            let chunks: Vec<(u64, Vec<u8>)> = lengths.iter().enumerate().map(|(index, length)| (index as u64, vec![0; *length])).collect();
            let packs = split(&chunks, shards);
            prop_assert_eq!(packs.concat(), chunks.clone());
            prop_assert!(packs.iter().all(|chunks| pack(chunks).bytes.len() <= PAYLOAD_BYTES_MAX));
        }
    }
}
