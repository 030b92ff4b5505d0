//! What snapshots and clones leave to be done: the job that does it, as a part of upkeep, and how far it is.
//!
//! Rows of work say what there is to do, and where to begin again. How much that is is counted once for each (`Progress`), before its first step since the
//! start, and what its steps did is taken off; nobody who asks counts anything.

use super::commit::Rank;
use super::snapshots::path_of;
use super::{Core, Store};
use crate::element::history::View;
use crate::element::keys;
use crate::element::snapshot_work::{self, DROP, SPLIT, Step, TREE, TRIM, Tally, Work};
use crate::error::Result;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Rows that one step of the job looks at, and what it writes at most, but for its last row with its extent's chunks.
const STEP_ROWS: usize = 512;
const STEP_BYTES: usize = 64 * 1024;
/// Of a job, what is counted; one that has more says so until it is that far.
pub const COUNTED_ROWS_MAX: usize = 100_000;

type Key = (u8, u64, u64);

fn key_of(work: &Work) -> Key {
    (work.kind, work.space, work.epoch)
}

#[derive(Debug, Clone, Copy, Default)]
struct Metered {
    total: Tally,
    done: Tally,
}

impl Metered {
    fn left(&self) -> Tally {
        self.total.less(self.done)
    }
}

/// Of the jobs that were begun since the store was opened.
#[derive(Debug, Default)]
pub(super) struct Progress(Mutex<BTreeMap<Key, Metered>>);

impl Progress {
    fn table(&self) -> MutexGuard<'_, BTreeMap<Key, Metered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, work: &Work) -> Option<Metered> {
        self.table().get(&key_of(work)).copied()
    }

    /// Jobs, and what they have left.
    pub fn sum(&self) -> (usize, Tally) {
        let table = self.table();
        let mut left = Tally::default();
        table.values().for_each(|metered| left.add(metered.left()));
        (table.len(), left)
    }
}

/// One thing that is done in the background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub kind: JobKind,
    /// Of what it is about, if something leads there.
    pub path: Vec<u8>,
    pub left: Tally,
    pub total: Tally,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// What a deleted snapshot alone held is freed.
    Free,
    /// A clone that was removed, or what a restore replaced, is freed.
    Drop,
    /// A clone is given rows of its own.
    Split,
}

impl JobKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Drop => "drop",
            Self::Split => "split",
        }
    }
}

/// All that waits to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backlog {
    pub jobs: Vec<Job>,
}

impl Backlog {
    pub fn left(&self) -> Tally {
        let mut left = Tally::default();
        self.jobs.iter().for_each(|job| left.add(job.left));
        left
    }
}

impl Core {
    pub(super) fn work_on_snapshots(&self) -> Result<()> {
        while self.step_on_snapshots(STEP_ROWS)? {}
        Ok(())
    }

    /// One step of each, so that none waits for another. False: none has more to do now.
    pub(super) fn step_on_snapshots(&self, rows: usize) -> Result<bool> {
        let (mut more, all) = (false, snapshot_work::list(&self.committer.meta.snapshot())?);
        for work in all {
            if self.wants_checkpoint() {
                self.checkpoint()?;
                self.reclaim();
            }
            self.begin_metering(&work)?;
            let key = key_of(&work);
            let (step, done) = self.committer.run_own(Rank::Own, 2 * STEP_BYTES, move |tx| {
                snapshot_work::step(tx, &work, rows, STEP_BYTES)
            })?;
            self.meter(key, step, done);
            more |= step == Step::More;
        }
        Ok(more)
    }

    /// A space whose snapshots are still there waits for them: nothing of it is to be freed yet.
    fn waits(view: &View, work: &Work) -> bool {
        work.kind == DROP && view.spaces().readers_of(work.space).next().is_some()
    }

    fn begin_metering(&self, work: &Work) -> Result<()> {
        let known = self.snapshot_progress.of(work);
        if known.is_some_and(|known| known.left().rows > 0) {
            return Ok(());
        }
        let view = self.snapshot();
        if Self::waits(&view, work) {
            return Ok(());
        }
        // Also of one that has more than was counted.
        let left = snapshot_work::backlog(view.versioned(), work, COUNTED_ROWS_MAX)?;
        let done = known.map(|known| known.done).unwrap_or_default();
        let mut total = done;
        total.add(left);
        self.snapshot_progress.table().insert(key_of(work), Metered { total, done });
        Ok(())
    }

    fn meter(&self, key: Key, step: Step, done: Tally) {
        let mut table = self.snapshot_progress.table();
        match step {
            Step::Done => drop(table.remove(&key)),
            _ => {
                table.entry(key).and_modify(|metered| metered.done.add(done));
            }
        }
    }
}

fn kind_of(work: &Work) -> JobKind {
    match work.kind {
        TRIM => JobKind::Free,
        SPLIT => JobKind::Split,
        _ => JobKind::Drop,
    }
}

impl Store {
    /// What deleted snapshots and clones left to be freed, and which clones are being split. A job that was not begun is counted here.
    pub fn snapshot_backlog(&self) -> Result<Backlog> {
        self.look_at_spaces(|view| {
            let mut backlog = Backlog::default();
            for work in snapshot_work::list(&view.raw)?.into_iter().filter(|work| !Core::waits(view, work)) {
                let metered = match self.core.snapshot_progress.of(&work) {
                    Some(metered) => metered,
                    None => Metered {
                        total: snapshot_work::backlog(view.versioned(), &work, COUNTED_ROWS_MAX)?,
                        done: Tally::default(),
                    },
                };
                let root = match work.kind {
                    TREE => work.epoch,
                    _ => view.spaces().get(work.space).map_or(keys::ROOT, |space| space.row.root),
                };
                backlog.jobs.push(Job {
                    kind: kind_of(&work),
                    path: path_of(view, root).unwrap_or_default(),
                    left: metered.left(),
                    total: metered.total,
                });
            }
            Ok(backlog)
        })
    }
}
