//! Volumes judged by plain bytes: random requests of a host, other faces beside it, background work, power cuts and reopening in between.
//!
//! What a host was told is done and did not flush may be gone after a power cut, but only as a suffix of what happened: the judge keeps a copy of the bytes
//! after each change since everything was durable last, and what is found must be one of them in full. So no block is ever torn. A killed process costs nothing.

mod faces;
mod snapshots;

use super::*;
use crate::block;
use crate::device::fault::FaultScript;
use crate::device::random::Seeded;
use crate::store::Content;
use crate::store::files_simulation::World;
use std::sync::mpsc::sync_channel;

const BLOCK: u64 = 512;
/// Larger than the extents of staged content, so that some are cut.
const SIZE_MAX: u64 = 3 << 20;
const WRITE_BYTES_MAX: u64 = 400 << 10;
/// Writes and flushes of all drives that still succeed once the cut is on its way.
const CUT_OPERATIONS: u64 = 60;
const WINDOW_STEPS: u64 = 25;
const PATH: &str = "volumes/a/disk";
const KEY: &[u8] = b"a/disk";

/// Waits for what reports to a `Done`.
pub(super) fn done<T: Send + 'static>(start: impl FnOnce(block::Done<T>)) -> block::Result<T> {
    let (sender, receiver) = sync_channel(1);
    start(Box::new(move |result| {
        let _nobody_waits = sender.send(result);
    }));
    receiver
        .recv()
        .unwrap_or_else(|_| Err(BlockError::Failed("nobody answered".into())))
}

pub(super) fn read(device: &dyn BlockDevice, offset: u64, length: u64) -> Vec<u8> {
    // Not zeros: what is a hole must be made so.
    let mut bytes = vec![0xee; length as usize];
    device.read(offset, &mut bytes).unwrap();
    bytes
}

pub(super) fn write(device: &dyn BlockDevice, offset: u64, bytes: &[u8]) {
    done(|done| device.write(offset, bytes.to_vec(), false, done)).unwrap();
}

pub(super) fn make_view(store: &Store) {
    wait(|done| store.create_view("volumes", Attributes::default(), done)).unwrap();
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// The host never flushes, and believes it did.
    FlushesForgotten,
    /// The drives say that they flushed.
    FlushesLeftOut,
}

struct Trial {
    world: World,
    random: Seeded,
    wrong: Wrong,
    id: VolumeId,
    device: Option<Arc<dyn BlockDevice>>,
    model: Vec<u8>,
    next: Vec<u8>,
    /// An object on its way out, and what it must read.
    reader: Option<(Content, Vec<u8>)>,
    /// What the volume had as an object when it was detached last.
    detached: Option<(String, Vec<u8>)>,
    lost_in_part: usize,
}

type Verdict<T = ()> = std::result::Result<T, String>;

impl Trial {
    fn new(seed: u64, wrong: Wrong) -> Self {
        let world = World::new(seed);
        make_view(&world.store);
        let made = world
            .store
            .create_volume(PATH, Attributes::default(), SIZE_MAX / 2, BLOCK as u32)
            .unwrap();
        Self {
            device: None,
            id: made.volume.id,
            world,
            random: Seeded::new(seed),
            wrong,
            model: vec![0; SIZE_MAX as usize / 2],
            next: Vec::new(),
            reader: None,
            detached: None,
            lost_in_part: 0,
        }
    }

    fn device(&mut self) -> block::Result<Arc<dyn BlockDevice>> {
        if self.device.is_none() {
            self.device = Some(Volumes::open(self.world.store.as_ref(), self.id)?);
        }
        Ok(self.device.clone().expect("it was opened"))
    }

    /// A range of whole blocks.
    fn range(&mut self, length_max: u64) -> (usize, usize) {
        let blocks = self.model.len() as u64 / BLOCK;
        let length = 1 + self.random.below((length_max / BLOCK).min(blocks));
        let start = self.random.below(blocks - length + 1);
        ((start * BLOCK) as usize, (length * BLOCK) as usize)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let tag = self.random.next_u64();
        (0..length).map(|at| (tag >> (at / 64 % 8 * 8)) as u8 | 1).collect()
    }

