//! From Connect to the end: who may come, what they see, what they are told, and what outlives them.

mod support;

use std::time::Duration;
use support::chap::{self, SECRET};
use support::host::{Connection, Entry, Lost, Options, long, word};
use support::{Attachment, ENABLE, NQN, World, connect, host_nqn, narrow, pattern, property_get, property_set};
use trefoil_nvme::{Group, Host};

fn try_connect(queue: &mut Connection, change: impl FnOnce(&mut Entry, &mut Vec<u8>)) -> (u16, u64) {
    let (mut entry, mut data) = connect("a", NQN, 0, 0xffff, Options::default());
    change(&mut entry, &mut data);
    let done = queue.run(entry, data, 0);
    (done.status, done.result)
}

#[test]
fn a_wrong_connect_says_what_is_wrong() {
    let world = World::new();
    let mut queue = world.open(Options::default());
    let mut check = |expected: (u16, u64), change: fn(&mut Entry, &mut Vec<u8>)| {
        assert_eq!(try_connect(&mut queue, change), expected);
    };
    check((0x180, 0), |entry, _| *entry = entry.short(40, 1));
    check((0x182, 44), |entry, _| *entry = entry.short(44, 0));
    check((0x182, 44), |entry, _| *entry = entry.short(44, 5000));
    check((0x182, 44), |entry, _| *entry = entry.short(44, 7));
    check((0x182, 1 << 16 | 16), |_, data| data[16] = 1);
    check((0x182, 1 << 16 | 256), |_, data| data[256] = b'x');
    check((0x182, 1 << 16 | 256), |_, data| data[256..512].fill(b'x'));
    check((0x182, 1 << 16 | 512), |_, data| data[512] = 0);
    check((0x182, 1 << 16 | 512), |_, data| data[512] = 0xff);
    check((0x182, 1 << 16 | 16), |entry, data| {
        *entry = entry.short(42, 1);
        data[16..18].copy_from_slice(&77_u16.to_le_bytes());
    });
    check((0x182, 42), |entry, _| *entry = entry.short(42, 1000));
    check((0x0f, 0), |_, data| data.truncate(512));
    // Nothing of it was a connection, and now one is.
    assert_eq!(try_connect(&mut queue, |_, _| ()).0, 0);
    assert_eq!(try_connect(&mut queue, |_, _| ()).0, 0x0c, "it is one already");
}

#[test]
fn before_connect_there_is_nothing() {
    let world = World::new();
    let mut queue = world.open(Options::default());
    for entry in [
        property_get(0, true),
        property_set(0x14, ENABLE),
        Entry::new(0x06).word(10, 1),
        Entry::new(0x02).namespace(1),
        Entry::new(0x18),
    ] {
        assert_eq!(queue.run(entry, vec![], 0).status, 0x0c);
    }
    // Not even memory.
    assert_eq!(queue.run(Entry::new(0x01).namespace(1), vec![0; 1 << 20], 0).status, 0x11);
}

#[test]
fn an_io_queue_belongs_to_its_host() {
    let world = World::new();
    let mut host = world.host("a");
    let mut queue = world.open(Options::default());
    let mut attempt = |name: &str, id: u16| {
        let (entry, data) = connect(name, NQN, id, host.controller, Options::default());
        let done = queue.run(entry, data, 0);
        (done.status, done.result)
    };
    assert_eq!(attempt("b", 2), (0x182, 1 << 16 | 512));
    assert_eq!(attempt("a", 1), (0x0c, 0), "there is one of this number");
    let (entry, mut data) = connect("a", NQN, 2, host.controller, Options::default());
    data[3] ^= 1;
    assert_eq!(queue.run(entry, data, 0).result, 1 << 16, "another host id");
    let mut early = Attachment::admin_only(world.address(), "a", NQN, Options::default());
    let (entry, data) = connect("a", NQN, 1, early.controller, Options::default());
    assert_eq!(queue.run(entry, data, 0).status, 0x0c, "not enabled");
    early.enable();
    host.write(1, 0, &[1; 512], 512).good();
}

