//! Append, trim, reopen and read against a model; what faults do; the story that ENGINE's prototype failed on.

use std::collections::VecDeque;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::codec::checksum;
use crate::device::Device;
use crate::device::fault::FaultScript;
use crate::device::memory::MemoryDevice;
use crate::device::random::from_seed;
use crate::pool::{Code, FormatOptions, Geometry, OpenOptions};

const BYTES: u64 = 4 << 20;

fn memory(count: usize) -> Vec<Arc<MemoryDevice>> {
    (0..count)
        .map(|index| Arc::new(MemoryDevice::new(format!("m{index}"), BYTES)))
        .collect()
}

fn shared(devices: &[Arc<MemoryDevice>]) -> Vec<Arc<dyn Device>> {
    devices.iter().map(|device| device.clone() as Arc<dyn Device>).collect()
}

/// A ring of 128 KiB: bodies up to 16 KiB.
fn create(devices: &[Arc<MemoryDevice>], code: Code) -> Journal {
    let geometry = Some(Geometry::fitted(BYTES, 4096, 128 << 10, 64 << 10).unwrap());
    let options = FormatOptions {
        geometry,
        code: Some(code),
        random: from_seed(1),
    };
    Journal::create(Arc::new(Pool::format(shared(devices), options).unwrap()))
}

fn open(devices: &[Arc<MemoryDevice>]) -> Arc<Pool> {
    Arc::new(
        Pool::open(
            shared(devices),
            OpenOptions {
                allow_degraded: true,
                random: from_seed(2),
            },
        )
        .unwrap(),
    )
}

fn recover(devices: &[Arc<MemoryDevice>], from: Start, keep_from: u64) -> Result<(Journal, Vec<Vec<u8>>)> {
    let mut bodies = Vec::new();
    let journal = Journal::recover(open(devices), from, keep_from, &mut |record| {
        bodies.push(record.body.to_vec());
        Ok(())
    })?;
    Ok((journal, bodies))
}

const ONE_AND_ONE: Code = Code { k: 1, m: 1 };

#[test]
fn a_lone_append_costs_one_write_and_one_flush_per_mirror() {
    let devices = memory(3);
    let mut journal = create(&devices, ONE_AND_ONE);
    let pool = journal.ring.pool.clone();
    let before: Vec<_> = (0..3).map(|index| pool.devices.counters(index)).collect();
    journal.append(b"body").unwrap();
    for index in 0..3 {
        let (now, was) = (pool.devices.counters(index), before[usize::from(index)]);
        let expected = if index < 2 { (1, 4096, 1) } else { (0, 0, 0) };
        assert_eq!(
            (
                now.writes - was.writes,
                now.write_bytes - was.write_bytes,
                now.flushes - was.flushes
            ),
            expected
        );
    }
}

/// The prototype's loss: a record reached one mirror only before the kill, recovery adopted it but did not copy it, and the mirror was lost later.
#[test]
fn a_record_adopted_from_one_mirror_survives_the_loss_of_that_mirror() {
    let devices = memory(2);
    let mut journal = create(&devices, ONE_AND_ONE);
    journal.append(b"first").unwrap();
    let record = record::encode(&journal.next(), 1, 0, b"second", &journal.ring.pool.secret).0;
    let offset = journal.ring.offset(4096);
    drop(journal);
    devices[0].write_at(offset, &record).unwrap();

    let (journal, bodies) = recover(&devices, Start::default(), 0).unwrap();
    assert_eq!(
        (bodies, journal.counters().resilvered),
        (vec![b"first".to_vec(), b"second".to_vec()], 1)
    );
    drop(journal);
    devices[1].crash(0);
    let (_, bodies) = recover(&devices[1..], Start::default(), 0).unwrap();
    assert_eq!(bodies, [b"first".to_vec(), b"second".to_vec()]);
}

/// The process died between write and flush: the record is equal on all mirrors, but only in their caches.
#[test]
fn what_recovery_hands_out_is_flushed_even_if_all_mirrors_agree() {
    for seed in 0..20 {
        let devices = memory(2);
        let journal = create(&devices, ONE_AND_ONE);
        let record = record::encode(&Start::default(), 1, 0, b"cached", &journal.ring.pool.secret).0;
        let offset = journal.ring.offset(0);
        drop(journal);
        devices.iter().for_each(|device| device.write_at(offset, &record).unwrap());
        drop(recover(&devices, Start::default(), 0).unwrap());
        devices.iter().for_each(|device| device.crash(seed));
        assert_eq!(recover(&devices, Start::default(), 0).unwrap().1, [b"cached".to_vec()]);
    }
}

