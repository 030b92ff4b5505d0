//! Which segment has which zones, and where the next one goes.
//!
//! Invariants: a zone is free, or belongs to one segment (in use, or released and waiting for its readers). A new segment never has less
//! parity than the live devices allow: fullness narrows k, never m. Knows nothing of I/O.

use super::code::Code;
use super::layout::{Class, SegmentLayout, ZoneGeometry};
use crate::error::{Error, Result};
use std::collections::{HashMap, HashSet};

/// Zones per device that landing leaves to others, so that reduction, compaction, deletes and checkpoints work on a full pool; and those
/// of them that reduction and compaction leave to checkpoints. Small devices keep less.
pub const LANDING_RESERVE_ZONES: usize = 8;
pub const REDUCED_RESERVE_ZONES: usize = 4;
/// At most one in this many zones is kept for a reserve of 4.
const RESERVE_SHARE: usize = 64;

/// Proof that a segment was released once; consumed by `Segments::reclaim`.
#[derive(Debug)]
#[must_use = "the zones stay in use until reclaimed"]
pub struct ReclaimToken(u64);

impl ReclaimToken {
    pub fn id(&self) -> u64 {
        self.0
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSpace {
    pub device: u16,
    pub live: bool,
    pub zones_total: u32,
    pub zones_free: u32,
}

/// Bytes after parity, in whole segments: a segment's zones count as used until it is reclaimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceStatus {
    /// Code of the next landing segment.
    pub code: Code,
    /// What the live devices can hold beside the reserve.
    pub usable_bytes: u64,
    pub used_bytes: u64,
    /// Of `used_bytes`, what waits for readers.
    pub released_bytes: u64,
    /// What landing can still take.
    pub free_bytes: u64,
    pub segments: usize,
    pub devices: Vec<DeviceSpace>,
}

#[derive(Debug)]
pub(super) struct Space {
    geometry: ZoneGeometry,
    code: Code,
    next_id: u64,
    /// Per device, the zones not free. A device appears with its first segment.
    taken: HashMap<u16, HashSet<u32>>,
    /// Data bytes per segment.
    used: HashMap<u64, u64>,
    released: HashSet<u64>,
}

impl Space {
    pub fn new(geometry: ZoneGeometry, code: Code, next_id: u64) -> Self {
        Self {
            geometry,
            code,
            next_id,
            taken: HashMap::new(),
            used: HashMap::new(),
            released: HashSet::new(),
        }
    }

    pub fn pool_code(&self) -> Code {
        self.code
    }

    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// A segment found in metadata.
    pub fn adopt(&mut self, layout: &SegmentLayout) -> Result<()> {
        layout.check()?;
        let claim = |reason: &str| Err(Error::Damaged(format!("segment {} {reason}", layout.id)));
        if self.used.contains_key(&layout.id) {
            return claim("is listed twice");
        }
        for (device, zone) in &layout.zones {
            if *zone >= self.geometry.zone_count {
                return claim("has a zone that does not exist");
            }
            if !self.taken.entry(*device).or_default().insert(*zone) {
                return claim("shares a zone with another");
            }
        }
        self.next_id = self.next_id.max(layout.id.saturating_add(1));
        self.used.insert(layout.id, u64::from(layout.k) * self.geometry.zone_bytes);
        Ok(())
    }

    /// Zones for a new segment on the live devices with most room.
    pub fn allocate(&mut self, class: Class, live: &[u16]) -> Result<SegmentLayout> {
        if live.is_empty() {
            return Err(Error::Closed("no device is live".into()));
        }
        let reserve = self.reserve(class);
        let mut roomy: Vec<(usize, u16)> = live.iter().map(|&device| (self.free(device), device)).collect();
        roomy.retain(|(free, _)| *free > reserve);
        // Ties go round with the ids, so that equal devices share the parity shards too.
        let turn = self.next_id as usize % roomy.len().max(1);
        roomy.rotate_left(turn);
        roomy.sort_by_key(|(free, _)| std::cmp::Reverse(*free));
        let full = || Error::OutOfSpace("the pool is full; delete something".into());
        let code = self
            .code_for(class, roomy.len())
            .filter(|code| code.m() >= self.code.m().min(live.len() - 1))
            .ok_or_else(full)?;
        let zones = roomy[..code.shards()]
            .iter()
            .map(|(_, device)| Ok((*device, self.first_free(*device).ok_or_else(full)?)));
        let zones = zones.collect::<Result<Vec<_>>>()?;
        let layout = SegmentLayout {
            id: self.next_id,
            class,
            k: code.k() as u8,
            m: code.m() as u8,
            zones,
        };
        self.adopt(&layout)?;
        Ok(layout)
    }

