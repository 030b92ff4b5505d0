//! Who is a member: epochs, deaths, journal mirrors, and the superblocks that say so.

use std::sync::MutexGuard;
use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;

use super::Pool;
use super::geometry::{Geometry, SUPERBLOCK_BYTES};
use super::superblock::{Identity, Superblock, Uuid, identify_bytes};
use crate::device::set::{Devices, WriteJob};
use crate::error::{Error, Result};

const SUPERBLOCKS_BYTES: usize = 2 * SUPERBLOCK_BYTES as usize;

/// What all superblocks share, and each device's newest generation.
pub(super) struct Membership {
    pub shared: Superblock,
    pub generations: Vec<u64>,
}

impl Pool {
    /// Rises whenever a device is declared dead or the journal's mirrors change.
    pub fn membership_epoch(&self) -> u64 {
        self.epoch.load(SeqCst)
    }

    /// The devices that hold the journal, in ascending order; also dead ones until `persist_failures`.
    pub fn journal_mirrors(&self) -> Vec<u16> {
        self.members().shared.journal_mirrors.clone()
    }

    /// m+1 copies, or one on every live device if those are fewer.
    pub fn journal_mirrors_wanted(&self) -> usize {
        (usize::from(self.code.m) + 1).min(self.devices.live().len())
    }

    /// Declares a device dead in memory and, in a new epoch, on all others. Raises Closed if too few remain.
    pub fn mark_dead(&self, index: u16) -> Result<()> {
        self.devices.fail(index, "declared dead");
        self.persist_failures()
    }

    /// Writes down every death that only memory knows yet; without one it costs nothing. Must succeed before anything that a dead device lacks is
    /// acknowledged: else that device could come back after a restart and count. Raises Closed if too few remain.
    pub fn persist_failures(&self) -> Result<()> {
        let mut members = self.members();
        if members.newly_dead(&self.devices).is_empty() {
            Ok(())
        } else {
            self.raise(&mut members)
        }
    }

    /// Makes these devices the journal's mirrors in a new epoch. The caller has copied the journal to them. Raises Closed, Invalid.
    pub fn set_journal_mirrors(&self, mirrors: &[u16]) -> Result<()> {
        let mut members = self.members();
        if mirrors.is_empty() || mirrors.iter().any(|mirror| usize::from(*mirror) >= members.shared.members.len()) {
            return Err(Error::Invalid(format!("{mirrors:?} are not devices of this pool")));
        }
        members.shared.journal_mirrors = mirrors.to_vec();
        members.shared.journal_mirrors.sort_unstable();
        members.shared.journal_mirrors.dedup();
        self.raise(&mut members)
    }

    /// Asks every live device whether it is there and still this pool's. One whose backing or superblocks are gone has lost what it held: it is dead now,
    /// not only at the next start, which would leave it out.
    pub fn probe(&self) {
        // Held, so that no superblock is written meanwhile.
        let _members = self.members();
        self.devices.probe();
        for index in self.devices.live() {
            let mut head = vec![0; SUPERBLOCKS_BYTES];
            let is_own = |superblock: &Superblock| superblock.pool == self.uuid && superblock.device_index == index;
            // A failed read kills the device by itself.
            if self.devices.read(index, 0, &mut head).is_ok()
                && !matches!(identify_bytes(&head), Identity::Member(superblock) if is_own(&superblock))
            {
                self.devices.fail(index, "its superblocks were erased or overwritten");
            }
        }
    }

    fn members(&self) -> MutexGuard<'_, Membership> {
        self.membership.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A new epoch on every live device; devices that fail meanwhile are dead in the next one.
    pub(super) fn raise(&self, members: &mut Membership) -> Result<()> {
        loop {
            members.bury(&self.devices)?;
            members.shared.membership_epoch += 1;
            members.shared.lineage = self.random_uuid();
            members.write(&self.devices);
            if members.newly_dead(&self.devices).is_empty() {
                break;
            }
        }
        self.epoch.store(members.shared.membership_epoch, SeqCst);
        Ok(())
    }

    fn random_uuid(&self) -> Uuid {
        let mut uuid = Uuid([0; 16]);
        (self.random.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))(&mut uuid.0);
        uuid
    }
}

impl Membership {
    /// Live by the superblocks, but not in fact.
    fn newly_dead(&self, devices: &Devices) -> Vec<u16> {
        let indexes = 0..self.shared.members.len() as u16;
        indexes
            .filter(|index| self.shared.members[usize::from(*index)].live && !devices.is_live(*index))
            .collect()
    }

    fn bury(&mut self, devices: &Devices) -> Result<()> {
        let dead = self.newly_dead(devices);
        let m = usize::from(self.shared.code.m);
        if dead.len() > m {
            // To go on would make them stale for ever; if they come back together (a controller, a shelf, a power rail), nothing is lost.
            return Err(Error::Closed(format!(
                "{} devices failed at once and code {} makes up for {m}; restart once they are back",
                dead.len(),
                self.shared.code
            )));
        }
        for index in dead {
            self.shared.members[usize::from(index)].live = false;
        }
        let live = devices.live().len();
        if live < usize::from(self.shared.code.k) {
            return Err(Error::Closed(format!(
                "only {live} devices are left of the {} that code {} needs",
                self.shared.code.k, self.shared.code
            )));
        }
        self.shared.journal_mirrors.retain(|mirror| devices.is_live(*mirror));
        if self.shared.journal_mirrors.is_empty() {
            return Err(Error::Closed("every device that held the journal is lost".into()));
        }
        Ok(())
    }

    /// The next generation of the superblock on every live device, flushed. Failures kill devices and show in `newly_dead`.
    pub fn write(&mut self, devices: &Devices) {
        let mut jobs = Vec::new();
        for device in devices.live() {
            let generation = &mut self.generations[usize::from(device)];
            *generation += 1;
            let superblock = Superblock {
                device_index: device,
                generation: *generation,
                ..self.shared.clone()
            };
            let offset = Geometry::superblock_offset(*generation);
            jobs.push(WriteJob {
                device,
                offset,
                bytes: Bytes::from(superblock.encode()),
            });
        }
        devices.write_all(jobs, true);
    }
}
