//! Hosts that are broken, slow or mean: they harm themselves only. A program of its own, because it looks at the memory that it takes.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use support::host::{Connection, Entry, Lost, Options, initialize};
use support::{NQN, Random, World, connect, pattern};
use trefoil_nvme::{CONNECTION_BYTES_MAX, Limits};

/// What the whole program may come to have taken at most, for all its tests together; most of it are the volumes.
const MEMORY_KIB_MAX: u64 = 700 << 10;

fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn world(limits: Limits) -> World {
    World::with(|config| config.limits = limits)
}

fn short() -> Limits {
    Limits {
        handshake: Duration::from_millis(700),
        unit: Duration::from_millis(700),
        send: Duration::from_millis(700),
        ..Limits::default()
    }
}

/// Until the target closes.
fn closed(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut bytes = [0; 65536];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                let kind = error.kind();
                let silent = matches!(kind, std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
                assert!(!silent, "it was not closed");
                return;
            }
        }
    }
}

fn still_serves(world: &World) {
    let mut host = world.host("friend");
    host.write(2, 0, &pattern(1, 64 << 10), 4096).good();
    assert_eq!(host.read(2, 0, 64 << 10, 4096).good().data, pattern(1, 64 << 10));
}

/// A unit with this header after the common one.
fn unit(kind: u8, flags: u8, header: u8, offset: u8, length: u32, rest: &[u8]) -> Vec<u8> {
    [&[kind, flags, header, offset][..], &length.to_le_bytes(), rest].concat()
}

/// What a target says to bytes after a good initialization.
fn verdict(world: &World, bytes: &[u8]) -> Lost {
    let mut queue = world.open(Options::default());
    queue.stream.write_all(bytes).unwrap();
    queue.receive().unwrap_err()
}

#[test]
fn what_is_no_unit_is_answered_with_the_reason() {
    let world = World::new();
    let say = |status, information| Lost::Terminated(status, information);
    assert_eq!(verdict(&world, &unit(1, 0, 128, 0, 128, &[])), say(1, 0));
    assert_eq!(verdict(&world, &unit(0xff, 0, 8, 0, 8, &[])), say(1, 0));
    assert_eq!(verdict(&world, &unit(4, 0, 64, 0, 72, &[])), say(1, 2));
    assert_eq!(verdict(&world, &unit(4, 1, 72, 0, 76, &[])), say(1, 1));
    assert_eq!(verdict(&world, &unit(4, 0, 72, 0, 8, &[])), say(1, 4));
    assert_eq!(verdict(&world, &unit(4, 0, 72, 72, u32::MAX, &[])), say(1, 4));
    assert_eq!(verdict(&world, &unit(4, 0, 72, 8, 100, &[])), say(1, 3));
    assert_eq!(verdict(&world, &unit(6, 0, 24, 24, u32::MAX, &[])), say(5, 0));
    assert_eq!(verdict(&world, &unit(6, 0, 24, 24, 28, &[0; 20])), say(1, 10));
    assert_eq!(verdict(&world, &initialize(Options::default())), say(2, 0), "twice");
    // A peer that ends it gets no lecture.
    assert_eq!(verdict(&world, &unit(2, 0, 24, 0, 24, &[0; 16])), Lost::Closed);
    assert_eq!(world.metric("nvme_protocol_errors_total"), 10.0);
    still_serves(&world);
}

#[test]
fn what_is_no_initialization_ends_it() {
    let world = World::new();
    let mut version = initialize(Options::default());
    version[8] = 1;
    let mut alignment = initialize(Options::default());
    alignment[10] = 32;
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &version,
        &alignment,
        &unit(4, 0, 72, 0, 72, &[0; 64]),
    ] {
        let mut stream = TcpStream::connect(world.address()).unwrap();
        stream.write_all(bytes).unwrap();
        closed(&mut stream);
    }
    still_serves(&world);
}

#[test]
fn wrong_digests_are_found() {
    let world = World::new();
    let options = Options {
        header_digest: true,
        data_digest: true,
        ..Options::default()
    };
    let mut host = world.host_with("a", options);
    let before = pattern(1, 4096);
    host.write(1, 0, &before, 512).good();
    let queue = host.queue();
    let write = Entry::new(0x01).namespace(1).blocks(0, 8);
    // In a capsule: this command fails, and may be tried again.
    let (id, mut bytes) = queue.encode(write, pattern(2, 4096), 0);
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    queue.stream.write_all(&bytes).unwrap();
    let done = queue.wait(id);
    assert_eq!((done.status, done.retry), (0x22, true));
    assert_eq!(host.read(1, 0, 4096, 512).good().data, before);
    // A header: nothing can be believed any more.
    let queue = host.queue();
    let (_, mut bytes) = queue.encode(write, pattern(2, 4096), 0);
    bytes[20] ^= 1;
    queue.stream.write_all(&bytes).unwrap();
    assert!(matches!(queue.receive(), Err(Lost::Terminated(3, _))));
    assert_eq!(world.metric("nvme_digest_errors_total"), 2.0);
    let mut host = world.host_with("a", options);
    assert_eq!(host.read(1, 0, 4096, 512).good().data, before);
}

