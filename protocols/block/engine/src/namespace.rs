//! Volumes as namespaces: their shape, their reservations, and for how long they are attached.
//!
//! A `Namespace` is there from when its volume is first seen until the volume is gone, with its reservations and counters. It is attached to the store
//! (`Attached`) only while some controller uses it.

use crate::counters::VolumeCounters;
use crate::reservation::Reservations;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use trefoil_core::block::{BlockDevice, BlockError, Volume, VolumeId, Volumes};

/// 512 to 4096 bytes.
const BLOCK_SHIFTS: std::ops::RangeInclusive<u32> = 9..=12;

pub struct Namespace {
    pub id: VolumeId,
    pub uuid: [u8; 16],
    pub block_shift: u32,
    path: RwLock<String>,
    size_blocks: AtomicU64,
    used_blocks: AtomicU64,
    read_only: AtomicBool,
    pub counters: VolumeCounters,
    /// Known since it was attached first.
    reservations: Mutex<Option<Arc<Reservations>>>,
    attached: Mutex<Weak<Attached>>,
}

/// A namespace in use. The volume is detached when the last of these is dropped.
pub struct Attached {
    pub namespace: Arc<Namespace>,
    pub device: Arc<dyn BlockDevice>,
    pub reservations: Arc<Reservations>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Namespace {
    fn new(volume: &Volume) -> Option<Self> {
        let block_shift = volume.block_bytes.checked_ilog2()?;
        if !volume.block_bytes.is_power_of_two() || !BLOCK_SHIFTS.contains(&block_shift) {
            return None;
        }
        let namespace = Self {
            id: volume.id,
            uuid: volume.uuid,
            block_shift,
            path: RwLock::default(),
            size_blocks: AtomicU64::new(0),
            used_blocks: AtomicU64::new(0),
            read_only: AtomicBool::new(false),
            counters: VolumeCounters::default(),
            reservations: Mutex::new(None),
            attached: Mutex::new(Weak::new()),
        };
        namespace.update(volume);
        Some(namespace)
    }

    /// True: hosts must be told.
    fn update(&self, volume: &Volume) -> bool {
        *self.path.write().unwrap_or_else(PoisonError::into_inner) = volume.path.clone();
        let size_blocks = volume.size_bytes >> self.block_shift;
        self.used_blocks
            .store((volume.used_bytes >> self.block_shift).min(size_blocks), Ordering::Relaxed);
        let resized = self.size_blocks.swap(size_blocks, Ordering::SeqCst) != size_blocks;
        let protected = self.read_only.swap(volume.read_only, Ordering::SeqCst) != volume.read_only;
        resized || protected
    }

    /// Asks the store how much is used.
    pub fn look(&self, device: &dyn BlockDevice) {
        let used_blocks = device.volume().used_bytes >> self.block_shift;
        self.used_blocks.store(used_blocks.min(self.size_blocks()), Ordering::Relaxed);
    }

    pub fn path(&self) -> String {
        self.path.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn size_blocks(&self) -> u64 {
        self.size_blocks.load(Ordering::Relaxed)
    }

    pub fn used_blocks(&self) -> u64 {
        self.used_blocks.load(Ordering::Relaxed)
    }

    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    /// Not so: its volume is gone, whatever has its number now.
    pub fn is_in(self: &Arc<Self>, map: &Map) -> bool {
        map.get(&self.id).is_some_and(|namespace| Arc::ptr_eq(namespace, self))
    }

    /// Blocks.
    pub fn attach(self: &Arc<Self>, volumes: &dyn Volumes) -> Result<Arc<Attached>, BlockError> {
        let mut attached = locked(&self.attached);
        if let Some(attached) = attached.upgrade() {
            return Ok(attached);
        }
        let reservations = self.load_reservations(volumes)?;
        let device = volumes.open(self.id)?;
        let volume = device.volume();
        if volume.uuid != self.uuid {
            // Another volume by now; the next listing says so.
            return Err(BlockError::OutOfRange);
        }
        self.update(&volume);
        let namespace = self.clone();
        let made = Arc::new(Attached {
            namespace,
            device,
            reservations,
        });
        *attached = Arc::downgrade(&made);
        Ok(made)
    }

    fn load_reservations(&self, volumes: &dyn Volumes) -> Result<Arc<Reservations>, BlockError> {
        let mut known = locked(&self.reservations);
        if let Some(reservations) = &*known {
            return Ok(reservations.clone());
        }
        let record = volumes.reservation(self.id)?;
        let reservations = Arc::new(Reservations::load(record.as_deref())?);
        *known = Some(reservations.clone());
        Ok(reservations)
    }
}

impl Attached {
    /// Where blocks are, in bytes; none: past the end.
    pub fn bytes(&self, first_block: u64, blocks: u64) -> Option<(u64, u64)> {
        let shift = self.namespace.block_shift;
        let end = first_block.checked_add(blocks)?;
        (end <= self.namespace.size_blocks()).then(|| (first_block << shift, blocks << shift))
    }
}

pub type Map = BTreeMap<VolumeId, Arc<Namespace>>;

pub struct Namespaces {
    pub volumes: Arc<dyn Volumes>,
    known: Mutex<Arc<Map>>,
}

impl Namespaces {
    pub fn new(volumes: Arc<dyn Volumes>) -> Self {
        Self {
            volumes,
            known: Mutex::default(),
        }
    }

    pub fn all(&self) -> Arc<Map> {
        locked(&self.known).clone()
    }

    /// Asks the store again. Returns what came, went or changed. A store in trouble says nothing about what there is.
    pub fn refresh(&self) -> Vec<VolumeId> {
        let Ok(volumes) = self.volumes.list() else { return Vec::new() };
        let mut known = locked(&self.known);
        let mut map = Map::new();
        let mut changed = Vec::new();
        for volume in &volumes {
            match known.get(&volume.id).filter(|namespace| namespace.uuid == volume.uuid) {
                Some(namespace) => {
                    if namespace.update(volume) {
                        changed.push(volume.id);
                    }
                    map.insert(volume.id, namespace.clone());
                }
                None => {
                    if let Some(namespace) = Namespace::new(volume) {
                        changed.push(volume.id);
                        map.insert(volume.id, Arc::new(namespace));
                    }
                }
            }
        }
        changed.extend(known.keys().filter(|id| !map.contains_key(id)));
        *known = Arc::new(map);
        changed
    }
}
