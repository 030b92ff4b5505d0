//! One record's bytes. FORMAT section 2 draws them.
//!
//! The header's checksum also covers the pool's secret, so that neither another pool's record nor a client's payload that looks like one is ever taken for ours.

use super::Start;
use crate::codec::{Reader, Writer, checksum};
use crate::pool::superblock::RECORD_MAGIC;

pub const HEADER_BYTES: usize = 64;
/// Records start and end at multiples of it.
pub const ALIGNMENT: u64 = 4096;

const CHECKED: usize = HEADER_BYTES - 8;
const _: () = assert!(8 + 8 + 8 + 8 + 4 + 4 + 8 + 8 == CHECKED);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub position: u64,
    pub sequence: u64,
    pub membership_epoch: u64,
    pub body_bytes: u32,
    /// So many records right before it were not known to be flushed when it was written: power loss may take them and leave it.
    pub unflushed: u32,
    /// The checksum of the record before this one; 0 for the first.
    pub previous_checksum: u64,
    pub body_checksum: u64,
}

/// What a record with this body takes in the ring.
pub fn padded_bytes(body_bytes: usize) -> u64 {
    ((HEADER_BYTES + body_bytes) as u64).next_multiple_of(ALIGNMENT)
}

impl Header {
    /// The record's checksum: through the header it covers the body and, by the chain, everything before.
    pub fn encode(&self, secret: &[u8; 32]) -> (Vec<u8>, u64) {
        let mut writer = Writer::new();
        writer
            .raw(RECORD_MAGIC)
            .u64(self.position)
            .u64(self.sequence)
            .u64(self.membership_epoch)
            .u32(self.body_bytes)
            .u32(self.unflushed);
        writer.u64(self.previous_checksum).u64(self.body_checksum);
        let sum = keyed_checksum(&writer.bytes, secret);
        writer.u64(sum);
        (writer.bytes, sum)
    }

    /// The header and its checksum, if these bytes begin with one of this pool.
    pub fn from_bytes(bytes: &[u8], secret: &[u8; 32]) -> Option<(Self, u64)> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let mut reader = Reader::new(bytes);
        if reader.raw(8).ok()? != RECORD_MAGIC {
            return None;
        }
        let (position, sequence, membership_epoch) = (reader.u64().ok()?, reader.u64().ok()?, reader.u64().ok()?);
        let (body_bytes, unflushed) = (reader.u32().ok()?, reader.u32().ok()?);
        let (previous_checksum, body_checksum, sum) = (reader.u64().ok()?, reader.u64().ok()?, reader.u64().ok()?);
        let sound = position.is_multiple_of(ALIGNMENT) && sum == keyed_checksum(&bytes[..CHECKED], secret);
        sound.then_some((
            Self {
                position,
                sequence,
                membership_epoch,
                body_bytes,
                unflushed,
                previous_checksum,
                body_checksum,
            },
            sum,
        ))
    }

    pub fn padded_bytes(&self) -> u64 {
        padded_bytes(self.body_bytes as usize)
    }
}

/// A whole record, padded, and its checksum.
pub fn encode(start: &Start, membership_epoch: u64, unflushed: u32, body: &[u8], secret: &[u8; 32]) -> (Vec<u8>, u64) {
    let body_bytes = u32::try_from(body.len()).expect("the bound of a body is far below 4 GiB");
    let header = Header {
        position: start.position,
        sequence: start.sequence,
        membership_epoch,
        body_bytes,
        unflushed,
        previous_checksum: start.previous_checksum,
        body_checksum: checksum(body),
    };
    let padded = padded_bytes(body.len()) as usize;
    let (head, sum) = header.encode(secret);
    let mut record = Vec::with_capacity(padded);
    record.extend_from_slice(&head);
    record.extend_from_slice(body);
    record.resize(padded, 0);
    (record, sum)
}

fn keyed_checksum(bytes: &[u8], secret: &[u8; 32]) -> u64 {
    let mut keyed = [0; CHECKED + 32];
    keyed[..CHECKED].copy_from_slice(bytes);
    keyed[CHECKED..].copy_from_slice(secret);
    checksum(&keyed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Header::from_bytes(&bytes, &[1; 32]).is_none());
        }

        #[test]
        fn every_changed_bit_is_noticed(body in proptest::collection::vec(any::<u8>(), 0..6000), position in 0u64..1000, bit in 0usize..512) {
            let start = Start { position: position * ALIGNMENT, sequence: 3, previous_checksum: 5 };
            let (mut record, sum) = encode(&start, 4, 6, &body, &[1; 32]);
            prop_assert_eq!(record.len() as u64, padded_bytes(body.len()));
            let (header, parsed) = Header::from_bytes(&record, &[1; 32]).unwrap();
            prop_assert_eq!((header.position, header.body_bytes as usize, header.unflushed, parsed), (position * ALIGNMENT, body.len(), 6, sum));
            prop_assert!(Header::from_bytes(&record, &[2; 32]).is_none());
            record[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Header::from_bytes(&record, &[1; 32]).is_none());
        }
    }
}
