//! Cold content that is encoded deeper, and references that give way to one of their deltas.

use super::*;
use std::time::Duration;

fn cold(mode: Mode) -> World {
    World::new(ReductionSettings {
        mode,
        cold_after: Some(Duration::ZERO),
        ..ReductionSettings::default()
    })
}

/// As servers log.
fn lines(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Seeded::new(seed);
    let mut text = Vec::with_capacity(length + 100);
    while text.len() < length {
        let (user, item, status, spent) = (random.below(40), random.below(900), random.below(3), random.below(99));
        text.extend_from_slice(
            format!(
                "user-{user} GET /api/items/{item}?page={} {} {spent} ms\n",
                item % 7,
                [200, 304, 404][status as usize]
            )
            .as_bytes(),
        );
    }
    text.truncate(length);
    text
}

#[test]
fn cold_chunks_are_encoded_deeper_once_and_only_as_long_as_nobody_works() {
    let mut world = cold(Mode::Fast);
    let (text, noise) = (lines(1, 900_000), noise(2, 200_000));
    let edited = edited(&text, 2_000);
    for (key, bytes) in [("text", &text), ("edited", &edited), ("noise", &noise)] {
        world.put(key, bytes);
        world.reduce();
    }
    let before = world.reduce();
    assert!(before.deltas > 10);
    let core = world.store.core.clone();
    assert_eq!(core.deepen(|| false).unwrap(), 0);
    let mut left = 5;
    let some = core.deepen(|| {
        left -= 1;
        left >= 0
    });
    assert_eq!(some.unwrap(), 5);
    drop(core);
    world.reopen();
    let mut looked = 5;
    while let count @ 1.. = world.store.core.deepen(|| true).unwrap() {
        looked += count as i64;
    }
    let after = world.reduce();
    // Ids are leased ahead at a start: no chunk is missed or visited twice.
    assert_eq!((looked, after.chunks), (before.chunks, before.chunks));
    assert!(after.stored_bytes < before.stored_bytes * 97 / 100, "{before:?} {after:?}");
    assert_eq!(world.store.core.deepen(|| true).unwrap(), 0);
    world.reopen();
    assert_eq!(world.store.core.deepen(|| true).unwrap(), 0);
    for (key, bytes) in [("text", &text), ("edited", &edited), ("noise", &noise)] {
        assert!(world.read(key).unwrap() == *bytes);
        world.delete(key);
    }
    assert_eq!(world.reduce().chunks, 0);
}

#[test]
fn what_is_not_cold_is_left_alone() {
    let world = World::balanced();
    world.put("text", &lines(1, 300_000));
    world.reduce();
    assert_eq!(world.store.core.deepen(|| true).unwrap(), 0);
}

#[test]
fn a_delta_takes_the_place_of_a_reference_that_nothing_else_needs() {
    let mut world = World::balanced();
    let mut version = noise(3, 600_000);
    world.put("old", &version);
    world.reduce();
    // A third of it is another once: all later versions are deltas of the old one, and alike.
    for (index, part) in version.chunks_mut(10_000).enumerate() {
        let length = part.len().min(3500);
        part[..length].copy_from_slice(&noise(100 + index as u64, length));
    }
    let mut versions = Vec::new();
    for index in 0..5 {
        version = edited(&version, 20_000 + 1000 * index);
        world.put(&format!("new{index}"), &version);
        world.reduce();
        versions.push(version.clone());
    }
    world.delete("old");
    let held = world.reduce();
    assert!(held.held_chunks > 10, "{held:?}");
    assert_eq!(world.store.core.tend(0).unwrap(), None);
    let after = world.reduce();
    let kept = |found: &Accounting| found.stored_bytes + found.held_bytes;
    assert!(kept(&after) * 3 < kept(&held) * 2, "{held:?} {after:?}");
    // The index leads to what took their place, also after a start.
    for key in ["next", "after-a-start"] {
        let before = world.reduce();
        version = edited(&version, 17_000);
        world.put(key, &version);
        let found = world.reduce();
        assert!(found.stored_bytes - before.stored_bytes < 60_000, "{before:?} {found:?}");
        assert!(world.read(key).unwrap() == version);
        world.reopen();
    }
    for (index, version) in versions.iter().enumerate() {
        assert!(world.read(&format!("new{index}")).unwrap() == *version);
        world.delete(&format!("new{index}"));
    }
    world.delete("next");
    world.delete("after-a-start");
    assert_eq!(world.reduce().chunks, 0);
}
