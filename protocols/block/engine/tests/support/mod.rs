//! What the tests share: volumes in memory, a target on them, and hosts that connect as hosts do.

#![allow(dead_code, reason = "each test file is a program of its own and needs only a part")]

pub mod chap;
pub mod host;

use host::{Completion, Connection, Entry, Options, SUCCESS};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use trefoil_core::block::VolumeId;
use trefoil_core::block::model::Model;
use trefoil_nvme::{Access, Config, Host, Target};

pub const NQN: &str = "nqn.2014-08.org.nvmexpress:uuid:7265666f-696c-4d6f-8465-6c0000000001";
pub const DISCOVERY: &str = "nqn.2014-08.org.nvmexpress.discovery";
pub const ENABLE: u64 = 0x46_0001;

pub struct World {
    pub model: Arc<Model>,
    pub config: Config,
    pub target: Option<Target>,
}

pub fn host_nqn(name: &str) -> String {
    format!("nqn.2014-08.org.nvmexpress:uuid:{name}")
}

/// May see these volumes only.
pub fn narrow(name: &str, volumes: &[VolumeId]) -> Host {
    Host {
        volumes: Some(BTreeSet::from_iter(volumes.iter().copied())),
        ..Host::new(&host_nqn(name))
    }
}

impl World {
    /// Two volumes of 64 MiB, with blocks of 512 and of 4096 bytes; any host may come.
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    pub fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let model = Arc::new(Model::new());
        model.add("/volumes/one", 64 << 20, 512);
        model.add("/volumes/two", 64 << 20, 4096);
        let mut config = Config::new(SocketAddr::from(([127, 0, 0, 1], 0)), NQN, "SERIAL1");
        config.access = Access {
            any_host: true,
            ..Access::default()
        };
        configure(&mut config);
        let mut world = Self {
            model,
            config,
            target: None,
        };
        world.start();
        world
    }

    pub fn start(&mut self) {
        let target = Target::start(self.model.clone(), self.config.clone()).unwrap();
        // A restart is at the same address.
        self.config.listen = target.addresses().to_vec();
        self.target = Some(target);
    }

    pub fn stop(&mut self) {
        self.target = None;
    }

    pub fn target(&self) -> &Target {
        self.target.as_ref().unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        self.target().addresses()[0]
    }

    pub fn set_access(&self, change: impl FnOnce(&mut Access)) {
        let mut access = self.config.access.clone();
        change(&mut access);
        self.target().set_access(access);
    }

    pub fn metric(&self, name: &str) -> f64 {
        let samples = self.target().metrics();
        samples
            .iter()
            .find(|(known, _)| known == name)
            .unwrap_or_else(|| panic!("{name}"))
            .1
    }

    /// Waits until something is so, as other threads make it.
    pub fn until(&self, what: &str, mut so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !so() {
            assert!(Instant::now() < deadline, "it never came to be: {what}");
            std::thread::yield_now();
        }
    }

    pub fn open(&self, options: Options) -> Connection {
        Connection::open(self.address(), options)
    }

    pub fn host(&self, name: &str) -> Attachment {
        self.host_with(name, Options::default())
    }

    pub fn host_with(&self, name: &str, options: Options) -> Attachment {
        Attachment::new(self.address(), name, options)
    }
}

/// The command and the data of Connect.
pub fn connect(host: &str, subsystem: &str, queue: u16, controller: u16, options: Options) -> (Entry, Vec<u8>) {
    let entry = Entry::new(0x7f)
        .byte(4, 0x01)
        .short(42, queue)
        .short(44, options.depth - 1)
        .byte(46, u8::from(!options.flow_control) << 2)
        .word(12, options.keep_alive_milliseconds);
    let mut data = vec![0; 1024];
    data[..16].copy_from_slice(&host_id(host));
    data[16..18].copy_from_slice(&controller.to_le_bytes());
    data[256..256 + subsystem.len()].copy_from_slice(subsystem.as_bytes());
    let nqn = host_nqn(host);
    data[512..512 + nqn.len()].copy_from_slice(nqn.as_bytes());
    (entry, data)
}

pub fn host_id(name: &str) -> [u8; 16] {
    let mut id = [0x5a; 16];
    name.bytes().zip(&mut id).for_each(|(byte, place)| *place = byte);
    id
}

