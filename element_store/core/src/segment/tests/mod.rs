//! Devices in memory with faults on demand, and what the tests share.

mod code_test;
mod fault_test;
mod layout_test;
mod read_write_test;
mod scrub_test;
mod space_test;

use super::*;
use std::sync::atomic::AtomicI64;

pub const MIB: usize = 1 << 20;
pub const ZONE: u64 = 4 * MIB as u64;
pub const FIRST_ZONE: u64 = 64 * 1024;

pub struct MemoryDrive {
    bytes: Mutex<Vec<u8>>,
    dead: AtomicBool,
    /// Writes until one fails; negative: never.
    writes_left: AtomicI64,
    fail_flush: AtomicBool,
    unreadable: AtomicBool,
    /// What unflushed writes replaced: a crash puts it back.
    replaced: Mutex<Vec<(usize, Vec<u8>)>>,
}

pub struct MemoryDrives {
    pub drives: Vec<MemoryDrive>,
    pub flushes: AtomicU64,
    /// Held by a test to make flushes wait.
    pub flush_gate: Mutex<()>,
    pub discarded: Mutex<Vec<(u16, u64, u64)>>,
}

impl MemoryDrives {
    pub fn new(count: usize, geometry: ZoneGeometry) -> Arc<Self> {
        let length = geometry.offset(geometry.zone_count, 0) as usize;
        let drive = |_| MemoryDrive {
            bytes: Mutex::new(vec![0; length]),
            dead: AtomicBool::new(false),
            writes_left: AtomicI64::new(-1),
            fail_flush: AtomicBool::new(false),
            unreadable: AtomicBool::new(false),
            replaced: Mutex::default(),
        };
        Arc::new(Self {
            drives: (0..count).map(drive).collect(),
            flushes: AtomicU64::new(0),
            flush_gate: Mutex::default(),
            discarded: Mutex::default(),
        })
    }

    pub fn kill(&self, device: u16) {
        self.drive(device).dead.store(true, Ordering::SeqCst);
    }

    pub fn revive(&self, device: u16) {
        self.drive(device).dead.store(false, Ordering::SeqCst);
    }

    pub fn fail_write_after(&self, device: u16, writes: i64) {
        self.drive(device).writes_left.store(writes, Ordering::SeqCst);
    }

    pub fn fail_next_flush(&self, device: u16) {
        self.drive(device).fail_flush.store(true, Ordering::SeqCst);
    }

    pub fn set_unreadable(&self, device: u16, unreadable: bool) {
        self.drive(device).unreadable.store(unreadable, Ordering::SeqCst);
    }

    pub fn change(&self, device: u16, offset: u64, with: impl FnOnce(&mut [u8])) {
        with(&mut lock(&self.drive(device).bytes)[offset as usize..]);
    }

    /// Power is lost: of each device's unflushed writes, those that `keep` names stay.
    pub fn crash(&self, mut keep: impl FnMut() -> bool) {
        for drive in &self.drives {
            let mut bytes = lock(&drive.bytes);
            for (start, old) in lock(&drive.replaced).drain(..).rev().filter(|_| !keep()) {
                bytes[start..][..old.len()].copy_from_slice(&old);
            }
        }
    }

    /// The first bytes of every device.
    pub fn snapshot(&self) -> Vec<Vec<u8>> {
        self.drives
            .iter()
            .map(|drive| lock(&drive.bytes)[..FIRST_ZONE as usize + 2 * MIB].to_vec())
            .collect()
    }

    fn drive(&self, device: u16) -> &MemoryDrive {
        &self.drives[usize::from(device)]
    }

    fn write(&self, job: &WriteJob) -> io::Result<()> {
        let drive = self.drive(job.device);
        if drive.dead.load(Ordering::SeqCst) {
            return Err(io::Error::other("dead"));
        }
        let fails = drive.writes_left.load(Ordering::SeqCst) >= 0 && drive.writes_left.fetch_sub(1, Ordering::SeqCst) == 0;
        // A write that fails may have reached the medium in part.
        let written = if fails { &job.bytes[..job.bytes.len() / 2] } else { &job.bytes[..] };
        let start = job.offset as usize;
        let mut bytes = lock(&drive.bytes);
        lock(&drive.replaced).push((start, bytes[start..][..written.len()].to_vec()));
        bytes[start..][..written.len()].copy_from_slice(written);
        if fails {
            drive.dead.store(true, Ordering::SeqCst);
            return Err(io::Error::other("write fails"));
        }
        Ok(())
    }

