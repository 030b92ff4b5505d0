//! The superblock: what a device says about itself and its pool. FORMAT section 1 draws it.
//!
//! Two slots, written alternately, so that a torn write leaves the older one. `from_bytes` takes any 4096 bytes and checks every field before use.

use std::fmt;

use super::code::Code;
use super::geometry::{Geometry, SUPERBLOCK_BYTES};
use crate::codec::{Reader, Writer, checksum};
use crate::device::Device;
use crate::error::{Error, Result};

pub const MAGIC: &[u8; 8] = b"TREFOIL1";
pub const VERSION: u32 = 5;
/// Devices of one pool at most.
pub const DEVICES_MAX: usize = 128;
/// Flags of optional features that this version understands: none yet.
const FEATURES_KNOWN: u32 = 0;
/// What checkpoint roots and journal records begin with, at multiples of SLOT: where one stands, the device was ours.
pub const ROOT_MAGIC: &[u8; 8] = b"TREFROOT";
pub const RECORD_MAGIC: &[u8; 8] = b"TREFJRNL";
const MARKS: [&[u8]; 2] = [ROOT_MAGIC, RECORD_MAGIC];
/// A device whose first bytes are not ours and not zero holds somebody's data.
pub const FOREIGN_CHECK_BYTES: usize = 1 << 20;

const SLOT: usize = SUPERBLOCK_BYTES as usize;
const CHECKED: usize = SLOT - 8;
const FIXED_BYTES: usize = 8 + 4 + 4 + 16 + 16 + 2 + 2 + 1 + 1 + 4 * 8 + 8 + 8 + 16 + 32;
const _: () = assert!(FIXED_BYTES == 150);
const _: () = assert!(
    FIXED_BYTES + 1 + DEVICES_MAX * 2 + DEVICES_MAX * 17 <= CHECKED,
    "the largest pool fits one slot"
);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.0.iter().enumerate() {
            let dash = if matches!(position, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(formatter, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub uuid: Uuid,
    pub live: bool,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Superblock {
    pub pool: Uuid,
    pub device_index: u16,
    pub code: Code,
    pub geometry: Geometry,
    /// Of this device's superblock; the slot is its lowest bit.
    pub generation: u64,
    pub membership_epoch: u64,
    /// Random at each rise of the epoch.
    pub lineage: Uuid,
    pub secret: [u8; 32],
    pub journal_mirrors: Vec<u16>,
    /// By device index; holds this device's uuid too.
    pub members: Vec<Member>,
}

impl fmt::Debug for Superblock {
    /// Without the secret: debug output reaches logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pool,
            device_index,
            generation,
            membership_epoch,
            ..
        } = self;
        write!(
            formatter,
            "Superblock({pool} device {device_index} generation {generation} epoch {membership_epoch})"
        )
    }
}

/// What the beginning of a device tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Nothing but zeros, or what an interrupted format left.
    Empty,
    Member(Box<Superblock>),
    /// Of a format version or with features that this program does not know.
    OtherFormat(u32),
    /// Ours, but neither slot is whole, or both are gone and what was written since is not.
    Damaged,
    /// Somebody else's bytes.
    Foreign,
}

