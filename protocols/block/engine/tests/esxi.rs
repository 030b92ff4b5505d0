//! What VMware ESXi 7 and 8 ask of a target, item by item, as public reports of hosts and targets tell it. No ESXi is at hand, so each item is shown by what
//! goes over the wire. `docs/decisions/0007-block-target.md` has the list.

mod support;

use support::host::{Entry, Options, long, short, word};
use support::{Attachment, DISCOVERY, World, pattern};

fn compare(at: u64) -> Entry {
    Entry::new(0x05).namespace(1).blocks(at, 1).first_half()
}

fn swap(at: u64) -> Entry {
    Entry::new(0x01).namespace(1).blocks(at, 1).second_half()
}

fn block(byte: u8) -> Vec<u8> {
    vec![byte; 512]
}

fn content(host: &mut Attachment, at: u64) -> Vec<u8> {
    host.read(1, at, 512, 512).good().data
}

/// VMFS locks by fused Compare and Write ("ATS") on a namespace whose controller says that it can.
#[test]
fn fused_compare_and_write_is_offered_and_is_atomic() {
    let world = World::new();
    let mut host = world.host("esx");
    assert_eq!(host.identify(1, 0).good().data[522] & 1, 1, "FUSES");
    let queue = host.queue();
    let (first, second) = (queue.submit(compare(7), block(0), 0), queue.submit(swap(7), block(1), 0));
    queue.wait(first).good();
    queue.wait(second).good();
    assert_eq!(content(&mut host, 7), block(1));
}

/// A miscompare is ordinary: somebody else has the lock. The status is 0x285, and the write is aborted.
#[test]
fn a_miscompare_is_reported_as_such() {
    let world = World::new();
    let mut host = world.host("esx");
    host.write(1, 7, &block(3), 512).good();
    let queue = host.queue();
    let (first, second) = (queue.submit(compare(7), block(0), 0), queue.submit(swap(7), block(1), 0));
    assert_eq!(queue.wait(first).status, 0x285);
    assert_eq!(queue.wait(second).status, 0x09);
    assert_eq!(content(&mut host, 7), block(3));
}

/// ESXi 7.0.3 puts other commands between the halves.
#[test]
fn commands_between_the_halves_are_no_matter() {
    let world = World::new();
    let options = Options {
        in_capsule: 0,
        ..Options::default()
    };
    let mut host = world.host_with("esx", options);
    host.add_queue();
    for round in 0..20_u8 {
        let queue = &mut host.io[0];
        let first = queue.submit(compare(7), block(round), 0);
        let between = [
            queue.submit(Entry::new(0x02).namespace(1).blocks(0, 8), vec![], 4096),
            queue.submit(Entry::new(0x01).namespace(1).blocks(100, 64), pattern(1, 32 << 10), 0),
            queue.submit(Entry::new(0x00).namespace(1), vec![], 0),
        ];
        // They are done although the pair is not.
        for id in between {
            queue.wait(id).good();
        }
        let second = queue.submit(swap(7), block(round + 1), 0);
        queue.wait(first).good();
        queue.wait(second).good();
    }
    assert_eq!(content(&mut host, 7), block(20));
}

/// The halves of one queue belong together, whatever other queues do.
#[test]
fn pairs_of_several_queues_do_not_mix() {
    let world = World::new();
    let mut host = world.host("esx");
    host.add_queue();
    let first = host.io[0].submit(compare(1), block(0), 0);
    let other = host.io[1].submit(compare(2), block(0), 0);
    let other_second = host.io[1].submit(swap(2), block(2), 0);
    host.io[1].wait(other).good();
    host.io[1].wait(other_second).good();
    let second = host.io[0].submit(swap(1), block(1), 0);
    host.io[0].wait(first).good();
    host.io[0].wait(second).good();
    assert_eq!((content(&mut host, 1), content(&mut host, 2)), (block(1), block(2)));
}

#[test]
fn halves_that_do_not_fit_fail_and_change_nothing() {
    let world = World::new();
    let mut host = world.host("esx");
    let queue = host.queue();
    assert_eq!(queue.run(swap(7), block(1), 0).status, 0x0a, "a second half alone");
    let (first, again) = (queue.submit(compare(7), block(0), 0), queue.submit(compare(8), block(0), 0));
    assert_eq!(queue.wait(first).status, 0x0a, "a first half without its second");
    let second = queue.submit(swap(7), block(1), 0);
    assert_eq!(
        (queue.wait(again).status, queue.wait(second).status),
        (0x02, 0x09),
        "of different blocks"
    );
    let long = |entry: Entry| entry.blocks(0, 512);
    let first = queue.submit(long(compare(0)), vec![0; 256 << 10], 0);
    let second = queue.submit(long(swap(0)), vec![1; 256 << 10], 0);
    assert_eq!(
        (queue.wait(first).status, queue.wait(second).status),
        (0x14, 0x09),
        "more than is atomic"
    );
    let (first, second) = (
        queue.submit(compare(1 << 40), block(0), 0),
        queue.submit(swap(1 << 40), block(1), 0),
    );
    assert_eq!((queue.wait(first).status, queue.wait(second).status), (0x80, 0x09));
    world.model.script(1, "d");
    let queue = host.queue();
    let (first, second) = (queue.submit(compare(7), block(0), 0), queue.submit(swap(7), block(1), 0));
    assert_eq!((queue.wait(first).status, queue.wait(second).status), (0x281, 0x09));
    for at in [0, 7, 8] {
        assert_eq!(content(&mut host, at), block(0));
    }
}