#[test]
fn each_record_is_adopted_from_whichever_mirror_has_it() {
    let devices = memory(2);
    let mut journal = create(&devices, ONE_AND_ONE);
    let positions: Vec<u64> = (0..4u8).map(|body| journal.append(&[body; 5000]).unwrap().position).collect();
    devices[0].flip(journal.ring.offset(positions[1]) + 1000, 0);
    devices[1].flip(journal.ring.offset(positions[2]) + 10, 0);
    drop(journal);
    let (journal, bodies) = recover(&devices, Start::default(), 0).unwrap();
    assert_eq!((bodies.len(), journal.counters().resilvered), (4, 2));
    drop(journal);
    assert_eq!(recover(&devices, Start::default(), 0).unwrap().0.counters().resilvered, 0);
}

#[test]
fn a_record_damaged_everywhere_is_not_taken_for_the_end() {
    let devices = memory(2);
    let mut journal = create(&devices, ONE_AND_ONE);
    let positions: Vec<u64> = (0..3u8).map(|body| journal.append(&[body; 5000]).unwrap().position).collect();
    devices
        .iter()
        .for_each(|device| device.flip(journal.ring.offset(positions[1]) + 4000, 0));
    drop(journal);
    assert!(
        matches!(recover(&devices, Start::default(), 0), Err(Error::Damaged(text)) if text.contains("record 1 is damaged on all its mirrors"))
    );
}

#[test]
fn a_payload_that_looks_like_a_record_is_not_one() {
    let devices = memory(2);
    let mut journal = create(&devices, ONE_AND_ONE);
    let mut body = vec![0; 8192];
    let start = Start {
        position: 4096,
        sequence: 1,
        previous_checksum: 7,
    };
    let forged = record::encode(&start, 1, 0, b"forged", &[0; 32]).0;
    body[4096 - HEADER_BYTES..8192 - HEADER_BYTES].copy_from_slice(&forged);
    journal.append(&body).unwrap();
    drop(journal);
    assert_eq!(recover(&devices, Start::default(), 0).unwrap().1, [body]);
}

#[test]
fn a_lost_mirror_is_replaced_and_brought_up_to_date_before_the_acknowledgement() {
    for fault in ["write 1 fail", "flush 1 fail", "write 1 tear", "write 1 lose", "write 1 full"] {
        let devices = memory(4);
        let mut journal = create(&devices, Code { k: 2, m: 1 });
        (0..40u8).for_each(|body| {
            journal.append(&[body; 3000]).unwrap();
            journal.trim(journal.head().saturating_sub(80 << 10));
        });
        let (tail, start) = (journal.tail(), journal.next());
        devices[0].set_script(FaultScript::parse(fault).unwrap());
        let appended = journal.append(b"acknowledged").unwrap();
        let pool = journal.ring.pool.clone();
        assert_eq!(
            (pool.journal_mirrors(), pool.devices.live(), journal.counters().replacements),
            (vec![1, 2], vec![1, 2, 3], 1)
        );
        drop((journal, pool));
        // The old mirror's twin is lost too: only the newcomer is left to tell.
        let (journal, bodies) = recover(&[devices[2].clone(), devices[3].clone()], start, tail).unwrap();
        assert_eq!(bodies, [b"acknowledged".to_vec()]);
        let mut retained = [0; 3000];
        let oldest = journal.ring.record_start(&[2], tail) + HEADER_BYTES as u64;
        let expected = (0..40u8)
            .map(|body| [body; 3000])
            .find(|body| journal.reader().read(oldest, &mut retained, checksum(body)).is_ok());
        assert!(expected.is_some() && appended.sequence == 40);
    }
}

#[test]
fn fewer_devices_than_mirrors_go_on_until_the_code_ends_it() {
    let devices = memory(3);
    let mut journal = create(&devices, Code { k: 1, m: 2 });
    devices[0].lose();
    journal.append(b"two left").unwrap();
    devices[2].lose();
    journal.append(b"one left").unwrap();
    devices[1].lose();
    assert!(matches!(journal.append(b"none"), Err(Error::Closed(_))));
    assert!(matches!(journal.append(b"none"), Err(Error::Closed(_))));
}

/// A segment's device dies while a record is prepared. If its death were not written down first, it could come back after a restart and count.
#[test]
fn a_death_elsewhere_is_in_the_superblocks_before_the_next_acknowledgement() {
    let devices = memory(4);
    let mut journal = create(&devices, Code { k: 2, m: 1 });
    journal.ring.pool.devices.fail(3, "write failed");
    journal.append(b"names a payload that device 3 lacks").unwrap();
    assert_eq!(journal.ring.pool.membership_epoch(), 2);
    drop(journal);
    assert_eq!(open(&devices).devices.live(), [0, 1, 2]);
}

