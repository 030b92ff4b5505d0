//! Fused pairs, judged: whichever halves have their data in the capsule and whichever data comes first, each half belongs to the one that was submitted
//! with it.
//!
//! The story: pairs were joined as their data arrived. A host that pipelined two, the first by data that the target asks for and the second in capsules,
//! had the first Compare answered "missing fused command"; a busy machine met it in one of 32 runs of `judged.rs`.

mod support;

use std::collections::HashMap;
use support::host::{Completion, Connection, Entry, Options};
use support::{Attachment, Random, World, pattern};
use trefoil_nvme::{CONNECTION_BYTES_MAX, Limits};

const BLOCK: usize = 512;
const CAPSULE_BYTES_MAX: usize = 16 << 10;
const COMPARE_BLOCKS_MAX: u64 = 256;
/// In capsules, of halves that wait: as the target has it.
const HALVES_BYTES_MAX: usize = 16 * CAPSULE_BYTES_MAX;
const MISSING: u16 = 0x0a;
const FAILED: u16 = 0x09;
const INTERRUPTED: u16 = 0x21;
const OUTSTANDING_MAX: usize = 40;

type Range = std::ops::Range<u64>;

fn compare(blocks: &Range) -> Entry {
    entry(5, blocks).first_half()
}

fn write(blocks: &Range) -> Entry {
    entry(1, blocks).second_half()
}

fn entry(opcode: u8, blocks: &Range) -> Entry {
    Entry::new(opcode)
        .namespace(1)
        .blocks(blocks.start, (blocks.end - blocks.start) as u32)
}

fn submit(queue: &mut Connection, entry: Entry, data: Vec<u8>, in_capsule: bool) -> u16 {
    queue.options.in_capsule = if in_capsule { CAPSULE_BYTES_MAX } else { 0 };
    queue.submit(entry, data, 0)
}

/// What was sent before is received, and what can be said to it at once has come. A flush, because it needs no memory.
fn fence(queue: &mut Connection) {
    let id = queue.submit(Entry::new(0).namespace(1), vec![], 0);
    queue.wait(id).good();
}

/// No memory beside what each connection has to itself.
fn narrow_world() -> World {
    World::with(|config| {
        config.limits = Limits {
            connections: 8,
            memory_bytes: 8 * CONNECTION_BYTES_MAX,
            ..Limits::default()
        }
    })
}

fn host(world: &World, number: u64) -> Attachment {
    let options = Options {
        header_digest: number & 1 == 1,
        data_digest: number & 2 == 2,
        flow_control: number.is_multiple_of(3),
        piece: [0, 4096, 60_000][number as usize % 3],
        ..Options::default()
    };
    let mut host = world.host_with(&format!("host{number}"), options);
    host.queue().withholds = true;
    host
}

/// Sends all of it.
fn supply(queue: &mut Connection, id: u16) {
    while let Some(index) = queue.asked.iter().position(|asked| asked.id == id) {
        queue.supply(index);
    }
}

fn orders(of: &[u16]) -> Vec<Vec<u16>> {
    if of.is_empty() {
        return vec![vec![]];
    }
    let first = |&id: &u16| {
        let rest: Vec<u16> = of.iter().copied().filter(|other| *other != id).collect();
        orders(&rest).into_iter().map(move |order| [vec![id], order].concat())
    };
    of.iter().flat_map(first).collect()
}

/// Two pairs in every mixture, their data in every order.
#[test]
fn two_pairs_at_once_stay_two_pairs() {
    let world = World::new();
    let mut host = host(&world, 0);
    let queue = host.queue();
    let mut number = 0;
    for mixture in 0..16 {
        let in_capsule = |half: u32| mixture >> half & 1 == 1;
        let asked = 4 - u32::count_ones(mixture);
        for turn in 0..(1..=asked as usize).product() {
            let mut ids = Vec::new();
            for pair in 0..2 {
                let blocks = number..number + 1;
                ids.push(submit(queue, compare(&blocks), vec![0; BLOCK], in_capsule(pair * 2)));
                ids.push(submit(queue, write(&blocks), vec![1; BLOCK], in_capsule(pair * 2 + 1)));
                number += 1;
            }
            fence(queue);
            let late: Vec<u16> = ids
                .iter()
                .copied()
                .filter(|id| queue.asked.iter().any(|asked| asked.id == *id))
                .collect();
            assert_eq!(late.len(), asked as usize);
            for id in &orders(&late)[turn] {
                supply(queue, *id);
            }
            for id in ids {
                let done = queue.wait(id);
                assert_eq!(done.status, 0, "half {id} of mixture {mixture:#b} in order {turn}");
            }
        }
    }
}

