use super::rules::{Kind, Register};
use super::*;
use proptest::prelude::*;

const A: HostId = [1; 16];
const B: HostId = [2; 16];
const C: HostId = [3; 16];

fn asker(host: HostId) -> Asker {
    let controller = u16::from(host[0]);
    Asker { host, controller }
}

fn registered(hosts: &[HostId]) -> State {
    let mut state = State::default();
    for host in hosts {
        let key = u64::from(host[0]);
        state.register(asker(*host), Register::Add, false, 0, key, None).unwrap();
    }
    state
}

#[test]
fn each_kind_admits_whom_it_says() {
    // Kind; then for the holder, another registrant, a stranger: may read, may write.
    let table = [
        (1, [(true, true), (true, false), (true, false)]),
        (2, [(true, true), (false, false), (false, false)]),
        (3, [(true, true), (true, true), (true, false)]),
        (4, [(true, true), (true, true), (false, false)]),
        (5, [(true, true), (true, true), (true, false)]),
        (6, [(true, true), (true, true), (false, false)]),
    ];
    for (kind, expected) in table {
        let mut state = registered(&[A, B]);
        state.acquire(asker(A), 1, Kind::new(kind).unwrap()).unwrap();
        for (host, (read, write)) in [A, B, C].iter().zip(expected) {
            assert_eq!(state.permits(host, Need::Read), read, "kind {kind}, {host:?}");
            assert_eq!(state.permits(host, Need::Write), write, "kind {kind}, {host:?}");
        }
    }
}

#[test]
fn keys_are_asked_for() {
    let mut state = registered(&[A, B]);
    let conflict = Err(Status::RESERVATION_CONFLICT);
    let one = Kind::WriteExclusive;
    assert_eq!(state.register(asker(A), Register::Add, false, 0, 9, None), conflict);
    assert_eq!(state.register(asker(A), Register::Replace, false, 7, 9, None), conflict);
    assert_eq!(state.register(asker(C), Register::Replace, true, 7, 9, None), conflict);
    assert_eq!(state.acquire(asker(A), 7, one), conflict);
    assert_eq!(state.acquire(asker(C), 0, one), conflict);
    assert_eq!(state.release(asker(A), 7, one), conflict);
    assert_eq!(state.clear(asker(A), 7), conflict);
    assert_eq!(state.preempt(asker(A), 7, 2, one), conflict);
    assert_eq!(state, registered(&[A, B]));
    state.register(asker(A), Register::Replace, true, 7, 9, None).unwrap();
    assert_eq!(state.acquire(asker(A), 9, one), Ok(vec![]));
    assert_eq!(state.acquire(asker(A), 9, one), Ok(vec![]), "the holder may ask again");
    assert_eq!(state.acquire(asker(A), 9, Kind::ExclusiveAccess), conflict);
    assert_eq!(state.acquire(asker(B), 2, one), conflict);
}

#[test]
fn preempting_takes_over_and_tells() {
    let mut state = registered(&[A, B, C]);
    state.acquire(asker(A), 1, Kind::WriteExclusive).unwrap();
    let notices = state.preempt(asker(B), 2, 1, Kind::WriteExclusiveRegistrants).unwrap();
    assert_eq!(
        notices,
        [
            (A, News::RegistrationPreempted),
            (A, News::ReservationPreempted),
            (C, News::ReservationReleased)
        ]
    );
    assert!(state.holds(&B) && !state.registrants.contains_key(&A) && state.permits(&C, Need::Write));
    let notices = state.preempt(asker(B), 2, 3, Kind::WriteExclusive).unwrap();
    assert_eq!(
        (notices, state.kind),
        (vec![(C, News::RegistrationPreempted)], Some(Kind::WriteExclusiveRegistrants))
    );
}

#[test]
fn preempting_all_registrants() {
    let mut state = registered(&[A, B, C]);
    state.acquire(asker(A), 1, Kind::ExclusiveAccessAll).unwrap();
    state.preempt(asker(C), 3, 0, Kind::ExclusiveAccess).unwrap();
    assert!(state.holds(&C) && state.registrants.len() == 1);
}

#[test]
fn releasing_and_clearing() {
    let mut state = registered(&[A, B]);
    state.acquire(asker(A), 1, Kind::WriteExclusiveRegistrants).unwrap();
    assert_eq!(state.release(asker(B), 2, Kind::WriteExclusiveRegistrants), Ok(vec![]));
    assert_eq!(state.release(asker(A), 1, Kind::WriteExclusive), Err(Status::INVALID_FIELD));
    let released = vec![(B, News::ReservationReleased)];
    assert_eq!(state.release(asker(A), 1, Kind::WriteExclusiveRegistrants), Ok(released.clone()));
    state.acquire(asker(A), 1, Kind::WriteExclusiveRegistrants).unwrap();
    assert_eq!(state.register(asker(A), Register::Remove, false, 1, 0, None), Ok(released));
    assert_eq!(state.kind, None);
    assert_eq!(state.clear(asker(B), 2), Ok(vec![]));
    assert!(state.registrants.is_empty());
}

#[test]
fn only_what_persists_is_kept_and_a_failure_changes_nothing() {
    let reservations = Reservations::load(None).unwrap();
    let mut kept = Vec::new();
    let mut step = |persists: Option<bool>, fails: bool| {
        let mut keep = |record: Option<Vec<u8>>| {
            kept.push(record.is_some());
            if fails { Err(BlockError::OutOfSpace) } else { Ok(()) }
        };
        reservations.change(&mut keep, |state| state.register(asker(A), Register::Add, false, 0, 1, persists))
    };
    step(None, false).unwrap();
    assert_eq!(step(Some(true), true), Err(Status::CAPACITY_EXCEEDED));
    step(Some(true), false).unwrap();
    step(Some(false), false).unwrap();
    step(None, false).unwrap();
    assert_eq!(kept, [true, true, false]);
    assert_eq!(reservations.state().generation, 4);
}

proptest! {
    #[test]
    fn whatever_is_done_the_state_is_sound(steps in proptest::collection::vec((0..6, 1..4_u8, 0..4_u64, 0..4_u64, 1..7_u8, any::<bool>()), 0..60)) {
        let mut state = State::default();
        for (step, host, key, other, kind, flag) in steps {
            let (asker, kind) = (asker([host; 16]), Kind::new(kind).unwrap());
            let actions = [Register::Add, Register::Remove, Register::Replace];
            let before = state.clone();
            let result = match step {
                0 | 1 => state.register(asker, actions[other as usize % 3], flag, key, other, Some(flag)),
                2 => state.acquire(asker, key, kind),
                3 => state.preempt(asker, key, other, kind),
                4 => state.release(asker, key, kind),
                _ => state.clear(asker, key),
            };
            prop_assert!(state.is_sound());
            if result.is_err() {
                prop_assert_eq!(&before, &state);
            }
            prop_assert_eq!(record::decode(&record::encode(&State { persists: true, ..state.clone() })).unwrap(), State { persists: true, ..state.clone() });
        }
    }
}
