use super::*;
use crate::codec::checksum;
use proptest::prelude::*;

const ALL: &dyn Fn(&ScannedPayload) -> bool = &|_| true;
const NONE: &dyn Fn(&ScannedPayload) -> bool = &|_| false;

fn filled(k: u8, m: u8) -> (World, Vec<Location>, Vec<Vec<u8>>) {
    let world = world(k, m, 0, 8);
    let payloads: Vec<Vec<u8>> = (0..30).map(|i| noise(i, [10, 3000, 0, 40_000, 777][i as usize % 5])).collect();
    let mut locations = world.append(Class::Reduced, &payloads[..13]).unwrap();
    locations.extend(world.append(Class::Reduced, &payloads[13..14]).unwrap());
    locations.extend(world.append(Class::Reduced, &payloads[14..]).unwrap());
    (world, locations, payloads)
}

fn scanned(world: &World, id: u64) -> Vec<Location> {
    world.segments.scan(id).unwrap().map(|found| found.location).collect()
}

#[test]
fn a_scan_finds_every_payload_with_any_m_devices_gone() {
    for (k, m) in [(4, 2), (1, 1), (1, 0), (2, 1)] {
        let (world, locations, payloads) = filled(k, m);
        for lost in subsets(usize::from(k + m), usize::from(m)) {
            lost.iter().for_each(|device| world.drives.kill(*device as u16));
            let found: Vec<ScannedPayload> = world.segments.scan(locations[0].segment).unwrap().collect();
            assert_eq!(found.iter().map(|found| found.location).collect::<Vec<_>>(), locations);
            for (found, bytes) in found.iter().zip(&payloads) {
                assert_eq!(found.header.checksum, checksum(bytes));
            }
            lost.iter().for_each(|device| world.drives.revive(*device as u16));
        }
    }
}

#[test]
fn a_clean_segment_scrubs_clean() {
    let (world, locations, _) = filled(4, 2);
    let report = world.segments.scrub(locations[0].segment, ALL).unwrap();
    let payload_bytes = locations.iter().map(|location| u64::from(location.length)).sum();
    assert_eq!(
        report,
        ScrubReport {
            rows: 3,
            payloads: 30,
            payload_bytes,
            ..ScrubReport::default()
        }
    );
}

#[test]
fn scrubbing_repairs_headers_payloads_padding_and_parity_exactly() {
    for (k, m) in [(4u8, 2u8), (1, 1), (8, 2), (2, 2)] {
        for wrong in subsets(usize::from(k + m), usize::from(m)).iter().step_by(2) {
            let (world, locations, _) = filled(k, m);
            let intact = world.drives.snapshot();
            for (shard, offset) in wrong.iter().zip([0u64, 3000]) {
                let (device, at) = world.place(locations[0].segment, *shard, offset);
                world
                    .drives
                    .change(device, at, |bytes| bytes[..1100].iter_mut().for_each(|byte| *byte ^= 0x11));
            }
            let report = world.segments.scrub(locations[0].segment, ALL).unwrap();
            assert!(world.drives.snapshot() == intact, "{k}+{m} {wrong:?} {report:?}");
            assert_eq!(
                (report.unrecoverable, report.unclear_rows, report.repaired > 0),
                (0, 0, !wrong.is_empty())
            );
            let again = world.segments.scrub(locations[0].segment, ALL).unwrap();
            assert_eq!((again.checksum_errors, again.repaired), (0, 0));
        }
    }
}

#[test]
fn damage_past_the_code_is_counted_and_nothing_is_overwritten() {
    let (world, locations, _) = filled(2, 1);
    for shard in 0..2 {
        let (device, at) = world.place(locations[3].segment, shard, 3500);
        world.drives.change(device, at, |bytes| bytes[..30_000].fill(0x77));
    }
    let before = world.drives.snapshot();
    let report = world.segments.scrub(locations[0].segment, ALL).unwrap();
    assert!(report.unrecoverable > 0 && report.unclear_rows > 0);
    assert!(world.drives.snapshot() == before);
    let unused = world.segments.scrub(locations[0].segment, NONE).unwrap();
    assert_eq!((unused.unrecoverable, unused.unclear_rows), (0, report.unclear_rows));
}

