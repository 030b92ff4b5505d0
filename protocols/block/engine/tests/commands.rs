//! Every I/O command, and every status that it may come to.

mod support;

use support::host::{Connection, Entry, Options};
use support::{Attachment, World, pattern};

fn read(at: u64, blocks: u32) -> Entry {
    Entry::new(0x02).namespace(1).blocks(at, blocks)
}

fn write(at: u64, blocks: u32) -> Entry {
    Entry::new(0x01).namespace(1).blocks(at, blocks)
}

fn compare(at: u64, blocks: u32) -> Entry {
    Entry::new(0x05).namespace(1).blocks(at, blocks)
}

fn zeroes(at: u64, blocks: u32) -> Entry {
    Entry::new(0x08).namespace(1).blocks(at, blocks)
}

fn ranges(list: &[(u64, u32)]) -> Vec<u8> {
    list.iter()
        .flat_map(|(first, blocks)| [&[0; 4][..], &blocks.to_le_bytes(), &first.to_le_bytes()].concat())
        .collect()
}

fn deallocate(list: &[(u64, u32)]) -> (Entry, Vec<u8>) {
    let entry = Entry::new(0x09).namespace(1).word(10, list.len() as u32 - 1).word(11, 4);
    (entry, ranges(list))
}

fn copy(to: u64, list: &[(u64, u16)]) -> (Entry, Vec<u8>) {
    let entry = Entry::new(0x19).namespace(1).long(40, to).word(12, list.len() as u32 - 1);
    let range = |(first, blocks): &(u64, u16)| [&[0; 8][..], &first.to_le_bytes(), &(blocks - 1).to_le_bytes(), &[0; 14]].concat();
    (entry, list.iter().flat_map(range).collect())
}

#[test]
fn what_is_written_is_read_in_any_size_and_way() {
    let world = World::new();
    for (index, options) in [
        Options::default(),
        Options {
            flow_control: false,
            in_capsule: 0,
            piece: 4096,
            ..Options::default()
        },
        Options {
            header_digest: true,
            data_digest: true,
            alignment: 31,
            ..Options::default()
        },
        Options {
            data_digest: true,
            flow_control: false,
            in_capsule: 16384,
            ..Options::default()
        },
        Options {
            header_digest: true,
            in_capsule: 0,
            piece: 1000 * 4,
            ..Options::default()
        },
    ]
    .into_iter()
    .enumerate()
    {
        let mut host = world.host_with("a", options);
        for (namespace, block) in [(1, 512), (2, 4096)] {
            for length in [1, 2, 8, 16, 32, 33, 256].map(|blocks| blocks * block) {
                let bytes = pattern((index * length) as u64, length);
                host.write(namespace, 24, &bytes, block).good();
                assert_eq!(host.read(namespace, 24, length, block).good().data, bytes);
            }
        }
    }
}