impl Superblock {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(MAGIC).u32(VERSION).u32(FEATURES_KNOWN).raw(&self.pool.0);
        writer
            .raw(&self.members[usize::from(self.device_index)].uuid.0)
            .u16(self.device_index)
            .u16(self.members.len() as u16);
        writer.u8(self.code.k).u8(self.code.m);
        let Geometry {
            root_bytes,
            journal_bytes,
            zone_bytes,
            zone_count,
        } = self.geometry;
        writer.u64(root_bytes).u64(journal_bytes).u64(zone_bytes).u64(zone_count);
        writer
            .u64(self.generation)
            .u64(self.membership_epoch)
            .raw(&self.lineage.0)
            .raw(&self.secret);
        writer.u8(self.journal_mirrors.len() as u8);
        self.journal_mirrors.iter().for_each(|mirror| _ = writer.u16(*mirror));
        self.members
            .iter()
            .for_each(|member| _ = writer.raw(&member.uuid.0).u8(u8::from(!member.live)));
        let mut bytes = writer.bytes;
        assert!(bytes.len() <= CHECKED, "bounds of the device count are checked at format");
        bytes.resize(CHECKED, 0);
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Raises Damaged; Refused for a newer format.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged = |what: &str| Error::Damaged(format!("superblock: {what}"));
        if bytes.len() != SLOT || &bytes[..8] != MAGIC {
            return Err(damaged("not one"));
        }
        if checksum(&bytes[..CHECKED]).to_le_bytes() != bytes[CHECKED..] {
            return Err(damaged("checksum"));
        }
        let mut reader = Reader::new(&bytes[8..CHECKED]);
        let (version, features) = (reader.u32()?, reader.u32()?);
        if version != VERSION || features & !FEATURES_KNOWN != 0 {
            return Err(Error::Refused(format!("format version {version}, features {features:#x}")));
        }
        let (pool, device) = (Uuid(reader.array()?), Uuid(reader.array()?));
        let (device_index, count) = (reader.u16()?, usize::from(reader.u16()?));
        let code = Code {
            k: reader.u8()?,
            m: reader.u8()?,
        };
        let geometry = Geometry {
            root_bytes: reader.u64()?,
            journal_bytes: reader.u64()?,
            zone_bytes: reader.u64()?,
            zone_count: reader.u64()?,
        };
        let (generation, membership_epoch) = (reader.u64()?, reader.u64()?);
        let (lineage, secret) = (Uuid(reader.array()?), reader.array()?);
        if count == 0 || count > DEVICES_MAX || usize::from(device_index) >= count {
            return Err(damaged("device count"));
        }
        code.check(count).and(geometry.check()).map_err(|_| damaged("code or geometry"))?;
        let journal_mirrors = read_mirrors(&mut reader, count)?;
        let members = (0..count).map(|_| read_member(&mut reader)).collect::<Result<Vec<_>>>()?;
        if members[usize::from(device_index)].uuid != device {
            return Err(damaged("its own uuid"));
        }
        Ok(Self {
            pool,
            device_index,
            code,
            geometry,
            generation,
            membership_epoch,
            lineage,
            secret,
            journal_mirrors,
            members,
        })
    }
}

fn read_mirrors(reader: &mut Reader<'_>, device_count: usize) -> Result<Vec<u16>> {
    let count = usize::from(reader.u8()?);
    let mut mirrors = (0..count).map(|_| reader.u16()).collect::<Result<Vec<_>>>()?;
    let sound = mirrors.iter().all(|mirror| usize::from(*mirror) < device_count);
    mirrors.sort_unstable();
    mirrors.dedup();
    if sound && mirrors.len() == count {
        Ok(mirrors)
    } else {
        Err(Error::Damaged("superblock: journal mirrors".into()))
    }
}

fn read_member(reader: &mut Reader<'_>) -> Result<Member> {
    let uuid = Uuid(reader.array()?);
    match reader.u8()? {
        state @ 0..=1 => Ok(Member { uuid, live: state == 0 }),
        _ => Err(Error::Damaged("superblock: member state".into())),
    }
}

/// Raises Io if the device cannot be read.
pub fn identify(device: &dyn Device) -> Result<Identity> {
    let mut head = vec![0; FOREIGN_CHECK_BYTES.min(usize::try_from(device.len()).unwrap_or(usize::MAX))];
    device.read_at(0, &mut head)?;
    Ok(identify_bytes(&head))
}

/// `head`: the device's first bytes.
pub fn identify_bytes(head: &[u8]) -> Identity {
    let slots: Vec<&[u8]> = head.chunks_exact(SLOT).take(2).collect();
    let parsed: Vec<Result<Superblock>> = slots.iter().map(|slot| Superblock::from_bytes(slot)).collect();
    let newest = parsed.iter().flatten().max_by_key(|superblock| superblock.generation);
    if parsed.iter().any(|slot| matches!(slot, Err(Error::Refused(_)))) {
        let versions = slots.iter().map(|slot| u32::from_le_bytes([slot[8], slot[9], slot[10], slot[11]]));
        return Identity::OtherFormat(versions.max().unwrap_or_default());
    }
    match newest {
        Some(superblock) => Identity::Member(Box::new(superblock.clone())),
        None if is_blank(head) => Identity::Empty,
        None if slots.iter().any(|slot| slot.starts_with(MAGIC)) || is_marked(head) => Identity::Damaged,
        None => Identity::Foreign,
    }
}

