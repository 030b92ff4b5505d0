use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const FILE: Inode = 7;

fn owner(owner: u64) -> LockOwner {
    LockOwner { client: owner / 10, owner }
}

fn lock(number: u64, hold: Hold, start: u64, end: u64) -> Lock {
    Lock {
        owner: owner(number),
        hold,
        range: Range::new(start, end).unwrap(),
        process: number as u32,
    }
}

fn shared(number: u64, start: u64, end: u64) -> Lock {
    lock(number, Hold::Shared, start, end)
}

fn exclusive(number: u64, start: u64, end: u64) -> Lock {
    lock(number, Hold::Exclusive, start, end)
}

fn whole(number: u64, hold: Hold) -> Lock {
    Lock {
        range: Range::ALL,
        ..lock(number, hold, 0, 0)
    }
}

fn set(table: &LockTable, wanted: Lock) -> Result<()> {
    table.set(FILE, Family::Posix, &wanted)
}

fn unlock(table: &LockTable, number: u64, start: u64, end: u64) -> Result<()> {
    table.unlock(FILE, Family::Posix, owner(number), Range::new(start, end).unwrap())
}

/// Answers in the order in which they came.
#[derive(Clone, Default)]
struct Answers(Arc<Mutex<Vec<(u64, Result<()>)>>>);

impl Answers {
    fn wait(&self, table: &LockTable, inode: Inode, family: Family, wanted: Lock) -> Option<Waiter> {
        let answers = self.0.clone();
        let answer = move |result| answers.lock().unwrap().push((wanted.owner.owner, result));
        table.wait(inode, family, &wanted, Box::new(answer))
    }

    fn posix(&self, table: &LockTable, wanted: Lock) -> Option<Waiter> {
        self.wait(table, FILE, Family::Posix, wanted)
    }

