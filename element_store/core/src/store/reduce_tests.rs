//! Reduction as the store does it: what is stored once, what becomes a delta, what is given back, and what damage does.

mod blocks;
mod cold;
mod modes;
mod pressure;

use super::reduce::MERGE;
use super::*;
use crate::device::Device;
use crate::device::memory::MemoryDevice;
use crate::device::random::{Seeded, from_seed};
use crate::element::chunks;
use crate::element::invariants;
use crate::element::rows::{ChunkRow, Encoding};
use crate::pool::{Code, FormatOptions, Geometry, OpenOptions as PoolOptions, Pool};

const DEVICE_BYTES: u64 = 192 << 20;

struct World {
    devices: Vec<Arc<MemoryDevice>>,
    state: tempfile::TempDir,
    store: Arc<Store>,
    settings: ReductionSettings,
}

fn given(devices: &[Arc<MemoryDevice>]) -> Vec<Arc<dyn Device>> {
    devices.iter().map(|device| device.clone() as Arc<dyn Device>).collect()
}

fn start(devices: &[Arc<MemoryDevice>], state: &std::path::Path, reduction: ReductionSettings) -> Arc<Store> {
    let options = PoolOptions {
        allow_degraded: true,
        random: from_seed(1),
    };
    let pool = Pool::open(given(devices), options).unwrap();
    let options = OpenOptions {
        background: false,
        allow_degraded: true,
        reduction,
        ..OpenOptions::default()
    };
    Store::start(pool, state, options).unwrap()
}

impl World {
    fn new(settings: ReductionSettings) -> Self {
        let devices: Vec<_> = (0..4)
            .map(|index| Arc::new(MemoryDevice::new(format!("m{index}"), DEVICE_BYTES)))
            .collect();
        let options = FormatOptions {
            code: Some(Code { k: 2, m: 2 }),
            geometry: Some(Geometry::fitted(DEVICE_BYTES, 512 << 10, 8 << 20, 4 << 20).unwrap()),
            random: from_seed(7),
        };
        drop(Pool::format(given(&devices), options).unwrap());
        let state = tempfile::tempdir().unwrap();
        let store = start(&devices, state.path(), settings);
        wait(|done| store.create_view("v", Attributes::default(), done)).unwrap();
        Self {
            devices,
            state,
            store,
            settings,
        }
    }

    fn balanced() -> Self {
        Self::new(ReductionSettings::default())
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        let mut staging = self.store.stage();
        staging.write(bytes).unwrap();
        self.publish(key, staging);
    }

    fn publish(&self, key: &str, staging: Staging) {
        let staged = staging.finish().unwrap();
        let digests = digest::digests(&["md5".to_owned()], b"").unwrap();
        wait(|done| {
            self.store
                .publish("v", key.as_bytes(), staged, Attributes::default(), digests, Terms::default(), done)
        })
        .unwrap();
    }

    fn delete(&self, key: &str) {
        let removal = Removal {
            key: key.into(),
            ..Removal::default()
        };
        wait(|done| self.store.delete("v", removal, Versioning::Off, done)).unwrap();
    }

    /// All that is landed, and what was given up before.
    fn reduce(&self) -> Accounting {
        let core = &self.store.core;
        while core.reduce_journal(u64::MAX, MERGE).unwrap() + core.reduce_raw(u64::MAX).unwrap() > 0 {}
        let mut unfree = Default::default();
        core.upkeep_step(&mut unfree).unwrap();
        let findings = self.store.check().unwrap();
        assert_eq!(findings.count, 0, "{:?}", findings.sentences);
        let found = self.store.accounting().unwrap();
        assert_eq!(found.stored_bytes, found.expected_stored_bytes(), "{found:?}");
        assert_eq!(found.landed_bytes, 0);
        found
    }

    fn read(&self, key: &str) -> Result<Vec<u8>> {
        let content = self.store.open_content("v", key.as_bytes(), None)?;
        let (size, mut bytes) = (content.element.row.size, Vec::new());
        while (bytes.len() as u64) < size {
            let start = bytes.len() as u64;
            bytes.extend(content.read(start, size.min(start + 333_333))?);
        }
        Ok(bytes)
    }

    fn chunk_rows(&self) -> Vec<(u64, ChunkRow)> {
        let snapshot = self.store.core.snapshot();
        let (from, to) = keys::table(keys::CHUNK);
        let rows = snapshot.range(&from, &to, false).map(|row| row.unwrap());
        rows.map(|(key, value)| (keys::id_of(&key), ChunkRow::decode(&value).unwrap()))
            .collect()
    }