/// All zeros, but for what a torn first superblock leaves: format writes slot B first, and any of its sectors may be missing. No file system, volume
/// manager or partition table keeps something there after an empty first sector and nothing anywhere else.
fn is_blank(head: &[u8]) -> bool {
    let (first, rest) = head.split_at(head.len().min(SLOT));
    let (torn, rest) = rest.split_at(rest.len().min(SLOT));
    let zeros = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    zeros(first) && zeros(rest) && (torn.starts_with(MAGIC) || zeros(&torn[..torn.len().min(512)]))
}

/// Zeroed under a daemon that wrote on: no slot, but roots or journal records of ours behind zeros.
fn is_marked(head: &[u8]) -> bool {
    let (slots, rest) = head.split_at(head.len().min(2 * SLOT));
    let marked = |block: &[u8]| MARKS.iter().any(|mark| block.starts_with(mark));
    slots.iter().all(|byte| *byte == 0) && rest.chunks(SLOT).any(marked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(count: usize, generation: u64) -> Superblock {
        Superblock {
            pool: Uuid([1; 16]),
            device_index: (count - 1) as u16,
            code: Code::for_device_count(count),
            geometry: Geometry::small(16 << 20).unwrap(),
            generation,
            membership_epoch: 9,
            lineage: Uuid([3; 16]),
            secret: [4; 32],
            journal_mirrors: (0..count.min(3) as u16).collect(),
            members: (0..count)
                .map(|index| Member {
                    uuid: Uuid([index as u8; 16]),
                    live: index % 3 != 1,
                })
                .collect(),
        }
    }

    fn reseal(bytes: &mut [u8]) {
        let sum = checksum(&bytes[..CHECKED]);
        bytes[CHECKED..].copy_from_slice(&sum.to_le_bytes());
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        for count in [1, 2, 6, DEVICES_MAX] {
            let superblock = sample(count, 7);
            assert_eq!(Superblock::from_bytes(&superblock.encode()).unwrap(), superblock);
        }
        assert!(!format!("{:?}", sample(1, 1)).contains("4, 4"));
    }

    #[test]
    fn the_newer_whole_slot_counts() {
        let (old, new) = (sample(2, 6).encode(), sample(2, 7).encode());
        let identify = |first: &[u8], second: &[u8]| identify_bytes(&[first, second, &[0; SLOT]].concat());
        assert!(matches!(identify(&old, &new), Identity::Member(superblock) if superblock.generation == 7));
        let mut torn = new.clone();
        torn[512..1024].fill(0);
        torn[20] ^= 1;
        assert!(matches!(identify(&old, &torn), Identity::Member(superblock) if superblock.generation == 6));
        assert_eq!(identify(&torn, &torn), Identity::Damaged);
        let mut newer = new.clone();
        newer[8] = VERSION as u8 + 1;
        reseal(&mut newer);
        assert_eq!(identify(&old, &newer), Identity::OtherFormat(VERSION + 1));
        assert_eq!(identify(&[0; SLOT], &[0; SLOT]), Identity::Empty);
        assert_eq!(identify(&[0; SLOT], &[8; SLOT]), Identity::Foreign);
        assert_eq!(identify_bytes(b"short"), Identity::Foreign);
    }

    /// A drive was zeroed while the daemon wrote a root to it: the next start refused the whole pool, as if it held somebody else's data.
    #[test]
    fn zeroed_and_written_on_is_damaged_not_foreign() {
        for mark in MARKS {
            let mut head = vec![0; 40 * SLOT];
            head[17 * SLOT..][..mark.len()].copy_from_slice(mark);
            assert_eq!(identify_bytes(&head), Identity::Damaged);
            head[9] = 1;
            assert_eq!(identify_bytes(&head), Identity::Foreign);
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
            let _any = Superblock::from_bytes(&bytes);
            let _any = identify_bytes(&bytes);
        }

        /// A valid checksum over changed fields reaches every check behind it.
        #[test]
        fn changed_fields_never_panic(changes in proptest::collection::vec((8usize..400, any::<u8>()), 1..6)) {
            let mut bytes = sample(6, 7).encode();
            changes.iter().for_each(|(position, value)| bytes[*position] = *value);
            reseal(&mut bytes);
            if let Ok(superblock) = Superblock::from_bytes(&bytes) {
                let again = Superblock::from_bytes(&superblock.encode()).unwrap();
                prop_assert_eq!(again, superblock);
            }
        }
    }
}
