use super::super::row::{plan, slot_bytes};
use super::*;
use crate::codec::checksum;
use proptest::prelude::*;
use std::collections::BTreeMap;

const CODES: [(u8, u8); 6] = [(4, 2), (2, 2), (2, 1), (1, 1), (1, 0), (8, 2)];

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![4 => 0usize..300, 3 => 1000usize..70_000, 1 => 500_000..=MIB, 1 => Just(MIB), 1 => Just(0)];
    proptest::collection::vec(size, 1..12)
}

#[test]
fn full_payloads_make_one_row_and_small_ones_fill_shards() {
    let large = noise(1, MIB);
    let payloads = vec![
        Payload {
            kind: 0,
            owner: 1,
            bytes: &large
        };
        5
    ];
    let row = plan(&payloads, 4, ROW_BYTES_MAX as usize).unwrap();
    assert_eq!((row.row_bytes, row.places.len()), (MIB + 4096, 4));
    let small = noise(2, 1000);
    let payloads = vec![
        Payload {
            kind: 0,
            owner: 1,
            bytes: &small
        };
        12
    ];
    let row = plan(&payloads, 4, ROW_BYTES_MAX as usize).unwrap();
    assert_eq!((row.row_bytes, row.places.len()), (4096, 12));
    assert_eq!(row.places[3], (1, 0), "three of {} bytes fit a shard of 4096", slot_bytes(1000));
    assert!(plan(&payloads, 4, 0).is_none());
}

