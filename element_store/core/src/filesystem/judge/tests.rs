//! The judge itself: it finds nothing wrong with the model, and every fault that is put into one.

mod faulty;

use super::*;
use crate::filesystem::model::{Model, system_clock};
use faulty::{ALL, Fault, Faulty};
use mirror::Mirror;

const ROOM: u64 = 1 << 30;
const STEPS: usize = 1000;

fn alike(seed: u64) -> (Judge, Model, Model) {
    let clock = FakeClock::new(1_000_000_000);
    let [a, b] = [0, 1].map(|_| Model::new(ROOM, clock.clock()));
    (Judge::with_clock(seed, clock), a, b)
}

fn must_pass(verdict: Verdict) {
    verdict.unwrap_or_else(|reason| panic!("{reason}"));
}

#[test]
fn a_model_is_like_another() {
    for seed in 0..3 {
        let (judge, a, b) = alike(seed);
        must_pass(run_with(judge, &a, &b, STEPS));
    }
}

#[test]
fn the_model_tells_all_that_changes() {
    for seed in 0..3 {
        let (mut judge, a, b) = alike(seed);
        must_pass(judge.step(&a, &b));
        let mut mirror = Mirror::new(&b).unwrap();
        for _ in 0..STEPS {
            must_pass(judge.step(&a, &b));
            must_pass(mirror.hear(&b));
            must_pass(mirror.compare(&b));
        }
    }
}

#[test]
fn a_mirror_that_misses_news_is_found_out() {
    let (mut judge, a, b) = alike(0);
    must_pass(judge.step(&a, &b));
    let mirror = Mirror::new(&b).unwrap();
    (0..STEPS).for_each(|_| must_pass(judge.step(&a, &b)));
    mirror.miss();
    assert!(mirror.compare(&b).is_err());
}

#[test]
fn clocks_need_not_be_the_same() {
    let [a, b] = [0, 1].map(|_| Model::new(ROOM, system_clock()));
    must_pass(run(&a, &b, 1, STEPS));
}

#[test]
fn every_fault_is_found() {
    for fault in ALL {
        let found = (0..8).find_map(|seed| {
            let (judge, a, b) = alike(seed);
            let b = Faulty::new(b, fault);
            run_with(judge, &a, &b, STEPS).err()
        });
        assert!(found.is_some(), "{fault:?} was not found");
    }
}

/// By what they are, not by the times that they leave.
#[test]
fn faults_are_found_without_a_common_clock() {
    for fault in [
        Fault::LosesWrites,
        Fault::HidesChanges,
        Fault::ListsByPosition,
        Fault::CountsOneLink,
        Fault::RoundsTimes,
    ] {
        let found = (0..8).find_map(|seed| {
            let [a, b] = [0, 1].map(|_| Model::new(ROOM, system_clock()));
            run(&a, &Faulty::new(b, fault), seed, STEPS).err()
        });
        assert!(found.is_some(), "{fault:?} was not found");
    }
}

#[test]
fn a_failure_shows_its_seed_and_what_came_before() {
    let (judge, a, b) = alike(5);
    let b = Faulty::new(b, Fault::CountsOneLink);
    let reason = run_with(judge, &a, &b, 8 * STEPS).unwrap_err();
    assert!(
        reason.contains("both sides differ in links") && reason.contains("seed 5, step ") && reason.contains("Link("),
        "{reason}"
    );
}

#[test]
fn the_same_seed_does_the_same() {
    let trace = || {
        let (mut judge, a, b) = alike(9);
        (0..300).for_each(|_| must_pass(judge.step(&a, &b)));
        judge.trace
    };
    assert_eq!(trace(), trace());
}

/// As after a crash that lost what was not synced: the judge and the model go back together.
#[test]
fn a_copy_judges_an_earlier_state() {
    let (mut judge, a, b) = alike(3);
    (0..500).for_each(|_| must_pass(judge.step(&a, &b)));
    let (mut before, past, survived) = (judge.clone(), a.fork(), b.fork());
    (0..500).for_each(|_| must_pass(judge.step(&a, &b)));
    before.close_all(&[(Side::A, &past), (Side::B, &survived)]);
    must_pass(before.compare(&past, &survived));
    must_pass(run_with(before, &past, &survived, 300));
    assert!(judge.clone().compare(&a, &survived).is_err());
}

/// What the judge is to find must come up at all.
#[test]
fn it_reaches_every_outcome() {
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for seed in 0..20 {
        let (mut judge, a, b) = alike(seed);
        (0..2 * STEPS).for_each(|_| must_pass(judge.step(&a, &b)));
        judge
            .coverage()
            .iter()
            .for_each(|(outcome, count)| *seen.entry(outcome.clone()).or_default() += count);
    }
    for (verb, errnos) in EXPECTED {
        let outcomes = errnos.iter().map(|errno| format!("{verb}: {errno}")).chain([format!("{verb}: ok")]);
        for outcome in outcomes {
            assert!(seen.contains_key(&outcome), "{outcome} never came up: {seen:#?}");
        }
    }
}

use Errno as E;

const EXPECTED: [(&str, &[Errno]); 26] = [
    ("Lookup", &[E::NOENT, E::INVAL]),
    ("Parent", &[]),
    ("Stat", &[]),
    ("Change", &[E::STALE, E::ISDIR, E::INVAL, E::FBIG]),
    ("Create", &[E::EXIST, E::PERM, E::INVAL, E::NAMETOOLONG]),
    ("Create", &[E::NOTDIR, E::STALE, E::NOENT]),
    ("CreateUnnamed", &[E::PERM]),
    ("Link", &[E::EXIST, E::PERM, E::XDEV, E::STALE, E::INVAL]),
    ("Unlink", &[E::NOENT, E::ISDIR]),
    ("RemoveDirectory", &[E::NOTDIR, E::NOTEMPTY]),
    ("Rename", &[E::NOENT, E::EXIST, E::XDEV, E::PERM]),
    ("Rename", &[E::INVAL, E::NOTEMPTY, E::ISDIR, E::NOTDIR]),
    ("ReadLink", &[E::INVAL]),
    ("Open", &[]),
    ("Close", &[]),
    ("Read", &[E::ISDIR]),
    ("Write", &[E::ISDIR, E::INVAL, E::FBIG, E::STALE]),
    ("Append", &[E::ISDIR]),
    ("Allocate", &[E::INVAL, E::ISDIR, E::FBIG]),
    ("Copy", &[E::INVAL, E::ISDIR]),
    ("SetXattr", &[E::EXIST, E::NODATA, E::NOSPC, E::INVAL, E::ACCESS]),
    ("Xattr", &[E::NODATA]),
    ("RemoveXattr", &[E::NODATA]),
    ("Seek", &[]),
    ("GoOn", &[]),
    ("Statistics", &[]),
];