#[test]
fn registers_are_as_specified() {
    let world = World::new();
    let mut host = Attachment::admin_only(world.address(), "a", NQN, Options::default());
    let get = |host: &mut Attachment, offset, eight| host.admin.run(property_get(offset, eight), vec![], 0);
    let capabilities = get(&mut host, 0, true).good().result;
    assert_eq!((capabilities & 0xffff, capabilities >> 16 & 1, capabilities >> 37 & 1), (255, 1, 1));
    assert_eq!(get(&mut host, 8, false).good().result, 0x1_0400);
    for (offset, eight) in [(0, false), (8, true), (0x0c, false), (0x20, false), (0x38, true), (0x14, true)] {
        assert_eq!(get(&mut host, offset, eight).status, 0x02);
    }
    for entry in [property_set(0, 1), property_set(0x1c, 1), property_set(0x14, 1).byte(40, 1)] {
        assert_eq!(host.admin.run(entry, vec![], 0).status, 0x02);
    }
    assert_eq!(host.identify(1, 0).status, 0x0c, "not enabled");
    host.admin.run(property_set(0x14, 0x46_0081), vec![], 0).good();
    assert_eq!(get(&mut host, 0x1c, false).good().result, 2, "fatal: pages that there are not");
    assert_eq!(host.identify(1, 0).status, 0x0c);
    host.admin.run(property_set(0x14, 0), vec![], 0).good();
    host.enable();
    assert_eq!(get(&mut host, 0x14, false).good().result, ENABLE);
    host.identify(1, 0).good();
}

#[test]
fn a_reset_ends_io_and_keeps_the_host() {
    let world = World::new();
    let mut host = world.host("a");
    host.admin.run(property_set(0x14, 0x46_0000), vec![], 0).good();
    assert_eq!(host.io[0].receive(), Err(Lost::Closed));
    host.io.clear();
    host.enable();
    host.add_queue();
    host.write(1, 0, &[1; 512], 512).good();
}

#[test]
fn disconnect_ends_a_queue_but_not_the_admin_one() {
    let world = World::new();
    let mut host = world.host("a");
    let disconnect = Entry::new(0x7f).byte(4, 0x08);
    assert_eq!(host.admin.run(disconnect, vec![], 0).status, 0x185);
    host.run(disconnect, vec![], 0).good();
    assert_eq!(host.io[0].receive(), Err(Lost::Closed));
    host.io.clear();
    host.add_queue();
}

#[test]
fn a_goodbye_flushes_and_detaches_at_once() {
    let world = World::new();
    let mut host = world.host("a");
    host.write(1, 0, &pattern(1, 4096), 512).good();
    assert_eq!(world.model.handles(1), 1);
    host.admin.run(property_set(0x14, 0x46_4001), vec![], 0).good();
    world.until("shut down", || {
        host.admin.run(property_get(0x1c, false), vec![], 0).good().result >> 2 & 3 == 2
    });
    world.model.cut_power(3);
    drop(host);
    world.until("detached", || world.model.handles(1) == 0);
    assert_eq!(world.host("b").read(1, 0, 4096, 512).good().data, pattern(1, 4096));
}

#[test]
fn a_lost_host_keeps_its_volumes_for_a_while() {
    let world = World::new();
    let mut host = world.host("a");
    host.write(1, 0, &[1; 512], 512).good();
    drop(host);
    world.until("lost", || world.metric("nvme_controllers") == 0.0);
    assert_eq!(world.model.handles(1), 1, "it may come back");
    // A goodbye ends that too.
    let mut host = world.host("a");
    host.admin.run(property_set(0x14, 0x46_4001), vec![], 0).good();
    drop(host);
    world.until("detached", || world.model.handles(1) == 0);
    let hasty = World::with(|config| config.limits.grace = Duration::ZERO);
    let mut host = hasty.host("a");
    host.write(1, 0, &[1; 512], 512).good();
    drop(host);
    hasty.until("detached", || hasty.model.handles(1) == 0);
}

#[test]
fn a_silent_host_is_lost() {
    let world = World::new();
    let options = Options {
        keep_alive_milliseconds: 50,
        ..Options::default()
    };
    let mut host = world.host_with("a", options);
    assert_eq!(host.admin.receive(), Err(Lost::Closed));
    assert_eq!(host.io[0].receive(), Err(Lost::Closed));
    assert_eq!(world.metric("nvme_keep_alive_timeouts_total"), 1.0);
    let mut kept = world.host("b");
    kept.set_feature(0x0f, 90_000).good();
    assert_eq!(kept.feature(0x0f).good().result, 90_000);
}