/// The first pair is half there when the second comes whole.
#[test]
fn a_pair_that_comes_meanwhile_is_done_meanwhile() {
    let world = World::new();
    let mut host = host(&world, 0);
    let queue = host.queue();
    let (slow, quick) = (0..1, 1..2);
    let first = submit(queue, compare(&slow), vec![0; BLOCK], false);
    let second = submit(queue, write(&slow), vec![1; BLOCK], false);
    fence(queue);
    supply(queue, first);
    let others = [
        submit(queue, compare(&quick), vec![0; BLOCK], true),
        submit(queue, write(&quick), vec![2; BLOCK], true),
    ];
    for id in others {
        queue.wait(id).good();
    }
    supply(queue, second);
    for id in [first, second] {
        queue.wait(id).good();
    }
    host.queue().withholds = false;
    assert_eq!(host.read(1, 0, 2 * BLOCK, BLOCK).good().data, [[1; BLOCK], [2; BLOCK]].concat());
}

/// A half whose data is damaged fails by itself, the other because of it; nothing is left for later ones.
#[test]
fn a_damaged_half_takes_the_other_with_it() {
    let world = World::new();
    let options = Options {
        data_digest: true,
        ..Options::default()
    };
    let mut host = world.host_with("a", options);
    let queue = host.queue();
    let blocks = 0..1;
    for (damaged, capsules) in [(0, true), (1, true), (0, false), (1, false)] {
        let halves = [(compare(&blocks), vec![0; BLOCK]), (write(&blocks), vec![1; BLOCK])];
        queue.withholds = true;
        queue.options.in_capsule = if capsules { CAPSULE_BYTES_MAX } else { 0 };
        let mut ids = Vec::new();
        for (half, (entry, data)) in halves.into_iter().enumerate() {
            let (id, mut bytes) = queue.encode(entry, data, 0);
            if half == damaged && capsules {
                *bytes.last_mut().unwrap() ^= 1;
            }
            std::io::Write::write_all(&mut queue.stream, &bytes).unwrap();
            ids.push(id);
        }
        fence(queue);
        for asked in std::mem::take(&mut queue.asked) {
            let data = if asked.id == ids[0] { [0; BLOCK] } else { [1; BLOCK] };
            let mut bytes = queue.piece(asked.id, asked.id, 0, &data, true);
            if asked.id == ids[damaged] {
                *bytes.last_mut().unwrap() ^= 1;
            }
            std::io::Write::write_all(&mut queue.stream, &bytes).unwrap();
        }
        let statuses = [queue.wait(ids[0]).status, queue.wait(ids[1]).status];
        assert_eq!((statuses[damaged], statuses[1 - damaged]), (0x22, FAILED), "{capsules}");
        assert_eq!(queue.run(write(&blocks), vec![1; BLOCK], 0).status, MISSING, "nothing waits");
        queue.withholds = false;
    }
    assert_eq!(host.read(1, 0, BLOCK, BLOCK).good().data, [0; BLOCK]);
}

/// Pairs of which each half in a capsule waits for the other's data, which the host sends behind all of them: more than the target keeps. Those beyond are to
/// be tried again; were they kept or held up what is behind, all would wait for each other.
#[test]
fn mixed_pairs_without_end_do_not_wait_in_a_circle() {
    let world = narrow_world();
    let mut host = host(&world, 2);
    let queue = host.queue();
    let blocks = (CAPSULE_BYTES_MAX / BLOCK) as u64;
    let mut left: Vec<Range> = (0..60).map(|number| number * blocks..(number + 1) * blocks).collect();
    let mut round = 0;
    while !left.is_empty() {
        let halves: Vec<_> = left
            .iter()
            .enumerate()
            .map(|(number, range)| {
                let first = submit(queue, compare(range), vec![0; CAPSULE_BYTES_MAX], number % 2 == 0);
                let second = submit(queue, write(range), vec![7; CAPSULE_BYTES_MAX], number % 2 == 1);
                (first, second)
            })
            .collect();
        fence(queue);
        while !queue.asked.is_empty() {
            queue.supply(queue.asked.len() - 1);
        }
        let mut again = Vec::new();
        for ((first, second), range) in halves.into_iter().zip(&left) {
            queue.withholds = false;
            let (first, second) = (queue.wait(first), queue.wait(second));
            match (first.status, second.status) {
                (0, 0) => {}
                (INTERRUPTED, FAILED) if first.retry => again.push(range.clone()),
                other => panic!("{other:?}"),
            }
        }
        queue.withholds = true;
        assert_eq!(
            left.len() - again.len(),
            left.len().min(HALVES_BYTES_MAX / CAPSULE_BYTES_MAX),
            "round {round}"
        );
        left = again;
        round += 1;
    }
    host.queue().withholds = false;
    for number in 0..60 {
        let data = host.read(1, number * blocks, CAPSULE_BYTES_MAX, BLOCK).good().data;
        assert!(data.iter().all(|byte| *byte == 7), "pair {number}");
    }
}

