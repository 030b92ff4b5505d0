use super::*;
use crate::codec::checksum;

#[test]
fn a_device_that_fails_during_an_append_costs_nothing() {
    for fails_after in 0..4 {
        let world = world(4, 2, 1, 16);
        world.drives.fail_write_after(2, fails_after);
        let mut model = Vec::new();
        for i in 0..8 {
            let payloads: Vec<Vec<u8>> = (0..9).map(|j| noise(i * 10 + j, 20_000)).collect();
            let locations = world.append(Class::Landing, &payloads).unwrap();
            model.extend(locations.into_iter().zip(payloads));
        }
        let last = world.segments.segment(model.last().unwrap().0.segment).unwrap();
        assert!(last.layout.devices().all(|device| device != 2));
        assert_eq!((last.layout.k, last.layout.m), (4, 2));
        assert_eq!(count(&world.segments.counters().rewritten_rows), 1);
        model.iter().for_each(|(location, bytes)| world.check(location, bytes));
    }
}

#[test]
fn an_acknowledged_row_has_all_its_shards() {
    let world = world(2, 2, 1, 16);
    world.drives.fail_write_after(1, 3);
    let mut model = Vec::new();
    for i in 0..8 {
        let bytes = noise(i, 9000);
        model.push((world.append(Class::Landing, std::slice::from_ref(&bytes)).unwrap()[0], bytes));
    }
    world.drives.revive(1);
    for pair in [[0usize, 1], [2, 3], [1, 4]] {
        pair.iter().for_each(|device| world.drives.kill(*device as u16));
        model.iter().for_each(|(location, bytes)| world.check(location, bytes));
        pair.iter().for_each(|device| world.drives.revive(*device as u16));
    }
}

#[test]
fn fewer_devices_give_narrower_segments_with_the_same_parity() {
    let world = world(4, 2, 0, 16);
    let mut codes = Vec::new();
    for lost in [None, Some(0), Some(1), Some(2), Some(3), Some(4)] {
        lost.into_iter().for_each(|device| world.drives.kill(device));
        let location = world.append(Class::Landing, &[noise(1, 100)]).unwrap()[0];
        let layout = world.segments.segment(location.segment).unwrap().layout.clone();
        codes.push((layout.k, layout.m));
    }
    assert_eq!(codes, [(4, 2), (2, 2), (2, 2), (1, 2), (1, 1), (1, 0)]);
    world.drives.kill(5);
    assert!(matches!(world.append(Class::Landing, &[noise(1, 100)]), Err(Error::Closed(_))));
}

#[test]
fn a_failed_flush_reaches_every_append_that_relied_on_it_and_no_other() {
    let world = world(2, 1, 1, 16);
    let first = world.append(Class::Landing, &[noise(1, 5000)]).unwrap();
    world.segments.sync(&first).unwrap();
    let second = world.append(Class::Landing, &[noise(2, 5000)]).unwrap();
    let third = world.append(Class::Landing, &[noise(3, 5000)]).unwrap();
    let device = world.place(second[0].segment, 0, 0).0;
    world.drives.fail_next_flush(device);
    assert!(matches!(world.segments.sync(&second), Err(Error::Io(_))));
    // The flush that failed is over; whoever asks later must hear of it too.
    assert!(matches!(world.segments.sync(&third), Err(Error::Io(_))));
    let again = world.append(Class::Landing, &[noise(2, 5000)]).unwrap();
    assert_ne!(again[0].segment, second[0].segment);
    world.segments.sync(&again).unwrap();
    world.check(&again[0], &noise(2, 5000));
}

#[test]
fn a_device_that_died_elsewhere_before_the_flush_is_noticed() {
    let world = world(2, 1, 1, 16);
    let locations = world.append(Class::Reduced, &[noise(1, 5000)]).unwrap();
    world.drives.kill(world.place(locations[0].segment, 2, 0).0);
    assert!(matches!(world.segments.sync(&locations), Err(Error::Io(_))));
}