#[test]
fn everything_outstanding_is_answered() {
    let world = World::new();
    for flow_control in [true, false] {
        let options = Options {
            flow_control,
            ..Options::default()
        };
        let mut host = world.host_with("a", options);
        let queue = host.queue();
        let mut waiting = std::collections::HashMap::new();
        for at in 0..100_u64 {
            let bytes = pattern(at, if at % 3 == 0 { 64 << 10 } else { 4096 });
            waiting.insert(queue.submit(write(at * 128, bytes.len() as u32 / 512), bytes, 0), at);
        }
        while !waiting.is_empty() {
            let done = queue.wait_any().good();
            waiting.remove(&done.id).unwrap();
            assert_eq!(done.head == u16::MAX, !flow_control);
        }
        let ids: Vec<_> = (0..100_u64).map(|at| queue.submit(read(at * 128, 8), vec![], 4096)).collect();
        for (at, id) in ids.into_iter().enumerate() {
            assert_eq!(queue.wait(id).good().data, pattern(at as u64, 4096));
        }
        assert_eq!(queue.outstanding(), 0);
        // Data and success are one unit where the host takes that.
        assert_eq!(queue.units.get(&5).copied().unwrap_or(0) > 150, flow_control);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let world = World::new();
    let mut host = world.host("a");
    let blocks = (64 << 20) / 512;
    for (entry, out, wanted, status) in [
        (read(blocks, 1), vec![], 512, 0x80),
        (read(u64::MAX, 2), vec![], 1024, 0x80),
        (write(blocks - 1, 2), vec![1; 1024], 0, 0x80),
        (zeroes(blocks - 1, 2), vec![], 0, 0x80),
        (compare(blocks, 1), vec![1; 512], 0, 0x80),
        (read(0, 2), vec![], 512, 0x0f),
        (write(0, 2), vec![1; 512], 0, 0x0f),
        (read(0, 4096), vec![], 2 << 20, 0x02),
        (read(0, 1).namespace(3), vec![], 512, 0x0b),
        (read(0, 1).namespace(0), vec![], 512, 0x0b),
        (read(0, 1).namespace(u32::MAX), vec![], 512, 0x0b),
        (Entry::new(0x7e).namespace(1), vec![], 0, 0x01),
        (Entry::new(0x04).namespace(1), vec![], 0, 0x01),
        (write(0, 1).byte(1, 0x43), vec![1; 512], 0, 0x02),
        // Protection information.
        (read(0, 1).byte(51, 0x04), vec![], 512, 0x02),
        (Entry::new(0x0c).namespace(1).blocks(0, 4096), vec![], 0, 0x02),
    ] {
        let done = host.run(entry, out, wanted);
        assert_eq!((done.status, done.retry), (status, false), "{entry:?}");
    }
    assert_eq!(host.read(1, 0, 512, 512).good().data, [0; 512]);
    let entries = host.log(1, 64 * 64, true).good().data;
    assert_eq!(support::host::long(&entries, 0), 16, "the error log counts them");
}

#[test]
fn a_wrong_data_pointer_is_refused() {
    let world = World::new();
    let mut host = world.host("a");
    let queue = host.queue();
    let patch = |queue: &mut Connection, entry: Entry, out: Vec<u8>, wanted: usize, at: usize, value: u8| {
        let (id, mut bytes) = queue.encode(entry, out, wanted);
        bytes[8 + at] = value;
        std::io::Write::write_all(&mut queue.stream, &bytes).unwrap();
        queue.wait(id).status
    };
    assert_eq!(patch(queue, write(0, 1), vec![1; 512], 0, 39, 0x40), 0x11);
    assert_eq!(patch(queue, write(0, 1), vec![1; 512], 0, 24, 4), 0x16);
    assert_eq!(patch(queue, write(0, 1), vec![1; 512], 0, 33, 4), 0x0f);
    assert_eq!(patch(queue, read(0, 1), vec![], 512, 39, 0x01), 0x11);
    // Data in a capsule that says that it is elsewhere.
    assert_eq!(patch(queue, write(0, 1), vec![1; 512], 0, 39, 0x5a), 0x11);
}

#[test]
fn flushed_and_forced_writes_survive_power() {
    let world = World::new();
    let mut host = world.host("a");
    host.write(1, 0, &pattern(1, 4096), 512).good();
    host.flush(1);
    host.run(write(8, 8).force(), pattern(2, 4096), 0).good();
    host.write(2, 0, &pattern(3, 4096), 4096).good();
    host.run(Entry::new(0x00).namespace(u32::MAX), vec![], 0).good();
    (1..9).for_each(|seed| world.model.cut_power(seed));
    assert_eq!(host.read(1, 0, 4096, 512).good().data, pattern(1, 4096));
    assert_eq!(host.read(1, 8, 4096, 512).good().data, pattern(2, 4096));
    assert_eq!(host.read(2, 0, 4096, 4096).good().data, pattern(3, 4096));
}

/// The control of the test above: the model loses what was not flushed.
#[test]
fn unflushed_writes_may_be_lost_unless_the_cache_is_off() {
    let world = World::new();
    let mut host = world.host("a");
    let lost = |host: &mut Attachment, at: u64| {
        (0..32).for_each(|index| {
            host.write(1, at + index * 8, &pattern(7, 4096), 512).good();
        });
        world.model.cut_power(0x5eed);
        let page = |host: &mut Attachment, index: u64| host.read(1, at + index * 8, 4096, 512).good().data != pattern(7, 4096);
        (0..32).filter(|index| page(host, *index)).count()
    };
    assert!((1..32).contains(&lost(&mut host, 0)));
    host.set_feature(0x06, 0).good();
    assert_eq!(host.feature(0x06).good().result, 0);
    assert_eq!(lost(&mut host, 1024), 0);
    host.set_feature(0x06, 1).good();
    assert!(lost(&mut host, 2048) > 0);
}

#[test]
fn zeroes_and_deallocation_free_space() {
    let world = World::new();
    let mut host = world.host("a");
    let bytes = pattern(1, 64 << 10);
    host.write(1, 0, &bytes, 512).good();
    let used_blocks = |host: &mut Attachment| support::host::long(&host.identify(0, 1).good().data, 16);
    assert_eq!(used_blocks(&mut host), 128);
    host.run(zeroes(8, 8), vec![], 0).good();
    let (entry, out) = deallocate(&[(32, 16), (0, 0), (120, 8)]);
    host.run(entry, out, 0).good();
    let mut expected = bytes;
    for range in [8..16, 32..48, 120..128] {
        expected[range.start * 512..range.end * 512].fill(0);
    }
    assert_eq!(host.read(1, 0, 64 << 10, 512).good().data, expected);
    assert_eq!(used_blocks(&mut host), 128 - 8 - 16 - 8);
    let (entry, out) = deallocate(&[(0, 1), ((64 << 20) / 512, 1)]);
    assert_eq!(host.run(entry, out, 0).status, 0x80);
    assert_eq!(host.read(1, 0, 512, 512).good().data, expected[..512]);
    // Only hints.
    let (entry, out) = deallocate(&[(0, 8)]);
    host.run(entry.word(11, 1), out, 0).good();
    assert_eq!(host.read(1, 0, 512, 512).good().data, expected[..512]);
    let (entry, _) = deallocate(&[(0, 1), (1, 1)]);
    assert_eq!(host.run(entry, ranges(&[(0, 1)]), 0).status, 0x0f);
}

#[test]
fn compare_tells_equal_from_different() {
    let world = World::new();
    let mut host = world.host("a");
    let bytes = pattern(1, 200 << 10);
    host.write(1, 3, &bytes, 512).good();
    host.run(compare(3, 400), bytes.clone(), 0).good();
    let mut other = bytes;
    *other.last_mut().unwrap() ^= 1;
    let done = host.run(compare(3, 400), other, 0);
    assert_eq!((done.status, done.retry), (0x285, false));
}

#[test]
fn verify_and_copy() {
    let world = World::new();
    let mut host = world.host("a");
    let bytes = pattern(1, 64 << 10);
    host.write(1, 0, &bytes, 512).good();
    host.run(Entry::new(0x0c).namespace(1).blocks(0, 128), vec![], 0).good();
    let (entry, out) = copy(1000, &[(64, 64), (0, 2)]);
    host.run(entry, out, 0).good();
    let expected = [&bytes[32 << 10..], &bytes[..1024]].concat();
    assert_eq!(host.read(1, 1000, 33 << 10, 512).good().data, expected);
    let (entry, out) = copy((64 << 20) / 512 - 1, &[(0, 2)]);
    assert_eq!(host.run(entry, out, 0).status, 0x80);
    let (entry, out) = copy(0, &[(0, 2049)]);
    assert_eq!(host.run(entry, out, 0).status, 0x183);
    let (entry, out) = copy(0, &vec![(0, 1); 129]);
    assert_eq!(host.run(entry, out, 0).status, 0x183);
    let (entry, out) = copy(0, &[(0, 1)]);
    assert_eq!(host.run(entry.byte(49, 1), out, 0).status, 0x02, "a format that there is not");
    world.model.script(1, ".s");
    let (entry, out) = copy(5000, &[(0, 8), (8, 8)]);
    let done = host.run(entry, out, 0);
    assert_eq!((done.status, done.result), (0x81, 1), "one range was copied");
}

#[test]
fn each_trouble_of_the_store_has_its_status() {
    let world = World::new();
    let mut host = world.host("a");
    for (script, status, again) in [
        ("s", 0x81, true),
        ("d", 0x281, false),
        ("r", 0x20, false),
        ("o", 0x80, false),
        ("b", 0x82, true),
        ("f", 0x06, true),
    ] {
        for (entry, out, wanted) in [
            (write(0, 8), vec![1; 4096], 0),
            (read(0, 8), vec![], 4096),
            (read(0, 1024), vec![], 512 << 10),
            (zeroes(0, 8), vec![], 0),
            (compare(0, 8), vec![0; 4096], 0),
            (Entry::new(0x00).namespace(1), vec![], 0),
        ] {
            world.model.script(1, script);
            let done = host.run(entry, out, wanted);
            assert_eq!((done.status, done.retry), (status, again), "{script} {entry:?}");
            assert!(done.data.is_empty());
        }
    }
    host.read(1, 0, 4096, 512).good();
}

#[test]
fn a_read_only_volume_is_protected() {
    let world = World::new();
    world.model.set_read_only(1, true);
    let mut host = world.host("a");
    let model = world.model.clone();
    world.until("protected", || host.identify(0, 1).good().data[99] == 1);
    let (dsm, list) = deallocate(&[(0, 8)]);
    let (copies, sources) = copy(0, &[(8, 8)]);
    for (entry, out) in [(write(0, 1), vec![1; 512]), (zeroes(0, 1), vec![]), (dsm, list), (copies, sources)] {
        assert_eq!(host.run(entry, out, 0).status, 0x20);
    }
    host.read(1, 0, 512, 512).good();
    host.flush(1);
    model.set_read_only(1, false);
    world.until("writable", || host.run(write(0, 1), vec![1; 512], 0).status == 0);
}

#[test]
fn a_command_id_in_use_is_refused_and_does_no_harm() {
    let world = World::new();
    let mut host = world.host("a");
    world.model.hold();
    let queue = host.queue();
    let (id, bytes) = queue.encode_as(5, write(0, 1), vec![1; 512], 0);
    std::io::Write::write_all(&mut queue.stream, &[bytes.clone(), bytes].concat()).unwrap();
    assert_eq!(queue.wait(id).status, 0x03);
    world.model.resume();
    let (id, _) = queue.encode_as(5, write(0, 1), vec![1; 512], 0);
    queue.wait(id).good();
}
