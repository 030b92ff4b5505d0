//! Roots under power cuts, bit rot and lost devices; every refusal is one sentence.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::device::Device;
use crate::device::fault::FaultScript;
use crate::device::memory::{MemoryDevice, PowerSwitch};
use crate::device::random::{Seeded, from_seed};
use crate::meta::checkpoint::{SmallFile, Table};
use crate::pool::{Code, FormatOptions, Geometry, OpenOptions};
use crate::segment::Location;

const BYTES: u64 = 40 << 20;
const ZONE_BYTES: u64 = 2 << 20;
const ROOT_BYTES: u64 = 64 << 10;

pub(in crate::store) fn memory(count: usize) -> Vec<Arc<MemoryDevice>> {
    let device = |index| Arc::new(MemoryDevice::new(format!("m{index}"), BYTES));
    (0..count).map(device).collect()
}

fn powered(count: usize, power: &Arc<PowerSwitch>) -> Vec<Arc<MemoryDevice>> {
    let device = |index| Arc::new(MemoryDevice::powered(format!("m{index}"), BYTES, power.clone()));
    (0..count).map(device).collect()
}

fn shared(devices: &[Arc<MemoryDevice>]) -> Vec<Arc<dyn Device>> {
    devices.iter().map(|device| device.clone() as Arc<dyn Device>).collect()
}

pub(in crate::store) fn format(devices: &[Arc<MemoryDevice>], code: Code) -> Pool {
    let options = FormatOptions {
        geometry: Some(Geometry::fitted(BYTES, ROOT_BYTES, 64 << 10, ZONE_BYTES).unwrap()),
        code: Some(code),
        random: from_seed(1),
    };
    Pool::format(shared(devices), options).unwrap()
}

pub(in crate::store) fn open(devices: &[Arc<MemoryDevice>]) -> Result<Pool> {
    let options = OpenOptions {
        allow_degraded: true,
        random: from_seed(2),
    };
    Pool::open(shared(devices), options)
}

/// As a table's `pieces` are stored.
fn piece(segment: u64, length: u32) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.varint(1);
    let location = Location {
        segment,
        shard: 0,
        offset: 48,
        length,
    };
    location.encode(&mut writer);
    writer.u64(0);
    writer.bytes
}

/// Of a pool that has only gone on since its last one.
pub(in crate::store) fn sample(pool: Uuid, generation: u64) -> Root {
    let table = |number: u64| Table {
        name: format!("tables/{number}"),
        length: 100,
        checksum: number,
        pieces: piece(number % 2, 100),
    };
    let layout = |id: u64| SegmentLayout {
        id,
        class: Class::Table,
        k: 1,
        m: 1,
        zones: vec![(0, id as u32), (1, id as u32)],
    };
    let manifest = Manifest {
        sequence: generation,
        tables: (0..generation % 7).map(table).collect(),
        small: vec![SmallFile {
            name: "current".into(),
            bytes: vec![generation as u8; 5000],
        }],
    };
    Root {
        pool,
        generation,
        membership_epoch: 3,
        start: Start {
            position: 4096 * generation,
            sequence: generation,
            previous_checksum: 5,
        },
        keep_from: 4096 * generation - 4096,
        segment_id_next: 2,
        manifest,
        tables: vec![layout(0), layout(1)],
    }
}

fn store(pool: &Pool, generations: std::ops::RangeInclusive<u64>) {
    generations.for_each(|generation| write(pool, &sample(pool.uuid, generation)).unwrap());
}

fn newest(pool: &Pool) -> Option<u64> {
    let root = read_newest(pool).unwrap()?;
    assert_eq!(root, sample(pool.uuid, root.generation));
    Some(root.generation)
}

fn sentence<T: std::fmt::Debug>(result: Result<T>) -> String {
    let text = result.unwrap_err().to_string();
    assert!(!text.contains('\n') && text.len() < 200, "{text}");
    text
}

const MIRROR: Code = Code { k: 1, m: 1 };
const TWO_AND_ONE: Code = Code { k: 2, m: 1 };

#[test]
fn the_newest_root_is_read_back() {
    let devices = memory(3);
    let pool = format(&devices, TWO_AND_ONE);
    assert_eq!(newest(&pool), None);
    for generation in 1..6 {
        store(&pool, generation..=generation);
        assert_eq!(newest(&pool), Some(generation));
    }
    drop(pool);
    assert_eq!(newest(&open(&devices).unwrap()), Some(5));
}

