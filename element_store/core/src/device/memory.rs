//! A deterministic device in memory, with power loss and scripted faults; what simulations and tests of every layer use.
//!
//! Two planes: what reads see, and what survives `crash`. Only pages that were written take memory; between flushes the pages' earlier
//! content and the writes in order are kept, so that a crash can undo all and redo a seeded part. Never touches a file or a clock (`slow` sleeps).

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::Device;
use super::fault::{Effect, FaultScript, Operation};
use super::random::Seeded;

const PAGE_BYTES: usize = 4096;
/// What a drive writes atomically.
pub const SECTOR_BYTES: usize = 512;

type Page = Box<[u8; PAGE_BYTES]>;

#[derive(Debug)]
pub struct MemoryDevice {
    name: String,
    length: u64,
    plane: Mutex<Plane>,
    power: Option<Arc<PowerSwitch>>,
}

/// The power of one simulated machine: goes after a number of writes and flushes on all its devices together.
#[derive(Debug)]
pub struct PowerSwitch(AtomicU64);

/// What the power does during one operation.
enum Power {
    On,
    /// It goes now: a write of this moment may be torn.
    Going,
    Off,
}

impl PowerSwitch {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(u64::MAX)))
    }

    /// So many writes and flushes still succeed.
    pub fn cut_after(&self, operations: u64) {
        self.0.store(operations + 1, SeqCst);
    }

    pub fn restore(&self) {
        self.0.store(u64::MAX, SeqCst);
    }

    pub fn is_cut(&self) -> bool {
        self.0.load(SeqCst) == 0
    }

    fn spend(&self, operation: Operation) -> Power {
        let counted = operation != Operation::Read;
        let spend = |left: u64| {
            if left == u64::MAX || !counted {
                Some(left)
            } else {
                Some(left.saturating_sub(1))
            }
        };
        match self.0.fetch_update(SeqCst, SeqCst, spend).unwrap_or_default() {
            0 => Power::Off,
            1 if counted => Power::Going,
            _ => Power::On,
        }
    }
}

#[derive(Debug, Default)]
struct Plane {
    pages: HashMap<u64, Page>,
    /// Pages changed since the last flush, as they were at it (None: never written).
    before: HashMap<u64, Option<Page>>,
    /// Writes since the last flush, in order.
    unflushed: Vec<(u64, Vec<u8>)>,
    script: FaultScript,
    lost: bool,
}

impl MemoryDevice {
    pub fn new(name: impl Into<String>, length: u64) -> Self {
        Self {
            name: name.into(),
            length,
            plane: Mutex::default(),
            power: None,
        }
    }

    /// Part of a simulated machine: its operations are done in the caller's thread, so that a seed replays.
    pub fn powered(name: impl Into<String>, length: u64, power: Arc<PowerSwitch>) -> Self {
        Self {
            power: Some(power),
            ..Self::new(name, length)
        }
    }

    /// Replaces the script; its counts start now.
    pub fn set_script(&self, script: FaultScript) {
        self.plane().script = script;
    }

    /// Power loss and return: of what was not flushed, a random part survives, sector by sector (torn, out of order).
    pub fn crash(&self, seed: u64) {
        let mut random = Seeded::new(seed);
        // Crashes that keep nothing, all, a little or half find different faults.
        let keep_percent = [0, 10, 50, 50, 90, 100][random.below(6) as usize];
        let mut plane = self.plane();
        plane.roll_back();
        for (offset, bytes) in std::mem::take(&mut plane.unflushed) {
            for (start, sector) in sectors(offset, &bytes) {
                if random.below(100) < keep_percent {
                    plane.write(start, sector);
                }
            }
        }
        plane.before.clear();
        plane.script = FaultScript::default();
    }

    /// Every operation fails from now on (a drive that is pulled), until `restore`.
    pub fn lose(&self) {
        self.plane().lost = true;
    }

    pub fn restore(&self) {
        self.plane().lost = false;
    }

    /// Bit rot, in both planes.
    pub fn flip(&self, offset: u64, bit: u8) {
        self.plane().flip(offset, bit);
    }

