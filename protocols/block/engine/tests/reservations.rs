//! Reservations between hosts, as they go over the wire.

mod support;

use support::host::{Entry, short, word};
use support::{Attachment, World};

fn register(key: u64, new: u64, action: u32) -> (Entry, Vec<u8>) {
    let entry = Entry::new(0x0d).namespace(1).word(10, action);
    (entry, [key.to_le_bytes(), new.to_le_bytes()].concat())
}

fn acquire(key: u64, other: u64, action: u32, kind: u32) -> (Entry, Vec<u8>) {
    let entry = Entry::new(0x11).namespace(1).word(10, action | kind << 8);
    (entry, [key.to_le_bytes(), other.to_le_bytes()].concat())
}

fn report(host: &mut Attachment) -> Vec<u8> {
    host.run(Entry::new(0x0e).namespace(1).word(10, 127).word(11, 1), vec![], 512)
        .good()
        .data
}

fn run(host: &mut Attachment, (entry, data): (Entry, Vec<u8>)) -> u16 {
    host.run(entry, data, 0).status
}

#[test]
fn reservations_shut_out_and_are_told() {
    let world = World::new();
    let (mut a, mut b) = (world.host("a"), world.host("b"));
    assert_eq!(run(&mut a, register(0, 1, 0)), 0);
    assert_eq!(run(&mut b, register(0, 2, 0)), 0);
    assert_eq!(run(&mut a, acquire(1, 0, 0, 1)), 0);
    assert_eq!(b.write(1, 0, &[1; 512], 512).status, 0x83);
    assert_eq!(b.run(Entry::new(0x00).namespace(1), vec![], 0).status, 0x83);
    assert_eq!(b.run(Entry::new(0x08).namespace(1).blocks(0, 1), vec![], 0).status, 0x83);
    b.read(1, 0, 512, 512).good();
    a.write(1, 0, &[1; 512], 512).good();
    b.write(2, 0, &[1; 4096], 4096).good();
    let page = report(&mut b);
    assert_eq!((page[4], short(&page, 5), page[9]), (1, 2, 0));
    assert_eq!(
        b.run(Entry::new(0x0e).namespace(1).word(10, 127), vec![], 512).status,
        0x18,
        "hosts have 128 bits"
    );
    let request = a.admin.submit(Entry::new(0x0c), vec![], 0);
    assert_eq!(run(&mut b, acquire(2, 1, 1, 2)), 0);
    assert_eq!(a.admin.wait(request).good().result, 0x80_0006);
    let told = a.log(0x80, 64, false).good().data;
    assert_eq!((told[8], word(&told, 12)), (1, 1), "its registration was preempted");
    assert_eq!(a.read(1, 0, 512, 512).status, 0x83);
    assert_eq!(a.run(Entry::new(0x05).namespace(1).blocks(0, 1), vec![0; 512], 0).status, 0x83);
    let queue = a.queue();
    let first = queue.submit(Entry::new(0x05).namespace(1).blocks(0, 1).first_half(), vec![0; 512], 0);
    let second = queue.submit(Entry::new(0x01).namespace(1).blocks(0, 1).second_half(), vec![0; 512], 0);
    assert_eq!((queue.wait(first).status, queue.wait(second).status), (0x83, 0x09));
    // Masked news are not told.
    assert_eq!(run(&mut a, register(0, 1, 0)), 0);
    a.admin
        .run(Entry::new(0x09).namespace(1).word(10, 0x82).word(11, 0xe), vec![], 0)
        .good();
    assert_eq!(
        a.admin.run(Entry::new(0x0a).namespace(1).word(10, 0x82), vec![], 0).good().result,
        0xe
    );
    let release = Entry::new(0x15).namespace(1).word(10, 1);
    assert_eq!(b.run(release, 2_u64.to_le_bytes().to_vec(), 0).status, 0);
    a.write(1, 0, &[1; 512], 512).good();
    // Only what was told already is there to be read.
    assert_eq!(a.log(0x80, 64, false).good().data[8], 3);
    assert_eq!(a.log(0x80, 64, false).good().data[8], 0);
    for (entry, data) in [
        register(0, 1, 3),
        register(0, 1, 1 << 30),
        acquire(1, 0, 3, 1),
        acquire(1, 0, 0, 7),
        acquire(1, 0, 8, 1),
    ] {
        assert_eq!(a.run(entry, data, 0).status, 0x02);
    }
    assert_eq!(a.run(register(0, 1, 0).0, vec![0; 8], 0).status, 0x0f);
}

