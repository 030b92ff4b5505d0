//! Random commands over several connections, judged by what a plain array of bytes would hold; with restarts and power cuts between.

mod support;

use std::collections::HashMap;
use support::host::{Connection, Entry, Options};
use support::{Attachment, Random, World, pattern};

const BLOCK: u64 = 512;
/// Each connection has blocks of its own, so that what it reads is decided.
const BLOCKS: u64 = 4096;
const OUTSTANDING_MAX: usize = 12;

/// What an answer must be.
enum Expected {
    Done,
    Data(Vec<u8>),
    Status(u16),
}

struct Judge {
    first: u64,
    /// What the volume holds here when all that is outstanding is done.
    bytes: Vec<u8>,
    /// Blocks that outstanding commands touch.
    busy: Vec<bool>,
    waiting: HashMap<u16, (std::ops::Range<usize>, Expected)>,
    random: Random,
}

impl Judge {
    fn new(first: u64, seed: u64) -> Self {
        Self {
            first,
            bytes: vec![0; (BLOCKS * BLOCK) as usize],
            busy: vec![false; BLOCKS as usize],
            waiting: HashMap::new(),
            random: Random::new(seed),
        }
    }

    /// Blocks that nothing outstanding touches.
    fn range(&mut self) -> Option<std::ops::Range<usize>> {
        let length = if self.random.below(4) == 0 {
            self.random.below(512)
        } else {
            self.random.below(32)
        } + 1;
        let start = self.random.below(BLOCKS - length);
        let range = start as usize..(start + length) as usize;
        (!self.busy[range.clone()].iter().any(|&busy| busy)).then_some(range)
    }

    fn at(range: &std::ops::Range<usize>) -> std::ops::Range<usize> {
        range.start * BLOCK as usize..range.end * BLOCK as usize
    }

    fn entry(&self, opcode: u8, range: &std::ops::Range<usize>) -> Entry {
        Entry::new(opcode)
            .namespace(1)
            .blocks(self.first + range.start as u64, range.len() as u32)
    }

    fn expect(&mut self, id: u16, range: std::ops::Range<usize>, expected: Expected) {
        self.busy[range.clone()].fill(true);
        self.waiting.insert(id, (range, expected));
    }

    fn step(&mut self, queue: &mut Connection) {
        let Some(range) = self.range() else { return };
        let at = Self::at(&range);
        let bytes = pattern(self.random.next(), at.len());
        let force = self.random.below(4) == 0;
        match self.random.below(10) {
            0..=2 => {
                let entry = self.entry(1, &range);
                let id = queue.submit(if force { entry.force() } else { entry }, bytes.clone(), 0);
                self.bytes[at].copy_from_slice(&bytes);
                self.expect(id, range, Expected::Done);
            }
            3..=5 => {
                let id = queue.submit(self.entry(2, &range), vec![], at.len());
                let expected = Expected::Data(self.bytes[at].to_vec());
                self.expect(id, range, expected);
            }
            6 => {
                let id = queue.submit(self.entry(8, &range), vec![], 0);
                self.bytes[at].fill(0);
                self.expect(id, range, Expected::Done);
            }
            7 => {
                let block = (self.first + range.start as u64).to_le_bytes();
                let list = [&[0; 4][..], &(range.len() as u32).to_le_bytes(), &block].concat();
                let id = queue.submit(Entry::new(9).namespace(1).word(11, 4), list, 0);
                self.bytes[at].fill(0);
                self.expect(id, range, Expected::Done);
            }
            8 => {
                let equal = self.random.below(2) == 0;
                let mut there = self.bytes[at].to_vec();
                there[0] ^= u8::from(!equal);
                let id = queue.submit(self.entry(5, &range), there, 0);
                self.expect(id, range, Expected::Status(if equal { 0 } else { 0x285 }));
            }
            _ => self.swap(queue, range, bytes),
        }
    }