#[test]
fn each_device_is_flushed_once_however_many_ask() {
    let world = world(2, 1, 0, 16);
    let locations = world.append(Class::Landing, &[noise(1, 5000)]).unwrap();
    for _ in 0..5 {
        world.segments.sync(&locations).unwrap();
    }
    assert_eq!(world.drives.flushes.load(Ordering::SeqCst), 3);
    assert_eq!(count(&world.segments.counters().flushes), 1);
}

#[test]
fn devices_fail_while_eight_threads_append() {
    let world = world(4, 2, 3, 64);
    for (device, writes) in [(1u16, 40), (4, 90), (7, 150)] {
        world.drives.fail_write_after(device, writes);
    }
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let world = &world;
            scope.spawn(move || {
                for round in 0..20u64 {
                    let bytes = noise(thread * 100 + round, 30_000);
                    let location = loop {
                        let locations = world.append(Class::Landing, std::slice::from_ref(&bytes)).unwrap();
                        if world.segments.sync(&locations).is_ok() {
                            break locations[0];
                        }
                    };
                    world.check(&location, &bytes);
                }
            });
        }
    });
    assert!(!world.drives.live().contains(&1));
    assert!(count(&world.segments.counters().rewritten_rows) > 0);
}

#[test]
fn an_unreadable_range_is_rebuilt_and_written_back() {
    let world = world(4, 2, 0, 8);
    let bytes = noise(9, 50_000);
    let location = world.append(Class::Landing, std::slice::from_ref(&bytes)).unwrap()[0];
    let (device, _) = world.place(location.segment, 0, 0);
    world.drives.set_unreadable(device, true);
    world.check(&location, &bytes);
    let counters = world.segments.counters();
    assert_eq!(
        [&counters.checksum_errors, &counters.degraded_reads, &counters.repaired].map(count),
        [0, 1, 1]
    );
    world.drives.set_unreadable(device, false);
    world.check(&location, &bytes);
    assert_eq!(count(&counters.degraded_reads), 1);
}

#[test]
fn after_a_restart_segments_are_sealed_and_ids_go_on() {
    let world = world(2, 1, 0, 16);
    let bytes = noise(4, 70_000);
    let location = world.append(Class::Landing, std::slice::from_ref(&bytes)).unwrap()[0];
    let layouts = lock(&world.persisted).clone();
    let world = reopen(world.drives.clone(), Code::new(2, 1).unwrap(), geometry(16), layouts);
    world.check(&location, &bytes);
    let next = world.append(Class::Landing, std::slice::from_ref(&bytes)).unwrap()[0];
    assert_eq!(next.segment, location.segment + 1);
    assert_eq!(
        lock(&world.persisted).iter().map(|layout| layout.id).collect::<Vec<_>>(),
        [next.segment]
    );
    world.check(&location, &bytes);
}

#[test]
fn a_layout_that_cannot_be_persisted_leaves_no_trace() {
    let drives = MemoryDrives::new(3, geometry(8));
    let persist: Persist = Arc::new(|_| Err(Error::Closed("the store is closing".into())));
    let segments = Segments::open(drives, geometry(8), Code::new(2, 1).unwrap(), Vec::new(), 1, persist).unwrap();
    for _ in 0..20 {
        let refused = segments.append(
            Class::Landing,
            &[Payload {
                kind: 0,
                owner: 0,
                bytes: b"x",
            }],
        );
        assert!(matches!(refused, Err(Error::Closed(_))));
    }
    assert_eq!(segments.status().used_bytes, 0);
    assert!(segments.layouts().is_empty());
}

#[test]
fn lost_devices_show_as_degraded_segments() {
    let world = world(2, 1, 1, 16);
    let location = world.append(Class::Landing, &[noise(1, 10)]).unwrap()[0];
    assert!(world.segments.degraded().is_empty());
    world.drives.kill(world.place(location.segment, 1, 0).0);
    assert_eq!(world.segments.degraded(), [location.segment]);
    let bytes = world.segments.read(&location, 0..10, checksum(&noise(1, 10))).unwrap();
    assert_eq!(bytes, noise(1, 10));
}