#[test]
fn reservations_persist_if_asked_to() {
    let mut world = World::new();
    for (persists, survives) in [(3 << 30, true), (2 << 30, false)] {
        let mut a = world.host("a");
        assert_eq!(run(&mut a, register(0, 1, 2 | 8)), 0x83, "not registered");
        assert_eq!(run(&mut a, register(0, 1, persists)), 0);
        assert_eq!(run(&mut a, acquire(1, 0, 0, 1)), 0);
        let feature = a.admin.run(Entry::new(0x0a).namespace(1).word(10, 0x83), vec![], 0).good().result;
        assert_eq!(feature, survives.into());
        drop(a);
        // It outlives its host's connections anyway.
        let mut b = world.host("b");
        assert_eq!(b.write(1, 0, &[1; 512], 512).status, 0x83);
        drop(b);
        world.stop();
        world.start();
        let mut b = world.host("b");
        let expected = if survives { 0x83 } else { 0 };
        assert_eq!(b.write(1, 0, &[1; 512], 512).status, expected);
        let mut a = world.host("a");
        if survives {
            assert_eq!(
                run(&mut a, (Entry::new(0x15).namespace(1).word(10, 1), 1_u64.to_le_bytes().to_vec())),
                0
            );
        }
    }
}

#[test]
fn a_preempted_host_writes_nothing_later() {
    let world = World::new();
    let (mut a, mut b) = (world.host("a"), world.host("b"));
    assert_eq!(run(&mut a, register(0, 1, 0)), 0);
    assert_eq!(run(&mut b, register(0, 2, 0)), 0);
    assert_eq!(run(&mut a, acquire(1, 0, 0, 2)), 0);
    world.model.hold();
    let late = a.queue().submit(Entry::new(0x01).namespace(1).blocks(0, 1), vec![7; 512], 0);
    a.read(1, 8, 512, 512).good();
    let (entry, data) = acquire(2, 1, 2, 2);
    let preempt = b.queue().submit(entry, data, 0);
    // While the write is under way the preemption is not done, though it is in force.
    world.until("in force", || a.read(1, 0, 512, 512).status == 0x83);
    assert_eq!(b.queue().outstanding(), 1);
    world.model.resume();
    a.queue().wait(late).good();
    b.queue().wait(preempt).good();
    assert_eq!(b.read(1, 0, 512, 512).good().data, [7; 512]);
    assert_eq!(a.write(1, 0, &[8; 512], 512).status, 0x83);
}

/// A change of a reservation waits for reads that were let in before. When both ran on the same threads, reads queued behind changes that waited for them,
/// and nothing went on for anybody.
#[test]
fn changes_of_reservations_do_not_hold_up_what_they_wait_for() {
    let world = World::with(|config| config.limits.workers = 1);
    let (mut a, mut b) = (world.host("a"), world.host("b"));
    assert_eq!(run(&mut b, register(0, 1, 0)), 0);
    let read = Entry::new(0x02).namespace(1).blocks(0, 1024);
    for round in 0..30 {
        let reads: Vec<u16> = (0..8).map(|_| a.queue().submit(read, vec![], 512 << 10)).collect();
        let changes: Vec<u16> = (0..4)
            .map(|_| {
                let (entry, data) = register(0, round, 2 | 8);
                b.queue().submit(entry, data, 0)
            })
            .collect();
        reads.into_iter().for_each(|id| _ = a.queue().wait(id).good());
        changes.into_iter().for_each(|id| _ = b.queue().wait(id).good());
    }
}