    fn reopen(&mut self) {
        self.store.close().unwrap();
        self.store = start(&self.devices, self.state.path(), self.settings);
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Seeded::new(seed);
    (0..length.div_ceil(8))
        .flat_map(|_| random.next_u64().to_le_bytes())
        .take(length)
        .collect()
}

/// Every so often a byte is another one, and something is inserted once.
fn edited(bytes: &[u8], step: usize) -> Vec<u8> {
    let mut edited = bytes.to_vec();
    edited.iter_mut().step_by(step).for_each(|byte| *byte ^= 0x55);
    edited.splice(bytes.len() / 3..bytes.len() / 3, *b"inserted here");
    edited
}

#[test]
fn the_same_bytes_are_stored_once_wherever_they_were_cut_on_their_way() {
    let world = World::balanced();
    let bytes = noise(1, 5_000_000);
    // Two uploads at once: their extents lie between one another.
    let (mut one, mut two) = (world.store.stage(), world.store.stage());
    for (mine, other) in bytes.chunks(300_000).zip(noise(2, 5_000_000).chunks(300_000)) {
        one.write(mine).unwrap();
        two.write(other).unwrap();
    }
    world.publish("one", one);
    world.publish("two", two);
    let before = world.reduce();
    world.put("small", &bytes[..20_000]);
    world.put("again", &bytes);
    let mut pieces = world.store.stage();
    bytes.chunks(70_001).for_each(|piece| pieces.write(piece).unwrap());
    world.publish("in-pieces", pieces);
    let after = world.reduce();
    assert!(after.stored_bytes - before.stored_bytes < 30_000, "{before:?} {after:?}");
    assert!(after.dedupe_gain_bytes >= 10_000_000);
    for key in ["one", "again", "in-pieces"] {
        assert!(world.read(key).unwrap() == bytes);
    }
}

#[test]
fn small_objects_are_found_again_after_a_restart_with_a_cold_index() {
    let mut world = World::balanced();
    for index in 0..40 {
        world.put(&format!("a{index}"), &noise(index, 20_000));
    }
    let before = world.reduce();
    world.reopen();
    for index in 0..40 {
        world.put(&format!("b{index}"), &edited(&noise(index, 20_000), 9000));
    }
    let after = world.reduce();
    // Hooks hold one feature in eight: a few are missed, most are found.
    assert!(after.deltas >= 20, "{after:?}");
    assert!(after.stored_bytes < before.stored_bytes + 20 * 20_000);
    for index in 0..40 {
        assert!(world.read(&format!("b{index}")).unwrap() == edited(&noise(index, 20_000), 9000));
    }
}

#[test]
fn what_is_similar_becomes_a_delta_and_is_read_in_any_range() {
    let world = World::balanced();
    let old = noise(3, 3_000_000);
    let new = edited(&old, 5_000);
    world.put("old", &old);
    world.reduce();
    world.put("new", &new);
    let found = world.reduce();
    assert!(found.deltas > 40, "{found:?}");
    assert!(found.stored_bytes < 3_000_000 + 150_000, "{found:?}");
    assert!(world.read("new").unwrap() == new);
    let content = world.store.open_content("v", b"new", None).unwrap();
    let mut random = Seeded::new(4);
    for _ in 0..200 {
        let start = random.below(new.len() as u64);
        let stop = (start + random.below(70_000)).min(new.len() as u64);
        assert!(content.read(start, stop).unwrap() == new[start as usize..stop as usize]);
    }
    let parts = world.store.why("v", b"new").unwrap();
    assert_eq!(parts.iter().map(|part| u64::from(part.length)).sum::<u64>(), new.len() as u64);
    assert!(parts.iter().filter(|part| part.kind == "delta").all(|part| !part.bases.is_empty()));
    let view = world.store.accounting_of("v", b"new").unwrap();
    assert_eq!(view.logical_bytes, new.len() as i64);
    assert!(view.stored_bytes < 150_000);
}

#[test]
fn a_reference_lives_as_long_as_a_delta_needs_it_and_no_longer() {
    let mut world = World::balanced();
    let old = noise(5, 2_000_000);
    let new = edited(&old, 6_000);
    world.put("old", &old);
    world.reduce();
    world.put("new", &new);
    world.reduce();
    world.delete("old");
    let held = world.reduce();
    assert!(held.held_chunks > 20 && held.held_bytes > 1_000_000, "{held:?}");
    world.reopen();
    assert!(world.read("new").unwrap() == new);
    world.delete("new");
    let none = world.reduce();
    assert_eq!((none.chunks, none.held_chunks, none.row_bytes), (0, 0, 0), "{none:?}");
    world.reopen();
    world.reduce();
    let left = world.store.core.segments.layouts();
    assert!(left.iter().all(|layout| layout.class == crate::segment::Class::Table), "{left:?}");
    // What the index remembers of chunks that are gone must not be shared.
    world.put("old", &old);
    world.reduce();
    assert!(world.read("old").unwrap() == old);
}

/// A reference that one small delta is left of is worth less than what it takes.
#[test]
fn a_reference_that_is_not_worth_its_bytes_any_more_goes() {
    let world = World::balanced();
    let old = noise(9, 600_000);
    world.put("old", &old);
    world.reduce();
    let half = [&old[..300_000], &noise(10, 300_000)].concat();
    world.put("new", &edited(&half, 5_000));
    world.reduce();
    world.delete("old");
    let held = world.reduce();
    assert!(held.held_chunks > 0);
    assert_eq!(world.store.core.tend(0).unwrap(), None);
    let after = world.reduce();
    assert!(
        after.held_bytes + after.stored_bytes <= held.held_bytes + held.stored_bytes,
        "{held:?} {after:?}"
    );
    assert!(after.stored_bytes + after.held_bytes < 1_000_000);
    assert!(world.read("new").unwrap() == edited(&half, 5_000));
    world.delete("new");
    assert_eq!(world.reduce().chunks, 0);
}

#[test]
fn zeros_are_stored_nowhere() {
    let world = World::balanced();
    let mut bytes = vec![0; 3_000_000];
    bytes[1_500_000] = 1;
    world.put("zeros", &bytes);
    let found = world.reduce();
    assert!(found.zero_bytes > 2_900_000 && found.stored_bytes < 1000, "{found:?}");
    assert!(world.read("zeros").unwrap() == bytes);
}

#[test]
fn each_mode_gives_back_what_it_took() {
    let mut last = 10_000_000;
    for mode in [Mode::Off, Mode::Fast, Mode::Balanced, Mode::Deep] {
        let world = World::new(ReductionSettings {
            mode,
            ..ReductionSettings::default()
        });
        let text: Vec<u8> = noise(6, 700_000).iter().map(|byte| b"etaoin shrdlu"[*byte as usize % 13]).collect();
        world.put("text", &text);
        world.put("again", &edited(&text, 3_000));
        world.put("small", &text[..50_000]);
        while world.store.core.reduce_journal(u64::MAX, MERGE).unwrap() + world.store.core.reduce_raw(u64::MAX).unwrap() > 0 {}
        let found = world.store.accounting().unwrap();
        assert!(found.stored_bytes <= last + last / 8, "{mode:?} {found:?}");
        assert_eq!(found.stored_bytes, found.expected_stored_bytes());
        last = found.stored_bytes;
        assert!(world.read("again").unwrap() == edited(&text, 3_000));
        assert_eq!(invariants::check(&world.store.core.snapshot()).unwrap().count, 0);
    }
}

/// What a crash left of an append is like this: a pack that cannot be read and that no row names. Scrubs called it lost, as its directory might have
/// named anything.
#[test]
fn a_pack_that_cannot_be_read_is_lost_only_if_a_row_names_a_chunk_of_it() {
    let world = World::balanced();
    world.put("kept", &noise(9, 900_000));
    world.reduce();
    world.put("gone", &noise(10, 900_000));
    world.reduce();
    let parts = world.store.why("v", b"gone").unwrap();
    let row = chunks::chunk(&world.store.core.snapshot(), parts[0].chunk).unwrap().unwrap();
    world.flip(&row, 3);
    assert!(world.store.scrub().unwrap()["unrecoverable"] > 0);
    world.delete("gone");
    world.reduce();
    let kept = world.store.why("v", b"kept").unwrap();
    assert!(
        kept.iter().any(|part| part.segment == row.location.segment),
        "the segment is still there"
    );
    assert_eq!(world.store.scrub().unwrap()["unrecoverable"], 0);
}

/// Damage of a reference past the code is damage of every element that needs it, never wrong bytes; within the code it is repaired.
#[test]
fn a_damaged_reference_is_repaired_or_reported_by_each_that_needs_it() {
    let mut world = World::balanced();
    let old = noise(8, 400_000);
    world.put("old", &old);
    world.reduce();
    world.put("new", &edited(&old, 7_000));
    world.reduce();
    let base = world
        .chunk_rows()
        .into_iter()
        .find_map(|(_, row)| (row.encoding == Encoding::Delta).then(|| row.bases[0]))
        .unwrap();
    let row = chunks::chunk(&world.store.core.snapshot(), base).unwrap().unwrap();
    world.reopen();
    world.flip(&row, 1);
    assert!(world.read("new").unwrap() == edited(&old, 7_000), "repaired");
    assert!(world.store.core.segments.counters().repaired.load(Ordering::Relaxed) > 0);
    world.reopen();
    world.flip(&row, 3);
    for key in ["old", "new"] {
        let parts = world.store.why("v", key.as_bytes()).unwrap();
        let needs = parts.iter().any(|part| part.chunk == base || part.bases.contains(&base));
        match world.read(key) {
            Err(Error::Damaged(_)) => assert!(needs, "{key}"),
            bytes => assert!(!needs && bytes.unwrap() == old, "{key}"),
        }
    }
    assert!(matches!(world.read("new"), Err(Error::Damaged(_))));
}

impl World {
    /// Damages a byte of the chunk where it lies, and of the others' code for it, on so many devices.
    fn flip(&self, row: &ChunkRow, devices: usize) {
        let core = &self.store.core;
        let layouts = core.segments.layouts();
        let layout = layouts.iter().find(|layout| layout.id == row.location.segment).unwrap();
        let geometry = &core.pool.geometry;
        let mut zones = layout.zones.clone();
        zones.rotate_left(usize::from(row.location.shard));
        for (bit, (device, zone)) in zones.iter().take(devices).enumerate() {
            let offset = geometry.zones_offset() + u64::from(*zone) * geometry.zone_bytes + u64::from(row.location.offset);
            self.devices[usize::from(*device)].flip(offset + 1000, bit as u8);
        }
    }
}
