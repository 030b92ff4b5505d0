//! The core's judge of file systems on the server: what is done by NFS is what the model says, and it is durable when it is answered.

mod support;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use support::through::Through;
use support::watched::Watched;
use support::{FSID, KEY, trusting};
use trefoil_core::device::Device;
use trefoil_core::device::memory::MemoryDevice;
use trefoil_core::device::random::Seeded;
use trefoil_core::filesystem::FileSystem;
use trefoil_core::filesystem::judge::{FakeClock, Judge, Side};
use trefoil_core::filesystem::model::Model;
use trefoil_core::store::{OpenOptions, Store};
use trefoil_nfs::{Config, Server};

const ROOM: u64 = 1 << 40;
const BEGIN_NS: i64 = 1_000_000_000;
/// Of all operations that the judge makes up.
const BY_NFS_PERCENT_MIN: u64 = 60;
const DEVICE_BYTES: u64 = 256 << 20;
const DEVICES: usize = 3;

fn serve(fs: Arc<dyn FileSystem>) -> Server {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Server::start(fs, Config::new(listen, vec![trusting("/")], FSID, KEY)).unwrap()
}

/// Power is lost after every other operation, right after its answer. The verdict of the first that is wrong.
fn judge_the_model(seed: u64, steps: usize, sync_lies: bool) -> Result<(), String> {
    let clock = FakeClock::new(BEGIN_NS);
    let (model, fs) = (Model::new(1 << 30, clock.clock()), Arc::new(Watched::new(clock.clock())));
    fs.forget_what_is_not_synced();
    fs.sync_lies.store(sync_lies, Ordering::SeqCst);
    let server = serve(fs.clone());
    let through = Through::connect(fs.clone(), server.address());
    let (mut judge, mut random) = (Judge::with_clock(seed, clock), Seeded::new(seed));
    for step in 0..steps {
        judge.step(&model, &through)?;
        if random.chance(2) {
            fs.lose_power();
        }
        if step % 64 == 0 {
            judge.compare(&model, &through)?;
        }
    }
    judge.compare(&model, &through)?;
    assert!(
        through.share() >= BY_NFS_PERCENT_MIN,
        "{} % of the operations went by NFS",
        through.share()
    );
    Ok(())
}

#[test]
fn what_is_answered_is_what_the_model_says_and_durable() {
    for seed in 0..3 {
        judge_the_model(seed, 1000, false).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

#[test]
fn without_syncs_it_would_be_found_out() {
    for seed in 0..3 {
        assert!(judge_the_model(seed, 200, true).is_err());
    }
}

/// A store on drives in memory, served.
struct Stored {
    devices: Vec<Arc<MemoryDevice>>,
    state: tempfile::TempDir,
    clock: FakeClock,
    store: Arc<Store>,
    server: Option<Server>,
}

fn open(devices: &[Arc<MemoryDevice>], state: &Path, clock: &FakeClock) -> Arc<Store> {
    let devices = devices.iter().map(|device| device.clone() as Arc<dyn Device>).collect();
    let options = OpenOptions {
        code: Some((2, 1)),
        clock: clock.clock(),
        ..OpenOptions::default()
    };
    Store::open_on(devices, state, options).unwrap()
}

impl Stored {
    fn new() -> Self {
        let name = |index| format!("memory-{index}");
        let devices: Vec<_> = (0..DEVICES)
            .map(|index| Arc::new(MemoryDevice::new(name(index), DEVICE_BYTES)))
            .collect();
        let (state, clock) = (tempfile::tempdir().unwrap(), FakeClock::new(BEGIN_NS));
        let store = open(&devices, state.path(), &clock);
        let server = Some(serve(store.clone()));
        Self {
            devices,
            state,
            clock,
            store,
            server,
        }
    }

    fn address(&self) -> SocketAddr {
        self.server.as_ref().unwrap().address()
    }

    /// What the drives had flushed is there afterwards, of the rest a random part.
    fn lose_power(&mut self, seed: u64) {
        self.devices.iter().for_each(|device| device.lose());
        self.server.take().unwrap().stop();
        let _dead = self.store.close();
        for (device, seed) in self.devices.iter().zip(seed..) {
            device.restore();
            device.crash(seed);
        }
        self.store = open(&self.devices, self.state.path(), &self.clock);
        self.server = Some(serve(self.store.clone()));
    }
}

fn judge_the_store(seed: u64, steps: usize) {
    let mut world = Stored::new();
    let model = Model::new(ROOM, world.clock.clock());
    let mut through = Through::connect(world.store.clone(), world.address());
    let (mut judge, mut random) = (Judge::with_clock(seed, world.clock.clone()), Seeded::new(seed));
    let must = |step: usize, verdict: Result<(), String>| verdict.unwrap_or_else(|wrong| panic!("seed {seed}, step {step}: {wrong}"));
    for step in 0..steps {
        must(step, judge.step(&model, &through));
        if random.chance(150) {
            judge.close_all(&[(Side::A, &model), (Side::B, &through)]);
            world.lose_power(seed * 1000 + step as u64);
            through.reconnect(world.store.clone(), world.address());
            must(step, judge.compare(&model, &through));
        }
    }
    must(steps, judge.compare(&model, &through));
    assert!(through.share() >= BY_NFS_PERCENT_MIN);
    world.server.take().unwrap().stop();
    world.store.close().unwrap();
}

#[test]
fn over_the_store_it_outlives_losses_of_power() {
    (0..2).for_each(|seed| judge_the_store(seed, 800));
}

#[test]
#[ignore = "minutes"]
fn over_the_store_it_outlives_losses_of_power_at_length() {
    (100..106).for_each(|seed| judge_the_store(seed, 4000));
}
