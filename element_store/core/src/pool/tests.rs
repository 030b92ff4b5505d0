//! Format, open and membership as an operator meets them. Every refusal is one sentence that names the device.

use std::sync::Arc;

use super::superblock::Superblock;
use super::*;
use crate::device::Device;
use crate::device::fault::FaultScript;
use crate::device::file::{FILE_NAME, FileDevice, FileOptions};
use crate::device::memory::{MemoryDevice, PowerSwitch};
use crate::device::random::{Seeded, from_seed};
use crate::device::set::DeviceState;
use crate::error::Error;

const BYTES: u64 = 8 << 20;

fn memory(count: usize) -> Vec<Arc<MemoryDevice>> {
    (0..count)
        .map(|index| Arc::new(MemoryDevice::new(format!("m{index}"), BYTES)))
        .collect()
}

fn shared(devices: &[Arc<MemoryDevice>]) -> Vec<Arc<dyn Device>> {
    devices.iter().map(|device| device.clone() as Arc<dyn Device>).collect()
}

fn format(devices: &[Arc<MemoryDevice>], seed: u64) -> Pool {
    let geometry = Some(Geometry::small(BYTES).unwrap());
    Pool::format(
        shared(devices),
        FormatOptions {
            geometry,
            random: from_seed(seed),
            code: None,
        },
    )
    .unwrap()
}

fn open(devices: &[Arc<MemoryDevice>]) -> crate::error::Result<Pool> {
    Pool::open(
        shared(devices),
        OpenOptions {
            allow_degraded: false,
            random: from_seed(99),
        },
    )
}

fn open_degraded(devices: &[Arc<MemoryDevice>], seed: u64) -> crate::error::Result<Pool> {
    Pool::open(
        shared(devices),
        OpenOptions {
            allow_degraded: true,
            random: from_seed(seed),
        },
    )
}

fn sentence<T: std::fmt::Debug>(result: crate::error::Result<T>) -> String {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    let text = error.to_string();
    assert!(!text.contains('\n') && text.len() < 300, "{text}");
    text
}

#[test]
fn a_formatted_pool_opens_in_any_order() {
    let devices = memory(6);
    let made = format(&devices, 1);
    assert_eq!((made.code, made.journal_mirrors()), (Code { k: 4, m: 2 }, vec![0, 1, 2]));
    let mut shuffled = devices.clone();
    shuffled.reverse();
    let pool = open(&shuffled).unwrap();
    assert_eq!(
        (pool.uuid, pool.secret, pool.geometry, pool.membership_epoch()),
        (made.uuid, made.secret, made.geometry, 1)
    );
    assert_eq!(pool.devices.device(4).unwrap().name(), "m4");
    assert!(pool.notes.is_empty());
}

#[test]
fn used_devices_are_not_formatted() {
    let devices = memory(2);
    let pool = format(&devices, 1);
    let again = Pool::format(shared(&devices), FormatOptions::default());
    assert!(sentence(again).contains(&format!("m0 already belongs to pool {}", pool.uuid)));
    let foreign = memory(1);
    foreign[0].write_at(700_000, b"somebody's").unwrap();
    assert!(sentence(Pool::format(shared(&foreign), FormatOptions::default())).contains("m0 holds data that is not Trefoil's"));
    assert!(sentence(Pool::format(shared(&memory(1)), FormatOptions::default())).contains("m0: a device of 8388608 bytes is too small"));
    assert!(sentence(Pool::format(Vec::new(), FormatOptions::default())).contains("1 to 128 devices"));
    let wide = FormatOptions {
        code: Some(Code { k: 4, m: 2 }),
        ..FormatOptions::default()
    };
    assert!(sentence(Pool::format(shared(&memory(3)), wide)).contains("needs 6 devices"));
}

#[test]
fn an_interrupted_format_can_be_repeated() {
    for write in 1..5 {
        for seed in 0..8 {
            let devices = memory(1);
            let script = format!("write {write} fail");
            devices[0].set_script(FaultScript::parse(&script).unwrap());
            let options = || FormatOptions {
                geometry: Some(Geometry::small(BYTES).unwrap()),
                random: from_seed(1),
                code: None,
            };
            if Pool::format(shared(&devices), options()).is_err() {
                devices[0].crash(seed);
                assert!(open(&devices).is_err());
                Pool::format(shared(&devices), options()).unwrap();
            }
            open(&devices).unwrap();
        }
    }
}

