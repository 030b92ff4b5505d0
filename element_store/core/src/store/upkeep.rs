//! What goes on in the background: the metadata tree's compaction, checkpoints, freeing, the reducer's pace, the devices' health.
//!
//! Two threads: `upkeep` (must never wait for users' changes: they wait for it) and `reducer` (may be slow). Invariants: a segment is
//! released only after the commit that drops its row, while nothing counts in it and nobody holds it; journal bytes are given back only after a
//! root is durable that does not need them; both are reused only once no reader is left that could know them.

use super::commit::Rank;
use super::merge::HOT;
use super::reduce::Fragments;
use super::root::{self, Root};
use super::tables::{SegmentSink, segments_of};
use super::{Core, Reclaim};
use crate::element::history::View;
use crate::element::{Rows, keys, namespace};
use crate::error::{Error, Result};
use crate::journal::Start;
use crate::meta::checkpoint::{Manifest, export};
use crate::segment::{Class, SegmentLayout};
use std::collections::HashSet;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(200);
/// Of the devices' health, and of what hosts wrote to volumes.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// Changes are checkpointed at least so often.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);
/// Parts of the journal in use, of 100: from the first on the reducer empties it without regard to users, from the second on a checkpoint is made.
const REDUCE_PERCENT: u64 = 25;
const CHECKPOINT_PERCENT: u64 = 40;
/// Landed content is left alone for at least a tick, and longer while users are busy: more than so many changes, or bytes landed in segments, since the reducer looked.
const IDLE_CHANGES: u64 = 8;
const IDLE_LANDED_BYTES: u64 = 1 << 20;
/// Of the space for users; while less is free, landed content is reduced whether users rest or not.
const FILLING_PERCENT: u64 = 40;
/// Between walks over all chunks for references that outlive their use.
const TEND_INTERVAL: Duration = Duration::from_secs(600);
/// Of each tick, what deeper encoding of cold content may take: a quarter of one processor.
const DEEPEN_SLICE: Duration = Duration::from_millis(50);
/// Mappings given back in one transaction.
const FREE_MAPPINGS: usize = 512;
/// A table segment that is live to less than one part in this many is rewritten.
const SPARSE_SHARE: u64 = 4;

/// What the next checkpoint builds on.
pub struct Checkpointed {
    pub manifest: Manifest,
    pub generation: u64,
    pub start: Start,
    pub keep_from: u64,
    pub at: Instant,
}

#[derive(Default)]
pub struct UpkeepCounters {
    pub checkpoints: AtomicU64,
    pub segments_freed: AtomicU64,
    pub extents_moved: AtomicU64,
    /// Failed steps; the last one is in `Core::trouble`.
    pub failures: AtomicU64,
}

impl Core {
    pub(super) fn wake_upkeep(&self) {
        self.wake.upkeep.notify();
    }

    pub(super) fn run_upkeep(&self) {
        let mut probed = Instant::now();
        let mut unfree = HashSet::new();
        while !self.wake.is_stopped() {
            self.wake.upkeep.wait(TICK);
            if probed.elapsed() >= PROBE_INTERVAL {
                self.pool.probe();
                self.settle_volumes();
                probed = Instant::now();
            }
            let step = self.upkeep_step(&mut unfree);
            self.note(step);
        }
    }

    pub(super) fn upkeep_step(&self, unfree: &mut HashSet<u64>) -> Result<()> {
        self.pool.persist_failures()?;
        while self.engine.maintain()? {}
        self.bury()?;
        self.work_on_snapshots()?;
        self.free_segments(unfree)?;
        if self.wants_checkpoint() {
            self.checkpoint()?;
        }
        self.reclaim();
        Ok(())
    }

    /// A failed step is tried again at the next tick; what failed is shown in the status.
    fn note(&self, step: Result<()>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match step {
            Ok(()) => *trouble = None,
            Err(error) => {
                self.upkeep_counters.failures.fetch_add(1, Ordering::Relaxed);
                let lost = matches!(error, Error::Closed(_));
                *trouble = Some(error.to_string());
                if lost {
                    self.committer.close(&error.to_string());
                }
            }
        }
    }

