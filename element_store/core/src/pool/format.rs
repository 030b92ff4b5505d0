//! Making a pool out of empty devices.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::membership::Membership;
use super::superblock::{DEVICES_MAX, Identity, Member, Superblock, Uuid, identify};
use super::{Code, Geometry, Pool};
use crate::device::Device;
use crate::device::random::{RandomSource, from_os};
use crate::device::set::{Devices, WriteJob};
use crate::error::{Error, Result};

/// Zeros are written in pieces of this size.
const PREWRITE_BYTES: usize = 1 << 20;
/// A superblock of this generation alone does not make a member: format was interrupted before all devices had theirs, and nothing was ever stored.
pub(super) const GENERATION_UNFINISHED: u64 = 1;

pub struct FormatOptions {
    /// None: by the number of devices.
    pub code: Option<Code>,
    /// None: by the smallest device.
    pub geometry: Option<Geometry>,
    pub random: RandomSource,
}

impl Default for FormatOptions {
    fn default() -> Self {
        Self {
            code: None,
            geometry: None,
            random: from_os(),
        }
    }
}

impl Pool {
    /// Makes a pool of empty devices; their order gives the indexes. Raises Refused with a sentence, before anything is written.
    pub fn format(devices: Vec<Arc<dyn Device>>, options: FormatOptions) -> Result<Self> {
        if devices.is_empty() || devices.len() > DEVICES_MAX {
            return Err(Error::Refused(format!(
                "a pool has 1 to {DEVICES_MAX} devices, not {}",
                devices.len()
            )));
        }
        devices.iter().try_for_each(|device| refuse_used(device.as_ref()))?;
        let code = options.code.unwrap_or_else(|| Code::for_device_count(devices.len()));
        code.check(devices.len())?;
        let geometry = chosen_geometry(&devices, options.geometry)?;
        let mut random = options.random;
        let shared = new_superblock(devices.len(), code, geometry, &mut random);
        let membership = Membership {
            generations: vec![0; devices.len()],
            shared: shared.clone(),
        };
        let pool = Self {
            uuid: shared.pool,
            secret: shared.secret,
            code,
            geometry,
            devices: Devices::new(
                devices
                    .into_iter()
                    .enumerate()
                    .map(|(index, device)| (index as u16, Some(device)))
                    .collect(),
            ),
            notes: Vec::new(),
            epoch: AtomicU64::new(shared.membership_epoch),
            membership: Mutex::new(membership),
            random: Mutex::new(random),
        };
        pool.prewrite_journal(&shared.journal_mirrors)?;
        pool.write_first_superblocks()?;
        Ok(pool)
    }

    /// Zeros, not holes: the file system must not have to allocate when a record is appended, else one append costs two flushes.
    pub(crate) fn prewrite_journal(&self, mirrors: &[u16]) -> Result<()> {
        let zeros = Bytes::from(vec![0; PREWRITE_BYTES]);
        let mut jobs = Vec::new();
        for device in mirrors {
            for start in (0..self.geometry.journal_bytes).step_by(PREWRITE_BYTES) {
                let length = (self.geometry.journal_bytes - start).min(PREWRITE_BYTES as u64) as usize;
                jobs.push(WriteJob {
                    device: *device,
                    offset: self.geometry.journal_offset() + start,
                    bytes: zeros.slice(..length),
                });
            }
        }
        self.devices
            .write_all(jobs, true)
            .into_iter()
            .try_for_each(|(_, result)| Ok(result?))
    }

    /// Twice, so that one of generation 2 proves that all devices have one.
    fn write_first_superblocks(&self) -> Result<()> {
        let mut members = self.membership.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for _ in 0..=GENERATION_UNFINISHED {
            members.write(&self.devices);
            if self.devices.live().len() < self.devices.count() {
                let failed = (0..self.devices.count() as u16)
                    .find(|index| !self.devices.is_live(*index))
                    .unwrap_or_default();
                let name = self.devices.device(failed).map_or_else(String::new, |device| device.name());
                return Err(Error::Refused(format!(
                    "device {name} failed while it was formatted ({}); replace it",
                    self.devices.reason(failed)
                )));
            }
        }
        Ok(())
    }
}

fn refuse_used(device: &dyn Device) -> Result<()> {
    let name = device.name();
    match identify(device)? {
        Identity::Empty => Ok(()),
        Identity::Member(superblock) if superblock.generation == GENERATION_UNFINISHED => Ok(()),
        Identity::Member(superblock) => Err(Error::Refused(format!(
            "device {name} already belongs to pool {}; open that pool or erase the device",
            superblock.pool
        ))),
        Identity::OtherFormat(_) | Identity::Damaged => Err(Error::Refused(format!(
            "device {name} already belongs to a pool of Trefoil; erase it if its data is not needed"
        ))),
        Identity::Foreign => Err(Error::Refused(format!(
            "device {name} holds data that is not Trefoil's; erase it or choose another"
        ))),
    }
}

fn chosen_geometry(devices: &[Arc<dyn Device>], given: Option<Geometry>) -> Result<Geometry> {
    let smallest = devices
        .iter()
        .min_by_key(|device| device.len())
        .expect("at least one device was checked");
    let too_small = |error: Error| Error::Refused(format!("device {}: {error}; use a larger one", smallest.name()));
    let Some(geometry) = given else {
        return Geometry::for_length(smallest.len()).map_err(too_small);
    };
    geometry.check()?;
    if smallest.len() < geometry.end() {
        return Err(too_small(Error::Refused(format!(
            "{} bytes are less than the {} of the geometry asked for",
            smallest.len(),
            geometry.end()
        ))));
    }
    Ok(geometry)
}

fn new_superblock(count: usize, code: Code, geometry: Geometry, random: &mut RandomSource) -> Superblock {
    let mut uuid = || {
        let mut bytes = [0; 16];
        random(&mut bytes);
        Uuid(bytes)
    };
    let (pool, lineage) = (uuid(), uuid());
    let members = (0..count).map(|_| Member { uuid: uuid(), live: true }).collect();
    let mut secret = [0; 32];
    random(&mut secret);
    let journal_mirrors = (0..count.min(usize::from(code.m) + 1) as u16).collect();
    Superblock {
        pool,
        device_index: 0,
        code,
        geometry,
        generation: 0,
        membership_epoch: 1,
        lineage,
        secret,
        journal_mirrors,
        members,
    }
}