/// Power goes at each write and flush of format in turn. Either the pool is there, or the same format succeeds: no device is left unusable.
#[test]
fn a_format_that_lost_power_leaves_a_pool_or_usable_devices() {
    let (mut opened, mut repeated) = (0, 0);
    for cut in 0..20 {
        for seed in 0..6 {
            let power = PowerSwitch::new();
            let device = |index| Arc::new(MemoryDevice::powered(format!("m{index}"), BYTES, power.clone()));
            let devices: Vec<_> = (0..3).map(device).collect();
            power.cut_after(cut);
            let geometry = Some(Geometry::small(BYTES).unwrap());
            let options = FormatOptions {
                geometry,
                random: from_seed(seed),
                code: None,
            };
            let formatted = Pool::format(shared(&devices), options).is_ok();
            power.restore();
            devices
                .iter()
                .enumerate()
                .for_each(|(index, device)| device.crash(seed * 3 + index as u64));
            match open(&devices) {
                Ok(pool) => {
                    assert_eq!(pool.devices.live(), [0, 1, 2]);
                    opened += 1;
                }
                Err(error) => {
                    assert!(!formatted, "{error}");
                    format(&devices, seed);
                    assert_eq!(open(&devices).unwrap().devices.live(), [0, 1, 2]);
                    repeated += 1;
                }
            }
        }
    }
    assert!(opened > 20 && repeated > 20, "{opened} {repeated}");
}

#[test]
fn what_must_not_be_opened_is_named_with_its_remedy() {
    let devices = memory(3);
    format(&devices, 1);
    let with = |extra: Arc<MemoryDevice>| open(&[devices.clone(), vec![extra]].concat());

    let stranger = memory(1);
    let other = format(&stranger, 2);
    assert!(sentence(with(stranger[0].clone())).contains(&format!("m0 belongs to pool {}", other.uuid)));

    let foreign = Arc::new(MemoryDevice::new("photos", BYTES));
    foreign.write_at(0, b"JFIF").unwrap();
    assert!(sentence(with(foreign)).contains("photos holds data that is not Trefoil's; remove it"));

    let copy = Arc::new(devices[1].duplicate("copy"));
    assert!(sentence(with(copy)).contains("m1 and copy are both device 1"));

    let newer = Arc::new(MemoryDevice::new("newer", BYTES));
    let mut bytes = vec![0; 4096];
    devices[0].read_at(0, &mut bytes).unwrap();
    bytes[8] = 9;
    let sum = crate::codec::checksum(&bytes[..4088]);
    bytes[4088..].copy_from_slice(&sum.to_le_bytes());
    newer.write_at(0, &bytes).unwrap();
    assert!(sentence(with(newer)).contains("newer was written by a newer Trefoil (format 9"));

    let short = Arc::new(devices[2].resized(BYTES - (1 << 20)));
    assert!(sentence(open(&[devices[0].clone(), devices[1].clone(), short])).contains("m2 was truncated"));
    assert!(sentence(open(&memory(2))).contains("no device given holds a pool"));
    assert!(sentence(open(&[])).contains("no device given holds a pool"));
}

#[test]
fn random_truncation_and_scribbling_never_panics() {
    let devices = memory(3);
    format(&devices, 1);
    let mut random = Seeded::new(7);
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..300 {
        let victim = Arc::new(devices[2].resized(if random.chance(2) { BYTES } else { random.below(BYTES) }));
        for _ in 0..random.below(4) {
            let bound = if random.chance(3) { 16 } else { 8192 };
            let offset = random.below(bound);
            if offset < victim.len() {
                victim.flip(offset, random.below(8) as u8);
            }
        }
        match open(&[Arc::new(devices[0].duplicate("m0")), Arc::new(devices[1].duplicate("m1")), victim]) {
            Ok(pool) => {
                assert!(pool.devices.is_live(2) || !pool.notes.is_empty());
                opened += 1;
            }
            Err(error) => {
                sentence::<()>(Err(error));
                refused += 1;
            }
        }
    }
    assert!(opened > 50 && refused > 20, "{opened} {refused}");
}