pub fn property_get(offset: u32, eight: bool) -> Entry {
    Entry::new(0x7f).byte(4, 0x04).byte(40, eight.into()).word(11, offset)
}

pub fn property_set(offset: u32, value: u64) -> Entry {
    Entry::new(0x7f).byte(4, 0x00).word(11, offset).long(48, value)
}

/// A host's session: an admin queue, and as many I/O queues as asked for.
pub struct Attachment {
    pub name: String,
    pub address: SocketAddr,
    pub options: Options,
    pub controller: u16,
    pub admin: Connection,
    pub io: Vec<Connection>,
}

impl Attachment {
    /// With one I/O queue.
    pub fn new(address: SocketAddr, name: &str, options: Options) -> Self {
        let mut attachment = Self::admin_only(address, name, NQN, options);
        attachment.enable();
        attachment.add_queue();
        attachment
    }

    pub fn admin_only(address: SocketAddr, name: &str, subsystem: &str, options: Options) -> Self {
        let admin_options = Options { depth: 32, ..options };
        let mut admin = Connection::open(address, admin_options);
        let (entry, data) = connect(name, subsystem, 0, 0xffff, admin_options);
        let done = admin.run(entry, data, 0).good();
        assert_eq!(done.result >> 16, 0, "authentication is required");
        Self {
            name: name.into(),
            address,
            options,
            controller: done.result as u16,
            admin,
            io: Vec::new(),
        }
    }

    pub fn enable(&mut self) {
        self.admin.run(property_set(0x14, ENABLE), vec![], 0).good();
        assert_eq!(self.admin.run(property_get(0x1c, false), vec![], 0).good().result, 1);
    }

    /// Its index.
    pub fn add_queue(&mut self) -> usize {
        let mut io = Connection::open(self.address, self.options);
        let id = self.io.len() as u16 + 1;
        let (entry, data) = connect(&self.name, NQN, id, self.controller, self.options);
        io.run(entry, data, 0).good();
        self.io.push(io);
        self.io.len() - 1
    }

    pub fn queue(&mut self) -> &mut Connection {
        &mut self.io[0]
    }

    pub fn run(&mut self, entry: Entry, out: Vec<u8>, wanted: usize) -> Completion {
        self.io[0].run(entry, out, wanted)
    }

    pub fn identify(&mut self, structure: u32, namespace: u32) -> Completion {
        self.admin
            .run(Entry::new(0x06).namespace(namespace).word(10, structure), vec![], 4096)
    }

    pub fn log(&mut self, page: u32, length: usize, retain: bool) -> Completion {
        let dwords = length as u32 / 4 - 1;
        let word = page | u32::from(retain) << 15 | (dwords & 0xffff) << 16;
        self.admin
            .run(Entry::new(0x02).word(10, word).word(11, dwords >> 16), vec![], length)
    }

    pub fn feature(&mut self, number: u32) -> Completion {
        self.admin.run(Entry::new(0x0a).word(10, number), vec![], 0)
    }

    pub fn set_feature(&mut self, number: u32, value: u32) -> Completion {
        self.admin.run(Entry::new(0x09).word(10, number).word(11, value), vec![], 0)
    }

    pub fn write(&mut self, namespace: u32, first: u64, bytes: &[u8], block: usize) -> Completion {
        let entry = Entry::new(0x01).namespace(namespace).blocks(first, (bytes.len() / block) as u32);
        self.run(entry, bytes.to_vec(), 0)
    }

    pub fn read(&mut self, namespace: u32, first: u64, length: usize, block: usize) -> Completion {
        let entry = Entry::new(0x02).namespace(namespace).blocks(first, (length / block) as u32);
        self.run(entry, vec![], length)
    }

    pub fn flush(&mut self, namespace: u32) {
        self.run(Entry::new(0x00).namespace(namespace), vec![], 0).good();
    }
}

/// Bytes that tell where they belong.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..length.div_ceil(8))
        .flat_map(|_| random.next().to_le_bytes())
        .take(length)
        .collect()
}

/// xorshift64*
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound.max(1)
    }
}

pub fn is_success(completion: &Completion) -> bool {
    completion.status == SUCCESS
}