#[test]
fn a_restart_is_not_noticed_but_as_a_lost_connection() {
    let mut world = World::new();
    let mut host = world.host("a");
    host.write(1, 0, &pattern(1, 4096), 512).good();
    world.model.hold();
    let late = host.queue().submit(Entry::new(0x01).namespace(1).blocks(8, 8), pattern(2, 4096), 0);
    host.queue()
        .submit(Entry::new(0x05).namespace(1).blocks(8, 1).first_half(), vec![0; 512], 0);
    // A command behind it is answered: so the write was begun.
    host.read(1, 0, 512, 512).good();
    let model = world.model.clone();
    std::thread::scope(|scope| {
        let stop = scope.spawn(|| world.stop());
        while host.admin.receive().is_ok() {}
        model.resume();
        host.queue().wait(late).good();
        assert_eq!(host.queue().receive(), Err(Lost::Closed));
        stop.join().unwrap();
    });
    assert_eq!(world.model.handles(1), 0);
    world.start();
    let mut host = world.host("a");
    assert_eq!(
        host.read(1, 0, 8192, 512).good().data,
        [pattern(1, 4096), pattern(2, 4096)].concat()
    );
}

#[test]
fn a_host_sees_what_it_may_and_no_more() {
    let world = World::with(|config| {
        config.access.any_host = false;
        config.access.hosts = vec![narrow("a", &[2]), narrow("b", &[1, 2])];
    });
    let mut queue = world.open(Options::default());
    let (entry, data) = connect("stranger", NQN, 0, 0xffff, Options::default());
    assert_eq!(queue.run(entry, data, 0).status, 0x184);
    assert_eq!(world.metric("nvme_hosts_refused_total"), 1.0);
    world.host("b").write(1, 0, &[9; 512], 512).good();
    let mut host = world.host("a");
    assert_eq!(host.identify(2, 0).good().data[..8], [2, 0, 0, 0, 0, 0, 0, 0]);
    assert!(host.identify(0, 1).good().data.iter().all(|&byte| byte == 0));
    for structure in [3, 5, 8] {
        assert_eq!(host.identify(structure, 1).status, 0x0b);
        host.identify(structure, 2).good();
    }
    let log = host.log(0x0c, 16 + 32 + 8, false).good().data;
    assert_eq!((word(&log, 20), word(&log, 48), word(&log, 52)), (1, 2, 0));
    for entry in [
        Entry::new(0x02).blocks(0, 1),
        Entry::new(0x00),
        Entry::new(0x0c).blocks(0, 1),
        Entry::new(0x08).blocks(0, 1),
        Entry::new(0x0e).word(11, 1).word(10, 63),
    ] {
        let wanted = match entry.0[0] {
            2 => 512,
            0x0e => 256,
            _ => 0,
        };
        let done = host.run(entry.namespace(1), vec![], wanted);
        assert_eq!((done.status, done.data), (0x0b, vec![]), "{:#x}", entry.0[0]);
    }
    assert_eq!(host.write(1, 0, &[8; 512], 512).status, 0x0b);
    assert_eq!(host.admin.run(Entry::new(0x0a).namespace(1).word(10, 0x82), vec![], 0).status, 0x0b);
    host.write(2, 0, &[8; 4096], 4096).good();
}

#[test]
fn rules_change_under_a_host() {
    let world = World::with(|config| config.access.hosts = vec![narrow("a", &[1])]);
    let mut host = world.host("a");
    host.set_feature(0x0b, 0x100).good();
    host.write(1, 0, &[1; 512], 512).good();
    let request = host.admin.submit(Entry::new(0x0c), vec![], 0);
    world.set_access(|access| access.hosts = vec![narrow("a", &[2])]);
    assert_eq!(host.admin.wait(request).good().result, 0x04_0002);
    let changed = host.log(4, 4096, false).good().data;
    assert_eq!((word(&changed, 0), word(&changed, 4), word(&changed, 8)), (1, 2, 0));
    assert_eq!(host.read(1, 0, 512, 512).status, 0x0b);
    assert_eq!(world.model.handles(1), 0, "what it may not see, it does not hold");
    host.read(2, 0, 4096, 4096).good();
    world.set_access(|access| (access.any_host, access.hosts) = (false, vec![]));
    assert_eq!(host.admin.receive(), Err(Lost::Closed));
}