/// The first blocks of a device were overwritten under a running daemon; its status said that all was well until the next start left the device out.
#[test]
fn a_device_whose_superblocks_are_gone_is_dead_at_the_next_probe() {
    let devices = memory(6);
    let pool = format(&devices, 1);
    pool.probe();
    assert_eq!(pool.devices.live().len(), 6);
    devices[4].write_at(0, &[0; 4096]).unwrap();
    pool.probe();
    assert_eq!(pool.devices.live().len(), 6, "one superblock is enough");
    devices[4].write_at(4096, &[0; 4096]).unwrap();
    let other = memory(6);
    format(&other, 2);
    let mut foreign = vec![0; 8192];
    other[5].read_at(0, &mut foreign).unwrap();
    devices[5].write_at(0, &foreign).unwrap();
    pool.probe();
    assert_eq!(pool.devices.live(), [0, 1, 2, 3]);
    assert!(pool.devices.reason(4).contains("erased or overwritten"));
    pool.persist_failures().unwrap();
    assert_eq!(pool.membership_epoch(), 2);
}

/// Two of six device files were truncated under a running daemon, which went on without them; its next start was refused because of them.
#[test]
fn a_truncated_device_is_only_stale_once_the_pool_went_on_without_it() {
    let devices = memory(6);
    format(&devices, 1);
    let short: Vec<_> = devices[4..].iter().map(|device| Arc::new(device.resized(BYTES / 2))).collect();
    let found = [devices[..4].to_vec(), short].concat();
    assert!(sentence(open(&found)).contains("m4 was truncated"));
    assert_eq!(open(&devices[..4]).unwrap().membership_epoch(), 2);
    let pool = open(&found).unwrap();
    assert_eq!((pool.membership_epoch(), pool.devices.live()), (2, vec![0, 1, 2, 3]));
    assert!(pool.notes[0].contains("m4 is stale"), "{:?}", pool.notes);
}

/// A start that was allowed to write off more than the code makes up for was refused by the rule for devices that fail while running.
#[test]
fn more_missing_than_the_code_makes_up_for_are_written_off_only_if_allowed() {
    let devices = memory(8);
    let code = Some(Code { k: 4, m: 2 });
    let geometry = Some(Geometry::small(BYTES).unwrap());
    let options = FormatOptions {
        code,
        geometry,
        random: from_seed(1),
    };
    drop(Pool::format(shared(&devices), options).unwrap());
    assert!(sentence(open(&devices[..5])).contains("3 of the 8 devices last in use are missing"));
    let pool = open_degraded(&devices[..5], 2).unwrap();
    assert_eq!(pool.devices.live(), [0, 1, 2, 3, 4]);
    drop(pool);
    assert_eq!(open(&devices).unwrap().devices.live(), [0, 1, 2, 3, 4], "the others are stale");
}

#[test]
fn a_missing_device_is_dead_in_a_new_epoch_and_stale_when_it_returns() {
    let devices = memory(6);
    format(&devices, 1);
    let pool = open(&devices[..5]).unwrap();
    assert_eq!((pool.membership_epoch(), pool.devices.state(5)), (2, DeviceState::Missing));
    drop(pool);
    let pool = open(&devices).unwrap();
    assert_eq!((pool.membership_epoch(), pool.devices.state(5)), (2, DeviceState::Dead));
    assert!(pool.devices.reason(5).starts_with("stale: returned after") && pool.notes[0].contains("m5 is stale"));
}

#[test]
fn emptied_devices_are_left_out_and_noted() {
    let devices = memory(6);
    format(&devices, 1);
    devices[0].wipe();
    devices[4].wipe();
    let pool = open(&devices).unwrap();
    assert_eq!((pool.devices.live(), pool.notes.len()), (vec![1, 2, 3, 5], 2));
    assert!(pool.notes[0].contains("m0 is empty"));
    assert_eq!(pool.journal_mirrors(), [1, 2]);
}

#[test]
fn too_few_devices_are_refused() {
    let devices = memory(4);
    format(&devices, 1);
    assert!(sentence(open(&devices[..1])).contains("only 1 usable devices"));
    assert!(sentence(open(&devices[..2])).contains("only 2 of the 4 devices last in use"));
    assert!(sentence(open_degraded(&devices[3..], 1)).contains("attach the missing ones"));
    let pool = open_degraded(&devices[..2], 1).unwrap();
    assert_eq!(pool.devices.live(), [0, 1]);
    drop(pool);
    // Those two are all that were last in use: no need to vouch again.
    open(&devices[..2]).unwrap();
}

#[test]
fn a_pool_without_any_journal_mirror_is_refused() {
    let devices = memory(6);
    format(&devices, 1);
    let kept = [devices[3].clone(), devices[4].clone(), devices[5].clone(), devices[0].clone()];
    open(&kept).unwrap();
    let devices = memory(9);
    format(&devices, 1);
    assert!(sentence(open(&devices[3..])).contains("none of the devices that hold the journal"));
}

