//! The checkpoint root: from where a start goes on.
//!
//! Owns both root slots of every device. Invariants: a root is written whole to every live device before the next one begins, and the next one goes to the other
//! slot; so wherever a write is cut short, every device still has the root before it, and one that lost it to a cut is brought up before the next is written.
//! Never decides what a root says, and never frees what the root before it named: that is the caller's, after `write` returned.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::tables::segments_of;
use crate::codec::{Reader, Writer, checksum};
use crate::device::set::WriteJob;
use crate::error::{Error, Result};
use crate::journal::Start;
use crate::meta::checkpoint::Manifest;
use crate::pool::geometry::BLOCK_BYTES;
use crate::pool::superblock::ROOT_MAGIC;
use crate::pool::{Pool, Uuid};
use crate::segment::{Class, SegmentLayout};

pub const VERSION: u32 = 1;
/// Also on devices with room for more: a start reads it into memory.
pub const ROOT_BYTES_MAX: u64 = 256 << 20;
/// Magic, version, length, pool and generation: what tells whether the rest is worth reading.
const HEAD_BYTES: usize = 40;
const CHECKSUM_BYTES: usize = 8;
/// An encoded segment layout is at least this long.
const LAYOUT_BYTES_MIN: usize = 17;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    pub pool: Uuid,
    /// Rises by one with each root; the first is 1. Its lowest bit names the slot.
    pub generation: u64,
    pub membership_epoch: u64,
    /// The first record that the manifest's tables do not hold.
    pub start: Start,
    /// The oldest journal position whose payloads must survive; at most `start.position`.
    pub keep_from: u64,
    /// Above every segment id ever given out.
    pub segment_id_next: u64,
    pub manifest: Manifest,
    /// Every segment that the manifest's tables lie in: metadata cannot say it, since they hold the metadata.
    pub tables: Vec<SegmentLayout>,
}

/// What a slot begins with, unverified.
struct Head {
    version: u32,
    length: usize,
    pool: Uuid,
    generation: u64,
}

/// A slot of a device that begins like a root of this pool.
struct Candidate {
    device: u16,
    head: Head,
}

impl Root {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(ROOT_MAGIC).u32(VERSION).u32(0).raw(&self.pool.0).u64(self.generation);
        writer.u64(self.membership_epoch);
        writer
            .u64(self.start.position)
            .u64(self.start.sequence)
            .u64(self.start.previous_checksum);
        writer.u64(self.keep_from).u64(self.segment_id_next);
        writer.varint(self.tables.len() as u64);
        self.tables.iter().for_each(|layout| layout.encode(&mut writer));
        writer.blob(&self.manifest.encode());
        // Saturated it fits no slot, and `write` says so.
        let length = u32::try_from(writer.bytes.len() + CHECKSUM_BYTES).unwrap_or(u32::MAX);
        writer.bytes[12..16].copy_from_slice(&length.to_le_bytes());
        let sum = checksum(&writer.bytes);
        writer.u64(sum);
        writer.bytes
    }

    /// `bytes` may go on after the root. Raises Damaged, and Refused if a newer Trefoil wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let head = Head::decode(bytes)?;
        let bytes = bytes.get(..head.length).ok_or_else(|| damaged("ends early"))?;
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(|| damaged("ends early"))?;
        if checksum(body) != u64::from_le_bytes(*sum) {
            return Err(damaged("fails its checksum"));
        }
        if head.version != VERSION {
            return Err(Error::Refused(format!(
                "the pool's checkpoint was written by a newer Trefoil (format {}, this one knows {VERSION}); upgrade Trefoil",
                head.version
            )));
        }
        let root = Self::decode_body(&head, &body[HEAD_BYTES..])?;
        root.check().map_err(|what| damaged(&what))?;
        Ok(root)
    }

    fn decode_body(head: &Head, body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body);
        let membership_epoch = reader.u64()?;
        let start = Start {
            position: reader.u64()?,
            sequence: reader.u64()?,
            previous_checksum: reader.u64()?,
        };
        let (keep_from, segment_id_next, count) = (reader.u64()?, reader.u64()?, reader.varint()?);
        if count > (reader.remaining() / LAYOUT_BYTES_MIN) as u64 {
            return Err(damaged("lists more segments than it has room for"));
        }
        let tables = (0..count).map(|_| SegmentLayout::decode(&mut reader)).collect::<Result<_>>()?;
        let manifest = Manifest::decode(reader.blob()?)?;
        reader.finish()?;
        Ok(Self {
            pool: head.pool,
            generation: head.generation,
            membership_epoch,
            start,
            keep_from,
            segment_id_next,
            manifest,
            tables,
        })
    }

    /// Could a start go on from it? Else says what is wrong.
    fn check(&self) -> std::result::Result<(), String> {
        if self.generation == 0 {
            return Err("has no generation".into());
        }
        if self.keep_from > self.start.position {
            return Err("keeps less of the journal than it replays".into());
        }
        let mut listed = BTreeSet::new();
        for layout in &self.tables {
            if layout.class != Class::Table || layout.id >= self.segment_id_next || !listed.insert(layout.id) {
                return Err(format!("lists segment {} wrongly", layout.id));
            }
        }
        let used = segments_of(&self.manifest).map_err(|error| format!("names tables badly: {error}"))?;
        match used.keys().find(|id| !listed.contains(id)) {
            Some(id) => Err(format!("has tables in segment {id} and does not list it")),
            None => Ok(()),
        }
    }
}