    fn swap(&mut self, queue: &mut Connection, range: std::ops::Range<usize>, bytes: Vec<u8>) {
        let range = range.start..range.end.min(range.start + 256);
        let at = Self::at(&range);
        let equal = self.random.below(2) == 0;
        let mut there = self.bytes[at.clone()].to_vec();
        there[0] ^= u8::from(!equal);
        let first = queue.submit(self.entry(5, &range).first_half(), there, 0);
        let second = queue.submit(self.entry(1, &range).second_half(), bytes[..at.len()].to_vec(), 0);
        if equal {
            self.bytes[at.clone()].copy_from_slice(&bytes[..at.len()]);
        }
        let statuses = if equal { (0, 0) } else { (0x285, 0x09) };
        // The second is always answered after the first.
        self.waiting.insert(first, (0..0, Expected::Status(statuses.0)));
        self.expect(second, range, Expected::Status(statuses.1));
    }

    fn settle_one(&mut self, queue: &mut Connection) {
        let done = queue.wait_any();
        let (range, expected) = self.waiting.remove(&done.id).unwrap();
        self.busy[range.clone()].fill(false);
        match expected {
            Expected::Done => _ = done.good(),
            Expected::Data(data) => assert!(done.good().data == data, "wrong data at {range:?}"),
            Expected::Status(status) => assert_eq!(done.status, status, "{range:?}"),
        }
    }

    fn settle(&mut self, queue: &mut Connection) {
        while !self.waiting.is_empty() {
            self.settle_one(queue);
        }
    }

    fn check(&self, host: &mut Attachment) {
        for start in (0..BLOCKS as usize).step_by(512) {
            let at = Self::at(&(start..start + 512));
            let data = host.read(1, self.first + start as u64, at.len(), BLOCK as usize).good().data;
            assert!(data == self.bytes[at], "wrong at block {start}");
        }
    }
}

fn options(number: u64) -> Options {
    Options {
        header_digest: number & 1 == 1,
        data_digest: number & 2 == 2,
        flow_control: number.is_multiple_of(3),
        in_capsule: [0, 4096, 16384][number as usize % 3],
        piece: [0, 4096, 60_000][number as usize % 3],
        alignment: (number * 5 % 32) as u8,
        ..Options::default()
    }
}

/// `rounds` starts of the target; all survives a restart, and what was flushed also a power cut.
fn judge(seed: u64, rounds: u64, steps: u32) {
    let mut world = World::new();
    let mut judges: Vec<_> = (0..4).map(|number| Judge::new(number * BLOCKS, seed + number)).collect();
    for round in 0..rounds {
        std::thread::scope(|scope| {
            for (number, judge) in judges.iter_mut().enumerate() {
                let mut host = world.host_with(&format!("host{number}"), options(round * 4 + number as u64));
                scope.spawn(move || {
                    let queue = host.queue();
                    for _ in 0..steps {
                        judge.step(queue);
                        while judge.waiting.len() >= OUTSTANDING_MAX {
                            judge.settle_one(queue);
                        }
                    }
                    judge.settle(queue);
                    judge.check(&mut host);
                    host.flush(1);
                });
            }
        });
        world.model.cut_power(seed ^ round);
        world.stop();
        world.start();
    }
    let mut host = world.host("last");
    judges.iter().for_each(|judge| judge.check(&mut host));
}

#[test]
fn random_commands_do_what_an_array_does() {
    judge(1, 2, 250);
}

/// The control: a byte that nobody wrote over the wire is found.
#[test]
#[should_panic(expected = "wrong at block")]
fn a_changed_byte_is_found() {
    let world = World::new();
    let device = trefoil_core::block::Volumes::open(&*world.model, 1).unwrap();
    let (sender, done) = std::sync::mpsc::channel();
    device.write(
        777 * BLOCK,
        vec![1; BLOCK as usize],
        false,
        Box::new(move |result| sender.send(result).unwrap()),
    );
    done.recv().unwrap().unwrap();
    Judge::new(0, 1).check(&mut world.host("a"));
}

#[test]
#[ignore = "slow: twenty thousand commands a connection"]
fn many_random_commands_do_what_an_array_does() {
    for seed in 10..15 {
        judge(seed, 4, 1000);
    }
}