#[test]
fn a_write_costs_one_write_and_one_flush_per_device() {
    let devices = memory(3);
    let pool = format(&devices, TWO_AND_ONE);
    let before = pool.devices.counters(2);
    store(&pool, 1..=1);
    let after = pool.devices.counters(2);
    assert_eq!((after.writes - before.writes, after.flushes - before.flushes), (1, 1));
}

#[test]
fn a_cut_at_any_operation_leaves_the_old_or_the_new_root() {
    let (mut old, mut new) = (0, 0);
    for (cut, seed) in (0..8).flat_map(|cut| (0..12).map(move |seed| (cut, seed))) {
        for before in 0..3 {
            let power = PowerSwitch::new();
            let devices = powered(3, &power);
            let pool = format(&devices, TWO_AND_ONE);
            store(&pool, 1..=before);
            power.cut_after(cut);
            let done = write(&pool, &sample(pool.uuid, before + 1)).is_ok();
            drop(pool);
            devices.iter().for_each(|device| device.crash(seed));
            power.restore();
            let found = newest(&open(&devices).unwrap()).unwrap_or_default();
            assert!(found == before + 1 || (!done && found == before), "cut {cut} seed {seed}: {found}");
            *(if found > before { &mut new } else { &mut old }) += 1;
        }
    }
    assert!(old > 20 && new > 20, "{old} {new}");
}

/// Cuts in writes and reads, one after the other, then the loss of any one device: what was acknowledged or read once never goes away.
#[test]
fn no_series_of_cuts_and_no_lost_device_takes_a_root_away() {
    for seed in 0..300 {
        let mut random = Seeded::new(seed);
        let power = PowerSwitch::new();
        let devices = powered(3, &power);
        let mut pool = format(&devices, TWO_AND_ONE);
        let (mut least, mut begun) = (0, 0);
        for _ in 0..6 {
            if random.chance(2) {
                begun = least + 1;
                power.cut_after(random.below(9));
                if write(&pool, &sample(pool.uuid, begun)).is_ok() {
                    least = begun;
                    continue;
                }
            }
            drop(pool);
            let crashes = power.is_cut() || random.chance(2);
            power.restore();
            if crashes {
                devices.iter().for_each(|device| device.crash(random.next_u64()));
            }
            pool = open(&devices).unwrap();
            power.cut_after(random.below(20));
            if let Ok(root) = read_newest(&pool) {
                let found = root.map_or(0, |root| root.generation);
                assert!((least..=begun).contains(&found), "seed {seed}: {found} of {least} to {begun}");
                (least, begun) = (found, found);
                power.restore();
                continue;
            }
            drop(pool);
            power.restore();
            devices.iter().for_each(|device| device.crash(random.next_u64()));
            pool = open(&devices).unwrap();
            let found = newest(&pool).unwrap_or_default();
            assert!((least..=begun).contains(&found), "seed {seed}: {found} of {least} to {begun}");
            (least, begun) = (found, found);
        }
        drop(pool);
        power.restore();
        devices.iter().for_each(|device| device.crash(random.next_u64()));
        devices[random.below(3) as usize].lose();
        let found = newest(&open(&devices).unwrap()).unwrap_or_default();
        assert!((least..=begun).contains(&found), "seed {seed}: {found} of {least} to {begun}");
    }
}

/// The process died between write and flush: the root is in the caches of one device, or of all.
#[test]
fn what_was_read_survives_a_cut_and_the_loss_of_a_device_that_had_it() {
    for (seed, reached) in (0..20).flat_map(|seed| [(seed, 1), (seed, 2)]) {
        let power = PowerSwitch::new();
        let devices = powered(2, &power);
        let pool = format(&devices, MIRROR);
        store(&pool, 1..=2);
        let (offset, bytes) = (pool.geometry.root_offset(3), sample(pool.uuid, 3).encode());
        drop(pool);
        devices[..reached]
            .iter()
            .for_each(|device| device.write_at(offset, &bytes).unwrap());
        assert_eq!(newest(&open(&devices).unwrap()), Some(3));
        devices.iter().for_each(|device| device.crash(seed));
        assert_eq!(newest(&open(&devices[1..]).unwrap()), Some(3), "seed {seed}, on {reached}");
    }
}