    /// One request; true if everything is durable now. `next` is what it makes of the model, also if it fails.
    fn request(&mut self) -> block::Result<bool> {
        let durable = self.random.chance(12);
        let small = if self.random.chance(5) { WRITE_BYTES_MAX } else { 8 * BLOCK };
        let device = self.device()?;
        let (offset, length) = self.range(small);
        let (end, at) = (offset + length, offset as u64);
        self.next = self.model.clone();
        match self.random.below(20) {
            0..9 => {
                let bytes = self.bytes(length);
                self.next[offset..end].copy_from_slice(&bytes);
                done(|done| device.write(at, bytes, durable, done))?;
            }
            9..11 => {
                self.next[offset..end].fill(0);
                done(|done| device.zero(at, length as u64, durable, done))?;
            }
            11..13 => {
                let to = self.random.below((self.model.len() - length) as u64 / BLOCK + 1) * BLOCK;
                self.next.copy_within(offset..end, to as usize);
                done(|done| device.copy(at, to, length as u64, durable, done))?;
            }
            13..15 => return self.compare_and_write(&device, durable),
            15 => {
                let size = (1 + self.random.below(SIZE_MAX / BLOCK)) * BLOCK;
                self.next.resize(size as usize, 0);
                self.world.store.resize_volume(self.id, size, true).map_err(block_error)?;
                self.model = self.next.clone();
                return Ok(true);
            }
            16 => return self.flush(&device),
            _ => {
                assert!(read(device.as_ref(), at, length as u64) == self.model[offset..end], "read at {at}");
                return Ok(false);
            }
        }
        self.model = self.next.clone();
        Ok(durable)
    }

    fn compare_and_write(&mut self, device: &Arc<dyn BlockDevice>, durable: bool) -> block::Result<bool> {
        let (offset, length) = self.range(8 * BLOCK);
        let (range, bytes) = (offset..offset + length, self.bytes(length));
        let mut expected = self.model[range.clone()].to_vec();
        let is_right = self.random.chance(2);
        if is_right {
            self.next[range].copy_from_slice(&bytes);
        } else {
            expected[length - 1] ^= 0x80;
        }
        let changed = done(|done| device.compare_and_write(offset as u64, expected, bytes, durable, done))?;
        assert_eq!(changed, is_right);
        self.model = self.next.clone();
        Ok(changed && durable)
    }

    fn flush(&self, device: &Arc<dyn BlockDevice>) -> block::Result<bool> {
        if self.wrong != Wrong::FlushesForgotten {
            done(|done| device.flush(done))?;
        }
        Ok(true)
    }

    /// What goes on beside the host.
    fn beside(&mut self) -> Verdict<()> {
        let words = |error: Error| error.to_string();
        match self.random.below(40) {
            lot @ 0..5 => self.world.background(lot).map_err(words)?,
            5 => self.world.store.core.settle_volumes(),
            6 => {
                if let Some((content, expected)) = self.reader.take() {
                    let size = content.element.row.size;
                    if content.read(0, size).map_err(words)? != expected {
                        return Err("an object that was being read changed".into());
                    }
                }
                let content = self.world.store.open_content("volumes", KEY, None).map_err(words)?;
                self.reader = Some((content, self.model.clone()));
            }
            7 => self.detach()?,
            _ => {}
        }
        Ok(())
    }

    /// Other content has another ETag as soon as hosts let go.
    fn detach(&mut self) -> Verdict {
        let words = |error: Error| error.to_string();
        drop(self.device.take());
        while self.world.store.volume(self.id).map_err(words)?.handles > 0 {
            std::thread::yield_now();
        }
        let etag = self.world.store.lookup("volumes", KEY, None).map_err(words)?.etag();
        match &self.detached {
            Some((old, model)) if *old == etag && *model != self.model => return Err(format!("ETag {etag} names two contents")),
            _ => self.detached = Some((etag, self.model.clone())),
        }
        Ok(())
    }

    fn live(&mut self, steps: usize) -> Verdict {
        for _ in 0..steps {
            self.world.make_room().map_err(|error| error.to_string())?;
            self.request().map_err(|error| error.to_string())?;
            self.beside()?;
            if self.random.chance(60) {
                self.lose_power()?;
            }
            if self.random.chance(25) {
                self.world.check()?;
            }
        }
        let model = self.model.clone();
        self.compare(&[model]).map(|_| ())
    }