/// A connection that was asked for a write's data; the id of that write.
fn asked(world: &World, options: Options) -> (support::Attachment, u16) {
    let mut host = world.host_with("a", options);
    let queue = host.queue();
    let (id, bytes) = queue.encode(Entry::new(0x01).namespace(1).blocks(0, 64), pattern(1, 32 << 10), 0);
    queue.stream.write_all(&bytes).unwrap();
    let mut ready = [0; 24];
    queue.stream.read_exact(&mut ready).unwrap();
    assert_eq!((ready[0], ready[8..10].to_vec()), (9, id.to_le_bytes().to_vec()));
    (host, id)
}

#[test]
fn data_that_was_not_asked_for_ends_it() {
    let world = World::new();
    let data = pattern(2, 4096);
    type Piece = fn(&Connection, u16, &[u8]) -> Vec<u8>;
    let cases: [(Piece, Lost); 8] = [
        (|queue, id, data| queue.piece(id, id, 4096, data, false), Lost::Terminated(4, 0)),
        (
            |queue, id, data| queue.piece(id, id, u32::MAX as usize - 3, data, false),
            Lost::Terminated(4, 0),
        ),
        (
            |queue, id, data| queue.piece(id, id.wrapping_add(1), 0, data, false),
            Lost::Terminated(1, 10),
        ),
        (
            |queue, id, data| queue.piece(id.wrapping_add(1), id, 0, data, false),
            Lost::Terminated(1, 8),
        ),
        (|queue, id, data| queue.piece(id, id, 0, data, true), Lost::Terminated(1, 1)),
        (
            |queue, id, data| queue.piece(id, id, 0, &data.repeat(9), false),
            Lost::Terminated(4, 0),
        ),
        (|queue, id, _| queue.piece(id, id, 0, &[], false), Lost::Terminated(1, 16)),
        (
            |queue, id, data| {
                let mut bytes = queue.piece(id, id, 0, data, false);
                bytes[16] ^= 4;
                bytes
            },
            Lost::Terminated(1, 16),
        ),
    ];
    for (number, (piece, expected)) in cases.into_iter().enumerate() {
        let (mut host, id) = asked(&world, Options::default());
        let queue = host.queue();
        let bytes = piece(queue, id, &data);
        let _ = queue.stream.write_all(&bytes);
        assert_eq!(queue.receive(), Err(expected), "case {number}");
    }
    let mut host = world.host("a");
    assert_eq!(host.read(1, 0, 32 << 10, 512).good().data, vec![0; 32 << 10], "nothing was written");
}

#[test]
fn damaged_pieces_fail_their_command_only() {
    let world = World::new();
    let options = Options {
        data_digest: true,
        ..Options::default()
    };
    let (mut host, id) = asked(&world, options);
    let queue = host.queue();
    let data = pattern(1, 32 << 10);
    let mut first = queue.piece(id, id, 0, &data[..4096], false);
    first[100] ^= 1;
    let second = queue.piece(id, id, 4096, &data[4096..], true);
    queue.stream.write_all(&[first, second].concat()).unwrap();
    assert_eq!(queue.wait(id).status, 0x22);
    assert_eq!(host.read(1, 0, 512, 512).good().data, [0; 512]);
}