    /// The pool's code if that many devices allow it, else a narrower one with the same m where possible. None without devices.
    pub fn code_for(&self, class: Class, devices: usize) -> Option<Code> {
        let m = self.code.m().min(devices.checked_sub(1)?);
        let usual = Code::default_for(devices);
        let k = match class {
            Class::Table => 1,
            _ if devices >= self.code.shards() => self.code.k(),
            _ if usual.m() == m => usual.k().min(self.code.k()),
            _ => (devices - m).min(self.code.k()),
        };
        Code::new(k as u8, m as u8).ok()
    }

    pub fn release(&mut self, id: u64) -> Result<ReclaimToken> {
        if self.used.contains_key(&id) && self.released.insert(id) {
            Ok(ReclaimToken(id))
        } else {
            Err(Error::Conflict(format!("segment {id} was released already")))
        }
    }

    pub fn is_released(&self, id: u64) -> bool {
        self.released.contains(&id)
    }

    pub fn reclaim(&mut self, token: ReclaimToken, layout: &SegmentLayout) {
        self.released.remove(&token.0);
        self.forget(layout);
    }

    /// Also for a new segment that nobody came to know.
    pub fn forget(&mut self, layout: &SegmentLayout) {
        self.used.remove(&layout.id);
        for (device, zone) in &layout.zones {
            if let Some(taken) = self.taken.get_mut(device) {
                taken.remove(zone);
            }
        }
    }

    pub fn status(&self, live: &[u16]) -> SpaceStatus {
        let code = self.code_for(Class::Landing, live.len()).unwrap_or(self.code);
        let reserve = self.reserve(Class::Landing);
        let data_bytes = |zones: usize| zones as u64 * self.geometry.zone_bytes * code.k() as u64 / code.shards() as u64;
        let mut devices: Vec<u16> = self.taken.keys().chain(live).copied().collect();
        devices.sort_unstable();
        devices.dedup();
        let space = |device| DeviceSpace {
            device,
            live: live.contains(&device),
            zones_total: self.geometry.zone_count,
            zones_free: self.free(device) as u32,
        };
        SpaceStatus {
            code,
            usable_bytes: data_bytes(live.len() * (self.geometry.zone_count as usize).saturating_sub(reserve)),
            used_bytes: self.used.values().sum(),
            released_bytes: self.released.iter().filter_map(|id| self.used.get(id)).sum(),
            free_bytes: data_bytes(live.iter().map(|&device| self.free(device).saturating_sub(reserve)).sum()),
            segments: self.used.len() - self.released.len(),
            devices: devices.into_iter().map(space).collect(),
        }
    }

    fn reserve(&self, class: Class) -> usize {
        let small = self.geometry.zone_count as usize / RESERVE_SHARE;
        let reduced = small.clamp(1, REDUCED_RESERVE_ZONES);
        match class {
            Class::Landing => (2 * reduced).min(LANDING_RESERVE_ZONES),
            Class::Reduced => reduced,
            Class::Table => 0,
        }
    }

    fn free(&self, device: u16) -> usize {
        self.geometry.zone_count as usize - self.taken.get(&device).map_or(0, HashSet::len)
    }

    fn first_free(&self, device: u16) -> Option<u32> {
        let Some(taken) = self.taken.get(&device) else { return Some(0) };
        (0..self.geometry.zone_count).find(|zone| !taken.contains(zone))
    }
}