/// The largest pairs, many more than the connection has memory for, behind a transfer that has all of it, their second halves' data first.
#[test]
fn pairs_wait_for_memory_without_holding_any() {
    let world = narrow_world();
    let mut host = host(&world, 0);
    let queue = host.queue();
    let bytes = COMPARE_BLOCKS_MAX as usize * BLOCK;
    let large = 100 * COMPARE_BLOCKS_MAX..108 * COMPARE_BLOCKS_MAX;
    let write_all = submit(queue, entry(1, &large), pattern(1, 8 * bytes), false);
    let mut ids = Vec::new();
    for number in 0..40 {
        let range = number * COMPARE_BLOCKS_MAX..(number + 1) * COMPARE_BLOCKS_MAX;
        ids.push(submit(queue, compare(&range), vec![0; bytes], false));
        ids.push(submit(queue, write(&range), vec![3; bytes], false));
    }
    fence(queue);
    assert!(world.metric("nvme_memory_waits_total") > 0.0);
    let mut answered = 0;
    while answered < ids.len() + 1 {
        if let Some(done) = queue.take_done() {
            assert_eq!(done.status, 0, "{} of {write_all} and {ids:?}", done.id);
            answered += 1;
        } else if queue.asked.is_empty() {
            queue.receive().unwrap();
        } else {
            queue.supply(queue.asked.len() - 1);
        }
    }
}

/// A read that brings data could hold up the reading of the connection while it waits for memory.
#[test]
fn a_read_brings_no_data() {
    let world = World::new();
    let mut host = world.host("a");
    let queue = host.queue();
    let (id, mut bytes) = queue.encode(entry(2, &(0..1)), vec![0; BLOCK], 0);
    // Data is wanted by the transport all the same.
    bytes[8 + 39] = 0x5a;
    std::io::Write::write_all(&mut queue.stream, &bytes).unwrap();
    assert_eq!(queue.wait(id).status, 0x11);
}

/// A first half that waits for its second.
struct Open {
    id: u16,
    half: Half,
}

#[derive(Clone)]
struct Half {
    blocks: Range,
    /// Of this many in its capsule.
    capsule_bytes: usize,
    compares: bool,
    equal: bool,
}

/// What is submitted, and what must come of it.
enum Expected {
    Status(u16),
    /// Both halves, of the pair whose second one this is.
    Pair {
        first: u16,
        statuses: (u16, u16),
        bytes: Vec<u8>,
        /// In capsules while it waits.
        waiting_bytes: usize,
        /// It may be too much.
        interrupted: bool,
    },
    Half,
    Write(Vec<u8>),
    Read(Vec<u8>),
}

struct Judge {
    bytes: Vec<u8>,
    busy: Vec<bool>,
    open: Option<Open>,
    waiting: HashMap<u16, (Range, Expected)>,
    /// First halves that were answered before their pair.
    answered: HashMap<u16, u16>,
    random: Random,
    /// The control: a model that takes a lone second half for good.
    believes: bool,
}

const BLOCKS: u64 = 32 << 10;

impl Judge {
    fn new(seed: u64) -> Self {
        Self {
            bytes: vec![0; BLOCKS as usize * BLOCK],
            busy: vec![false; BLOCKS as usize],
            open: None,
            waiting: HashMap::new(),
            answered: HashMap::new(),
            random: Random::new(seed),
            believes: false,
        }
    }

    fn at(blocks: &Range) -> std::ops::Range<usize> {
        blocks.start as usize * BLOCK..blocks.end as usize * BLOCK
    }

    fn chance(&mut self, of: u64) -> bool {
        self.random.below(of) == 0
    }