#[test]
fn volumes_come_and_go() {
    let world = World::new();
    let mut host = world.host("a");
    host.set_feature(0x0b, 0x100).good();
    host.read(2, 0, 4096, 4096).good();
    let event = |host: &mut Attachment| {
        let request = host.admin.submit(Entry::new(0x0c), vec![], 0);
        assert_eq!(host.admin.wait(request).good().result, 0x04_0002);
        word(&host.log(4, 4096, false).good().data, 0)
    };
    let third = world.model.add("/volumes/three", 1 << 20, 512);
    assert_eq!(event(&mut host), third);
    world.model.remove(third);
    assert_eq!(event(&mut host), third);
    assert_eq!(host.read(third, 0, 512, 512).status, 0x0b);
    // Another one of the same number is another one.
    assert_eq!(world.model.add("/volumes/four", 1 << 20, 512), third);
    assert_eq!(event(&mut host), third);
    assert_eq!(host.read(third, 0, 512, 512).good().data, [0; 512]);
    world.model.resize(third, 512 << 10);
    assert_eq!(event(&mut host), third);
    assert_eq!(host.read(third, 1024, 512, 512).status, 0x80);
}

/// A host that was lost may come back to what it had, but not to what is gone.
#[test]
fn a_volume_that_is_gone_is_kept_for_no_lost_host() {
    let world = World::new();
    let mut host = world.host("a");
    host.read(1, 0, 512, 512).good();
    host.read(2, 0, 4096, 4096).good();
    drop(host);
    world.until("lost", || world.metric("nvme_controllers") == 0.0);
    assert_eq!(world.model.open_handles(), 2);
    world.model.remove(1);
    world.set_access(|_| ());
    assert_eq!((world.model.open_handles(), world.model.handles(2)), (1, 1));
}

/// An operator takes a volume away by force, and its number goes to another one. A host that wrote to the first would write to the second: nothing on its
/// connections tells them apart.
#[test]
fn a_volume_that_is_taken_from_a_host_ends_its_connections() {
    let world = World::new();
    let (mut user, mut other) = (world.host("user"), world.host("other"));
    user.add_queue();
    user.write(1, 0, &[1; 512], 512).good();
    user.write(2, 0, &[1; 4096], 4096).good();
    other.read(2, 0, 4096, 4096).good();
    world.model.remove(1);
    // As the daemon does after each change, before the next.
    world.set_access(|_| ());
    assert_eq!(world.model.add("/volumes/next", 1 << 20, 512), 1);
    world.set_access(|_| ());
    // On its way before the host knows.
    let write = Entry::new(0x01).namespace(1).blocks(0, 1);
    let ids: Vec<u16> = user.io.iter_mut().map(|queue| queue.submit(write, vec![9; 512], 0)).collect();
    for (queue, id) in user.io.iter_mut().zip(ids) {
        // Some are answered: the first volume is gone.
        let answer = queue.try_wait(id).map(|done| done.status);
        assert_ne!(answer, Ok(0));
        while queue.receive().is_ok() {}
    }
    while user.admin.receive().is_ok() {}
    // Who had nothing of it goes on, and sees what is there now.
    other.write(2, 8, &[2; 4096], 4096).good();
    assert_eq!(other.read(1, 0, 512, 512).good().data, [0; 512]);
    let mut back = world.host("user");
    assert_eq!(back.read(1, 0, 512, 512).good().data, [0; 512]);
    assert_eq!(back.read(2, 8, 4096, 4096).good().data, [2; 4096]);
}

#[test]
fn events_are_limited_and_can_be_aborted() {
    let world = World::new();
    let mut host = world.host("a");
    let requests: Vec<u16> = (0..4).map(|_| host.admin.submit(Entry::new(0x0c), vec![], 0)).collect();
    assert_eq!(host.admin.run(Entry::new(0x0c), vec![], 0).status, 0x105);
    let abort = |id: u16| Entry::new(0x08).word(10, u32::from(id) << 16);
    assert_eq!(host.admin.run(abort(requests[2]), vec![], 0).good().result, 0);
    assert_eq!(host.admin.wait(requests[2]).status, 0x07);
    assert_eq!(host.admin.run(abort(requests[2]), vec![], 0).good().result, 1);
    host.admin.submit(Entry::new(0x0c), vec![], 0);
}

