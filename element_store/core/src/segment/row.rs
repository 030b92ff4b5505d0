//! Packing payloads into rows: pure functions from payloads to shard bytes, and back from headers.
//!
//! A row is a pure function of its payloads (headers, payloads, zeros, parity), which is what lets scrubbing rebuild it exactly.

use super::code::Code;
use super::layout::ROW_ALIGN;
use crate::codec::{Reader, Writer, checksum};
use crate::device::aligned::Aligned;
use crate::error::{Error, Result};
use std::ops::DerefMut;

pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
pub const HEADER_BYTES: usize = 48;
/// One largest payload with its header, rounded up.
pub const ROW_BYTES_MAX: u64 = PAYLOAD_BYTES_MAX as u64 + ROW_ALIGN;
pub const PAYLOAD_ALIGN: usize = 8;
const MAGIC: &[u8; 4] = b"TRFP";

/// One thing to store. `owner` is the caller's: the id under which its metadata row is found when a segment is compacted.
#[derive(Debug, Clone, Copy)]
pub struct Payload<'a> {
    pub kind: u8,
    pub owner: u64,
    pub bytes: &'a [u8],
}

/// Precedes every payload and makes a segment readable without metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadHeader {
    pub kind: u8,
    /// Tells rows of this segment from what an earlier segment left in the same zones.
    pub segment: u64,
    pub owner: u64,
    pub length: u32,
    /// Height of the payload's row, so that a scan finds the next row even behind damage.
    pub row_bytes: u32,
    /// xxh3-64 of the payload.
    pub checksum: u64,
}

impl PayloadHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(MAGIC).u8(self.kind).raw(&[0; 3]).u64(self.segment).u64(self.owner);
        writer.u32(self.length).u32(self.row_bytes).u64(self.checksum);
        let sum = checksum(&writer.bytes);
        writer.u64(sum);
        writer.bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let magic = reader.array::<4>()?;
        let kind = reader.u8()?;
        let zero = reader.array::<3>()?;
        let (segment, owner) = (reader.u64()?, reader.u64()?);
        let header = Self {
            kind,
            segment,
            owner,
            length: reader.u32()?,
            row_bytes: reader.u32()?,
            checksum: reader.u64()?,
        };
        let sum = reader.u64()?;
        reader.finish()?;
        let row_bytes = u64::from(header.row_bytes);
        let plausible = header.length as usize <= PAYLOAD_BYTES_MAX
            && row_bytes <= ROW_BYTES_MAX
            && row_bytes.is_multiple_of(ROW_ALIGN)
            && slot_bytes(header.length as usize) as u64 <= row_bytes;
        if &magic == MAGIC && zero == [0; 3] && plausible && checksum(&bytes[..HEADER_BYTES - 8]) == sum {
            Ok(header)
        } else {
            Err(Error::Damaged("payload header fails its check".into()))
        }
    }
}

/// What a payload takes in a shard.
pub(super) fn slot_bytes(length: usize) -> usize {
    HEADER_BYTES + length.next_multiple_of(PAYLOAD_ALIGN)
}

/// Which shard and which offset (of the header) in the row each of the first payloads gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RowPlan {
    pub row_bytes: usize,
    pub places: Vec<(usize, usize)>,
}

/// As many leading payloads as fit k shards of at most `bytes_max`, in the lowest row that holds them. None if not even one fits.
pub(super) fn plan(payloads: &[Payload<'_>], k: usize, bytes_max: usize) -> Option<RowPlan> {
    let count = fill(payloads, k, bytes_max).len();
    let align = ROW_ALIGN as usize;
    let (mut low, mut high) = (1, bytes_max / align);
    if count == 0 {
        return None;
    }
    while low < high {
        let middle = (low + high) / 2;
        if fill(&payloads[..count], k, middle * align).len() == count {
            high = middle
        } else {
            low = middle + 1
        }
    }
    Some(RowPlan {
        row_bytes: high * align,
        places: fill(&payloads[..count], k, high * align),
    })
}

/// Payloads in order, shard by shard, each shard up to `bytes`; stops at the first that fits nowhere.
fn fill(payloads: &[Payload<'_>], k: usize, bytes: usize) -> Vec<(usize, usize)> {
    let (mut shard, mut used, mut places) = (0, 0, Vec::new());
    for payload in payloads {
        let slot = slot_bytes(payload.bytes.len());
        if used + slot > bytes {
            (shard, used) = (shard + 1, 0);
        }
        if shard == k || slot > bytes {
            break;
        }
        places.push((shard, used));
        used += slot;
    }
    places
}

/// All k + m shards of a row.
pub(super) fn build(code: Code, segment: u64, plan: &RowPlan, payloads: &[Payload<'_>]) -> Vec<Aligned> {
    let mut shards: Vec<Aligned> = (0..code.shards()).map(|_| Aligned::zeroed(plan.row_bytes)).collect();
    for ((shard, at), payload) in plan.places.iter().zip(payloads) {
        let header = PayloadHeader {
            kind: payload.kind,
            segment,
            owner: payload.owner,
            length: payload.bytes.len() as u32,
            row_bytes: plan.row_bytes as u32,
            checksum: checksum(payload.bytes),
        };
        let (head, body) = shards[*shard][*at..].split_at_mut(HEADER_BYTES);
        head.copy_from_slice(&header.encode());
        body[..payload.bytes.len()].copy_from_slice(payload.bytes);
    }
    encode_parity(code, &mut shards);
    shards
}

/// Fills the last m of k + m shards.
pub(super) fn encode_parity<S: DerefMut<Target: AsRef<[u8]> + AsMut<[u8]>>>(code: Code, shards: &mut [S]) {
    let (data, parity) = shards.split_at_mut(code.k());
    let data: Vec<&[u8]> = data.iter().map(|shard| shard.as_ref()).collect();
    let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(|shard| shard.as_mut()).collect();
    code.encode(&data, &mut parity);
}