    /// Gives back what deleted elements held.
    fn bury(&self) -> Result<()> {
        let mut after = 0;
        loop {
            let snapshot = self.committer.meta.snapshot();
            let (_, to) = keys::table(keys::DETACHED);
            if snapshot.range(&keys::detached(after + 1), &to, false).next().is_none() {
                return Ok(());
            }
            drop(snapshot);
            // A long row of deletions must not fill the journal from which only this thread can give back.
            if self.wants_checkpoint() {
                self.checkpoint()?;
                self.reclaim();
            }
            match self
                .committer
                .run_own(Rank::Own, FREE_MAPPINGS * 256, move |tx| namespace::bury(tx, after, FREE_MAPPINGS))?
            {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }

    /// Frees segments in which nothing lives any more. `unfree`: those that were still held when they were looked at.
    fn free_segments(&self, unfree: &mut HashSet<u64>) -> Result<()> {
        unfree.extend(self.committer.take_lessened());
        unfree.extend(self.holds.take_dropped());
        // One under whose first row a device died was never counted by anybody.
        unfree.extend(self.segments.degraded());
        if unfree.is_empty() {
            return Ok(());
        }
        let empty: Vec<u64> = {
            let _none_appends = self.holds.appending.write().unwrap_or_else(PoisonError::into_inner);
            let snapshot = self.committer.meta.snapshot();
            let mut empty = Vec::new();
            for id in std::mem::take(unfree) {
                let known = snapshot.get(&keys::segment(id))?.is_some();
                if !known || snapshot.get(&keys::segment_live(id))?.is_some() {
                    continue;
                }
                if self.holds.is_held(id) || self.segments.is_open(id) {
                    unfree.insert(id);
                } else {
                    empty.push(id);
                }
            }
            empty
        };
        for id in empty {
            self.committer.run_own(Rank::Urgent, 64, move |tx| tx.delete(&keys::segment(id)))?;
            self.guard.defer(Reclaim::Zones(self.segments.release(id)?));
            self.upkeep_counters.segments_freed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) fn reclaim(&self) {
        for item in self.guard.take_ready() {
            match item {
                Reclaim::Zones(token) => self.segments.reclaim(token),
                Reclaim::Journal { start, tail } => self.committer.trim(start, tail),
            }
        }
    }

    pub(super) fn wants_checkpoint(&self) -> bool {
        let (used, capacity) = self.committer.journal_use();
        let last = self.checkpointed.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = self.committer.start_after(u64::MAX).unwrap_or_default();
        // What is landed there holds the journal's tail, whatever a checkpoint says.
        let gain = newest.position.min(self.oldest_landed().1).saturating_sub(last.keep_from);
        let due = last.at.elapsed() >= CHECKPOINT_INTERVAL && newest.position > last.start.position;
        let short = used * 100 >= capacity * CHECKPOINT_PERCENT;
        due || (short && gain * 8 >= capacity) || (gain > 0 && self.wake.pressed[0].load(Ordering::SeqCst))
    }

    /// What is seen now, and the position of the oldest payload that is landed in the journal as far as that is seen; u64::MAX if there is none.
    ///
    /// Positions only rise, so below what one look finds a later one finds nothing, but would pass by all that was there. What was looked at before must be
    /// known before the look begins: an older snapshot may see what a newer one does not.
    pub(super) fn oldest_landed(&self) -> (View, u64) {
        let floor = self.landed_floor.load(Ordering::Acquire);
        let written = self.committer.start_after(u64::MAX).unwrap_or_default().position;
        let seen = self.snapshot();
        let (_, to) = keys::table(keys::LANDED_JOURNAL);
        let first = seen.range(&keys::landed_journal(floor), &to, false).next();
        let oldest = first.map_or(u64::MAX, |row| row.map_or(0, |(key, _)| keys::id_of(&key)));
        // What is in a record that was written by then is seen.
        self.landed_floor.fetch_max(oldest.min(written), Ordering::AcqRel);
        (seen, oldest)
    }

    /// Metadata tables to the devices, then a root that names them, then what only the root before needed is given back.
    pub(super) fn checkpoint(&self) -> Result<()> {
        let mut last = self.checkpointed.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = self.without_sparse(&last.manifest)?;
        let sink = SegmentSink {
            segments: &self.segments,
            wait_durable: |sequence| self.committer.wait_durable(sequence),
        };
        let manifest = export(&self.engine, &previous, &sink)?;
        let start = self
            .committer
            .start_after(manifest.sequence)
            .ok_or_else(|| Error::Damaged("no record is known before the checkpoint".into()))?;
        let (seen, oldest) = self.oldest_landed();
        let keep_from = oldest.min(start.position);
        // A change that gave up payloads may be lazy, and lost: then they are needed again.
        self.committer.wait_durable(seen.sequence())?;
        drop(seen);
        let used = segments_of(&manifest)?;
        let (tables, unused): (Vec<SegmentLayout>, Vec<SegmentLayout>) = self
            .segments
            .layouts()
            .into_iter()
            .filter(|layout| layout.class == Class::Table)
            .partition(|layout| used.contains_key(&layout.id));
        let root = Root {
            pool: self.pool.uuid,
            generation: last.generation + 1,
            membership_epoch: self.pool.membership_epoch(),
            start,
            keep_from,
            segment_id_next: self.segments.next_id(),
            manifest: manifest.clone(),
            tables,
        };
        root::write(&self.pool, &root)?;
        self.wake.pressed[0].store(false, Ordering::SeqCst);
        *last = Checkpointed {
            manifest,
            generation: root.generation,
            start,
            keep_from,
            at: Instant::now(),
        };
        drop(last);
        for layout in unused.iter().filter(|layout| !self.segments.is_open(layout.id)) {
            self.guard.defer(Reclaim::Zones(self.segments.release(layout.id)?));
        }
        self.guard.defer(Reclaim::Journal { start, tail: keep_from });
        self.upkeep_counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Is the segment named by the newest root?
    pub(super) fn is_table_in_use(&self, segment: u64) -> bool {
        let last = self.checkpointed.lock().unwrap_or_else(PoisonError::into_inner);
        segments_of(&last.manifest).map_or(true, |live| live.contains_key(&segment))
    }

    pub(super) fn run_reducer(&self) {
        let (mut mark, mut seen) = (0, self.users_work());
        let mut tended = (Instant::now(), 0);
        while !self.wake.is_stopped() {
            self.wake.reducer.wait(TICK);
            let (begun, bytes) = (Instant::now(), self.reduction_counters.bytes.load(Ordering::Relaxed));
            let step = self.reduce_step(&mut seen, mark, &mut tended);
            let bytes = self.reduction_counters.bytes.load(Ordering::Relaxed) - bytes;
            self.pressure.note_pass(bytes, begun.elapsed(), matches!(step, Ok(true)));
            match &step {
                Err(Error::OutOfSpace(_)) => self.committer.set_pool_full(true),
                Ok(true) => self.committer.set_pool_full(false),
                _ => {}
            }
            self.note(step.map(|_| ()));
            mark = self.committer.start_after(u64::MAX).unwrap_or_default().position;
        }
    }

    /// Changes, and bytes landed in segments, by users so far.
    fn users_work(&self) -> (u64, u64) {
        (
            self.committer.counters.users.load(Ordering::Relaxed),
            self.holds.landed_bytes.load(Ordering::Relaxed),
        )
    }

    /// Did users hardly do anything since they were looked at last?
    fn is_idle(&self, seen: &mut (u64, u64)) -> bool {
        let (now, before) = (self.users_work(), *seen);
        *seen = now;
        now.0 - before.0 <= IDLE_CHANGES && now.1 - before.1 <= IDLE_LANDED_BYTES
    }

    /// `mark`: where the journal ended a tick ago. `tended`: when references were looked at last, and how far. True if something was moved.
    fn reduce_step(&self, seen: &mut (u64, u64), mark: u64, tended: &mut (Instant, u64)) -> Result<bool> {
        let mut idle = self.is_idle(seen);
        let (used, capacity) = self.committer.journal_use();
        let pressed = self.wake.pressed[1].swap(false, Ordering::SeqCst);
        let before = if pressed || used * 100 >= capacity * REDUCE_PERCENT {
            u64::MAX
        } else {
            mark
        };
        let (mut moved, hot_from) = (0, self.hot_from());
        while (idle || before == u64::MAX) && !self.wake.is_stopped() {
            // Where space is short, nothing lands twice.
            let fragments = match before {
                u64::MAX if hot_from != u64::MAX => Fragments::Land,
                _ => Fragments::Merge { hot_from },
            };
            let step = self.reduce_journal(before, fragments)?;
            moved += step;
            self.upkeep_counters.extents_moved.fetch_add(step as u64, Ordering::Relaxed);
            if step == 0 {
                break;
            }
            self.wake_upkeep();
        }
        // Landed segments wait for users to rest, unless the pool fills up with them. If that needs space, compaction may make it.
        idle &= self.is_idle(seen);
        let landed = self.reduce_landed(idle, seen);
        if self.compact()? {
            self.wake_upkeep();
            moved += 1;
        }
        moved += landed?;
        if idle && moved == 0 && tended.0.elapsed() >= TEND_INTERVAL {
            *tended = (Instant::now(), self.tend(tended.1)?.unwrap_or(0));
        } else if idle && moved == 0 {
            self.deepen_slice()?;
        }
        Ok(moved > 0)
    }

    /// Cold content, for a part of a tick, and only while nobody reads or writes.
    fn deepen_slice(&self) -> Result<usize> {
        let work = || (self.users_work(), self.reads.load(Ordering::Relaxed));
        let (begun, before) = (Instant::now(), work());
        self.deepen(|| begun.elapsed() < DEEPEN_SLICE && work() == before && !self.wake.is_stopped())
    }

    /// Extents from this id on were written just now. While the pool is short of space nothing is too new.
    fn hot_from(&self) -> u64 {
        let (now, next) = (self.committer.now_ns(), self.committer.shared.ids.next());
        let mut reducer = self.reducer();
        reducer.ages.note(now, next);
        match self.is_space_short() {
            true => u64::MAX,
            false => reducer.ages.older_than(HOT, now),
        }
    }

    /// Returns how many extents.
    fn reduce_landed(&self, mut idle: bool, seen: &mut (u64, u64)) -> Result<usize> {
        let (_, capacity) = self.committer.journal_use();
        let mut moved = 0;
        while (idle || self.is_filling_up()) && !self.wake.is_stopped() {
            let step = self.reduce_raw(self.hot_from())?;
            moved += step;
            self.upkeep_counters.extents_moved.fetch_add(step as u64, Ordering::Relaxed);
            if step == 0 || self.committer.journal_use().0 * 100 >= capacity * REDUCE_PERCENT {
                break;
            }
            self.wake_upkeep();
            idle &= self.is_idle(seen);
        }
        Ok(moved)
    }

    fn is_filling_up(&self) -> bool {
        let space = self.segments.status();
        space.free_bytes * 100 < space.usable_bytes * FILLING_PERCENT
    }

    /// The manifest without the tables in sparse or degraded segments: the next export writes those anew.
    fn without_sparse(&self, manifest: &Manifest) -> Result<Manifest> {
        let zone_bytes = self.pool.geometry.zone_bytes;
        let degraded = self.segments.degraded();
        let mut kept = manifest.clone();
        let sparse: HashSet<u64> = segments_of(manifest)?
            .into_iter()
            .filter(|(id, live)| degraded.contains(id) || (live * SPARSE_SHARE < zone_bytes && !self.segments.is_open(*id)))
            .map(|(id, _)| id)
            .collect();
        if !sparse.is_empty() {
            kept.tables.clear();
            for table in &manifest.tables {
                let alone = Manifest {
                    tables: vec![table.clone()],
                    ..Manifest::default()
                };
                if segments_of(&alone)?.keys().all(|segment| !sparse.contains(segment)) {
                    kept.tables.push(table.clone());
                }
            }
        }
        Ok(kept)
    }
}