#[test]
fn features_and_logs() {
    let world = World::new();
    let mut host = world.host("a");
    assert_eq!(host.set_feature(0x07, 0x0007_0007).good().result, 31 << 16 | 31);
    assert_eq!(host.set_feature(0x07, 0xffff).status, 0x02);
    for (feature, value) in [(0x01, 7), (0x04, 300), (0x0a, 1)] {
        host.set_feature(feature, value).good();
        assert_eq!(host.feature(feature).good().result, value.into());
    }
    assert_eq!(host.set_feature(0x02, 1).status, 0x02);
    assert_eq!(host.set_feature(0x05, 1 << 16).status, 0x02);
    assert_eq!(host.feature(0x7f).status, 0x02);
    assert_eq!(host.feature(0x106).status, 0x02, "defaults are not told apart");
    assert_eq!(host.admin.run(Entry::new(0x09).word(10, 1 << 31 | 6), vec![], 0).status, 0x10d);
    assert_eq!(host.set_feature(0x81, 1).status, 0x10e);
    let id = host.admin.run(Entry::new(0x0a).word(10, 0x81).word(11, 1), vec![], 16).good().data;
    assert_eq!(id, support::host_id("a"));
    let behavior = pattern(1, 512);
    host.admin.run(Entry::new(0x09).word(10, 0x16), behavior.clone(), 0).good();
    assert_eq!(host.admin.run(Entry::new(0x0a).word(10, 0x16), vec![], 512).good().data, behavior);
    host.write(1, 0, &vec![1; 1 << 20], 512).good();
    host.read(1, 0, 4096, 512).good();
    let health = host.log(2, 512, false).good().data;
    assert_eq!(
        (
            health[0],
            long(&health, 32),
            long(&health, 48),
            long(&health, 64),
            long(&health, 80)
        ),
        (0, 1, 3, 1, 1)
    );
    let firmware = host.log(3, 512, false).good().data;
    assert_eq!((firmware[0], firmware[8].is_ascii_digit()), (1, true));
    let effects = host.log(5, 4096, false).good().data;
    assert_eq!(
        (word(&effects, 6 * 4), word(&effects, 1024 + 4), word(&effects, 1024 + 0x04 * 4)),
        (1, 3, 0)
    );
    assert_eq!(host.log(0x7e, 512, false).status, 0x109);
    // Part of a page, and what is past its end.
    let part = host
        .admin
        .run(Entry::new(0x02).word(10, 5 | 3 << 16).word(12, 1024), vec![], 16)
        .good()
        .data;
    assert_eq!(part, effects[1024..1040]);
    assert_eq!(host.admin.run(Entry::new(0x02).word(10, 5).word(12, 8192), vec![], 4).status, 0x02);
    assert_eq!(host.admin.run(Entry::new(0x02).word(10, 5).word(12, 2), vec![], 4).status, 0x02);
    assert_eq!(
        host.admin.run(Entry::new(0x02).word(10, 5).word(11, 0xffff), vec![], 4).status,
        0x02
    );
    for (structure, status) in [(1, 0), (2, 0), (5, 0), (6, 0), (7, 0), (8, 0), (0x1c, 0), (0x10, 2), (0xff, 2)] {
        let namespace = if matches!(structure, 5 | 8) { 1 } else { 0 };
        assert_eq!(host.identify(structure, namespace).status, status, "{structure:#x}");
    }
    assert_eq!(host.identify(2, u32::MAX).status, 0x0b);
    assert_eq!(host.admin.run(Entry::new(0x7e), vec![], 0).status, 0x01);
    let sessions = world.target().sessions();
    assert_eq!((sessions.len(), sessions[0].queues, sessions[0].volumes.len()), (1, 2, 1));
    assert_eq!(world.metric("volume_write_bytes_total{volume=\"/volumes/one\"}"), (1 << 20) as f64);
}

fn guarded() -> World {
    World::with(|config| {
        config.access.any_host = false;
        config.access.groups = vec![Group::Null];
        config.access.hosts = vec![Host {
            secret: Some(SECRET.parse().unwrap()),
            ..Host::new(&host_nqn("a"))
        }];
    })
}

fn open_guarded(world: &World, queue: u16, controller: u16) -> (Connection, u16) {
    let mut connection = world.open(Options::default());
    let (entry, data) = connect("a", NQN, queue, controller, Options::default());
    let done = connection.run(entry, data, 0).good();
    assert_eq!(done.result >> 16, 2, "authentication is required");
    (connection, done.result as u16)
}