    /// Everything reads as zeros (the content was deleted), in both planes.
    pub fn wipe(&self) {
        *self.plane() = Plane::default();
    }

    /// An independent device with what this one would show after a restart without power loss.
    pub fn duplicate(&self, name: impl Into<String>) -> Self {
        let copy = Self::new(name, self.length);
        copy.plane().pages = self.plane().pages.clone();
        copy
    }

    /// The same content on a device of another length; what lies beyond it is gone.
    pub fn resized(&self, length: u64) -> Self {
        let mut device = self.duplicate(&self.name);
        device.length = length;
        device.plane().pages.retain(|page, _| page * (PAGE_BYTES as u64) < length);
        device
    }

    fn plane(&self) -> MutexGuard<'_, Plane> {
        self.plane.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn check_range(&self, offset: u64, length: usize) -> io::Result<()> {
        match offset.checked_add(length as u64) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "past the end of the device")),
        }
    }

    /// Applies the script. Ok(true): do it; Ok(false): claim that it was done.
    fn enter(&self, operation: Operation, torn: Option<(u64, &[u8])>) -> io::Result<bool> {
        let mut honest = true;
        let mut plane = self.plane();
        match self.power.as_ref().map(|power| power.spend(operation)) {
            None | Some(Power::On) => {}
            Some(going) => {
                if let (Power::Going, Some((offset, bytes)), false) = (going, torn, plane.lost) {
                    plane.write_unflushed(offset, bytes);
                }
                return Err(io::Error::other("the power is off"));
            }
        }
        for effect in plane.script.next(operation) {
            match effect {
                Effect::Fail => return Err(io::Error::other("scripted I/O error")),
                Effect::Full => return Err(io::Error::new(io::ErrorKind::StorageFull, "scripted full device")),
                Effect::Lose => plane.lost = true,
                Effect::Lie => honest = false,
                Effect::Flip { offset, bit } => plane.flip(offset, bit),
                Effect::Tear => {
                    if let Some((offset, bytes)) = torn {
                        plane.write_unflushed(offset, &bytes[..bytes.len() / 2]);
                    }
                    return Err(io::Error::other("scripted torn write"));
                }
                Effect::Slow { milliseconds } => {
                    drop(plane);
                    std::thread::sleep(Duration::from_millis(milliseconds));
                    plane = self.plane();
                }
            }
        }
        if plane.lost {
            Err(io::Error::new(io::ErrorKind::NotFound, "the device is gone"))
        } else {
            Ok(honest)
        }
    }
}

impl Plane {
    fn read(&self, offset: u64, buffer: &mut [u8]) {
        for (page, within, range) in pieces(offset, buffer.len()) {
            match self.pages.get(&page) {
                Some(bytes) => {
                    let length = range.len();
                    buffer[range].copy_from_slice(&bytes[within..within + length]);
                }
                None => buffer[range].fill(0),
            }
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (page, within, range) in pieces(offset, bytes.len()) {
            let target = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE_BYTES]));
            target[within..within + range.len()].copy_from_slice(&bytes[range]);
        }
    }

    fn write_unflushed(&mut self, offset: u64, bytes: &[u8]) {
        for (page, _, _) in pieces(offset, bytes.len()) {
            self.before.entry(page).or_insert_with(|| self.pages.get(&page).cloned());
        }
        self.unflushed.push((offset, bytes.to_vec()));
        self.write(offset, bytes);
    }

    fn roll_back(&mut self) {
        for (page, content) in self.before.drain() {
            match content {
                Some(content) => self.pages.insert(page, content),
                None => self.pages.remove(&page),
            };
        }
    }

    fn flip(&mut self, offset: u64, bit: u8) {
        let (page, within) = (offset / PAGE_BYTES as u64, (offset % PAGE_BYTES as u64) as usize);
        let mask = 1 << (bit % 8);
        self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE_BYTES]))[within] ^= mask;
        if let Some(Some(before)) = self.before.get_mut(&page) {
            before[within] ^= mask;
        }
    }
}