#[test]
fn flipped_bits_cost_a_copy_and_never_show() {
    let devices = memory(3);
    let pool = format(&devices, TWO_AND_ONE);
    store(&pool, 1..=2);
    let length = sample(pool.uuid, 2).encode().len() as u64;
    for at in (0..length).step_by(61).chain([0, 8, 12, 16, 32, length - 1]) {
        let offset = pool.geometry.root_offset(2) + at;
        devices[0].flip(offset, at as u8 % 8);
        devices[2].flip(offset, 3);
        assert_eq!(newest(&pool), Some(2), "byte {at}");
        let mut copies = devices.iter().map(|device| {
            let mut slot = vec![0; length as usize];
            device.read_at(pool.geometry.root_offset(2), &mut slot).unwrap();
            slot
        });
        let first = copies.next().unwrap();
        assert!(copies.all(|copy| copy == first), "byte {at} was not repaired");
    }
    assert_eq!(pool.devices.live().len(), 3);
    devices.iter().for_each(|device| device.flip(pool.geometry.root_offset(2) + 100, 0));
    assert_eq!(newest(&pool), Some(1));
    devices.iter().for_each(|device| device.flip(pool.geometry.root_offset(1) + 7, 0));
    assert!(sentence(read_newest(&pool)).contains("no device has a whole checkpoint root"));
}

#[test]
fn the_first_root_cut_short_is_none() {
    let devices = memory(2);
    let pool = format(&devices, MIRROR);
    devices
        .iter()
        .for_each(|device| device.write_at(pool.geometry.root_offset(1), &[7; 512]).unwrap());
    assert_eq!(newest(&pool), None);
    store(&pool, 1..=1);
    assert_eq!(newest(&pool), Some(1));
}

#[test]
fn a_device_that_fails_is_declared_dead_before_the_root_counts() {
    for script in ["write 1 fail", "write 1 tear", "flush 1 fail", "write 1 lose"] {
        let devices = memory(3);
        let pool = format(&devices, TWO_AND_ONE);
        store(&pool, 1..=2);
        devices[1].set_script(FaultScript::parse(script).unwrap());
        let epoch = pool.membership_epoch();
        store(&pool, 3..=3);
        assert_eq!((pool.devices.live(), pool.membership_epoch()), (vec![0, 2], epoch + 1), "{script}");
        drop(pool);
        devices[1].restore();
        devices[1].set_script(FaultScript::default());
        assert_eq!(newest(&open(&devices).unwrap()), Some(3), "{script}");
        assert_eq!(open(&devices).unwrap().devices.live(), [0, 2]);
        devices[0].lose();
        assert!(open(&devices).is_err(), "{script}: a stale device counted");
    }
}

#[test]
fn too_few_devices_close_the_pool() {
    let devices = memory(3);
    let pool = format(&devices, TWO_AND_ONE);
    store(&pool, 1..=1);
    devices[0].lose();
    store(&pool, 2..=2);
    devices[1].lose();
    assert!(matches!(write(&pool, &sample(pool.uuid, 3)), Err(Error::Closed(_))));
    devices[2].lose();
    assert!(matches!(write(&pool, &sample(pool.uuid, 3)), Err(Error::Closed(_))));
    assert!(matches!(read_newest(&pool), Err(Error::Closed(_))));
}

#[test]
fn reading_goes_round_lost_devices() {
    for lost in 0..3 {
        let devices = memory(3);
        let pool = format(&devices, TWO_AND_ONE);
        store(&pool, 1..=4);
        devices[lost].lose();
        assert_eq!(newest(&pool), Some(4));
        assert_eq!(pool.devices.live().len(), 2);
    }
}