/// Many hosts fight for one lock: exactly one gets each generation.
#[test]
fn of_many_who_swap_one_wins() {
    let world = World::new();
    let wins: Vec<u32> = std::thread::scope(|scope| {
        let fights: Vec<_> = (0..4)
            .map(|number| {
                let mut host = world.host(&format!("esx{number}"));
                scope.spawn(move || {
                    let mut wins = 0;
                    for generation in 0..50_u8 {
                        let queue = host.queue();
                        let first = queue.submit(compare(9), block(generation), 0);
                        let second = queue.submit(swap(9), block(generation + 1), 0);
                        let (first, second) = (queue.wait(first).status, queue.wait(second).status);
                        assert!([(0, 0), (0x285, 0x09)].contains(&(first, second)));
                        wins += u32::from(first == 0);
                        // The next generation begins when somebody has won this one.
                        while content(&mut host, 9)[0] <= generation {}
                    }
                    wins
                })
            })
            .collect();
        fights.into_iter().map(|fight| fight.join().unwrap()).collect()
    });
    assert_eq!(wins.iter().sum::<u32>(), 50, "{wins:?}");
}

/// Other block sizes are "Unsupported device attributes".
#[test]
fn blocks_have_512_bytes() {
    let world = World::new();
    let mut host = world.host("esx");
    let page = host.identify(0, 1).good().data;
    assert_eq!((page[25], page[26], page[130], short(&page, 128)), (0, 0, 9, 0));
    assert_eq!(long(&page, 0), (64 << 20) / 512);
}

/// Devices are named by NGUID (`eui.…`) or UUID (`uuid.…`): there is one, it is not zero, and it stays.
#[test]
fn names_are_stable() {
    let mut world = World::new();
    let names = |world: &World, host: &str| {
        let mut host = world.host(host);
        let page = host.identify(0, 1).good().data;
        let descriptors = host.identify(3, 1).good().data;
        (page[104..120].to_vec(), descriptors)
    };
    let (nguid, descriptors) = names(&world, "esx");
    assert_ne!(nguid, [0; 16]);
    assert_eq!(descriptors[..4], [2, 16, 0, 0]);
    assert_eq!(descriptors[4..20], nguid);
    assert_eq!(descriptors[20..24], [3, 16, 0, 0]);
    assert_ne!(descriptors[24..40], [0; 16]);
    assert_eq!(descriptors[40..46], [4, 1, 0, 0, 0, 0]);
    world.stop();
    world.start();
    assert_eq!(names(&world, "other"), (nguid.clone(), descriptors));
    assert_ne!(world.host("esx").identify(0, 2).good().data[104..120], nguid);
}

/// It sets 0x100, namespace attribute notices, and must be offered them.
#[test]
fn namespace_notices_are_offered_and_come() {
    let world = World::new();
    let mut host = world.host("esx");
    let offered = word(&host.identify(1, 0).good().data, 92);
    assert_eq!(offered & 0x100, 0x100, "OAES");
    host.set_feature(0x0b, 0x100).good();
    assert_eq!(host.feature(0x0b).good().result, 0x100);
    let request = host.admin.submit(Entry::new(0x0c), vec![], 0);
    world.model.resize(1, 128 << 20);
    assert_eq!(host.admin.wait(request).good().result, 0x04_0002);
    let changed = host.log(4, 4096, false).good().data;
    assert_eq!((word(&changed, 0), word(&changed, 4)), (1, 0));
    assert_eq!(long(&host.identify(0, 1).good().data, 0), (128 << 20) / 512);
}

/// ANA: one group, optimized, of which all namespaces are; the fields that hosts check fit together.
#[test]
fn the_ana_log_says_optimized() {
    let world = World::new();
    let mut host = world.host("esx");
    let page = host.identify(1, 0).good().data;
    assert_eq!(page[76] & 0x0a, 0x0a, "CMIC: several controllers, ANA");
    let (names, listed) = (word(&page, 516), word(&page, 540));
    assert!(listed > 0 && listed <= names, "MNAN");
    assert_eq!((word(&page, 344), word(&page, 348), page[343] & 1), (1, 1, 1));
    assert!(page[342] > 0, "ANATT");
    let log = host.log(0x0c, 16 + 32 + 8, false).good().data;
    assert_eq!((short(&log, 8), word(&log, 16), word(&log, 20), log[32]), (1, 1, 2, 1));
    assert_eq!((word(&log, 48), word(&log, 52)), (1, 2));
    let groups = host.admin.run(Entry::new(0x02).word(10, 0x10c | 11 << 16), vec![], 48).good().data;
    assert_eq!((short(&groups, 8), word(&groups, 20)), (1, 0));
    for id in [1, 2] {
        assert_eq!(word(&host.identify(0, id).good().data, 92), 1, "ANAGRPID");
    }
}

