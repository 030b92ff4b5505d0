//! The store's files judged by the model: random operations, background work, power cuts and reopening in between.

use super::*;
use crate::device::Device;
use crate::device::memory::MemoryDevice;
use crate::device::random::{Seeded, from_seed};
use crate::element::invariants;
use crate::filesystem::judge::{FakeClock, Judge, Side};
use crate::filesystem::model::Model;
use crate::meta::lsm::LsmSettings;
use crate::pool::{Code, FormatOptions, Geometry, OpenOptions as PoolOptions, Pool};
use std::collections::HashSet;

const DEVICE_BYTES: u64 = 256 << 20;
const MEMTABLE_BYTES: u64 = 256 << 10;

struct World {
    devices: Vec<Arc<MemoryDevice>>,
    state: tempfile::TempDir,
    clock: FakeClock,
    store: Arc<Store>,
    unfree: HashSet<u64>,
    raw: u64,
}

fn given(devices: &[Arc<MemoryDevice>]) -> Vec<Arc<dyn Device>> {
    devices.iter().map(|device| device.clone() as Arc<dyn Device>).collect()
}

fn start(devices: &[Arc<MemoryDevice>], state: &std::path::Path, clock: &FakeClock, seed: u64) -> Arc<Store> {
    let pool = PoolOptions {
        allow_degraded: false,
        random: from_seed(seed),
    };
    let metadata = LsmSettings {
        cache_bytes: 1 << 20,
        memtable_bytes: MEMTABLE_BYTES,
        table_bytes: 256 << 10,
    };
    let options = OpenOptions {
        metadata,
        background: false,
        clock: clock.clock(),
        ..OpenOptions::default()
    };
    Store::start(Pool::open(given(devices), pool).unwrap(), state, options).unwrap()
}

impl World {
    fn new(seed: u64) -> Self {
        let devices: Vec<_> = (0..3)
            .map(|index| Arc::new(MemoryDevice::new(format!("m{index}"), DEVICE_BYTES)))
            .collect();
        let format = FormatOptions {
            code: Some(Code { k: 2, m: 1 }),
            geometry: Some(Geometry::fitted(DEVICE_BYTES, 512 << 10, 16 << 20, 2 << 20).unwrap()),
            random: from_seed(seed),
        };
        drop(Pool::format(given(&devices), format).unwrap());
        let (state, clock) = (tempfile::tempdir().unwrap(), FakeClock::new(1_000_000_000));
        let store = start(&devices, state.path(), &clock, seed);
        Self {
            devices,
            state,
            clock,
            store,
            unfree: HashSet::new(),
            raw: 0,
        }
    }

    fn background(&mut self, lot: u64) {
        let core = self.store.core.clone();
        match lot {
            0 => core.checkpoint().unwrap(),
            1 => while core.reduce_journal(u64::MAX).unwrap() > 0 {},
            2 => self.raw = core.reduce_raw(self.raw).unwrap().unwrap_or(0),
            3 => drop(core.compact().unwrap()),
            _ => core.upkeep_step(&mut self.unfree).unwrap(),
        }
    }

    /// What the background threads would do before anybody has to wait.
    fn make_room(&mut self) {
        let core = self.store.core.clone();
        // Well before the tree is behind: one operation may be several changes.
        if core.engine.memtable_bytes() >= 2 * MEMTABLE_BYTES {
            while core.engine.maintain().unwrap() {}
        }
        loop {
            let (used, capacity) = core.committer.journal_use();
            if used * 3 <= capacity && !core.engine.is_behind() {
                return;
            }
            while core.reduce_journal(u64::MAX).unwrap() > 0 {}
            core.checkpoint().unwrap();
            core.upkeep_step(&mut self.unfree).unwrap();
        }
    }

    /// Power loss: everything acknowledged is there afterwards.
    fn crash(&mut self, seed: u64) {
        self.devices.iter().for_each(|device| device.lose());
        let _dead = self.store.close();
        for (device, seed) in self.devices.iter().zip(seed..) {
            device.restore();
            device.crash(seed);
        }
        self.store = start(&self.devices, self.state.path(), &self.clock, seed);
        self.unfree.clear();
    }

    fn check(&self) {
        let findings = invariants::check(&self.store.core.snapshot()).unwrap();
        assert_eq!(findings.count, 0, "{:?}", findings.sentences);
    }
}

fn judged(seed: u64, steps: usize) {
    let mut world = World::new(seed);
    let model = Model::new(1 << 40, world.clock.clock());
    let mut judge = Judge::with_clock(seed, world.clock.clone());
    let mut random = Seeded::new(seed);
    for step in 0..steps {
        world.make_room();
        let verdict = judge.step(&model, world.store.as_ref());
        verdict.unwrap_or_else(|wrong| panic!("seed {seed}, step {step}: {wrong}"));
        match random.below(200) {
            lot @ 0..5 => world.background(lot),
            5 => {
                judge.close_all(&[(Side::A, &model), (Side::B, world.store.as_ref())]);
                world.crash(seed * 1000 + step as u64);
                world.check();
                judge
                    .compare(&model, world.store.as_ref())
                    .unwrap_or_else(|wrong| panic!("seed {seed}, step {step}: {wrong}"));
            }
            6 => {
                world.check();
                judge
                    .compare(&model, world.store.as_ref())
                    .unwrap_or_else(|wrong| panic!("seed {seed}, step {step}: {wrong}"));
            }
            _ => {}
        }
    }
    judge.compare(&model, world.store.as_ref()).unwrap();
    world.check();
}

#[test]
fn files_are_what_the_model_says() {
    (0..4).for_each(|seed| judged(seed, 800));
}

#[test]
#[ignore = "minutes"]
fn files_are_what_the_model_says_at_length() {
    (100..112).for_each(|seed| judged(seed, 4000));
}
