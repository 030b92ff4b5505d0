//! A pool that is written to faster than it is reduced: writers are slowed, and refused only once it is full.

use super::*;

fn small_pool() -> World {
    const BYTES: u64 = 96 << 20;
    let devices: Vec<_> = (0..3)
        .map(|index| Arc::new(MemoryDevice::new(format!("m{index}"), BYTES)))
        .collect();
    let options = FormatOptions {
        code: Some(Code { k: 2, m: 1 }),
        geometry: Some(Geometry::fitted(BYTES, 512 << 10, 8 << 20, 4 << 20).unwrap()),
        random: from_seed(7),
    };
    drop(Pool::format(given(&devices), options).unwrap());
    let state = tempfile::tempdir().unwrap();
    let pool = PoolOptions {
        allow_degraded: true,
        random: from_seed(1),
    };
    let store = Store::start(Pool::open(given(&devices), pool).unwrap(), state.path(), OpenOptions::default()).unwrap();
    wait(|done| store.create_view("v", Attributes::default(), done)).unwrap();
    World {
        devices,
        state,
        store,
        settings: ReductionSettings::default(),
    }
}

fn try_put(store: &Store, key: &str, bytes: &[u8]) -> Result<()> {
    let mut staging = store.stage();
    bytes.chunks(1 << 20).try_for_each(|piece| staging.write(piece))?;
    let staged = staging.finish()?;
    let digests = digest::digests(&["md5".to_owned()], b"").unwrap();
    wait(|done| store.publish("v", key.as_bytes(), staged, Attributes::default(), digests, Terms::default(), done)).map(drop)
}

#[test]
#[ignore = "slow: a minute"]
fn nobody_is_refused_while_reduction_makes_room() {
    let world = small_pool();
    let usable = world.store.status().bytes_total as usize;
    let base = noise(1, 4 << 20);
    let mut written = 0;
    let version = |index: usize| {
        let mut bytes = base.clone();
        bytes[..8].copy_from_slice(&index.to_le_bytes());
        bytes
    };
    let mut count = 0;
    while written < usable * 3 / 2 {
        if let Err(error) = try_put(&world.store, &format!("k{count}"), &version(count)) {
            let status = world.store.status();
            panic!(
                "{error} after {count}: {status:?} {:?} {:?} {:?}",
                world.store.accounting(),
                world.store.usage(),
                world.store.core.trouble
            );
        }
        written += base.len();
        count += 1;
    }
    assert!(world.store.core.pressure.waits.load(Ordering::Relaxed) > 0, "nobody was slowed");
    for index in 0..count {
        assert!(world.read(&format!("k{index}")).unwrap() == version(index));
    }
    assert_eq!(world.store.check().unwrap().count, 0);
    // What does not get smaller does fill it, and is refused once it has.
    let mut names = Vec::new();
    let error = loop {
        let key = format!("noise{}", names.len());
        match try_put(&world.store, &key, &noise(1000 + names.len() as u64, 4 << 20)) {
            Ok(()) => names.push(key),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::OutOfSpace(_)), "{error}");
    assert!(names.len() * base.len() > usable / 2, "{}", names.len());
    for (index, key) in names.iter().enumerate() {
        assert!(world.read(key).unwrap() == noise(1000 + index as u64, 4 << 20));
        world.delete(key);
    }
    assert_eq!(world.store.check().unwrap().count, 0);
    world.store.close().unwrap();
}

#[test]
fn what_just_landed_is_reduced_from_memory() {
    let mut world = World::balanced();
    let bytes = noise(3, 3_000_000);
    // As requests bring it: what comes by rows is written as it is.
    let mut staging = world.store.stage();
    bytes.chunks(300_000).for_each(|piece| staging.write(piece).unwrap());
    world.publish("warm", staging);
    world.reduce();
    let hits = |world: &World| world.store.core.just_landed.hits.load(Ordering::Relaxed);
    assert_eq!(hits(&world), 4);
    world.put("cold", &noise(4, 3_000_000));
    world.reopen();
    world.reduce();
    assert_eq!(hits(&world), 0);
    assert!(world.read("warm").unwrap() == bytes && world.read("cold").unwrap() == noise(4, 3_000_000));
}