proptest! {
    #[test]
    fn rows_are_as_low_as_order_allows(sizes in sizes(), k in 1usize..9) {
        let payloads: Vec<Vec<u8>> = sizes.iter().map(|size| vec![0; *size]).collect();
        let payloads: Vec<Payload<'_>> = payloads.iter().map(|bytes| Payload { kind: 0, owner: 0, bytes }).collect();
        let row = plan(&payloads, k, ROW_BYTES_MAX as usize).unwrap();
        let mut used = BTreeMap::new();
        for ((shard, at), payload) in row.places.iter().zip(&payloads) {
            prop_assert!(*shard < k && *at == *used.get(shard).unwrap_or(&0));
            used.insert(*shard, at + slot_bytes(payload.bytes.len()));
        }
        prop_assert!(used.values().all(|bytes| *bytes <= row.row_bytes));
        prop_assert!(plan(&payloads, k, row.row_bytes - 4096).is_none_or(|lower| lower.places.len() < row.places.len()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_was_appended_reads_back_after_any_loss(code in 0..CODES.len(), appends in proptest::collection::vec(sizes(), 1..4), seed: u64) {
        let (k, m) = CODES[code];
        let world = world(k, m, 0, 32);
        let mut model = Vec::new();
        for (i, sizes) in appends.iter().enumerate() {
            let payloads: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(j, size)| noise(seed ^ (i * 100 + j) as u64, *size)).collect();
            model.extend(world.append(Class::Landing, &payloads).unwrap().into_iter().zip(payloads));
        }
        let all: Vec<Location> = model.iter().map(|(location, _)| *location).collect();
        world.segments.sync(&all).unwrap();
        for lost in subsets(usize::from(k + m), usize::from(m)).iter().step_by(3) {
            lost.iter().for_each(|device| world.drives.kill(*device as u16));
            for (location, bytes) in &model {
                world.check(location, bytes);
                prop_assert_eq!(world.segments.read_header(location).unwrap().checksum, checksum(bytes));
            }
            lost.iter().for_each(|device| world.drives.revive(*device as u16));
        }
        prop_assert_eq!(count(&world.segments.counters().unrecoverable), 0);
    }

    #[test]
    fn any_part_of_a_payload_reads_back(from in 0u32..5000, length in 0u32..5000, lost in 0u16..6) {
        let world = world(4, 2, 0, 8);
        let payload = noise(3, 10_000);
        let location = world.append(Class::Landing, &[noise(1, 77), payload.clone()]).unwrap()[1];
        let part = &payload[from as usize..(from + length) as usize];
        prop_assert_eq!(&world.segments.read(&location, from..from + length, checksum(part)).unwrap(), part);
        world.drives.kill(lost);
        prop_assert_eq!(&world.segments.read(&location, from..from + length, checksum(part)).unwrap(), part);
    }
}

#[test]
fn every_loss_up_to_m_reads_and_one_more_is_damaged() {
    for (k, m) in CODES {
        let world = world(k, m, 0, 16);
        let payloads: Vec<Vec<u8>> = (0..u64::from(k) * 2).map(|i| noise(i, 3000)).collect();
        let locations = world.append(Class::Landing, &payloads).unwrap();
        for lost in subsets(usize::from(k + m), usize::from(m) + 1) {
            lost.iter().for_each(|device| world.drives.kill(*device as u16));
            for (location, bytes) in locations.iter().zip(&payloads) {
                let home = world.place(location.segment, usize::from(location.shard), 0).0;
                let read = world.segments.read(location, 0..location.length, checksum(bytes));
                if lost.len() <= usize::from(m) || !lost.contains(&usize::from(home)) {
                    assert_eq!(&read.unwrap(), bytes);
                } else {
                    assert!(matches!(read, Err(Error::Damaged(_))));
                }
            }
            lost.iter().for_each(|device| world.drives.revive(*device as u16));
        }
    }
}

#[test]
fn silent_corruption_of_up_to_m_shards_is_survived_and_repaired() {
    for (k, m) in CODES {
        let payloads: Vec<Vec<u8>> = (0..u64::from(k)).map(|i| noise(i, 4000)).collect();
        for wrong in subsets(usize::from(k + m), usize::from(m)) {
            let world = world(k, m, 0, 8);
            let locations = world.append(Class::Landing, &payloads).unwrap();
            let intact = world.drives.snapshot();
            for &shard in &wrong {
                let (device, offset) = world.place(locations[0].segment, shard, 500);
                world.drives.change(device, offset, |bytes| {
                    bytes[..64].iter_mut().for_each(|byte| *byte ^= 0x5a ^ shard as u8)
                });
            }
            for (location, bytes) in locations.iter().zip(&payloads) {
                world.check(location, bytes);
            }
            let data_shards = wrong.iter().filter(|shard| **shard < usize::from(k)).count() as u64;
            let counters = world.segments.counters();
            let counted = [&counters.checksum_errors, &counters.degraded_reads, &counters.repaired].map(count);
            assert_eq!(counted, [data_shards; 3], "{k}+{m} {wrong:?}");
            let after = world.drives.snapshot();
            for shard in 0..usize::from(k) {
                let device = usize::from(world.place(locations[0].segment, shard, 0).0);
                assert!(after[device] == intact[device], "data shard {shard} is repaired in place");
            }
        }
    }
}

#[test]
fn wrong_requests_are_refused() {
    let world = world(2, 1, 0, 8);
    let location = world.append(Class::Landing, &[noise(1, 100)]).unwrap()[0];
    let read = |location: Location, range| world.segments.read(&location, range, 0);
    assert!(matches!(read(location, 0..101), Err(Error::Invalid(_))));
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = 5..4;
    assert!(matches!(read(location, reversed), Err(Error::Invalid(_))));
    assert!(matches!(read(Location { segment: 99, ..location }, 0..1), Err(Error::Damaged(_))));
    assert!(matches!(read(Location { shard: 2, ..location }, 0..1), Err(Error::Damaged(_))));
    assert!(matches!(
        read(
            Location {
                offset: ZONE as u32,
                ..location
            },
            0..1
        ),
        Err(Error::Damaged(_))
    ));
    assert!(matches!(
        world.segments.read_header(&Location { offset: 4, ..location }),
        Err(Error::Damaged(_))
    ));
    assert!(matches!(
        world.segments.read_header(&Location { length: 99, ..location }),
        Err(Error::Damaged(_))
    ));
    assert!(matches!(
        world.append(Class::Landing, &[vec![0; PAYLOAD_BYTES_MAX + 1]]),
        Err(Error::Invalid(_))
    ));
    assert!(world.append(Class::Landing, &[]).unwrap().is_empty());
}

#[test]
fn eight_threads_append_and_read() {
    let world = world(4, 2, 2, 64);
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let world = &world;
            scope.spawn(move || {
                let mut mine = Vec::new();
                for round in 0..12u64 {
                    let payloads: Vec<Vec<u8>> = (0..5)
                        .map(|i| noise(thread * 1000 + round * 10 + i, (thread * 7919 + round * 30_011) as usize % 90_000))
                        .collect();
                    let class = if round % 3 == 0 { Class::Reduced } else { Class::Landing };
                    let locations = world.append(class, &payloads).unwrap();
                    world.segments.sync(&locations).unwrap();
                    mine.extend(locations.into_iter().zip(payloads));
                    mine.iter().step_by(7).for_each(|(location, bytes)| world.check(location, bytes));
                }
                mine.iter().for_each(|(location, bytes)| world.check(location, bytes));
            });
        }
    });
    assert_eq!(count(&world.segments.counters().degraded_reads), 0);
    assert_eq!(world.segments.layouts().len(), lock(&world.persisted).len());
}
