//! Finding a pool on the devices given: who is who, who is current, and may it start?

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use super::Pool;
use super::format::GENERATION_UNFINISHED;
use super::membership::Membership;
use super::superblock::{Identity, Superblock, Uuid, VERSION, identify};
use crate::device::Device;
use crate::device::random::{RandomSource, from_os};
use crate::device::set::Devices;
use crate::error::{Error, Result};

pub struct OpenOptions {
    /// Start with half of the last members or fewer. The operator vouches that the others are not in use elsewhere.
    pub allow_degraded: bool,
    pub random: RandomSource,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            allow_degraded: false,
            random: from_os(),
        }
    }
}

struct Candidate {
    device: Arc<dyn Device>,
    superblock: Superblock,
}

impl Candidate {
    fn state(&self) -> (u64, Uuid) {
        (self.superblock.membership_epoch, self.superblock.lineage)
    }

    fn believes_live(&self, index: u16) -> bool {
        self.superblock.members[usize::from(index)].live
    }
}

impl Pool {
    /// Opens the pool on these devices, in any order. Empty and unreadable ones are left out and noted. A device that went missing is declared dead
    /// in a new epoch before this returns. Raises Refused with one sentence, Closed.
    pub fn open(devices: Vec<Arc<dyn Device>>, options: OpenOptions) -> Result<Self> {
        let mut notes = Vec::new();
        let candidates = find_members(devices, &mut notes)?;
        let current = choose_state(&candidates)?;
        let (epoch, lineage) = current;
        let mut shared = candidates
            .values()
            .find(|candidate| candidate.state() == current)
            .expect("the state came from one")
            .superblock
            .clone();
        refuse_truncated(&shared, &candidates)?;
        let all = 0..shared.members.len() as u16;
        let is_present = |index: &u16| shared.members[usize::from(*index)].live && candidates.contains_key(index);
        let present: Vec<u16> = all.clone().filter(is_present).collect();
        check_enough(&shared, &present, options.allow_degraded)?;

        let generations = all
            .clone()
            .map(|index| candidates.get(&index).map_or(0, |candidate| candidate.superblock.generation))
            .collect();
        let behind =
            |candidate: &Candidate| candidate.state() != (epoch, lineage) || candidate.superblock.generation == GENERATION_UNFINISHED;
        let raise = all
            .clone()
            .any(|index| shared.members[usize::from(index)].live && candidates.get(&index).is_none_or(behind));
        // Whether that many may be written off was decided above.
        for index in all.clone().filter(|index| !candidates.contains_key(index)) {
            shared.members[usize::from(index)].live = false;
        }
        let set = Devices::new(
            all.map(|index| (index, candidates.get(&index).map(|candidate| candidate.device.clone())))
                .collect(),
        );
        for (index, candidate) in candidates.iter().filter(|(index, _)| !present.contains(index)) {
            let name = candidate.device.name();
            set.fail(
                *index,
                &format!("stale: returned after the pool went on without it in epoch {epoch}"),
            );
            notes.push(format!("device {name} is stale: it returned after the pool had gone on without it"));
        }
        let pool = Self {
            uuid: shared.pool,
            secret: shared.secret,
            code: shared.code,
            geometry: shared.geometry,
            devices: set,
            notes,
            epoch: AtomicU64::new(epoch),
            membership: Mutex::new(Membership { shared, generations }),
            random: Mutex::new(options.random),
        };
        if raise {
            pool.raise(&mut pool.membership.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))?;
        }
        Ok(pool)
    }
}

/// The members among the devices, by index. Raises Refused for what must not be here.
fn find_members(devices: Vec<Arc<dyn Device>>, notes: &mut Vec<String>) -> Result<BTreeMap<u16, Candidate>> {
    let mut members: Vec<Candidate> = Vec::new();
    for device in devices {
        let name = device.name();
        match identify(device.as_ref()) {
            Ok(Identity::Member(superblock)) => members.push(Candidate {
                device,
                superblock: *superblock,
            }),
            Ok(Identity::Empty) => notes.push(format!("device {name} is empty and left out")),
            Ok(Identity::Damaged) => notes.push(format!("device {name} has no readable superblock and is left out; replace it")),
            Err(error) => notes.push(format!("device {name} cannot be read ({error}) and is left out; replace it")),
            Ok(Identity::OtherFormat(version)) => {
                let (age, remedy) = if version < VERSION {
                    ("an older", "copy its content out with that one")
                } else {
                    ("a newer", "upgrade Trefoil")
                };
                return Err(Error::Refused(format!(
                    "device {name} was written by {age} Trefoil (format {version}, this one knows {VERSION}); {remedy}"
                )));
            }
            Ok(Identity::Foreign) => {
                return Err(Error::Refused(format!(
                    "device {name} holds data that is not Trefoil's; remove it from the configuration"
                )));
            }
        }
    }
    if members.iter().all(|member| member.superblock.generation == GENERATION_UNFINISHED) {
        return Err(Error::Refused(match notes.first() {
            Some(note) => format!("no device given holds a pool ({note}); format the devices first"),
            None => "no device given holds a pool; format the devices first".into(),
        }));
    }
    refuse_strangers(&members)?;
    by_index(members)
}

