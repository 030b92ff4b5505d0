//! Where things are: a segment's zones, a payload's place in it, and the region of zones that every device has.
//!
//! Owns the stored form of `Location` and `SegmentLayout`. Decoding checks every field that can be checked without the pool; what
//! depends on the pool's geometry is checked when the segments are opened and on each read.

use super::code::{Code, DATA_SHARDS_MAX};
use super::row::{HEADER_BYTES, PAYLOAD_ALIGN};
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};

/// Rows start and end at multiples of this.
pub const ROW_ALIGN: u64 = 4096;

/// The zones of every device of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneGeometry {
    /// Where zone 0 starts on each device.
    pub first_zone_offset: u64,
    pub zone_bytes: u64,
    pub zone_count: u32,
}

impl ZoneGeometry {
    pub fn offset(&self, zone: u32, within: u64) -> u64 {
        self.first_zone_offset + u64::from(zone) * self.zone_bytes + within
    }

    /// `row_bytes_max`: a zone that could not hold the largest row would refuse legal payloads.
    pub(super) fn check(&self, row_bytes_max: u64) -> Result<()> {
        let zones_end = u64::from(self.zone_count)
            .checked_mul(self.zone_bytes)
            .and_then(|bytes| bytes.checked_add(self.first_zone_offset));
        let fits = self.zone_bytes >= row_bytes_max && self.zone_bytes <= u64::from(u32::MAX) && zones_end.is_some();
        if fits && self.zone_bytes.is_multiple_of(ROW_ALIGN) && self.zone_count > 0 {
            Ok(())
        } else {
            Err(Error::Refused(format!(
                "a pool cannot have {} zones of {} bytes",
                self.zone_count, self.zone_bytes
            )))
        }
    }
}

/// Where one payload is. `offset` is that of its first byte (after its header) from the start of the zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Location {
    pub segment: u64,
    pub shard: u8,
    pub offset: u32,
    pub length: u32,
}

impl Location {
    /// Stored size in bytes.
    pub const ENCODED_BYTES: usize = 17;

    /// Bytes that the payload takes in its shard: header, payload, padding.
    pub fn footprint(&self) -> u64 {
        (HEADER_BYTES + (self.length as usize).next_multiple_of(PAYLOAD_ALIGN)) as u64
    }

    pub fn encode(&self, writer: &mut Writer) {
        writer.u64(self.segment).u8(self.shard).u32(self.offset).u32(self.length);
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        Self {
            segment: reader.u64()?,
            shard: reader.u8()?,
            offset: reader.u32()?,
            length: reader.u32()?,
        }
        .checked()
    }

    /// Raises Damaged unless it may be one.
    pub fn checked(self) -> Result<Self> {
        if self.shard >= DATA_SHARDS_MAX || self.offset.checked_add(self.length).is_none() {
            return Err(Error::Damaged("location is out of bounds".into()));
        }
        Ok(self)
    }
}

/// What a segment holds; decides its code and how much of the pool's reserve it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Raw extents as they arrive.
    Landing = 0,
    /// Chunks after reduction, and what compaction moved.
    Reduced = 1,
    /// Files of the metadata tree; always mirrored.
    Table = 2,
}

impl Class {
    pub const ALL: [Class; 3] = [Class::Landing, Class::Reduced, Class::Table];

    fn decode(byte: u8) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|class| *class as u8 == byte)
            .ok_or_else(|| Error::Damaged("unknown class of segment".into()))
    }
}

/// One segment: shard i lies in `zones[i]` = (device index, zone index), on k + m distinct devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentLayout {
    pub id: u64,
    pub class: Class,
    pub k: u8,
    pub m: u8,
    pub zones: Vec<(u16, u32)>,
}

impl SegmentLayout {
    pub fn encode(&self, writer: &mut Writer) {
        writer.u64(self.id).u8(self.class as u8).u8(self.k).u8(self.m);
        for (device, zone) in &self.zones {
            writer.u16(*device).u32(*zone);
        }
    }

    pub fn decode(reader: &mut Reader<'_>) -> Result<Self> {
        let (id, class, k, m) = (reader.u64()?, Class::decode(reader.u8()?)?, reader.u8()?, reader.u8()?);
        let code = Code::new(k, m).map_err(|_| Error::Damaged(format!("segment {id} has an impossible code {k}+{m}")))?;
        let zones = (0..code.shards())
            .map(|_| Ok((reader.u16()?, reader.u32()?)))
            .collect::<Result<_>>()?;
        let layout = Self { id, class, k, m, zones };
        layout.check()?;
        Ok(layout)
    }

    /// The code fits the zones, and no device is used twice.
    pub fn check(&self) -> Result<Code> {
        let damaged = || Error::Damaged(format!("segment {} has an impossible layout", self.id));
        let code = Code::new(self.k, self.m).map_err(|_| damaged())?;
        let distinct = self
            .zones
            .iter()
            .enumerate()
            .all(|(i, (device, _))| self.zones[..i].iter().all(|(other, _)| other != device));
        if distinct && self.zones.len() == code.shards() {
            Ok(code)
        } else {
            Err(damaged())
        }
    }

    pub fn devices(&self) -> impl Iterator<Item = u16> + '_ {
        self.zones.iter().map(|(device, _)| *device)
    }
}