    fn flush(&self, device: u16) -> io::Result<()> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        drop(lock(&self.flush_gate));
        let drive = self.drive(device);
        if drive.fail_flush.swap(false, Ordering::SeqCst) {
            drive.dead.store(true, Ordering::SeqCst);
        }
        if drive.dead.load(Ordering::SeqCst) {
            return Err(io::Error::other("flush fails"));
        }
        lock(&drive.replaced).clear();
        Ok(())
    }
}

impl Drives for MemoryDrives {
    fn live(&self) -> Vec<u16> {
        (0..self.drives.len() as u16)
            .filter(|device| !self.drive(*device).dead.load(Ordering::SeqCst))
            .collect()
    }

    fn read(&self, device: u16, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let drive = self.drive(device);
        if drive.dead.load(Ordering::SeqCst) || drive.unreadable.load(Ordering::SeqCst) {
            return Err(io::Error::other("not readable"));
        }
        buffer.copy_from_slice(&lock(&drive.bytes)[offset as usize..][..buffer.len()]);
        Ok(())
    }

    fn write_all(&self, jobs: Vec<WriteJob>, flush: bool) -> Vec<(u16, io::Result<()>)> {
        let one = |job: WriteJob| {
            (
                job.device,
                self.write(&job).and_then(|()| if flush { self.flush(job.device) } else { Ok(()) }),
            )
        };
        jobs.into_iter().map(one).collect()
    }

    fn flush_all(&self, devices: &[u16]) -> Vec<(u16, io::Result<()>)> {
        devices.iter().map(|device| (*device, self.flush(*device))).collect()
    }

    fn discard(&self, device: u16, offset: u64, length: u64) {
        lock(&self.discarded).push((device, offset, length));
    }
}

pub fn geometry(zone_count: u32) -> ZoneGeometry {
    ZoneGeometry {
        first_zone_offset: FIRST_ZONE,
        zone_bytes: ZONE,
        zone_count,
    }
}

/// A pool of k + m + `spare` devices in memory.
pub struct World {
    pub drives: Arc<MemoryDrives>,
    pub segments: Segments,
    pub persisted: Arc<Mutex<Vec<SegmentLayout>>>,
}

pub fn world(k: u8, m: u8, spare: usize, zone_count: u32) -> World {
    let drives = MemoryDrives::new(usize::from(k + m) + spare, geometry(zone_count));
    reopen(drives, Code::new(k, m).unwrap(), geometry(zone_count), Vec::new())
}

pub fn reopen(drives: Arc<MemoryDrives>, code: Code, geometry: ZoneGeometry, layouts: Vec<SegmentLayout>) -> World {
    let persisted: Arc<Mutex<Vec<SegmentLayout>>> = Arc::default();
    let to = persisted.clone();
    let persist: Persist = Arc::new(move |layout| {
        lock(&to).push(layout.clone());
        Ok(())
    });
    let next_id = layouts.iter().map(|layout| layout.id + 1).max().unwrap_or(1);
    let segments = Segments::open(drives.clone(), geometry, code, layouts, next_id, persist).unwrap();
    World {
        drives,
        segments,
        persisted,
    }
}

impl World {
    pub fn append(&self, class: Class, payloads: &[Vec<u8>]) -> Result<Vec<Location>> {
        let payloads: Vec<Payload<'_>> = payloads
            .iter()
            .enumerate()
            .map(|(i, bytes)| Payload {
                kind: 1,
                owner: i as u64,
                bytes,
            })
            .collect();
        self.segments.append(class, &payloads)
    }

    pub fn check(&self, location: &Location, bytes: &[u8]) {
        let read = self
            .segments
            .read(location, 0..location.length, crate::codec::checksum(bytes))
            .unwrap();
        assert!(read == bytes, "{location:?} reads back other bytes");
    }

    /// Device and absolute offset of a byte of any shard of a segment.
    pub fn place(&self, segment: u64, shard: usize, offset: u64) -> (u16, u64) {
        let layout = self.segments.segment(segment).unwrap().layout.clone();
        let (device, zone) = layout.zones[shard];
        (device, geometry(u32::MAX).offset(zone, offset))
    }
}

/// Bytes that differ by seed and do not compress or repeat.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| step()).collect()
}

/// All subsets of 0..n with at most `most` members.
pub fn subsets(n: usize, most: usize) -> Vec<Vec<usize>> {
    let members = |mask: u32| (0..n).filter(|i| mask >> i & 1 == 1).collect::<Vec<_>>();
    (0..1u32 << n)
        .filter(|mask| mask.count_ones() as usize <= most)
        .map(members)
        .collect()
}

pub fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::SeqCst)
}