    fn take(&self) -> Vec<(u64, Result<()>)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

#[test]
fn ranges_are_checked() {
    assert_eq!(Range::new(2, 1), Err(Errno::INVAL));
    assert_eq!(Range::new(1 << 63, u64::MAX), Err(Errno::OVERFLOW));
    assert_eq!(Range::new(0, u64::MAX), Ok(Range::ALL));
    assert_eq!(Range::with_length(0, 0), Ok(Range::ALL));
    assert_eq!(Range::with_length(5, 3), Range::new(5, 7));
    assert_eq!(Range::with_length(5, u64::MAX), Err(Errno::OVERFLOW));
    assert_eq!((Range::ALL.length(), Range::new(5, 7).unwrap().length()), (0, 3));
}

#[test]
fn a_test_shows_who_is_in_the_way() {
    let table = LockTable::default();
    set(&table, shared(1, 10, 19)).unwrap();
    let test = |wanted: Lock| table.test(FILE, Family::Posix, &wanted);
    assert_eq!(test(exclusive(2, 19, 30)), Some(shared(1, 10, 19)));
    assert_eq!(test(exclusive(2, 20, 30)), None);
    assert_eq!(test(shared(2, 0, 100)), None);
    assert_eq!(test(exclusive(1, 0, 100)), None);
    assert_eq!(set(&table, exclusive(2, 0, 10)), Err(Errno::AGAIN));
    assert_eq!(table.set(FILE + 1, Family::Posix, &exclusive(2, 0, 10)), Ok(()));
    assert_eq!(table.set(FILE, Family::Flock, &whole(2, Hold::Exclusive)), Ok(()));
}

#[test]
fn neighbours_merge_and_holes_split() {
    let table = LockTable::default();
    set(&table, shared(1, 0, 9)).unwrap();
    set(&table, shared(1, 20, 29)).unwrap();
    set(&table, shared(1, 10, 19)).unwrap();
    assert_eq!(table.count().0, 1);
    set(&table, exclusive(1, 10, 19)).unwrap();
    assert_eq!(table.count().0, 3);
    set(&table, shared(1, 12, 12)).unwrap();
    assert_eq!(table.count().0, 5);
    unlock(&table, 1, 5, 25).unwrap();
    assert_eq!(table.count().0, 2);
    unlock(&table, 1, 0, u64::MAX).unwrap();
    assert_eq!(table.count().0, 0);
}

#[test]
fn waiters_come_in_order_and_only_those_that_fit() {
    let (table, answers) = (LockTable::default(), Answers::default());
    set(&table, exclusive(1, 0, 99)).unwrap();
    for wanted in [exclusive(2, 0, 9), shared(3, 5, 20), shared(4, 0, 0), exclusive(5, 200, 200)] {
        answers.posix(&table, wanted);
    }
    assert_eq!(answers.take(), [(5, Ok(()))]);
    unlock(&table, 1, 0, 30).unwrap();
    assert_eq!(answers.take(), [(2, Ok(()))]);
    unlock(&table, 2, 0, 9).unwrap();
    assert_eq!(answers.take(), [(3, Ok(())), (4, Ok(()))]);
    assert_eq!(table.count().1, 0);
}

#[test]
fn one_that_then_holds_less_lets_others_in() {
    let (table, answers) = (LockTable::default(), Answers::default());
    set(&table, exclusive(1, 0, 9)).unwrap();
    set(&table, exclusive(2, 20, 20)).unwrap();
    answers.posix(&table, shared(3, 0, 9));
    answers.posix(&table, shared(1, 0, 20));
    unlock(&table, 2, 20, 20).unwrap();
    assert_eq!(answers.take(), [(1, Ok(())), (3, Ok(()))]);
}

#[test]
fn a_wait_can_be_given_up() {
    let (table, answers) = (LockTable::default(), Answers::default());
    set(&table, exclusive(1, 0, 9)).unwrap();
    let waiter = answers.posix(&table, exclusive(2, 0, 9)).unwrap();
    assert!(table.cancel(waiter));
    assert!(!table.cancel(waiter));
    unlock(&table, 1, 0, 9).unwrap();
    assert_eq!(answers.take(), []);
    assert_eq!(table.count(), (0, 0));
}

#[test]
fn circles_are_refused() {
    let (table, answers) = (LockTable::default(), Answers::default());
    for number in 1..=3 {
        table.set(number, Family::Posix, &exclusive(number, 0, 0)).unwrap();
    }
    let wait = |number: u64, inode: Inode| answers.wait(&table, inode, Family::Posix, exclusive(number, 0, 0));
    wait(1, 2);
    wait(2, 3);
    assert_eq!(wait(3, 1), None);
    assert_eq!(answers.take(), [(3, Err(Errno::DEADLK))]);
    table.release(3, Family::Posix, owner(3));
    assert_eq!(answers.take(), [(2, Ok(()))]);
}

#[test]
fn two_readers_that_both_want_to_write_deadlock() {
    let (table, answers) = (LockTable::default(), Answers::default());
    set(&table, shared(1, 0, 9)).unwrap();
    set(&table, shared(2, 0, 9)).unwrap();
    answers.posix(&table, exclusive(1, 0, 9));
    answers.posix(&table, exclusive(2, 0, 9));
    assert_eq!(answers.take(), [(2, Err(Errno::DEADLK))]);
    unlock(&table, 2, 0, 9).unwrap();
    assert_eq!(answers.take(), [(1, Ok(()))]);
}

#[test]
fn a_circle_that_a_grant_closes_is_refused() {
    // Owner 1 has two threads: one waits for 2, the other is granted what 3, for whom 2 waits, wants.
    let (table, answers) = (LockTable::default(), Answers::default());
    table.set(2, Family::Posix, &exclusive(2, 0, 0)).unwrap();
    table.set(3, Family::Posix, &exclusive(3, 0, 0)).unwrap();
    set(&table, shared(4, 0, 9)).unwrap();
    answers.wait(&table, 2, Family::Posix, exclusive(1, 0, 0));
    answers.wait(&table, 3, Family::Posix, exclusive(2, 0, 0));
    answers.posix(&table, exclusive(3, 0, 9));
    assert_eq!(answers.take(), []);
    set(&table, shared(1, 5, 5)).unwrap();
    assert_eq!(answers.take(), [(3, Err(Errno::DEADLK))]);
}

#[test]
fn flock_gives_up_what_it_has_to_change_it() {
    let (table, answers) = (LockTable::default(), Answers::default());
    let flock = |number, hold| answers.wait(&table, FILE, Family::Flock, whole(number, hold));
    flock(1, Hold::Shared);
    flock(2, Hold::Shared);
    flock(1, Hold::Exclusive);
    flock(2, Hold::Exclusive);
    assert_eq!(answers.take(), [(1, Ok(())), (2, Ok(())), (1, Ok(()))]);
    assert_eq!(table.set(FILE, Family::Flock, &whole(3, Hold::Shared)), Err(Errno::AGAIN));
    table.release(FILE, Family::Flock, owner(1));
    assert_eq!(answers.take(), [(2, Ok(()))]);
}

#[test]
fn a_client_goes_as_a_whole() {
    let (table, answers) = (LockTable::default(), Answers::default());
    set(&table, exclusive(11, 0, 0)).unwrap();
    table.set(FILE, Family::Flock, &whole(12, Hold::Exclusive)).unwrap();
    set(&table, exclusive(21, 5, 5)).unwrap();
    answers.posix(&table, exclusive(13, 5, 5));
    answers.posix(&table, exclusive(22, 0, 0));
    table.release_client(1);
    assert_eq!(answers.take(), [(13, Err(Errno::INTR)), (22, Ok(()))]);
    assert_eq!(table.count(), (2, 0));
}

#[test]
fn the_table_is_bounded() {
    let (table, answers) = (LockTable::new(2, 1), Answers::default());
    set(&table, exclusive(1, 0, 9)).unwrap();
    assert_eq!(set(&table, shared(1, 4, 5)), Err(Errno::NOLCK));
    set(&table, exclusive(1, 20, 29)).unwrap();
    assert_eq!(unlock(&table, 1, 4, 5), Err(Errno::NOLCK));
    assert_eq!(set(&table, exclusive(2, 50, 50)), Err(Errno::NOLCK));
    set(&table, exclusive(1, 10, 19)).unwrap();
    unlock(&table, 1, 4, 5).unwrap();
    assert!(answers.posix(&table, exclusive(2, 0, 3)).is_some());
    assert!(answers.posix(&table, exclusive(3, 0, 3)).is_none());
    assert_eq!(answers.take(), [(3, Err(Errno::NOLCK))]);
    table.release(FILE, Family::Posix, owner(1));
    assert_eq!(answers.take(), [(2, Ok(()))]);
}

#[test]
fn an_answer_may_use_the_table() {
    let table = Arc::new(LockTable::default());
    set(&table, exclusive(1, 0, 0)).unwrap();
    let inner = table.clone();
    let answer = move |_| inner.release(FILE, Family::Posix, owner(2));
    table.wait(FILE, Family::Posix, &exclusive(2, 0, 0), Box::new(answer));
    unlock(&table, 1, 0, 0).unwrap();
    assert_eq!(table.count(), (0, 0));
}

/// Who holds each byte of a small file, and how.
#[derive(Default)]
struct Naive {
    bytes: BTreeMap<(u64, u64), Hold>,
}

const BYTES: u64 = 24;

impl Naive {
    fn conflicts(&self, wanted: &Lock) -> bool {
        let inside = |byte: u64| (wanted.range.start..=wanted.range.end).contains(&byte);
        self.bytes.iter().any(|((byte, number), hold)| {
            inside(*byte) && *number != wanted.owner.owner && (wanted.hold == Hold::Exclusive || *hold == Hold::Exclusive)
        })
    }

