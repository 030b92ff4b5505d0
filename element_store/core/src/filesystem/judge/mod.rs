//! A judge of file systems: it does the same random things to two of them and says where they part.
//!
//! One is the model, the other what is to be judged. Both must start alike, usually empty, and have room enough: NOSPC is not expected. It
//! compares every answer and every errno, the nodes that an operation touches right after it, and now and then both trees in full. Inode
//! numbers and cookies are each side's own: the judge keeps which stand for each other, that they do so for ever, and that a listing goes
//! on where it was. What holes are is each side's own too, but what one calls a hole must read as zeros. Reading may note an access or not.
//! Where several errors hold, either side may answer another one of them.
//!
//! The same seed does the same things. A judge is a value: a test may keep copies of it, and of the model (`Model::fork`), to judge what a
//! crash left.

mod act;
mod compare;
mod errors;
mod generate;
mod listing;
pub mod mirror;
mod operation;
mod pairs;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::model::Clock;
use super::*;
use crate::device::random::Seeded;
use listing::Names;
use operation::Operation;
use pairs::{Id, Pairs};

/// What is wrong, in words.
pub type Verdict<T = ()> = std::result::Result<T, String>;

/// Operations that a failure shows.
const TRACE_MAX: usize = 30;
/// `run` compares both trees after so many steps.
const COMPARE_STEPS: usize = 64;
/// Where both trees begin.
const VIEWS: [&[u8]; 2] = [b"view-one", b"view-two"];

/// A clock that only the judge moves, so that both sides must show the very same times.
#[derive(Clone)]
pub struct FakeClock(Arc<AtomicI64>);

impl FakeClock {
    pub fn new(now_ns: i64) -> Self {
        Self(Arc::new(AtomicI64::new(now_ns)))
    }

    pub fn clock(&self) -> Clock {
        let time = self.0.clone();
        Arc::new(move || time.load(Ordering::Relaxed))
    }

    pub fn advance(&self, ns: i64) {
        self.0.fetch_add(ns, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    A,
    B,
}

#[derive(Clone)]
pub struct Judge {
    seed: u64,
    random: Seeded,
    clock: Option<FakeClock>,
    pairs: Pairs,
    names: Names,
    /// What the judge holds open, once for each `open`.
    opens: Vec<Id>,
    steps: usize,
    trace: VecDeque<String>,
    coverage: BTreeMap<String, usize>,
}

/// Both sides of everything.
type Both<'f> = [&'f dyn FileSystem; 2];

impl Judge {
    /// Each side has a clock of its own: only whether times move is compared.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            random: Seeded::new(seed),
            clock: None,
            pairs: Pairs::new(),
            names: Names::default(),
            opens: Vec::new(),
            steps: 0,
            trace: VecDeque::new(),
            coverage: BTreeMap::new(),
        }
    }

    /// Both sides tell the time by this clock: times are compared to the nanosecond.
    pub fn with_clock(seed: u64, clock: FakeClock) -> Self {
        let mut judge = Self::new(seed);
        judge.pairs.same_clock = true;
        judge.clock = Some(clock);
        judge
    }

    /// What comes next is drawn anew: of two copies, each may go another way.
    pub fn reseed(&mut self, seed: u64) {
        self.random = Seeded::new(seed);
    }

    /// One operation on both sides.
    pub fn step(&mut self, a: &dyn FileSystem, b: &dyn FileSystem) -> Verdict {
        let both = [a, b];
        let verdict = if self.steps == 0 { self.begin(both) } else { Ok(()) };
        let verdict = verdict.and_then(|()| {
            self.tick();
            let operation = self.generate(both);
            self.act(both, &operation)
        });
        self.steps += 1;
        verdict.map_err(|reason| self.explain(&reason))
    }

    /// Both trees in full, and what is open.
    pub fn compare(&mut self, a: &dyn FileSystem, b: &dyn FileSystem) -> Verdict {
        self.compare_all([a, b])
            .map_err(|reason| self.explain(&format!("comparing both trees: {reason}")))
    }

    /// Somebody else read whatever there is: times of access may differ.
    pub fn note_all_accesses(&mut self) {
        self.pairs.note_all_accesses();
    }

    /// Closes on the sides named whatever the judge holds open. After a side crashed name only the other; before a side is closed, both.
    pub fn close_all(&mut self, sides: &[(Side, &dyn FileSystem)]) {
        for id in std::mem::take(&mut self.opens) {
            for (side, files) in sides {
                files.close(self.pairs.inode(id, *side as usize));
            }
        }
    }

    /// How often each operation had which outcome, as "Rename: ok" or "Rename: File exists (os error 17)".
    pub fn coverage(&self) -> &BTreeMap<String, usize> {
        &self.coverage
    }

    fn begin(&mut self, both: Both<'_>) -> Verdict {
        self.compare_all(both)?;
        for name in VIEWS {
            let name = operation::Name(name.to_vec());
            let (new, owner) = (operation::Make::Directory, Owner { uid: 0, gid: 0 });
            self.tick();
            self.act(both, &Operation::Create(Id::ROOT, name, new, operation::Mode(0o755, 0), owner))?;
        }
        Ok(())
    }

    fn tick(&mut self) {
        if let Some(clock) = &self.clock {
            clock.advance(1 + self.random.below(1_000_000) as i64);
        }
    }

    /// `kind`: of the outcome, for the coverage.
    fn record(&mut self, operation: &Operation, kind: &str, outcome: &str) {
        *self.coverage.entry(format!("{}: {kind}", operation.verb())).or_default() += 1;
        if self.trace.len() == TRACE_MAX {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>6}: {operation:?} -> {outcome}", self.steps));
    }

    fn explain(&self, reason: &str) -> String {
        let trace: Vec<&str> = self.trace.iter().map(String::as_str).collect();
        format!(
            "{reason}\nseed {}, step {}; what came before:\n{}",
            self.seed,
            self.steps,
            trace.join("\n")
        )
    }
}

/// Each side by its own clock.
pub fn run(a: &dyn FileSystem, b: &dyn FileSystem, seed: u64, steps: usize) -> Verdict {
    run_with(Judge::new(seed), a, b, steps)
}

pub fn run_with(mut judge: Judge, a: &dyn FileSystem, b: &dyn FileSystem, steps: usize) -> Verdict {
    for step in 1..=steps {
        judge.step(a, b)?;
        if step % COMPARE_STEPS == 0 {
            judge.compare(a, b)?;
        }
    }
    judge.close_all(&[(Side::A, a), (Side::B, b)]);
    judge.compare(a, b)
}