impl Device for MemoryDevice {
    fn len(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.enter(Operation::Read, None)?;
        self.check_range(offset, buffer.len())?;
        self.plane().read(offset, buffer);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_range(offset, bytes.len())?;
        if self.enter(Operation::Write, Some((offset, bytes)))? {
            self.plane().write_unflushed(offset, bytes);
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        if self.enter(Operation::Flush, None)? {
            let mut plane = self.plane();
            plane.before.clear();
            plane.unflushed.clear();
        }
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.check_range(offset, usize::try_from(length).unwrap_or(usize::MAX))?;
        let mut plane = self.plane();
        if plane.lost {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the device is gone"));
        }
        // Whole pages only, and as a write of zeros: like one it may be undone by a crash.
        let (first, last) = (offset.div_ceil(PAGE_BYTES as u64), (offset + length) / PAGE_BYTES as u64);
        for page in first..last {
            if plane.pages.contains_key(&page) {
                plane.write_unflushed(page * PAGE_BYTES as u64, &[0; PAGE_BYTES]);
            }
        }
        Ok(())
    }

    fn probe(&self) -> io::Result<()> {
        if self.plane().lost {
            Err(io::Error::new(io::ErrorKind::NotFound, "the device is gone"))
        } else {
            Ok(())
        }
    }

    fn is_instant(&self) -> bool {
        self.power.is_some()
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// Cuts a range at pages: (page, offset in it, range of the buffer).
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE_BYTES as u64) as usize;
        let take = (PAGE_BYTES - within).min(length - done);
        done += take;
        Some((at / PAGE_BYTES as u64, within, done - take..done))
    })
}

fn sectors(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let take = (SECTOR_BYTES - (at % SECTOR_BYTES as u64) as usize).min(bytes.len() - done);
        done += take;
        (take > 0).then(|| (at, &bytes[done - take..done]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(device: &MemoryDevice, offset: u64, length: usize) -> Vec<u8> {
        let mut buffer = vec![1; length];
        device.read_at(offset, &mut buffer).unwrap();
        buffer
    }

    #[test]
    fn flushed_bytes_survive_every_crash_and_unflushed_ones_only_some() {
        let (mut kept, mut dropped, mut torn) = (0, 0, 0);
        for seed in 0..200 {
            let device = MemoryDevice::new("m", 1 << 20);
            device.write_at(100, &[7; 10_000]).unwrap();
            device.flush().unwrap();
            device.write_at(4096, &[9; 2048]).unwrap();
            device.crash(seed);
            assert_eq!(read(&device, 100, 3996), [7; 3996]);
            let after = read(&device, 4096, 2048);
            assert!(after.chunks(512).all(|sector| sector == [7; 512] || sector == [9; 512]));
            match after.iter().filter(|byte| **byte == 9).count() {
                0 => dropped += 1,
                2048 => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(kept > 10 && dropped > 10 && torn > 10, "{kept} {dropped} {torn}");
    }

    #[test]
    fn a_lying_flush_loses_what_it_confirmed() {
        let lost = (0..20).any(|seed| {
            let device = MemoryDevice::new("m", 1 << 20);
            device.set_script(FaultScript::parse("flush * lie").unwrap());
            device.write_at(0, &[7; 512]).unwrap();
            device.flush().unwrap();
            device.crash(seed);
            read(&device, 0, 512) == [0; 512]
        });
        assert!(lost);
    }

    #[test]
    fn scripted_faults_happen() {
        let device = MemoryDevice::new("m", 1 << 20);
        device.set_script(FaultScript::parse("write 1 fail; write 2 full; write 3 tear; read 1 flip 0 0; flush 1 lose").unwrap());
        assert!(device.write_at(0, &[1]).is_err());
        assert_eq!(device.write_at(0, &[1]).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(device.write_at(0, &[2; 1024]).is_err());
        assert_eq!(read(&device, 0, 1024), [&[3][..], &[2; 511], &[0; 512]].concat());
        assert!(device.flush().is_err() && device.probe().is_err() && device.read_at(0, &mut [0]).is_err());
        assert_eq!(
            MemoryDevice::new("m", 10).read_at(9, &mut [0; 2]).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