/// Fields without which hosts refuse a controller, or crash.
#[test]
fn identify_has_what_hosts_insist_on() {
    let world = World::new();
    let mut host = world.host("esx");
    let page = host.identify(1, 0).good().data;
    let depth = short(&page, 514);
    let capabilities = host.admin.run(support::property_get(0, true), vec![], 0).good().result;
    assert_eq!(u64::from(depth), (capabilities & 0xffff) + 1, "MAXCMD is MQES + 1");
    assert!(short(&page, 320) > 0, "KAS");
    assert_eq!(short(&page, 78), host.controller, "CNTLID as Connect said");
    assert_eq!(word(&page, 536) & 3, 1, "SGLS");
    assert_eq!(short(&page, 1800), 0, "ICDOFF");
    assert_eq!(word(&page, 1792), (16384 + 64) / 16, "IOCCSZ");
    assert_eq!(word(&page, 1796), 1, "IORCSZ");
    assert_eq!((page[512], page[513]), (0x66, 0x44), "SQES, CQES");
    assert_eq!(page[111], 1, "CNTRLTYPE");
    assert_eq!(page[77], 8, "MDTS: 1 MiB");
    assert_eq!(page[525] & 1, 1, "VWC: there is one");
    assert_eq!(page[1803], 1, "MSDBD");
    let nqn = page[768..1024].split(|&byte| byte == 0).next().unwrap();
    assert_eq!(nqn, support::NQN.as_bytes());
    assert_eq!(&page[4..24], b"SERIAL1             ");
    let space = host.identify(0, 1).good().data;
    // Compare and Write is atomic for 128 KiB, and says so where it holds for all sizes of blocks.
    assert_eq!((short(&page, 532), short(&space, 38)), (31, 255), "ACWU, NACWU");
    // Never torn within 4 KiB.
    assert_eq!(
        (
            space[24] & 2,
            short(&space, 34),
            short(&space, 36),
            short(&space, 40),
            short(&space, 44)
        ),
        (2, 7, 7, 7, 7)
    );
}

/// `esxcli nvme fabrics discover`, and a persistent connection that hears of changes.
#[test]
fn discovery_persists_and_tells_of_changes() {
    let world = World::with(|config| {
        config.access.any_host = false;
        config.access.hosts = vec![trefoil_nvme::Host::new(&support::host_nqn("other"))];
    });
    let options = Options {
        keep_alive_milliseconds: 120_000,
        ..Options::default()
    };
    let mut host = Attachment::admin_only(world.address(), "esx", DISCOVERY, options);
    host.enable();
    let page = host.identify(1, 0).good().data;
    assert_eq!((page[111], word(&page, 92)), (2, 1 << 31), "CNTRLTYPE, OAES");
    host.set_feature(0x0b, 1 << 31).good();
    let log = host.log(0x70, 1024, false).good().data;
    let generation = long(&log, 0);
    assert_eq!(long(&log, 8), 0, "nothing for a host that may not connect");
    let request = host.admin.submit(Entry::new(0x0c), vec![], 0);
    host.admin.run(Entry::new(0x18), vec![], 0).good();
    world.set_access(|access| access.any_host = true);
    assert_eq!(host.admin.wait(request).good().result, 0x70_f002);
    let log = host.log(0x70, 2048, false).good().data;
    assert_eq!((long(&log, 0), long(&log, 8)), (generation + 1, 1));
    let entry = &log[1024..];
    assert_eq!(entry[..4], [3, 1, 2, 0], "TCP, IPv4, an NVM subsystem");
    let text = |at: usize, length: usize| String::from_utf8(entry[at..at + length].to_vec()).unwrap();
    assert_eq!(text(32, 32).trim_end_matches('\0'), world.address().port().to_string());
    assert_eq!(text(256, 256).trim_end_matches('\0'), support::NQN);
    assert_eq!(text(512, 256).trim_end_matches('\0'), "127.0.0.1");
    assert_eq!(host.log(0x0c, 64, false).status, 0x109);
    assert_eq!(host.identify(2, 0).status, 0x02);
}

/// Clusters of virtual machines over NVMe/TCP (8.0U3) use reservations.
#[test]
fn reservations_are_offered() {
    let world = World::new();
    let mut host = world.host("esx");
    assert_eq!(short(&host.identify(1, 0).good().data, 520) & 0x20, 0x20, "ONCS");
    assert_eq!(host.identify(0, 1).good().data[31], 0xff, "RESCAP");
}
