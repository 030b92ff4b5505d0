use super::*;
use crate::codec::checksum;
use proptest::prelude::*;

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

#[test]
fn callers_that_come_during_a_flush_share_the_next_one() {
    let world = world(2, 1, 0, 16);
    let locations = world.append(Class::Landing, &[noise(1, 5000)]).unwrap();
    let gate = lock(&world.drives.flush_gate);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| world.segments.sync(&locations));
        while world.drives.flushes.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        let later: Vec<_> = (0..6).map(|i| world.append(Class::Landing, &[noise(i, 900)]).unwrap()).collect();
        let segments = &world.segments;
        let waiting: Vec<_> = later
            .into_iter()
            .map(|locations| scope.spawn(move || segments.sync(&locations)))
            .collect();
        drop(gate);
        first.join().unwrap().unwrap();
        waiting.into_iter().for_each(|caller| caller.join().unwrap().unwrap());
    });
    assert_eq!(world.drives.flushes.load(Ordering::SeqCst), 6, "two rounds over three devices");
    world.drives.crash(|| false);
    world.check(&locations[0], &noise(1, 5000));
}

#[test]
fn a_full_pool_still_fills_what_is_open() {
    let world = world(2, 1, 0, 8);
    while world.append(Class::Landing, &[noise(7, MIB)]).is_ok() {}
    let small = world.append(Class::Landing, &[noise(8, 1000)]).unwrap()[0];
    world.check(&small, &noise(8, 1000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Power loss with any part of the unflushed writes gone, then any m devices: what was synced is there, and scrubbing harms nothing.
    #[test]
    fn what_was_synced_survives_a_crash(seed: u64, code in 0usize..3, rounds in 1u64..12, dies in 0i64..24) {
        let (k, m) = [(4, 2), (2, 1), (1, 1)][code];
        let world = world(k, m, 1, 16);
        world.drives.fail_write_after(1, dies);
        let mut synced = Vec::new();
        for round in 0..rounds {
            let sizes = noise(seed ^ round, 6);
            let payloads: Vec<Vec<u8>> = sizes.iter().map(|size| noise(seed ^ u64::from(*size), usize::from(*size) * 300)).collect();
            let locations = world.append(Class::Landing, &payloads).unwrap();
            if sizes[0].is_multiple_of(2) && world.segments.sync(&locations).is_ok() {
                synced.extend(locations.into_iter().zip(payloads));
            }
        }
        let mut coins = noise(seed, 10_000).into_iter();
        world.drives.crash(|| coins.next().is_some_and(|coin| coin % 3 == 0));
        let layouts = lock(&world.persisted).clone();
        let world = reopen(world.drives.clone(), Code::new(k, m).unwrap(), geometry(16), layouts.clone());
        let in_use = |found: &ScannedPayload| synced.iter().any(|(location, _)| *location == found.location);
        for layout in &layouts {
            prop_assert_eq!(world.segments.scrub(layout.id, &in_use).unwrap().unrecoverable, 0);
        }
        let dead: Vec<usize> = (0..usize::from(k + m) + 1).filter(|device| !world.drives.live().contains(&(*device as u16))).collect();
        let alive = |lost: &Vec<usize>| lost.iter().all(|device| !dead.contains(device));
        for lost in subsets(usize::from(k + m) + 1, usize::from(m) - dead.len()).into_iter().filter(alive) {
            lost.iter().for_each(|device| world.drives.kill(*device as u16));
            synced.iter().for_each(|(location, bytes)| world.check(location, bytes));
            lost.iter().for_each(|device| world.drives.revive(*device as u16));
        }
    }
}