/// More than m shards are wrong just where a header is: the payload behind it cannot be found, but metadata still names it.
#[test]
fn a_payload_behind_a_lost_header_is_not_taken_for_padding() {
    let (world, locations, payloads) = filled(2, 1);
    let victim = locations[3];
    let header = u64::from(victim.offset) - HEADER_BYTES as u64;
    for shard in [usize::from(victim.shard), 2] {
        let (device, at) = world.place(victim.segment, shard, header);
        world
            .drives
            .change(device, at, |bytes| bytes[..HEADER_BYTES].fill(0x33 + shard as u8));
    }
    let before = world.drives.snapshot();
    assert!(!scanned(&world, victim.segment).contains(&victim));
    assert!(world.segments.scrub(victim.segment, ALL).unwrap().unclear_rows > 0);
    assert!(world.drives.snapshot() == before);
    world.check(&victim, &payloads[3]);
}

/// A zone is reused without being zeroed: the rows of its last segment must not show up in the new one, nor be "repaired".
#[test]
fn what_an_earlier_segment_left_is_not_found() {
    let (old, locations, _) = filled(4, 2);
    let layouts = lock(&old.persisted).clone();
    let token = old.segments.release(locations[0].segment).unwrap();
    old.segments.reclaim(token);
    let fresh = old.append(Class::Reduced, &[noise(1, 100)]).unwrap();
    let layout = old.segments.segment(fresh[0].segment).unwrap().layout.clone();
    let mut devices = layout.zones.clone();
    devices.sort_unstable();
    let mut old_zones = layouts[0].zones.clone();
    old_zones.sort_unstable();
    assert_eq!(devices, old_zones, "the test needs the same zones again");
    let world = reopen(old.drives.clone(), Code::new(4, 2).unwrap(), geometry(8), vec![layout]);
    let before = world.drives.snapshot();
    assert_eq!(scanned(&world, fresh[0].segment), fresh);
    let report = world.segments.scrub(fresh[0].segment, ALL).unwrap();
    assert_eq!((report.rows, report.repaired, report.unrecoverable), (1, 0, 0));
    assert!(world.drives.snapshot() == before);
}

/// A crash can leave a reserved row unwritten in front of a written one.
#[test]
fn a_scan_goes_on_behind_a_hole() {
    let (world, locations, _) = filled(4, 2);
    let id = locations[0].segment;
    let second = locations[13];
    let row = u64::from(second.offset) - HEADER_BYTES as u64;
    for shard in 0..6 {
        let (device, at) = world.place(id, shard, row);
        world.drives.change(device, at, |bytes| bytes[..4096].fill(0));
    }
    let layouts = lock(&world.persisted).clone();
    let world = reopen(world.drives.clone(), Code::new(4, 2).unwrap(), geometry(8), layouts);
    let expected: Vec<Location> = locations.iter().filter(|location| **location != second).copied().collect();
    assert_eq!(scanned(&world, id), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn garbage_in_zones_never_panics_a_scan(seed: u64, at in 0usize..60_000, length in 1usize..60_000, shards in 1usize..7) {
        let (world, locations, _) = filled(4, 2);
        for shard in 0..shards.min(6) {
            let (device, offset) = world.place(locations[0].segment, shard, at as u64);
            let garbage = noise(seed ^ shard as u64, length);
            world.drives.change(device, offset, |bytes| bytes[..length].copy_from_slice(&garbage));
        }
        let found = scanned(&world, locations[0].segment);
        prop_assert!(found.iter().all(|location| locations.contains(location)));
        if shards <= 2 {
            prop_assert_eq!(found, locations.clone());
        }
        let report = world.segments.scrub(locations[0].segment, ALL).unwrap();
        prop_assert!(shards > 2 || report.unrecoverable == 0);
    }
}