#[test]
fn who_says_nothing_or_little_is_not_waited_for() {
    let world = world(short());
    let mut silent = TcpStream::connect(world.address()).unwrap();
    let mut half = TcpStream::connect(world.address()).unwrap();
    half.write_all(&initialize(Options::default())[..60]).unwrap();
    let mut never_connects = world.open(Options::default());
    let mut trickling = TcpStream::connect(world.address()).unwrap();
    let trickle = std::thread::spawn({
        let mut stream = trickling.try_clone().unwrap();
        move || {
            for byte in initialize(Options::default()) {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    let mut host = world.host("a");
    let queue = host.queue();
    let (_, bytes) = queue.encode(Entry::new(0x01).namespace(1).blocks(0, 8), vec![1; 4096], 0);
    queue.stream.write_all(&bytes[..2000]).unwrap();
    closed(&mut silent);
    closed(&mut half);
    closed(&mut never_connects.stream);
    closed(&mut trickling);
    closed(&mut queue.stream);
    trickle.join().unwrap();
    assert_eq!(world.metric("nvme_timeouts_total"), 5.0);
    still_serves(&world);
}

/// A host that owes a proof and keeps talking of other things is not waited for any longer than one that is silent.
#[test]
fn talk_does_not_put_off_the_handshake() {
    let mut world = world(short());
    world.config.access.hosts = vec![trefoil_nvme::Host {
        secret: Some(support::chap::SECRET.parse().unwrap()),
        ..trefoil_nvme::Host::new(&support::host_nqn("a"))
    }];
    world.set_access(|_| ());
    let mut queue = world.open(Options::default());
    let (entry, data) = connect("a", NQN, 0, 0xffff, Options::default());
    queue.run(entry, data, 0).good();
    loop {
        let id = queue.submit(support::property_get(0, true), vec![], 0);
        match queue.try_wait(id) {
            Ok(done) => assert_eq!(done.status, 0x191),
            Err(lost) => break assert_eq!(lost, Lost::Closed),
        }
    }
    assert_eq!(world.metric("nvme_timeouts_total"), 1.0);
}

#[test]
fn data_that_does_not_come_is_not_waited_for() {
    let world = world(short());
    let (mut host, _) = asked(&world, Options::default());
    closed(&mut host.queue().stream);
    still_serves(&world);
}

/// Hosts that ask for all memory and send nothing: the others have what they need.
#[test]
fn memory_that_one_holds_the_others_need_not() {
    let limits = Limits {
        connections: 16,
        memory_bytes: 16 * CONNECTION_BYTES_MAX + (2 << 20),
        ..Limits::default()
    };
    let world = world(limits);
    let mut greedy: Vec<_> = (0..4)
        .map(|_| {
            let mut host = world.host("greedy");
            let queue = host.queue();
            for at in 0..64 {
                let (_, bytes) = queue.encode(Entry::new(0x01).namespace(1).blocks(at * 2048, 2048), vec![1; 1 << 20], 0);
                queue.stream.write_all(&bytes).unwrap();
            }
            host
        })
        .collect();
    world.until("memory is short", || world.metric("nvme_memory_waits_total") > 100.0);
    let mut host = world.host("friend");
    for seed in 0..20 {
        let bytes = pattern(seed, 1 << 20);
        host.write(2, 0, &bytes, 4096).good();
        assert_eq!(host.read(2, 0, 1 << 20, 4096).good().data, bytes);
    }
    // And when they do send, all is done in the end.
    for host in &mut greedy {
        let queue = host.queue();
        while queue.outstanding() > 0 {
            queue.wait_any().good();
        }
    }
    assert!(memory_kib() < MEMORY_KIB_MAX, "{} KiB", memory_kib());
}

#[test]
fn who_does_not_listen_is_cut_off_and_holds_little() {
    let world = world(Limits {
        queue_depth: 1024,
        ..short()
    });
    let before = memory_kib();
    let mut hosts: Vec<_> = (0..4)
        .map(|number| {
            let options = Options {
                depth: 1024,
                ..Options::default()
            };
            let mut host = world.host_with("deaf", options);
            let queue = host.queue();
            queue.stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
            for at in 0..500 {
                let length = if number % 2 == 0 { 1 << 20 } else { 32 << 10 };
                queue.submit(Entry::new(0x02).namespace(1).blocks(at % 8, length / 512), vec![], length as usize);
            }
            host
        })
        .collect();
    world.until("all are cut off", || world.metric("nvme_timeouts_total") == 4.0);
    for host in &mut hosts {
        // What was on its way may still be read; there is an end to it.
        closed(&mut host.queue().stream);
    }
    assert!(memory_kib() < before.max(MEMORY_KIB_MAX), "{} KiB", memory_kib());
    still_serves(&world);
}

#[test]
fn more_commands_than_the_queue_has_end_it() {
    let world = World::new();
    let options = Options {
        depth: 8,
        ..Options::default()
    };
    let mut host = world.host_with("a", options);
    world.model.hold();
    let queue = host.queue();
    for at in 0..9 {
        queue.submit(Entry::new(0x01).namespace(1).blocks(at, 1), vec![1; 512], 0);
    }
    assert_eq!(queue.receive(), Err(Lost::Terminated(2, 0)));
    world.model.resume();
    still_serves(&world);
}

#[test]
fn connections_are_counted() {
    let world = world(Limits {
        connections: 4,
        connections_per_address: 3,
        controllers: 2,
        memory_bytes: 4 * CONNECTION_BYTES_MAX,
        ..Limits::default()
    });
    let mut queues: Vec<_> = (0..3).map(|_| world.open(Options::default())).collect();
    let mut refused = TcpStream::connect(world.address()).unwrap();
    closed(&mut refused);
    // It is closed before it is counted.
    world.until("counted", || world.metric("nvme_connections_refused_total") == 1.0);
    let mut statuses = queues.iter_mut().map(|queue| {
        let (entry, data) = connect("a", NQN, 0, 0xffff, Options::default());
        queue.run(entry, data, 0).status
    });
    assert_eq!([statuses.next(), statuses.next(), statuses.next()], [Some(0), Some(0), Some(0x181)]);
    drop(statuses);
    drop(queues);
    world.until("closed", || world.metric("nvme_connections") == 0.0);
    still_serves(&world);
}

/// A session's bytes as a host would send them, to be broken.
fn conversation(random: &mut Random) -> Vec<Vec<u8>> {
    let mut scratch = Scratch::default();
    let options = Options::default();
    let mut units = vec![initialize(options)];
    let (entry, data) = connect("fuzz", NQN, random.below(2) as u16, 0xffff, options);
    units.push(scratch.command(entry, &data));
    units.push(scratch.command(support::property_set(0x14, support::ENABLE), &[]));
    for _ in 0..random.below(12) {
        let opcodes = [0, 1, 2, 5, 6, 8, 9, 0x0a, 0x0c, 0x0d, 0x0e, 0x11, 0x15, 0x18, 0x19, 0x7f];
        let opcode = opcodes[random.below(opcodes.len() as u64) as usize];
        let mut entry = Entry::new(opcode).namespace(random.below(4) as u32);
        for number in 10..16 {
            let values = [0, 1, 7, 0x100, 0xffff, u32::MAX, 1 << 30];
            entry = entry.word(number, values[random.below(values.len() as u64) as usize]);
        }
        entry = entry.byte(1, 0x40 | random.below(4) as u8).byte(4, random.below(10) as u8);
        let data = pattern(random.next(), random.below(3) as usize * 512);
        units.push(scratch.command(entry, &data));
    }
    let piece = [&(random.below(8) as u16).to_le_bytes()[..], &[0; 14], &[1; 64]].concat();
    units.push(unit(6, 4, 24, 24, 24 + 64, &piece));
    units
}

#[derive(Default)]
struct Scratch(u16);

impl Scratch {
    fn command(&mut self, entry: Entry, data: &[u8]) -> Vec<u8> {
        self.0 += 1;
        let kind = if data.is_empty() { 0x5a } else { 0x01 };
        let length = if data.is_empty() { 4096 } else { data.len() as u32 };
        let entry = entry.short(2, self.0).long(24, 0).word(8, length).byte(39, kind);
        let offset = if data.is_empty() { 0 } else { 72 };
        unit(4, 0, 72, offset, 72 + data.len() as u32, &[&entry.0[..], data].concat())
    }
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.truncate(at.max(1)),
            3 => bytes.extend(pattern(random.next(), random.below(40) as usize)),
            _ => {
                let values = [0_u32, 1, 8, 24, 72, 128, 4096, 1 << 20, 1 << 31, u32::MAX];
                let value = values[random.below(values.len() as u64) as usize].to_le_bytes();
                let at = at.min(bytes.len().saturating_sub(4));
                bytes.iter_mut().skip(at).zip(value).for_each(|(byte, value)| *byte = value);
            }
        }
    }
}

fn fuzz(seed: u64, conversations: u32) {
    let world = world(Limits {
        handshake: Duration::from_secs(5),
        unit: Duration::from_secs(5),
        grace: Duration::ZERO,
        ..Limits::default()
    });
    let mut secret = world.host("friend");
    let kept = pattern(77, 1 << 20);
    secret.write(2, 4096, &kept, 4096).good();
    world.set_access(|access| {
        access.hosts = vec![support::narrow("fuzz", &[1]), support::narrow("friend", &[1, 2])];
    });
    let mut random = Random::new(seed);
    for _ in 0..conversations {
        let mut stream = TcpStream::connect(world.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        for mut unit in conversation(&mut random) {
            if random.below(4) == 0 {
                mutate(&mut random, &mut unit);
            }
            if stream.write_all(&unit).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(std::net::Shutdown::Write);
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut answer = Vec::new();
        let _ = stream.take(4 << 20).read_to_end(&mut answer);
        assert!(!answer.windows(64).any(|window| window == &kept[..64]), "another's data");
    }
    let read = Entry::new(0x02).namespace(2).blocks(4096, 256);
    assert_eq!(secret.run(read, vec![], 1 << 20).good().data, kept);
    world.until("all gone", || world.metric("nvme_controllers") == 1.0);
    assert!(memory_kib() < MEMORY_KIB_MAX, "{} KiB", memory_kib());
}

#[test]
fn broken_conversations_do_no_harm() {
    fuzz(0x5eed, 1500);
}

#[test]
#[ignore = "slow: ten thousand conversations"]
fn many_broken_conversations_do_no_harm() {
    fuzz(0xf00d, 10_000);
}