#[test]
fn a_host_that_omits_its_proof_gets_nothing() {
    let world = guarded();
    let (mut queue, _) = open_guarded(&world, 0, 0xffff);
    for entry in [
        property_get(0, true),
        property_set(0x14, ENABLE),
        Entry::new(0x06).word(10, 1),
        Entry::new(0x09).word(10, 0x0b),
        Entry::new(0x0c),
        Entry::new(0x18),
        Entry::new(0x7f).byte(4, 0x08),
    ] {
        assert_eq!(queue.run(entry, vec![], 0).status, 0x191);
    }
}

#[test]
fn a_host_that_knows_its_secret_gets_in_on_each_queue() {
    let world = guarded();
    let (mut admin, controller) = open_guarded(&world, 0, 0xffff);
    let challenge = chap::negotiate(&mut admin, &[0]);
    chap::send(&mut admin, chap::reply(&challenge, &chap::KEY, &host_nqn("a"), NQN)).good();
    assert_eq!(chap::receive(&mut admin).good().data[..2], [1, 3]);
    admin.run(property_set(0x14, ENABLE), vec![], 0).good();
    let (mut io, _) = open_guarded(&world, 1, controller);
    let read = Entry::new(0x02).namespace(1).blocks(0, 1);
    assert_eq!(io.run(read, vec![], 512).status, 0x191, "each queue");
    assert_eq!(
        io.run(Entry::new(0x01).namespace(1), vec![0; 1 << 20], 0).status,
        0x11,
        "no memory before"
    );
    let challenge = chap::negotiate(&mut io, &[0]);
    chap::send(&mut io, chap::reply(&challenge, &chap::KEY, &host_nqn("a"), NQN)).good();
    chap::receive(&mut io).good();
    io.run(read, vec![], 512).good();
}

#[test]
fn a_host_that_fakes_its_proof_is_cut_off() {
    let world = guarded();
    let (mut queue, _) = open_guarded(&world, 0, 0xffff);
    let challenge = chap::negotiate(&mut queue, &[0]);
    chap::send(&mut queue, chap::reply(&challenge, &[7; 32], &host_nqn("a"), NQN)).good();
    assert_eq!(chap::receive(&mut queue).good().data[..8], [0, 0xf1, 0, 0, 3, 0, 1, 1]);
    assert_eq!(queue.receive(), Err(Lost::Closed));
    assert_eq!(world.metric("nvme_authentication_failures_total"), 1.0);
    // Nor is one believed that says that all went well.
    let (mut queue, _) = open_guarded(&world, 0, 0xffff);
    chap::negotiate(&mut queue, &[0]);
    let mut success = vec![0; 16];
    (success[0], success[1], success[4]) = (1, 4, 3);
    chap::send(&mut queue, success);
    assert_eq!(queue.run(property_get(0, true), vec![], 0).status, 0x191);
}

#[test]
fn a_secret_that_changes_cuts_off() {
    let world = World::with(|config| config.access.hosts = vec![Host::new(&host_nqn("a"))]);
    let mut host = world.host("a");
    world.set_access(|access| access.hosts[0].secret = Some(SECRET.parse().unwrap()));
    assert_eq!(host.admin.receive(), Err(Lost::Closed));
}

#[test]
fn a_wrong_configuration_is_refused() {
    let world = World::new();
    let start = |change: fn(&mut trefoil_nvme::Config)| {
        let mut config = world.config.clone();
        config.listen = vec!["127.0.0.1:0".parse().unwrap()];
        change(&mut config);
        trefoil_nvme::Target::start(world.model.clone(), config).map(|_| ())
    };
    assert!(start(|_| ()).is_ok());
    assert!(start(|config| config.nqn = "iqn.x".into()).is_err());
    assert!(start(|config| config.nqn = format!("nqn.{}", "x".repeat(220))).is_err());
    assert!(start(|config| config.limits.queue_depth = 1).is_err());
    assert!(start(|config| config.limits.memory_bytes = 1 << 20).is_err());
    let taken = trefoil_nvme::Target::start(world.model.clone(), world.config.clone());
    assert!(taken.err().unwrap().to_string().contains("cannot listen on 127.0.0.1"));
}
