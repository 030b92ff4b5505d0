use super::*;
use std::collections::HashSet;

fn fill(world: &World, class: Class) -> (Vec<Location>, Error) {
    let mut locations = Vec::new();
    loop {
        match world.append(class, &[noise(7, MIB)]) {
            Ok(appended) => locations.extend(appended),
            Err(error) => return (locations, error),
        }
    }
}

#[test]
fn each_class_leaves_the_reserve_to_the_next() {
    let world = world(2, 1, 0, 8);
    let mut segments = Vec::new();
    for class in Class::ALL {
        let (locations, error) = fill(&world, class);
        assert!(matches!(error, Error::OutOfSpace(_)), "{error}");
        segments.push(locations.iter().map(|location| location.segment).collect::<HashSet<_>>().len());
        locations.iter().for_each(|location| world.check(location, &noise(7, MIB)));
    }
    // 8 zones on each of 3 devices; landing leaves 2 each, reduced 1 each, of which a table segment takes two at a time.
    assert_eq!(segments, [6, 1, 1]);
    assert!(world.segments.status().devices.iter().all(|device| device.zones_free <= 1));
}

#[test]
fn space_comes_back_when_reclaimed_and_not_before() {
    let world = world(2, 1, 0, 8);
    let (locations, _) = fill(&world, Class::Landing);
    let full = world.segments.status();
    assert_eq!((full.free_bytes, full.segments), (0, 6));
    let id = locations[0].segment;
    let token = world.segments.release(id).unwrap();
    assert!(matches!(world.segments.release(id), Err(Error::Conflict(_))));
    assert!(world.segments.layouts().iter().all(|layout| layout.id != id));
    assert_eq!(world.segments.status().released_bytes, 2 * ZONE);
    world.check(&locations[0], &noise(7, MIB));
    assert!(matches!(world.append(Class::Landing, &[noise(8, MIB)]), Err(Error::OutOfSpace(_))));
    world.segments.reclaim(token);
    assert_eq!(lock(&world.drives.discarded).len(), 3);
    assert!(matches!(world.segments.read(&locations[0], 0..1, 0), Err(Error::Damaged(_))));
    let location = world.append(Class::Landing, &[noise(8, MIB)]).unwrap()[0];
    assert!(
        location.segment > locations.last().unwrap().segment,
        "ids are never given out twice"
    );
    world.check(&location, &noise(8, MIB));
    locations
        .iter()
        .filter(|location| location.segment != id)
        .for_each(|location| world.check(location, &noise(7, MIB)));
}

#[test]
fn an_open_segment_can_be_released() {
    let world = world(2, 1, 0, 8);
    let first = world.append(Class::Landing, &[noise(1, 10)]).unwrap()[0];
    let token = world.segments.release(first.segment).unwrap();
    let second = world.append(Class::Landing, &[noise(2, 10)]).unwrap()[0];
    assert_ne!(first.segment, second.segment);
    world.segments.reclaim(token);
    world.check(&second, &noise(2, 10));
}

#[test]
fn no_zone_is_used_twice_and_devices_fill_evenly() {
    let world = world(4, 2, 2, 16);
    fill(&world, Class::Landing);
    let mut zones = HashSet::new();
    for layout in world.segments.layouts() {
        assert!(layout.check().is_ok() && layout.m == 2);
        assert!(layout.zones.iter().all(|zone| zones.insert(*zone)));
    }
    let status = world.segments.status();
    let free: Vec<u32> = status.devices.iter().map(|device| device.zones_free).collect();
    assert!(free.iter().max().unwrap() - free.iter().min().unwrap() <= 3, "{free:?}");
    assert!(status.used_bytes * 10 > status.usable_bytes * 8, "{status:?}");
}

#[test]
fn layouts_that_contradict_each_other_are_refused() {
    let layout = |id, zones: [(u16, u32); 3]| SegmentLayout {
        id,
        class: Class::Landing,
        k: 2,
        m: 1,
        zones: zones.to_vec(),
    };
    let a = layout(1, [(0, 0), (1, 0), (2, 0)]);
    let cases = [
        vec![a.clone(), a.clone()],
        vec![a.clone(), layout(2, [(0, 1), (1, 0), (2, 1)])],
        vec![layout(1, [(0, 0), (1, 0), (2, 8)])],
        vec![layout(1, [(0, 0), (0, 1), (2, 2)])],
    ];
    for layouts in cases {
        let drives = MemoryDrives::new(3, geometry(8));
        let opened = Segments::open(
            drives,
            geometry(8),
            Code::new(2, 1).unwrap(),
            layouts.clone(),
            1,
            Arc::new(|_| Ok(())),
        );
        assert!(matches!(opened, Err(Error::Damaged(_))), "{layouts:?}");
    }
}

#[test]
fn tables_are_mirrored_whatever_the_code() {
    let world = world(4, 2, 0, 8);
    let location = world.append(Class::Table, &[noise(1, 5000)]).unwrap()[0];
    let layout = lock(&world.persisted)[0].clone();
    assert_eq!((layout.k, layout.m, layout.class), (1, 2, Class::Table));
    layout.devices().take(2).for_each(|device| world.drives.kill(device));
    world.check(&location, &noise(1, 5000));
}

/// An id from a damaged row must not wrap the counter of ids around to one in use.
#[test]
fn the_highest_id_ends_the_pool_instead_of_wrapping() {
    let last = SegmentLayout {
        id: u64::MAX,
        class: Class::Landing,
        k: 2,
        m: 1,
        zones: vec![(0, 0), (1, 0), (2, 0)],
    };
    let drives = MemoryDrives::new(3, geometry(8));
    let segments = Segments::open(drives, geometry(8), Code::new(2, 1).unwrap(), vec![last], 1, Arc::new(|_| Ok(()))).unwrap();
    assert!(
        segments
            .append(
                Class::Landing,
                &[Payload {
                    kind: 0,
                    owner: 0,
                    bytes: b"x"
                }]
            )
            .is_err()
    );
}