#[test]
fn a_full_ring_refuses_until_trimmed_and_overwrites_nothing() {
    let devices = memory(2);
    let mut journal = create(&devices, ONE_AND_ONE);
    let mut count = 0;
    while journal.append(&[count; 10_000]).is_ok() {
        count += 1;
    }
    assert!(matches!(journal.append(&[1; 10_000]), Err(Error::OutOfSpace(text)) if text == "journal full"));
    assert!(count > 8 && journal.free_bytes() < 16 << 10);
    assert!(matches!(
        journal.append(&vec![0; journal.body_bytes_max() + 1]),
        Err(Error::Limit(_))
    ));
    journal.trim(3 * 12288);
    let next = journal.append(&[99; 10_000]).unwrap();
    assert_eq!(next.position % journal.capacity(), 0);
    let mut buffer = vec![0; 10_000];
    journal.reader().read(3 * 12288 + 64, &mut buffer, checksum(&[3; 10_000])).unwrap();
}

#[test]
fn a_bad_copy_is_repaired_by_reading() {
    let devices = memory(2);
    let mut journal = create(&devices, ONE_AND_ONE);
    let body = journal.next_body_position(5000);
    journal.append(&[7; 5000]).unwrap();
    let (reader, sum) = (journal.reader(), checksum(&[7; 5000]));
    devices.iter().enumerate().for_each(|(index, device)| {
        device.flip(journal.ring.offset(body) + 40, 1);
        let mut buffer = vec![0; 5000];
        reader.read(body, &mut buffer, sum).unwrap();
        assert_eq!(buffer, [7; 5000]);
        // The reader starts at the first mirror here: the second one's copy is not looked at.
        assert_eq!(reader.counters().repairs, 1, "{index}");
    });
    devices[0].flip(journal.ring.offset(body) + 50, 1);
    assert!(matches!(reader.read(body, &mut vec![0; 5000], sum), Err(Error::Damaged(_))));
    assert!(reader.read(u64::MAX - 3, &mut [0; 8], 0).is_err() && reader.read(1 << 40, &mut [0; 8], 0).is_err());
}

#[derive(Debug, Clone)]
enum Step {
    Append(usize),
    Reserved(usize, usize),
    Trim(u8),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0usize..16_384).prop_map(Step::Append),
        3 => (0usize..8_192, 0usize..8_192).prop_map(|(body, more)| Step::Reserved(body, body + more)),
        3 => any::<u8>().prop_map(Step::Trim),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

/// The model: what was appended since the tail, with where it went.
struct Kept {
    appended: Appended,
    start: Start,
    body: Vec<u8>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn behaves_as_a_queue(steps in steps()) {
        let devices = memory(3);
        let mut journal = create(&devices, Code { k: 2, m: 1 });
        let mut model: VecDeque<Kept> = VecDeque::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Append(length) => append(&mut journal, &mut model, length, None, number),
                Step::Reserved(length, most) => append(&mut journal, &mut model, length, Some(most), number),
                Step::Trim(part) => {
                    let gone = model.len() * usize::from(part) / 256;
                    model.drain(..gone);
                    let tail = model.front().map_or(journal.head(), |kept| kept.appended.position);
                    journal.trim(tail);
                    prop_assert_eq!(journal.tail(), tail);
                }
                Step::Reopen => {
                    let (next, tail) = (journal.next(), journal.tail());
                    let from = model.get(model.len() / 2).map_or(next, |kept| kept.start);
                    drop(journal);
                    let (again, bodies) = recover(&devices, from, tail.min(from.position)).unwrap();
                    journal = again;
                    let expected: Vec<_> = model.iter().skip(model.len() / 2).map(|kept| kept.body.clone()).collect();
                    prop_assert_eq!(bodies, expected);
                    prop_assert_eq!(journal.next(), next);
                }
            }
        }
        let reader = journal.reader();
        for kept in &model {
            let mut buffer = vec![0; kept.body.len()];
            reader.read(kept.appended.position + HEADER_BYTES as u64, &mut buffer, checksum(&kept.body)).unwrap();
        }
        prop_assert_eq!(reader.counters().repairs, 0);
    }
}

fn append(journal: &mut Journal, model: &mut VecDeque<Kept>, length: usize, most: Option<usize>, number: usize) {
    let body = vec![number as u8; length.min(journal.body_bytes_max())];
    let (start, free) = (journal.next(), journal.free_bytes());
    let promised = most.map(|most| journal.next_body_position(most.min(journal.body_bytes_max()).max(body.len())));
    match journal.append(&body) {
        Ok(appended) => {
            assert!(promised.is_none_or(|promised| promised == appended.position + HEADER_BYTES as u64));
            assert_eq!(appended.next, journal.next());
            model.push_back(Kept { appended, start, body });
        }
        Err(Error::OutOfSpace(_)) => assert!(free < 2 * padded_bytes(journal.body_bytes_max()) && journal.next() == start),
        Err(error) => panic!("{error}"),
    }
}