    fn lose_power(&mut self) -> Verdict {
        if self.wrong == Wrong::FlushesLeftOut {
            for device in &self.world.devices {
                device.set_script(FaultScript::parse("flush * lie").unwrap());
            }
        }
        let device = self.device().map_err(|error| error.to_string())?;
        self.flush(&device).map_err(|error| error.to_string())?;
        drop(device);
        let mut states = vec![self.model.clone()];
        if self.random.chance(2) {
            self.world.power.cut_after(self.random.below(CUT_OPERATIONS));
        }
        for _ in 0..self.random.below(WINDOW_STEPS) {
            let step = self
                .world
                .make_room()
                .map_err(block_error)
                .and_then(|()| self.request())
                .map_err(|error| error.to_string())
                .and_then(|is_durable| self.beside().map(|()| is_durable));
            match step {
                Ok(true) => states = vec![self.model.clone()],
                Ok(false) => states.push(self.model.clone()),
                Err(_) if self.world.power.is_cut() => {
                    self.crash();
                    return self.find_after_failure(states);
                }
                Err(wrong) => return Err(wrong),
            }
        }
        if self.random.chance(3) && !self.world.power.is_cut() {
            (self.device, self.reader) = (None, None);
            self.world.kill();
            return self.compare(&states[states.len() - 1..]).map(|_| ());
        }
        self.crash();
        let index = self.compare(&states)?;
        self.lost_in_part += usize::from(index > 0 && index + 1 < states.len());
        self.model = states.swap_remove(index);
        Ok(())
    }

    fn crash(&mut self) {
        (self.device, self.reader) = (None, None);
        let seed = self.random.next_u64() >> 1;
        self.world.crash(seed);
    }

    /// Which of the states survived.
    fn compare(&mut self, states: &[Vec<u8>]) -> Verdict<usize> {
        self.world.check()?;
        let found = self.content()?;
        let index = states.iter().rposition(|state| *state == found);
        self.check_etag(&found)?;
        index.ok_or_else(|| format!("none of the last {} states survived a power cut", states.len()))
    }

    /// A request that failed with the power may have done all, nothing, or, if it was more than one change, some whole blocks of what it was to do.
    fn find_after_failure(&mut self, states: Vec<Vec<u8>>) -> Verdict {
        let last = states.last().expect("there is one").clone();
        if let Ok(index) = self.compare(&states) {
            self.model = states[index].clone();
            return Ok(());
        }
        let (found, next) = (self.content()?, self.next.clone());
        let same = |other: &[u8], at: usize| other.get(at..at + BLOCK as usize) == found.get(at..at + BLOCK as usize);
        match (0..found.len())
            .step_by(BLOCK as usize)
            .all(|at| same(&last, at) || same(&next, at))
        {
            true => self.model = found,
            false => return Err(format!("none of the last {} states survived a failure", states.len())),
        }
        Ok(())
    }

    fn content(&mut self) -> Verdict<Vec<u8>> {
        let device = self.device().map_err(|error| error.to_string())?;
        let size = device.volume().size_bytes;
        let mut found = vec![0xee; size as usize];
        let pieces = found.chunks_mut(1 << 20).enumerate();
        for (index, piece) in pieces {
            device.read((index as u64) << 20, piece).map_err(|error| error.to_string())?;
        }
        Ok(found)
    }

    /// A crash in a period leaves no old ETag.
    fn check_etag(&mut self, found: &[u8]) -> Verdict {
        let now = self
            .world
            .store
            .lookup("volumes", KEY, None)
            .map_err(|error| error.to_string())?
            .etag();
        match &self.detached {
            Some((etag, model)) if *etag == now && model != found => Err(format!("ETag {etag} names two contents after a crash")),
            _ => Ok(()),
        }
    }
}

fn judged(seed: u64, steps: usize) -> (usize, u64) {
    let mut trial = Trial::new(seed, Wrong::Nothing);
    trial.live(steps).unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    (trial.lost_in_part, trial.world.merged())
}

#[test]
fn volumes_are_what_the_model_says() {
    let found: Vec<(usize, u64)> = (0..4).map(|seed| judged(seed, 400)).collect();
    assert!(found.iter().any(|(lost, _)| *lost > 0), "nothing was lazy, or everything was lost");
    assert!(found.iter().all(|(_, merged)| *merged > 0), "no block was merged: {found:?}");
}

#[test]
fn flushes_forgotten_and_left_out_are_found() {
    for wrong in [Wrong::FlushesForgotten, Wrong::FlushesLeftOut] {
        let is_found =
            |seed: &u64| std::panic::catch_unwind(|| Trial::new(*seed, wrong).live(300)).map_or(true, |verdict| verdict.is_err());
        assert!((0..6).any(|seed| is_found(&seed)));
    }
}

#[test]
#[ignore = "slow: minutes"]
fn volumes_are_what_the_model_says_at_length() {
    for seed in 100..104 {
        judged(seed, 1200);
    }
}