/// All must be of one pool: of the one that has the most devices here.
fn refuse_strangers(members: &[Candidate]) -> Result<()> {
    let count = |pool: Uuid| members.iter().filter(|member| member.superblock.pool == pool).count();
    let Some(pool) = members
        .iter()
        .map(|member| member.superblock.pool)
        .max_by_key(|pool| (count(*pool), *pool))
    else {
        return Ok(());
    };
    match members.iter().find(|member| member.superblock.pool != pool) {
        Some(member) => Err(Error::Refused(format!(
            "device {} belongs to pool {}, the others to pool {pool}; remove it from the configuration",
            member.device.name(),
            member.superblock.pool
        ))),
        None => Ok(()),
    }
}

/// One that the pool already went on without is only stale, however short it is.
fn refuse_truncated(shared: &Superblock, candidates: &BTreeMap<u16, Candidate>) -> Result<()> {
    let needed = shared.geometry.end();
    let short = |(index, candidate): &(&u16, &Candidate)| shared.members[usize::from(**index)].live && candidate.device.len() < needed;
    match candidates.iter().find(short) {
        Some((_, candidate)) => Err(Error::Refused(format!(
            "device {} was truncated: it has {} bytes of the {needed} it was formatted with; restore its size, or remove it from the \
             configuration and let the pool rebuild",
            candidate.device.name(),
            candidate.device.len()
        ))),
        None => Ok(()),
    }
}

fn by_index(members: Vec<Candidate>) -> Result<BTreeMap<u16, Candidate>> {
    let mut indexed: BTreeMap<u16, Candidate> = BTreeMap::new();
    for member in members {
        let name = member.device.name();
        if let Some(twin) = indexed.insert(member.superblock.device_index, member) {
            let (index, twin) = (twin.superblock.device_index, twin.device.name());
            return Err(Error::Refused(format!(
                "devices {twin} and {name} are both device {index} of the pool, one is a copy; remove one"
            )));
        }
    }
    Ok(indexed)
}

/// The epoch and lineage to go on from: the highest epoch that no device which it counts as live contradicts. A device that only began to raise
/// an epoch before it went away (nothing was acknowledged in it) must not overrule those that went on without it. Raises Refused if two halves went on apart.
fn choose_state(candidates: &BTreeMap<u16, Candidate>) -> Result<(u64, Uuid)> {
    let mut states: Vec<(u64, Uuid)> = candidates.values().map(Candidate::state).collect();
    states.sort_unstable();
    states.dedup();
    let mut sound = states.into_iter().rev().filter(|state| uncontradicted(candidates, *state));
    let Some(best) = sound.next() else {
        return Err(Error::Refused(
            "the devices contradict each other about who is a member; start with those last in use only".into(),
        ));
    };
    if sound.next().is_some_and(|second| second.0 == best.0) {
        return Err(Error::Refused(
            "two halves of the pool went on apart; start with the devices of one half only".into(),
        ));
    }
    Ok(best)
}

fn uncontradicted(candidates: &BTreeMap<u16, Candidate>, state: (u64, Uuid)) -> bool {
    let carriers: Vec<u16> = candidates
        .iter()
        .filter(|(_, candidate)| candidate.state() == state)
        .map(|(index, _)| *index)
        .collect();
    let Some(witness) = carriers.first().map(|index| &candidates[index]) else {
        return false;
    };
    let counted = candidates.iter().filter(|(index, _)| witness.believes_live(**index));
    counted
        .into_iter()
        .all(|(_, candidate)| carriers.iter().all(|carrier| candidate.believes_live(*carrier)))
}

fn check_enough(shared: &Superblock, present: &[u16], allow_degraded: bool) -> Result<()> {
    let (count, last) = (present.len(), shared.members.iter().filter(|member| member.live).count());
    if count < usize::from(shared.code.k) {
        return Err(Error::Refused(format!(
            "only {count} usable devices of the pool are here and code {} needs {}; attach the missing ones",
            shared.code, shared.code.k
        )));
    }
    if !shared.journal_mirrors.iter().any(|mirror| present.contains(mirror)) {
        return Err(Error::Refused(format!(
            "none of the devices that hold the journal ({:?}) is here; attach at least one of them",
            shared.journal_mirrors
        )));
    }
    let m = usize::from(shared.code.m);
    if last - count > m && !allow_degraded {
        return Err(Error::Refused(format!(
            "{} of the {last} devices last in use are missing and code {} makes up for {m}; attach them, or start with pool.allow_degraded if they are lost for good",
            last - count,
            shared.code
        )));
    }
    if count * 2 <= last && !allow_degraded {
        return Err(Error::Refused(format!(
            "only {count} of the {last} devices last in use are here; attach the others, or start with pool.allow_degraded if they are lost for good"
        )));
    }
    Ok(())
}