    /// Blocks that nothing outstanding touches.
    fn blocks(&mut self) -> Range {
        let length = match self.random.below(8) {
            0 => COMPARE_BLOCKS_MAX + 1 - self.random.below(3),
            1 => 1 + self.random.below(COMPARE_BLOCKS_MAX),
            _ => 1 + self.random.below(32),
        };
        loop {
            let start = self.random.below(BLOCKS - length);
            let blocks = start..start + length;
            if !self.busy[start as usize..(start + length) as usize].contains(&true) {
                return blocks;
            }
        }
    }

    fn expect(&mut self, id: u16, blocks: Range, expected: Expected) {
        self.busy[blocks.start as usize..blocks.end as usize].fill(true);
        self.waiting.insert(id, (blocks, expected));
    }

    fn in_capsule(&mut self, blocks: &Range) -> bool {
        Self::at(blocks).len() <= CAPSULE_BYTES_MAX && self.chance(2)
    }

    fn first(&mut self, queue: &mut Connection, blocks: Range) {
        let (compares, equal, in_capsule) = (!self.chance(10), !self.chance(3), self.in_capsule(&blocks));
        let mut data = self.bytes[Self::at(&blocks)].to_vec();
        data[0] ^= u8::from(!equal);
        let capsule_bytes = if in_capsule { data.len() } else { 0 };
        let opcode = if compares { 5 } else { 1 };
        let id = submit(queue, entry(opcode, &blocks).first_half(), data, in_capsule);
        let half = Half {
            blocks: blocks.clone(),
            capsule_bytes,
            compares,
            equal,
        };
        if let Some(older) = self.open.replace(Open { id, half }) {
            self.waiting.insert(older.id, (older.half.blocks, Expected::Status(MISSING)));
        }
        self.expect(id, blocks, Expected::Half);
    }

    fn second(&mut self, queue: &mut Connection, blocks: Range) {
        let in_capsule = self.in_capsule(&blocks);
        let bytes = pattern(self.random.next(), Self::at(&blocks).len());
        let capsule_bytes = if in_capsule { bytes.len() } else { 0 };
        let id = submit(queue, write(&blocks), bytes.clone(), in_capsule);
        let Some(Open { id: first, half }) = self.open.take() else {
            let status = if self.believes { 0 } else { MISSING };
            return self.expect(id, blocks, Expected::Status(status));
        };
        let statuses = if half.blocks != blocks || !half.compares {
            (0x02, FAILED)
        } else if blocks.end - blocks.start > COMPARE_BLOCKS_MAX {
            (0x14, FAILED)
        } else if !half.equal {
            (0x285, FAILED)
        } else {
            (0, 0)
        };
        let mixed = (half.capsule_bytes == 0) != (capsule_bytes == 0) && !matches!(statuses.0, 0x02 | 0x14);
        let waiting_bytes = if mixed { half.capsule_bytes + capsule_bytes } else { 0 };
        let others: usize = self.waiting.values().map(|(_, expected)| expected.waiting_bytes()).sum();
        let interrupted = mixed && others + waiting_bytes > HALVES_BYTES_MAX;
        self.expect(
            id,
            blocks,
            Expected::Pair {
                first,
                statuses,
                bytes,
                waiting_bytes,
                interrupted,
            },
        );
    }

    fn unfused(&mut self, queue: &mut Connection) {
        let blocks = self.blocks();
        let at = Self::at(&blocks);
        if self.chance(2) {
            let in_capsule = self.in_capsule(&blocks);
            let bytes = pattern(self.random.next(), at.len());
            let id = submit(queue, entry(1, &blocks), bytes.clone(), in_capsule);
            self.expect(id, blocks, Expected::Write(bytes));
        } else {
            let id = queue.submit(entry(2, &blocks), vec![], at.len());
            let bytes = self.bytes[at].to_vec();
            self.expect(id, blocks, Expected::Read(bytes));
        }
    }

    fn submit_some(&mut self, queue: &mut Connection) {
        let blocks = self.blocks();
        match self.random.below(12) {
            0 => self.first(queue, blocks),
            1 => self.second(queue, blocks),
            2..4 => self.unfused(queue),
            _ => {
                self.first(queue, blocks.clone());
                while self.chance(3) {
                    self.unfused(queue);
                }
                self.second(queue, blocks);
            }
        }
    }