#[test]
fn what_is_not_this_pools_is_neither_written_nor_read() {
    let devices = memory(2);
    let pool = format(&devices, MIRROR);
    let other = Uuid([9; 16]);
    assert!(sentence(write(&pool, &sample(other, 1))).contains("does not belong"));
    for generation in [1, 2] {
        let (offset, bytes) = (pool.geometry.root_offset(generation), sample(other, generation).encode());
        devices[0].write_at(offset, &bytes).unwrap();
    }
    assert!(matches!(read_newest(&pool), Err(Error::Damaged(_))));
    store(&pool, 3..=3);
    assert_eq!(newest(&pool), Some(3));
    // A root in the slot of the other parity is not one that this code wrote.
    let copy = sample(pool.uuid, 5).encode();
    devices[0].write_at(pool.geometry.root_offset(4), &copy).unwrap();
    assert_eq!(newest(&pool), Some(3));
}

#[test]
fn a_newer_format_is_refused_rather_than_passed_over() {
    let devices = memory(2);
    let pool = format(&devices, MIRROR);
    store(&pool, 1..=1);
    let mut bytes = sample(pool.uuid, 2).encode();
    bytes[8] += 1;
    reseal(&mut bytes);
    devices[0].write_at(pool.geometry.root_offset(2), &bytes).unwrap();
    assert!(sentence(read_newest(&pool)).contains("upgrade Trefoil"));
}

#[test]
fn a_root_that_cannot_be_used_is_not_written() {
    let devices = memory(2);
    let pool = format(&devices, MIRROR);
    let refused = |change: &dyn Fn(&mut Root)| {
        let mut root = sample(pool.uuid, 3);
        change(&mut root);
        sentence(write(&pool, &root))
    };
    assert!(refused(&|root| root.manifest.small[0].bytes = vec![0; ROOT_BYTES as usize]).contains("have 65536 for it"));
    assert!(refused(&|root| root.generation = 0).contains("no generation"));
    assert!(refused(&|root| root.keep_from = root.start.position + 1).contains("keeps less"));
    assert!(refused(&|root| root.segment_id_next = 1).contains("segment 1 wrongly"));
    assert!(refused(&|root| root.tables[1].class = Class::Landing).contains("segment 1 wrongly"));
    assert!(refused(&|root| root.tables[1].id = 0).contains("segment 0 wrongly"));
    assert!(refused(&|root| root.tables.truncate(1)).contains("in segment 1 and does not list it"));
    assert!(refused(&|root| root.manifest.tables[0].pieces = vec![200]).contains("names tables badly"));
    assert_eq!(pool.devices.counters(0).writes, pool.devices.counters(1).writes);
    assert_eq!(newest(&pool), None);
}

fn reseal(bytes: &mut [u8]) {
    let (body, sum) = bytes.split_last_chunk_mut::<CHECKSUM_BYTES>().unwrap();
    sum.copy_from_slice(&checksum(body).to_le_bytes());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _any = Root::decode(&bytes);
        if bytes.len() > HEAD_BYTES + CHECKSUM_BYTES {
            let length = bytes.len() as u32;
            bytes[..8].copy_from_slice(ROOT_MAGIC);
            bytes[8..16].copy_from_slice(&[VERSION.to_le_bytes(), length.to_le_bytes()].concat());
            reseal(&mut bytes);
            let _any = Root::decode(&bytes);
        }
    }

    /// A valid checksum over changed fields reaches every check behind it.
    #[test]
    fn changed_fields_never_panic(generation in 1u64..20, changes in proptest::collection::vec((8usize..400, any::<u8>()), 1..6)) {
        let mut bytes = sample(Uuid([4; 16]), generation).encode();
        changes.iter().for_each(|(position, value)| bytes[*position] = *value);
        reseal(&mut bytes);
        if let Ok(root) = Root::decode(&bytes) {
            prop_assert_eq!(Root::decode(&root.encode()).unwrap(), root);
        }
    }

    #[test]
    fn any_flip_is_noticed(generation in 1u64..20, position in any::<proptest::sample::Index>(), bit in 0..8) {
        let mut bytes = sample(Uuid([4; 16]), generation).encode();
        let position = position.index(bytes.len());
        bytes[position] ^= 1u8 << bit;
        prop_assert!(Root::decode(&bytes).is_err());
    }

    #[test]
    fn a_root_is_found_before_whatever_follows(generation in 1u64..20, rest in proptest::collection::vec(any::<u8>(), 0..50)) {
        let root = sample(Uuid([4; 16]), generation);
        prop_assert_eq!(Root::decode(&[root.encode(), rest].concat()).unwrap(), root);
    }
}
