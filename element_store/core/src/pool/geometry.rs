//! Where things lie on a device: equal on all devices of a pool, chosen at format, kept in the superblock. FORMAT section 1.

use crate::error::{Error, Result};

pub const SUPERBLOCK_BYTES: u64 = 4096;
/// The checkpoint roots start here.
pub const ROOTS_OFFSET: u64 = 64 << 10;
/// Roots, journal and zones are multiples of it.
pub const BLOCK_BYTES: u64 = 4096;
/// The journal cannot be smaller: a record with a body of an eighth of it must fit several times.
pub const JOURNAL_BYTES_MIN: u64 = 64 << 10;
/// Offsets in zones are u32 in the format.
pub const ZONE_BYTES_MAX: u64 = 1 << 30;
/// Fewer zones leave nothing to write to while a segment is compacted.
pub const ZONE_COUNT_MIN: u64 = 4;
/// Zone indexes are u32 in the format.
pub const ZONE_COUNT_MAX: u64 = u32::MAX as u64;

const ROOT_BYTES_DEFAULT: u64 = 4 << 20;
const JOURNAL_BYTES_DEFAULT_MIN: u64 = 16 << 20;
const JOURNAL_BYTES_DEFAULT_MAX: u64 = 256 << 20;
const JOURNAL_SHARE: u64 = 32;
const ZONE_BYTES_DEFAULT: u64 = 16 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    pub root_bytes: u64,
    pub journal_bytes: u64,
    pub zone_bytes: u64,
    pub zone_count: u64,
}

impl Geometry {
    /// The default for devices of which the smallest has this length. Raises Refused if it is too small.
    pub fn for_length(length: u64) -> Result<Self> {
        let journal = (length / JOURNAL_SHARE).clamp(JOURNAL_BYTES_DEFAULT_MIN, JOURNAL_BYTES_DEFAULT_MAX) / BLOCK_BYTES * BLOCK_BYTES;
        Self::fitted(length, ROOT_BYTES_DEFAULT, journal, ZONE_BYTES_DEFAULT)
    }

    /// Small enough for simulations on devices from 4 MiB.
    pub fn small(length: u64) -> Result<Self> {
        Self::fitted(length, 256 << 10, 1 << 20, 256 << 10)
    }

    /// As many zones as fit. Raises Refused.
    pub fn fitted(length: u64, root_bytes: u64, journal_bytes: u64, zone_bytes: u64) -> Result<Self> {
        let mut geometry = Self {
            root_bytes,
            journal_bytes,
            zone_bytes,
            zone_count: ZONE_COUNT_MIN,
        };
        geometry.check()?;
        let needed = geometry.end();
        if length < needed {
            return Err(Error::Refused(format!(
                "a device of {length} bytes is too small; at least {needed} bytes are needed"
            )));
        }
        geometry.zone_count = ((length - geometry.zones_offset()) / zone_bytes).min(ZONE_COUNT_MAX);
        Ok(geometry)
    }

    /// Are these numbers ones that the offsets below can be computed from? Raises Refused.
    pub fn check(&self) -> Result<()> {
        const REGION_BYTES_MAX: u64 = 1 << 40;
        let whole = |bytes: u64, least: u64, most: u64| bytes.is_multiple_of(BLOCK_BYTES) && (least..=most).contains(&bytes);
        let sound = whole(self.root_bytes, BLOCK_BYTES, REGION_BYTES_MAX)
            && whole(self.journal_bytes, JOURNAL_BYTES_MIN, REGION_BYTES_MAX)
            && whole(self.zone_bytes, BLOCK_BYTES, ZONE_BYTES_MAX)
            && (1..=ZONE_COUNT_MAX).contains(&self.zone_count);
        if sound {
            Ok(())
        } else {
            Err(Error::Refused(format!(
                "the geometry {self:?} is out of bounds; choose another one"
            )))
        }
    }

    pub fn superblock_offset(slot: u64) -> u64 {
        (slot % 2) * SUPERBLOCK_BYTES
    }

    pub fn root_offset(&self, slot: u64) -> u64 {
        ROOTS_OFFSET + (slot % 2) * self.root_bytes
    }

    pub fn journal_offset(&self) -> u64 {
        ROOTS_OFFSET + 2 * self.root_bytes
    }

    pub fn zones_offset(&self) -> u64 {
        (self.journal_offset() + self.journal_bytes).next_multiple_of(self.zone_bytes)
    }

    pub fn zone_offset(&self, zone: u32) -> u64 {
        self.zones_offset() + u64::from(zone) * self.zone_bytes
    }

    /// A device must be at least this long.
    pub fn end(&self) -> u64 {
        self.zones_offset() + self.zone_count * self.zone_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_follow_one_another_and_fit() {
        for length in [128 << 20, 1 << 30, 10 << 30, 8 << 40] {
            let geometry = Geometry::for_length(length).unwrap();
            geometry.check().unwrap();
            assert!(geometry.root_offset(1) + geometry.root_bytes == geometry.journal_offset() && geometry.end() <= length);
            assert!(geometry.zones_offset().is_multiple_of(geometry.zone_bytes) && length - geometry.end() < geometry.zone_bytes);
        }
        assert_eq!(Geometry::for_length(8 << 40).unwrap().journal_bytes, 256 << 20);
        assert_eq!(Geometry::small(16 << 20).unwrap().journal_bytes, 1 << 20);
    }

    #[test]
    fn too_small_a_device_is_told_what_is_needed() {
        for message in [
            Geometry::for_length(10 << 20).unwrap_err().to_string(),
            Geometry::small(1 << 20).unwrap_err().to_string(),
        ] {
            assert!(message.contains("too small; at least") && !message.contains('\n'), "{message}");
        }
    }
}