    fn settle(&mut self, done: Completion) {
        let Some((blocks, expected)) = self.waiting.remove(&done.id) else {
            // A fence, or a first half whose pair is looked at with its second.
            return;
        };
        let free = |busy: &mut Vec<bool>, blocks: &Range| busy[blocks.start as usize..blocks.end as usize].fill(false);
        match expected {
            Expected::Half => {
                assert!(
                    self.open.as_ref().is_none_or(|open| open.id != done.id),
                    "a half was answered alone"
                );
                self.answered.insert(done.id, done.status);
                // Its blocks are its pair's, or are free when that is done.
                self.waiting.insert(done.id, (blocks, Expected::Half));
                return;
            }
            Expected::Status(status) => assert_eq!(done.status, status, "{blocks:?}"),
            Expected::Pair {
                first,
                statuses,
                bytes,
                interrupted,
                ..
            } => {
                // The second is always answered after the first.
                let answered = (self.answered.remove(&first).expect("the first half is answered first"), done.status);
                if !(interrupted && answered == (INTERRUPTED, FAILED)) {
                    assert_eq!(answered, statuses, "{blocks:?}");
                }
                if answered == (0, 0) {
                    self.bytes[Self::at(&blocks)].copy_from_slice(&bytes);
                }
                let (half, _) = self.waiting.remove(&first).unwrap();
                free(&mut self.busy, &half);
            }
            Expected::Write(bytes) => {
                assert_eq!(done.status, 0, "{blocks:?}");
                self.bytes[Self::at(&blocks)].copy_from_slice(&bytes);
            }
            Expected::Read(bytes) => assert!(done.good().data == bytes, "wrong data at {blocks:?}"),
        }
        free(&mut self.busy, &blocks);
    }

    fn settle_some(&mut self, queue: &mut Connection) {
        // In the order in which they were submitted, as a pair's are answered.
        let mut all: Vec<Completion> = std::iter::from_fn(|| queue.take_done()).collect();
        all.sort_by_key(|done| matches!(self.waiting.get(&done.id), Some((_, Expected::Pair { .. }))));
        all.into_iter().for_each(|done| self.settle(done));
    }

    /// Submits, and sends what is asked for, in any order.
    fn run(&mut self, queue: &mut Connection, steps: u32) {
        for _ in 0..steps {
            if self.waiting.len() < OUTSTANDING_MAX {
                self.submit_some(queue);
            }
            if self.chance(4) || self.waiting.len() >= OUTSTANDING_MAX {
                self.look(queue);
            }
            while !queue.asked.is_empty() && !self.chance(3) {
                self.supply_one(queue);
            }
        }
        // Whatever is still open fails.
        let blocks = self.blocks();
        self.first(queue, blocks.clone());
        self.second(queue, blocks);
        while !self.waiting.is_empty() {
            if !queue.asked.is_empty() {
                self.supply_one(queue);
            } else if queue.outstanding() > 0 {
                queue.receive().unwrap();
            }
            self.settle_some(queue);
        }
    }

    fn look(&mut self, queue: &mut Connection) {
        fence(queue);
        self.settle_some(queue);
        let alone = usize::from(self.open.is_some());
        if queue.asked.is_empty() && self.waiting.len() >= OUTSTANDING_MAX && queue.outstanding() > alone {
            queue.receive().unwrap();
            self.settle_some(queue);
        }
    }

    fn supply_one(&mut self, queue: &mut Connection) {
        let index = self.random.below(queue.asked.len() as u64) as usize;
        queue.supply(index);
    }

    fn check(&self, host: &mut Attachment) {
        for start in (0..BLOCKS).step_by(512) {
            let at = Self::at(&(start..start + 512));
            let data = host.read(1, start, at.len(), BLOCK).good().data;
            assert!(data == self.bytes[at], "wrong at block {start}");
        }
    }
}

impl Expected {
    fn waiting_bytes(&self) -> usize {
        if let Self::Pair { waiting_bytes, .. } = self {
            *waiting_bytes
        } else {
            0
        }
    }
}

fn judge(seed: u64, steps: u32, believes: bool) {
    for (number, world) in [World::new(), narrow_world()].into_iter().enumerate() {
        let mut judge = Judge::new(seed + number as u64);
        judge.believes = believes;
        for round in 0..4 {
            let mut host = host(&world, seed + round);
            judge.run(host.queue(), steps);
            // Without digests, which take long here.
            judge.check(&mut world.host("reader"));
        }
    }
}

#[test]
fn pairs_are_answered_as_they_were_submitted() {
    judge(1, 150, false);
}

/// The control: a second half alone is not what the judge says it is.
#[test]
#[should_panic(expected = "left: 10")]
fn a_wrong_answer_is_found() {
    judge(1, 150, true);
}

#[test]
#[ignore = "slow: thousands of pairs a connection"]
fn many_pairs_are_answered_as_they_were_submitted() {
    for seed in 10..13 {
        judge(seed, 600, false);
    }
}