impl Head {
    fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if &reader.array::<8>()? != ROOT_MAGIC {
            return Err(damaged("does not begin like one"));
        }
        let head = Self {
            version: reader.u32()?,
            length: reader.u32()? as usize,
            pool: Uuid(reader.array()?),
            generation: reader.u64()?,
        };
        if head.length < HEAD_BYTES + CHECKSUM_BYTES || head.length as u64 > ROOT_BYTES_MAX {
            return Err(damaged("has an impossible length"));
        }
        Ok(head)
    }
}

/// The root is on every live device, flushed, when it returns, and every device that does not have it is declared dead; until then the root before it counts.
/// Its generation is one above the last one's. Raises Invalid and Limit before anything is written, Closed if no device has it or too few remain.
pub fn write(pool: &Pool, root: &Root) -> Result<()> {
    root.check()
        .map_err(|what| Error::Invalid(format!("a checkpoint root that {what} cannot be stored")))?;
    if root.pool != pool.uuid {
        return Err(Error::Invalid(format!(
            "a checkpoint root of pool {} does not belong on pool {}",
            root.pool, pool.uuid
        )));
    }
    let bytes = root.encode();
    let room = pool.geometry.root_bytes.min(ROOT_BYTES_MAX);
    if bytes.len() as u64 > room {
        return Err(Error::Limit(format!(
            "the list of metadata tables takes {} bytes and the pool's devices have {room} for it",
            bytes.len()
        )));
    }
    put(pool, root.generation, bytes, pool.devices.live())
}

/// Writes to these devices and flushes every live one. Whole blocks, so that no device has to read before it writes.
fn put(pool: &Pool, generation: u64, mut bytes: Vec<u8>, devices: Vec<u16>) -> Result<()> {
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES as usize), 0);
    let (offset, bytes) = (pool.geometry.root_offset(generation), Bytes::from(bytes));
    let job = |device| WriteJob {
        device,
        offset,
        bytes: bytes.clone(),
    };
    let set = &pool.devices;
    // One call where all are written: a device then flushes while others still write.
    let mut outcomes = set.write_all(devices.iter().copied().map(job).collect(), true);
    let others: Vec<u16> = set.live().into_iter().filter(|device| !devices.contains(device)).collect();
    outcomes.extend(set.flush_all(&others));
    for (device, outcome) in outcomes {
        if let Err(error) = outcome {
            // Whatever the reason: a device without this root must not count again.
            set.fail(device, &format!("it did not take the checkpoint root: {error}"));
        }
    }
    pool.persist_failures()?;
    if set.live().is_empty() {
        return Err(Error::Closed("no device took the checkpoint root".into()));
    }
    Ok(())
}

/// The newest root, copied to the live devices that lack it, since the next one overwrites what they have instead. None for a pool that never completed one: its
/// journal begins at the beginning. Raises Damaged if there was one and none is whole, Refused if a newer Trefoil wrote it, Closed.
pub fn read_newest(pool: &Pool) -> Result<Option<Root>> {
    let (mut candidates, touched) = survey(pool)?;
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.head.generation));
    for candidate in candidates {
        let Some(bytes) = read_slot(pool, candidate.device, candidate.head.generation, candidate.head.length) else {
            continue;
        };
        match Root::decode(&bytes) {
            Ok(root) => {
                level(pool, root.generation, bytes)?;
                return Ok(Some(root));
            }
            Err(refused @ Error::Refused(_)) => return Err(refused),
            Err(_) => {}
        }
    }
    // The second root begins only after the first is complete, and goes to the other slot; so the remains of one cut short are in one slot only.
    if touched.len() < 2 {
        Ok(None)
    } else {
        Err(Error::Damaged(
            "no device has a whole checkpoint root; attach a device that was in use when the pool last ran".into(),
        ))
    }
}

/// What may be a root of this pool, and which slots are not empty on some device.
fn survey(pool: &Pool) -> Result<(Vec<Candidate>, BTreeSet<u64>)> {
    let (mut candidates, mut touched) = (Vec::new(), BTreeSet::new());
    let room = pool.geometry.root_bytes;
    for device in pool.devices.live() {
        for slot in 0..2 {
            let Some(block) = read_slot(pool, device, slot, BLOCK_BYTES as usize) else {
                continue;
            };
            if block.iter().any(|byte| *byte != 0) {
                touched.insert(slot);
            }
            if let Ok(head) = Head::decode(&block)
                && (head.pool == pool.uuid && head.length as u64 <= room && head.generation % 2 == slot)
            {
                candidates.push(Candidate { device, head });
            }
        }
    }
    if pool.devices.live().is_empty() {
        return Err(Error::Closed("no device is left to read a checkpoint root from".into()));
    }
    Ok((candidates, touched))
}

/// None if the device fails; it is dead then.
fn read_slot(pool: &Pool, device: u16, generation: u64, length: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; length];
    let read = pool.devices.read(device, pool.geometry.root_offset(generation), &mut bytes);
    read.is_ok().then_some(bytes)
}

/// Every live device has this root and has flushed it: the process may have died between write and flush, and the next root overwrites the one before. Without
/// this, a cut during the next root could leave this one on a single device or on none.
fn level(pool: &Pool, generation: u64, bytes: Vec<u8>) -> Result<()> {
    let mut lacking = pool.devices.live();
    lacking.retain(|device| read_slot(pool, *device, generation, bytes.len()).is_some_and(|found| found != bytes));
    put(pool, generation, bytes, lacking)
}

fn damaged(what: &str) -> Error {
    Error::Damaged(format!("the checkpoint root {what}"))
}

#[cfg(test)]
pub(in crate::store) mod tests;
