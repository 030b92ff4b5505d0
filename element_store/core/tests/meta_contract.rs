//! What every metadata engine must do: one suite, run against each.

mod meta;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use trefoil_core::codec::Reader;
use trefoil_core::error::{Error, Result};
use trefoil_core::meta::checkpoint::Manifest;
use trefoil_core::meta::model::ModelEngine;
use trefoil_core::meta::*;

use meta::{Pool, open, rows, store};

/// An engine and what makes it reorganise itself.
struct Subject {
    engine: Arc<dyn Engine>,
    shake: Box<dyn Fn()>,
    _directory: Option<TempDir>,
}

fn model() -> Subject {
    Subject {
        engine: Arc::new(ModelEngine::new()),
        shake: Box::new(|| ()),
        _directory: None,
    }
}

fn lsm() -> Subject {
    let directory = TempDir::new().unwrap();
    let engine = open(&directory, &Manifest::default(), &Pool::default());
    let shaken = engine.clone();
    let shake = move || {
        shaken.flush().unwrap();
        while shaken.maintain().unwrap() {}
    };
    Subject {
        engine,
        shake: Box::new(shake),
        _directory: Some(directory),
    }
}

/// Windows come and go all the time.
fn hot() -> Subject {
    let Subject { engine, shake, _directory } = lsm();
    Subject {
        engine: meta::hot::<1>(engine),
        shake,
        _directory,
    }
}

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod on_model { $(#[test] fn $name() { super::$name(super::model()); })* }
        mod on_lsm { $(#[test] fn $name() { super::$name(super::lsm()); })* }
        mod on_hot { $(#[test] fn $name() { super::$name(super::hot()); })* }
    };
}

contract!(
    reads_its_own_writes,
    ranges_overlay_writes_both_ways,
    delete_range_sees_the_overlay,
    delete_range_spans_pages,
    adds_are_counters,
    limits_hold,
    limits_leave_the_transaction_usable,
    time_is_limited,
    readers_see_only_what_is_published,
    snapshots_never_change,
    iterators_never_change,
    ranges_are_lazy_and_ordered,
    sequences_must_rise,
    empty_transactions_take_no_sequence,
    failed_closures_leave_nothing,
    transactions_do_not_overlap,
    replay_repeats_history,
    reads_of_the_past_last_until_forgotten,
    readers_run_beside_a_writer,
);

fn put(store: &MetaStore, pairs: &[(&str, &str)]) {
    let write = |txn: &mut Txn| pairs.iter().try_for_each(|(key, value)| txn.put(key.as_bytes(), value.as_bytes()));
    store.run(write).unwrap();
}

fn text(rows: Vec<Row>) -> String {
    let row = |(key, value)| format!("{}={}", String::from_utf8(key).unwrap(), String::from_utf8(value).unwrap());
    rows.into_iter().map(row).collect::<Vec<_>>().join(" ")
}

fn reads_its_own_writes(subject: Subject) {
    let store = store(subject.engine);
    put(&store, &[("a", "1"), ("b", "1")]);
    (subject.shake)();
    let check = |txn: &mut Txn| {
        txn.put(b"a", b"2")?;
        txn.delete(b"b")?;
        txn.put(b"c", b"3")?;
        assert_eq!(txn.get(b"a")?.unwrap(), b"2");
        assert_eq!((txn.get(b"b")?, txn.get(b"d")?), (None, None));
        txn.put(b"a", b"")?;
        assert_eq!(txn.get(b"a")?.unwrap(), b"", "an empty value is a value");
        Ok(())
    };
    store.run(check).unwrap();
    assert_eq!(text(rows(&store.snapshot())), "a= c=3");
}

fn ranges_overlay_writes_both_ways(subject: Subject) {
    let store = store(subject.engine);
    put(&store, &[("b", "1"), ("d", "1"), ("f", "1"), ("h", "1")]);
    (subject.shake)();
    let check = |txn: &mut Txn| {
        txn.put(b"a", b"2")?;
        txn.put(b"d", b"2")?;
        txn.delete(b"f")?;
        txn.delete(b"g")?;
        txn.put(b"i", b"2")?;
        let range = |from: &str, to: &str, limit, reverse| txn.get_range(from.as_bytes(), to.as_bytes(), limit, reverse).map(text);
        assert_eq!(range("a", "z", 9, false)?, "a=2 b=1 d=2 h=1 i=2");
        assert_eq!(range("a", "z", 9, true)?, "i=2 h=1 d=2 b=1 a=2");
        assert_eq!(range("b", "h", 9, true)?, "d=2 b=1", "the end is not in the range");
        assert_eq!(range("a", "z", 2, true)?, "i=2 h=1");
        assert_eq!(range("a", "z", 0, false)?, "");
        assert_eq!(
            (range("z", "a", 9, false)?, range("b", "b", 9, true)?),
            (String::new(), String::new())
        );
        Ok(())
    };
    store.run(check).unwrap();
}

fn delete_range_sees_the_overlay(subject: Subject) {
    let store = store(subject.engine);
    put(&store, &[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")]);
    (subject.shake)();
    let check = |txn: &mut Txn| {
        txn.put(b"bb", b"2")?;
        txn.delete(b"c")?;
        assert_eq!(txn.delete_range(b"b", b"d")?, 2);
        txn.put(b"c", b"3")
    };
    store.run(check).unwrap();
    assert_eq!(text(rows(&store.snapshot())), "a=1 c=3 d=1");
}

fn delete_range_spans_pages(subject: Subject) {
    let store = store(subject.engine);
    store
        .run(|txn| (0..5_000u32).try_for_each(|i| txn.put(&i.to_be_bytes(), b"x")))
        .unwrap();
    let deleted = store
        .run(|txn| txn.delete_range(&1u32.to_be_bytes(), &4_999u32.to_be_bytes()))
        .unwrap();
    assert_eq!((deleted, rows(&store.snapshot()).len()), (4_998, 2));
}

fn adds_are_counters(subject: Subject) {
    let store = store(subject.engine);
    store
        .run(|txn| txn.add(b"n", 5).and_then(|()| txn.add(b"n", -7)).and_then(|()| txn.add(b"m", 1)))
        .unwrap();
    (subject.shake)();
    store.run(|txn| txn.add(b"n", 3).and_then(|()| txn.add(b"m", -1))).unwrap();
    let snapshot = store.snapshot();
    assert_eq!(decode_counter(&snapshot.get(b"n").unwrap().unwrap()).unwrap(), 1);
    assert_eq!(snapshot.get(b"m").unwrap(), None, "a counter at 0 is gone");
    assert!(matches!(store.run(|txn| txn.add(b"n", i64::MAX)), Err(Error::Invalid(_))));
    put(&store, &[("t", "text")]);
    assert!(matches!(store.run(|txn| txn.add(b"t", 1)), Err(Error::Damaged(_))));
}

fn limits_hold(subject: Subject) {
    let store = store(subject.engine);
    let write = |key: usize, value: usize| store.run(|txn| txn.put(&vec![b'k'; key], &vec![b'v'; value]));
    assert!(matches!(write(KEY_BYTES_MAX + 1, 0), Err(Error::Limit(_))));
    assert!(matches!(write(1, VALUE_BYTES_MAX + 1), Err(Error::Limit(_))));
    assert!(matches!(write(0, 1), Err(Error::Invalid(_))));
    write(KEY_BYTES_MAX, VALUE_BYTES_MAX).unwrap();
    (subject.shake)();
    let row = store.snapshot().get_range(&[0], KEY_END, 2, true).unwrap().remove(0);
    assert_eq!((row.0.len(), row.1.len()), (KEY_BYTES_MAX, VALUE_BYTES_MAX));
    let large = vec![0; VALUE_BYTES_MAX];
    let fill = |txn: &mut Txn| (0..200u32).try_for_each(|i| txn.put(&i.to_be_bytes(), &large));
    assert!(matches!(store.run(fill), Err(Error::Limit(_))));
}

fn limits_leave_the_transaction_usable(subject: Subject) {
    let store = store(subject.engine);
    let large = vec![0; VALUE_BYTES_MAX];
    let check = |txn: &mut Txn| {
        let full = (0..200u32).take_while(|i| txn.put(&i.to_be_bytes(), &large).is_ok()).count();
        assert_eq!(full, TRANSACTION_BYTES_MAX / (VALUE_BYTES_MAX + 4));
        assert_eq!(txn.bytes(), full * (VALUE_BYTES_MAX + 4));
        txn.put(&0u32.to_be_bytes(), &large)?;
        txn.delete(&0u32.to_be_bytes())?;
        txn.put(&1000u32.to_be_bytes(), &large)
    };
    store.run(check).unwrap();
    assert_eq!(rows(&store.snapshot()).len(), TRANSACTION_BYTES_MAX / (VALUE_BYTES_MAX + 4));
}

fn time_is_limited(subject: Subject) {
    let now = Arc::new(AtomicU64::new(0));
    let clock = now.clone();
    let store = MetaStore::new(
        subject.engine,
        Arc::new(move || Duration::from_millis(clock.load(Ordering::Relaxed))),
    );
    let step = |txn: &mut Txn, millis| {
        txn.put(b"a", b"1")?;
        now.fetch_add(millis, Ordering::Relaxed);
        txn.get(b"b")
    };
    store.run(|txn| step(txn, 5_000)).unwrap();
    assert!(matches!(store.run(|txn| step(txn, 5_001)), Err(Error::Limit(_))));
    let mut late = store.begin();
    late.put(b"z", b"1").unwrap();
    now.fetch_add(5_001, Ordering::Relaxed);
    assert!(late.range(b"a", b"z", false).next().unwrap().is_err());
    assert!(matches!(store.apply(late), Err(Error::Limit(_))));
    assert_eq!(text(rows(&store.snapshot())), "a=1");
}

fn readers_see_only_what_is_published(subject: Subject) {
    let store = store(subject.engine);
    let apply = |value: &[u8]| {
        let mut txn = store.begin();
        txn.add(b"n", 1).unwrap();
        txn.put(b"a", value).unwrap();
        store.apply(txn).unwrap().sequence
    };
    let (first, second) = (apply(b"1"), apply(b"2"));
    assert_eq!((first, second, store.applied(), store.visible()), (1, 2, 2, 0));
    assert!(rows(&store.snapshot()).is_empty());
    (subject.shake)();
    assert!(rows(&store.snapshot()).is_empty());
    assert_eq!(
        store.begin().get(b"n").unwrap().unwrap(),
        2i64.to_le_bytes(),
        "transactions build on one another before they are durable"
    );
    store.publish(first);
    assert_eq!(store.snapshot().get(b"a").unwrap().unwrap(), b"1");
    (subject.shake)();
    assert_eq!(store.snapshot().get(b"a").unwrap().unwrap(), b"1");
    store.publish(second);
    assert_eq!(store.snapshot().get(b"a").unwrap().unwrap(), b"2");
}

fn snapshots_never_change(subject: Subject) {
    let store = store(subject.engine);
    let mut kept = Vec::new();
    for round in 0..40u32 {
        let write = |txn: &mut Txn| {
            (0..50u32).try_for_each(|i| {
                txn.put(
                    &(i * 7919 % 400).to_be_bytes(),
                    &[round.to_be_bytes(), i.to_be_bytes()].concat().repeat(4),
                )
            })?;
            txn.delete_range(&(round * 5).to_be_bytes(), &(round * 5 + 20).to_be_bytes())
        };
        store.run(write).unwrap();
        let snapshot = store.snapshot();
        let seen = rows(&snapshot);
        kept.push((snapshot, seen));
        if round % 3 == 0 {
            (subject.shake)();
        }
        if round % 4 == 0 {
            kept.swap_remove(kept.len() / 2);
        }
    }
    for (snapshot, seen) in kept {
        assert_eq!(rows(&snapshot), seen);
        assert_eq!(
            snapshot.get_range(&[0], KEY_END, usize::MAX, true).unwrap(),
            seen.iter().rev().cloned().collect::<Vec<_>>()
        );
        seen.iter()
            .for_each(|(key, value)| assert_eq!(snapshot.get(key).unwrap().as_ref(), Some(value)));
    }
}

fn iterators_never_change(subject: Subject) {
    let store = store(subject.engine);
    store
        .run(|txn| (0..1_000u32).try_for_each(|i| txn.put(&i.to_be_bytes(), b"old")))
        .unwrap();
    let snapshot = store.snapshot();
    let mut iterator = snapshot.range(&[0], KEY_END, false);
    let mut seen = iterator.by_ref().take(10).collect::<Result<Vec<_>>>().unwrap();
    store.run(|txn| txn.delete_range(&[0], KEY_END)).unwrap();
    (subject.shake)();
    store.run(|txn| txn.put(&500u32.to_be_bytes(), b"new")).unwrap();
    (subject.shake)();
    seen.extend(iterator.map(Result::unwrap));
    assert_eq!(seen.len(), 1_000);
    assert!(seen.iter().all(|(_, value)| value == b"old"));
}

fn ranges_are_lazy_and_ordered(subject: Subject) {
    let store = store(subject.engine);
    for start in (0..200_000u32).step_by(20_000) {
        store
            .run(|txn| (start..start + 20_000).try_for_each(|i| txn.put(&i.wrapping_mul(2_654_435_761).to_be_bytes(), b"v")))
            .unwrap();
    }
    (subject.shake)();
    let snapshot = store.snapshot();
    // 4,000 openings of a range that holds everything: hours if each read it all.
    for i in 0..2_000u32 {
        assert!(snapshot.range(&i.to_be_bytes(), KEY_END, false).next().is_some());
        assert!(store.begin().range(&i.to_be_bytes(), KEY_END, true).next().is_some());
    }
    let all = rows(&snapshot);
    assert_eq!(all.len(), 200_000);
    assert!(all.is_sorted());
}

fn sequences_must_rise(subject: Subject) {
    let put = [Mutation::Put {
        key: b"a".to_vec(),
        value: b"1".to_vec(),
    }];
    subject.engine.apply(3, &put).unwrap();
    assert!(matches!(subject.engine.apply(3, &put), Err(Error::Invalid(_))));
    assert!(matches!(subject.engine.apply(2, &put), Err(Error::Invalid(_))));
    assert_eq!((subject.engine.applied(), subject.engine.get(b"a", 2).unwrap()), (3, None));
    subject.engine.apply(9, &[]).unwrap();
    assert_eq!(
        (subject.engine.applied(), subject.engine.get(b"a", 9).unwrap()),
        (9, Some(b"1".to_vec()))
    );
}

fn empty_transactions_take_no_sequence(subject: Subject) {
    let store = store(subject.engine);
    put(&store, &[("a", "1")]);
    assert_eq!(
        store.apply(store.begin()).unwrap(),
        Applied {
            sequence: 1,
            bytes: Vec::new()
        }
    );
}

fn failed_closures_leave_nothing(subject: Subject) {
    let store = store(subject.engine);
    let fail: Result<()> = store.run(|txn| {
        txn.put(b"a", b"1")?;
        Err(Error::Conflict("no".into()))
    });
    assert!(matches!(fail, Err(Error::Conflict(_))));
    assert_eq!((store.applied(), rows(&store.snapshot()).len()), (0, 0));
}

fn transactions_do_not_overlap(subject: Subject) {
    let store = store(subject.engine);
    let (mut one, mut other) = (store.begin(), store.begin());
    one.add(b"n", 1).unwrap();
    other.add(b"n", 1).unwrap();
    store.apply(one).unwrap();
    assert!(matches!(store.apply(other), Err(Error::Conflict(_))), "its reads are stale");
}

fn replay_repeats_history(subject: Subject) {
    let origin = store(Arc::new(ModelEngine::new()));
    let mut journal = Vec::new();
    for i in 0..20u32 {
        let mut txn = origin.begin();
        txn.put(&(i % 7).to_be_bytes(), &i.to_be_bytes()).unwrap();
        txn.delete_range(&(i % 5).to_be_bytes(), &(i % 5 + 1).to_be_bytes()).unwrap();
        journal.push(origin.apply(txn).unwrap());
    }
    origin.publish(origin.applied());
    let copy = store(subject.engine);
    let replay = |entry: &Applied| copy.replay(entry.sequence, &mut Reader::new(&entry.bytes));
    assert!(matches!(replay(&journal[1]), Err(Error::Damaged(_))), "a gap must not be applied");
    journal.iter().for_each(|entry| replay(entry).unwrap());
    (subject.shake)();
    journal[10..].iter().for_each(|entry| replay(entry).unwrap());
    assert_eq!(rows(&copy.snapshot()), rows(&origin.snapshot()));
}

fn reads_of_the_past_last_until_forgotten(subject: Subject) {
    let engine = subject.engine;
    for sequence in 1..=200u64 {
        engine
            .apply(
                sequence,
                &[Mutation::Put {
                    key: b"k".to_vec(),
                    value: sequence.to_le_bytes().to_vec(),
                }],
            )
            .unwrap();
        if sequence % 20 == 0 {
            (subject.shake)();
            engine.forget(sequence / 2);
            (sequence / 2..=sequence).for_each(|at| assert_eq!(engine.get(b"k", at).unwrap().unwrap(), at.to_le_bytes()));
        }
    }
    assert_eq!(engine.get(b"k", u64::MAX).unwrap().unwrap(), 200u64.to_le_bytes());
}

/// Every transaction moves one unit between two counters: whoever sees another sum saw half a transaction.
fn readers_run_beside_a_writer(subject: Subject) {
    let store = Arc::new(store(subject.engine));
    store.run(|txn| txn.add(b"a", 1_000_000)).unwrap();
    let stop = Arc::new(AtomicU64::new(0));
    let read = |(store, stop): (Arc<MetaStore>, Arc<AtomicU64>)| {
        while stop.load(Ordering::Relaxed) == 0 {
            let snapshot = store.snapshot();
            let sum: i64 = rows(&snapshot).iter().map(|(_, value)| decode_counter(value).unwrap()).sum();
            let got = [b"a", b"b"].map(|key| snapshot.get(key).unwrap().map_or(0, |value| decode_counter(&value).unwrap()));
            assert_eq!((sum, got[0] + got[1]), (1_000_000, 1_000_000));
        }
    };
    let readers = [0, 1].map(|_| {
        std::thread::spawn({
            let own = (store.clone(), stop.clone());
            move || read(own)
        })
    });
    for i in 0..3_000 {
        store.run(|txn| txn.add(b"a", -1).and_then(|()| txn.add(b"b", 1))).unwrap();
        if i % 100 == 0 {
            (subject.shake)();
        }
    }
    stop.store(1, Ordering::Relaxed);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

#[test]
fn prefixes_end_where_the_next_begins() {
    assert_eq!(prefix_end(b"ab"), b"ac");
    assert_eq!(prefix_end(b"a\xff\xff"), b"b");
    assert_eq!(prefix_end(b"\xff"), KEY_END);
    assert_eq!(prefix_end(b""), KEY_END);
}