    fn set(&mut self, wanted: &Lock) -> Result<()> {
        for byte in wanted.range.start..=wanted.range.end {
            self.bytes.insert((byte, wanted.owner.owner), wanted.hold);
        }
        Ok(())
    }

    fn unlock(&mut self, number: u64, range: Range) {
        self.bytes
            .retain(|(byte, held), _| *held != number || !(range.start..=range.end).contains(byte));
    }

    /// Runs of equal bytes, over all owners.
    fn count(&self) -> usize {
        let starts = |((byte, number), hold): (&(u64, u64), &Hold)| {
            byte.checked_sub(1).and_then(|before| self.bytes.get(&(before, *number))) != Some(hold)
        };
        self.bytes.iter().filter(|entry| starts(*entry)).count()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Set(Lock),
    Wait(Lock),
    Unlock(u64, Range),
    Release(u64),
    Cancel(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let range = (0..BYTES, 0..BYTES).prop_map(|(a, b)| Range::new(a.min(b), a.max(b)).unwrap());
    let hold = prop_oneof![Just(Hold::Shared), Just(Hold::Exclusive)];
    let lock = (1..5_u64, hold, range.clone()).prop_map(|(number, hold, range)| Lock {
        range,
        ..lock(number, hold, 0, 0)
    });
    prop_oneof![
        4 => lock.clone().prop_map(Step::Set),
        3 => lock.prop_map(Step::Wait),
        4 => (1..5_u64, range).prop_map(|(number, range)| Step::Unlock(number, range)),
        1 => (1..5_u64).prop_map(Step::Release),
        1 => (0..8_usize).prop_map(Step::Cancel),
    ]
}

/// The naive locks, the waits in their order, and the answers that are expected.
#[derive(Default)]
struct Expected {
    naive: Naive,
    waiting: Vec<(Waiter, Lock)>,
    answers: Vec<(u64, Result<()>)>,
}

impl Expected {
    fn deadlocks(&self, wanted: &Lock) -> bool {
        let blockers = |wanted: &Lock| {
            let numbers = (1..5).filter(|number| *number != wanted.owner.owner);
            let blocks = |number: &u64| {
                let bytes = self.naive.bytes.iter().filter(|((_, held), _)| held == number);
                let bytes = bytes.map(|(key, hold)| (*key, *hold)).collect();
                Naive { bytes }.conflicts(wanted)
            };
            numbers.filter(blocks).collect::<Vec<u64>>()
        };
        let mut reached = blockers(wanted);
        for _ in 0..5 {
            let further = self.waiting.iter().filter(|(_, waiting)| reached.contains(&waiting.owner.owner));
            let further: Vec<u64> = further.flat_map(|(_, waiting)| blockers(waiting)).collect();
            reached.extend(further);
            reached.sort_unstable();
            reached.dedup();
        }
        reached.contains(&wanted.owner.owner)
    }

    fn settle(&mut self) {
        let mut index = 0;
        let mut answered = false;
        while index < self.waiting.len() {
            let wanted = self.waiting[index].1;
            let conflicts = self.naive.conflicts(&wanted);
            if conflicts && !self.deadlocks(&wanted) {
                index += 1;
                continue;
            }
            let result = if conflicts { Err(Errno::DEADLK) } else { self.naive.set(&wanted) };
            self.answers.push((wanted.owner.owner, result));
            self.waiting.remove(index);
            answered = true;
        }
        if answered {
            self.settle();
        }
    }

    fn apply(&mut self, step: &Step, table: &LockTable, answers: &Answers) {
        match step {
            Step::Set(wanted) => {
                let conflicts = self.naive.conflicts(wanted);
                let shown = table.test(FILE, Family::Posix, wanted);
                assert_eq!(shown.is_some(), conflicts);
                assert!(shown.is_none_or(|shown| self.naive.bytes.get(&(shown.range.start, shown.owner.owner)) == Some(&shown.hold)));
                let expected = if conflicts { Err(Errno::AGAIN) } else { self.naive.set(wanted) };
                assert_eq!(set(table, *wanted), expected);
            }
            Step::Wait(wanted) => match (self.naive.conflicts(wanted), answers.posix(table, *wanted)) {
                (true, Some(waiter)) if !self.deadlocks(wanted) => self.waiting.push((waiter, *wanted)),
                (true, None) if self.deadlocks(wanted) => self.answers.push((wanted.owner.owner, Err(Errno::DEADLK))),
                (false, None) => self.answers.push((wanted.owner.owner, self.naive.set(wanted))),
                (conflicts, waiter) => panic!("{wanted:?}: conflicts {conflicts}, {waiter:?}"),
            },
            Step::Unlock(number, range) => {
                self.naive.unlock(*number, *range);
                table.unlock(FILE, Family::Posix, owner(*number), *range).unwrap();
            }
            Step::Release(number) => {
                self.naive.unlock(*number, Range::new(0, BYTES).unwrap());
                table.release(FILE, Family::Posix, owner(*number));
            }
            Step::Cancel(index) => {
                if *index < self.waiting.len() {
                    assert!(table.cancel(self.waiting.remove(*index).0));
                }
            }
        }
        self.settle();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn it_holds_what_a_table_of_bytes_holds(steps in prop::collection::vec(step(), 1..60)) {
        let (table, answers) = (LockTable::default(), Answers::default());
        let mut expected = Expected::default();
        for step in &steps {
            expected.apply(step, &table, &answers);
            prop_assert_eq!(answers.take(), std::mem::take(&mut expected.answers), "{:?}", step);
            prop_assert_eq!(table.count(), (expected.naive.count(), expected.waiting.len()));
        }
    }
}