/// Two halves of a pool were started apart, each vouched for. Both have written; merging them would mix two histories.
#[test]
fn halves_that_went_on_apart_never_merge() {
    let devices = memory(4);
    let pool = format(&devices, 1);
    pool.set_journal_mirrors(&[0, 2]).unwrap();
    drop(pool);
    drop(open_degraded(&devices[..2], 1).unwrap());
    drop(open_degraded(&devices[2..], 2).unwrap());
    assert!(sentence(open(&devices)).contains("two halves of the pool went on apart"));
}

/// A device began to raise an epoch, then went away; the others went on without it, in fewer epochs. Its higher number must not make it the judge.
#[test]
fn a_device_that_only_began_an_epoch_does_not_overrule_those_that_went_on() {
    let devices = memory(4);
    drop(format(&devices, 1));
    let alone = Superblock {
        generation: 5,
        membership_epoch: 7,
        lineage: Uuid([9; 16]),
        ..read_superblock(&devices[0])
    };
    devices[0].write_at(4096, &alone.encode()).unwrap();
    drop(open(&devices[1..]).unwrap());
    let pool = open(&devices).unwrap();
    assert_eq!((pool.devices.live(), pool.membership_epoch()), (vec![1, 2, 3], 2));
}

/// Power went while an epoch was being raised: some devices carry it, others do not. All are members still.
#[test]
fn an_interrupted_rise_keeps_the_devices_that_missed_it() {
    for seed in 0..50 {
        let devices = memory(5);
        let pool = format(&devices, 1);
        devices[1].lose();
        for device in &devices {
            device.set_script(FaultScript::parse("flush * lie").unwrap());
        }
        pool.mark_dead(1).unwrap();
        drop(pool);
        devices
            .iter()
            .enumerate()
            .for_each(|(index, device)| device.crash(seed * 5 + index as u64));
        devices[1].restore();
        let pool = open(&devices).unwrap();
        let carried = pool.membership_epoch() > 1;
        assert_eq!(pool.devices.live(), if carried { vec![0, 2, 3, 4] } else { vec![0, 1, 2, 3, 4] });
        let epoch = pool.membership_epoch();
        drop(pool);
        assert!(
            devices
                .iter()
                .enumerate()
                .all(|(index, device)| (carried && index == 1) || read_superblock(device).membership_epoch == epoch)
        );
    }
}

fn read_superblock(device: &Arc<MemoryDevice>) -> Superblock {
    match identify(device.as_ref()).unwrap() {
        Identity::Member(superblock) => *superblock,
        other => panic!("{other:?}"),
    }
}

#[test]
fn deaths_are_written_to_the_others_until_too_few_remain() {
    let devices = memory(6);
    let pool = format(&devices, 1);
    devices[3].set_script(FaultScript::parse("write 1 fail").unwrap());
    pool.mark_dead(0).unwrap();
    assert_eq!(
        (pool.devices.live(), pool.membership_epoch(), pool.journal_mirrors()),
        (vec![1, 2, 4, 5], 3, vec![1, 2])
    );
    assert!(!read_superblock(&devices[5]).members[3].live);
    pool.persist_failures().unwrap();
    assert_eq!(pool.membership_epoch(), 3);
    assert!(matches!(pool.mark_dead(5), Err(Error::Closed(_))));
}

#[test]
fn a_pool_on_directories_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..3).map(|index| directory.path().join(index.to_string())).collect();
    let devices = |create| -> Vec<Arc<dyn Device>> {
        let options = FileOptions { create, size: Some(BYTES) };
        paths
            .iter()
            .map(|path| Arc::new(FileDevice::open(path, options).unwrap()) as Arc<dyn Device>)
            .collect()
    };
    paths.iter().for_each(|path| std::fs::create_dir(path).unwrap());
    let options = FormatOptions {
        geometry: Some(Geometry::small(BYTES).unwrap()),
        ..FormatOptions::default()
    };
    let uuid = Pool::format(devices(true), options).unwrap().uuid;
    assert_eq!(Pool::open(devices(false), OpenOptions::default()).unwrap().uuid, uuid);
    use std::os::unix::fs::MetadataExt;
    let mirrored = paths[1].join(FILE_NAME).metadata().unwrap().blocks() * 512;
    assert!(mirrored >= 1 << 20, "the journal of a mirror is written, not sparse: {mirrored}");
}
