//! What snapshots and spaces leave to be freed, step by step.
//!
//! Owns the rows of work. Invariants: a step frees only what no hold sees and nobody reads; it is one transaction and leaves a state in which the
//! work can be begun again from its row; a row goes with the last step.

use super::content::{self, forget_mapping};
use super::history::{TABLES, Versioned};
use super::rows::{MappingRow, born, is_tombstone};
use super::space::{Origin, Space};
use super::transaction::Transaction;
use super::{Rows, keys, removed_trees, split};
use crate::error::{Error, Result};
use std::collections::HashMap;

/// History that only a snapshot saw which is gone.
pub const TRIM: u8 = 0;
/// A space to which nothing leads.
pub const DROP: u8 = 1;
/// A directory to which nothing leads, and what lies below; its element instead of an epoch.
pub const TREE: u8 = 2;
/// A clone that is to share nothing with its origin; its group instead of an epoch.
pub const SPLIT: u8 = 3;

/// One row of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    pub kind: u8,
    pub space: u64,
    pub epoch: u64,
    /// The key that was looked at last, of the dead list, or of the space's rows, or the root's entry; empty: none yet. Of a split: where it is.
    pub(super) after: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    More,
    /// Somebody reads it still.
    Waits,
    Done,
}

/// Rows that were looked at, or are to be, and bytes of content that go with them, as its elements have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub rows: u64,
    pub bytes: u64,
}

impl Tally {
    /// A row of a space or of its history, and whether it goes.
    fn count(&mut self, live: &[u8], value: &[u8], goes: bool) -> Result<()> {
        self.rows += 1;
        if goes && live.first() == Some(&keys::MAPPING) && !is_tombstone(value) {
            self.bytes += u64::from(MappingRow::decode(value)?.length);
        }
        Ok(())
    }

    pub fn less(self, other: Self) -> Self {
        Self {
            rows: self.rows.saturating_sub(other.rows),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    pub fn add(&mut self, other: Self) {
        (self.rows, self.bytes) = (self.rows + other.rows, self.bytes + other.bytes);
    }
}

pub(super) fn add(tx: &mut Transaction, kind: u8, space: u64, epoch: u64) -> Result<()> {
    tx.put(keys::work(kind, space, epoch), Vec::new())
}

/// All there is to do.
pub fn list(rows: &dyn Rows) -> Result<Vec<Work>> {
    let (from, to) = keys::table(keys::WORK);
    let damaged = || Error::Damaged("a row of work is short".into());
    let mut found = Vec::new();
    for row in rows.range(&from, &to, false) {
        let (key, after) = row?;
        let number = |at: usize| key.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
        found.push(Work {
            kind: *key.get(1).ok_or_else(damaged)?,
            space: number(2).ok_or_else(damaged)?,
            epoch: number(10).ok_or_else(damaged)?,
            after,
        });
    }
    Ok(found)
}

/// What the work has to look at still, at most about `limit` rows.
pub fn backlog(rows: Versioned<'_>, work: &Work, limit: usize) -> Result<Tally> {
    match work.kind {
        TRIM => trim_backlog(rows, work, limit),
        TREE => removed_trees::backlog(&rows, work.epoch, limit),
        SPLIT => split::backlog(rows, work, limit),
        _ => drop_backlog(rows.raw, work.space, limit),
    }
}

fn trim_backlog(rows: Versioned<'_>, work: &Work, limit: usize) -> Result<Tally> {
    let mut left = Tally::default();
    let Some(space) = rows.spaces.get(work.space) else {
        return Ok(left);
    };
    let to = match space.holds.range(work.epoch + 1..).next() {
        Some((next, _)) => keys::dead(work.space, next + 1, b""),
        None => keys::span(keys::DEAD, work.space).1,
    };
    for row in rows.raw.range(&dead_from(work), &to, false).take(limit) {
        let (dead, _) = row?;
        let (live, died) = (keys::dead_of(&dead), died(&dead));
        let Some(value) = rows.raw.get(&keys::history(live, died))? else {
            continue;
        };
        let is_seen = space.holds.range(born(&value)?..died).any(|(epoch, _)| *epoch != work.epoch);
        left.count(live, &value, !is_seen)?;
    }
    Ok(left)
}

fn drop_backlog(rows: &dyn Rows, space: u64, limit: usize) -> Result<Tally> {
    let mut left = Tally::default();
    for table in TABLES {
        let (from, to) = keys::space_span(table, space);
        let past = (
            [&[keys::HISTORY], from.as_slice()].concat(),
            [&[keys::HISTORY], to.as_slice()].concat(),
        );
        for (from, to) in [(from, to), past] {
            for row in rows.range(&from, &to, false).take(limit.saturating_sub(left.rows as usize)) {
                let (key, value) = row?;
                left.count(key.strip_prefix(&[keys::HISTORY]).unwrap_or(&key), &value, true)?;
            }
        }
    }
    Ok(left)
}

/// `limit`: rows; a step ends before it writes much more than `bytes_max`. With what was looked at. From where the row of work says now, if it is there still.
pub fn step(tx: &mut Transaction, work: &Work, limit: usize, bytes_max: usize) -> Result<(Step, Tally)> {
    tx.begin_freeing();
    let mut done = Tally::default();
    let Some(after) = tx.raw(&keys::work(work.kind, work.space, work.epoch))? else {
        return Ok((Step::Done, done));
    };
    let work = &Work { after, ..work.clone() };
    let step = match work.kind {
        TRIM => trim(tx, work, limit, bytes_max, &mut done)?,
        TREE => removed_trees::step(tx, work, limit, bytes_max, &mut done)?,
        SPLIT => split::step(tx, work, limit, bytes_max, &mut done)?,
        _ => drop_space(tx, work, limit, bytes_max, &mut done)?,
    };
    if step == Step::Done {
        tx.erase(&keys::work(work.kind, work.space, work.epoch))?;
    }
    Ok((step, done))
}

fn dead_from(work: &Work) -> Vec<u8> {
    let first = keys::dead(work.space, work.epoch + 1, b"");
    if work.after.is_empty() {
        first
    } else {
        [work.after.as_slice(), &[0]].concat()
    }
}

fn trim(tx: &mut Transaction, work: &Work, limit: usize, bytes_max: usize, done: &mut Tally) -> Result<Step> {
    let origin = Origin {
        space: work.space,
        epoch: work.epoch,
    };
    let doomed = tx.spaces().readers_of(work.space);
    let doomed: Vec<u64> = doomed
        .filter(|space| space.is_doomed && space.row.origin == Some(origin))
        .map(|space| space.id)
        .collect();
    if doomed.iter().any(|image| tx.is_in_use(*image)) {
        return Ok(Step::Waits);
    }
    doomed.iter().try_for_each(|image| tx.remove_space(*image))?;
    let Some(space) = tx.spaces().get(work.space).cloned() else {
        return Ok(Step::Done);
    };
    if space.holds.contains_key(&work.epoch) {
        return Ok(Step::Done);
    }
    // What died later is seen by whoever holds the next epoch, or by nobody on account of this one.
    let to = match space.holds.range(work.epoch..).next() {
        Some((next, _)) => keys::dead(work.space, next + 1, b""),
        None => keys::span(keys::DEAD, work.space).1,
    };
    let dead = tx.raw_rows(&dead_from(work), &to, limit)?;
    for (key, _) in &dead {
        bury(tx, &space, key, done)?;
        if tx.encoded_bytes_max() >= bytes_max {
            return go_on_after(tx, work, key);
        }
    }
    match dead.last() {
        Some((last, _)) if dead.len() == limit => go_on_after(tx, work, last),
        _ => Ok(Step::Done),
    }
}

/// Looking at the beginning again would pass by all that was deleted.
pub(super) fn go_on_after(tx: &mut Transaction, work: &Work, last: &[u8]) -> Result<Step> {
    tx.put(keys::work(work.kind, work.space, work.epoch), last.to_vec())?;
    Ok(Step::More)
}

fn died(key: &[u8]) -> u64 {
    keys::ordinal_of(key)
}

/// Takes a row out of history unless somebody sees it.
fn bury(tx: &mut Transaction, space: &Space, dead: &[u8], done: &mut Tally) -> Result<()> {
    let (live, died) = (keys::dead_of(dead), died(dead));
    let key = keys::history(live, died);
    let lost = || Error::Damaged("a dead list names a row that is not there".into());
    let value = tx.raw(&key)?.ok_or_else(lost)?;
    let is_seen = space.is_held(born(&value)?, died);
    done.count(live, &value, !is_seen)?;
    if is_seen {
        return Ok(());
    }
    if live.first() == Some(&keys::MAPPING) {
        forget_mapping(tx, &value)?;
    }
    tx.erase(&key)?;
    tx.erase(dead)
}

fn drop_space(tx: &mut Transaction, work: &Work, limit: usize, bytes_max: usize, done: &mut Tally) -> Result<Step> {
    let id = work.space;
    let Some(space) = tx.spaces().get(id).cloned() else {
        return Ok(Step::Done);
    };
    let (orphans, detached) = (keys::space_span(keys::ORPHAN, id), keys::space_span(keys::DETACHED, id));
    let is_left = |(from, to): (Vec<u8>, Vec<u8>)| tx.range(&from, &to, false).next().is_some();
    if tx.spaces().readers_of(id).next().is_some() || tx.is_in_use(id) || is_left(orphans) || is_left(detached) {
        return Ok(Step::Waits);
    }
    let mut left = limit;
    for (from, to) in ranges_after(id, &work.after) {
        let found = tx.raw_rows(&from, &to, left)?;
        for (key, value) in &found {
            erase_of_space(tx, id, key, value, done)?;
            if tx.encoded_bytes_max() >= bytes_max {
                return go_on_after(tx, work, key);
            }
        }
        left -= found.len();
        if let Some((last, _)) = found.last().filter(|_| left == 0) {
            return go_on_after(tx, work, last);
        }
    }
    if !work.after.is_empty() {
        // It is gone once a look from the beginning finds nothing.
        return go_on_after(tx, work, &[]);
    }
    tx.remove_space(id)?;
    if let Some(origin) = space.row.origin {
        add(tx, TRIM, origin.space, origin.epoch)?;
    }
    Ok(Step::Done)
}

/// All rows of a space: those it has, its history and its dead list, in this order; what comes after a key of one of them, or all.
fn ranges_after(id: u64, after: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let past = |key: &[u8]| [&[keys::HISTORY], key].concat();
    let of_table = |table: u8| {
        let (from, to) = keys::space_span(table, id);
        [(from.clone(), to.clone()), (past(&from), past(&to))]
    };
    let mut all: Vec<_> = TABLES.into_iter().flat_map(of_table).chain([keys::span(keys::DEAD, id)]).collect();
    if let Some(at) = all.iter().position(|(from, to)| from.as_slice() <= after && after < to.as_slice()) {
        all.drain(..at);
        all[0].0 = [after, &[0]].concat();
    }
    all
}

fn erase_of_space(tx: &mut Transaction, id: u64, key: &[u8], value: &[u8], done: &mut Tally) -> Result<()> {
    tx.erase(key)?;
    if key[0] == keys::DEAD {
        return Ok(());
    }
    let live = key.strip_prefix(&[keys::HISTORY]).unwrap_or(key);
    if live[0] == keys::MAPPING {
        forget_mapping(tx, value)?;
    }
    done.count(live, value, true)?;
    // With its row in the dead list, which others may be walking.
    match keys::history_of(key).filter(|_| key[0] == keys::HISTORY) {
        Some((live, died)) => tx.erase(&keys::dead(id, died, live)),
        None => Ok(()),
    }
}

/// What a snapshot alone holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    pub rows: u64,
    /// Of content as its elements have it.
    pub content_bytes: u64,
    /// That its deletion would free, parity left out.
    pub stored_bytes: u64,
}

/// What would be freed if the images of a snapshot went; `older`: and with them all that are older. `rows` are raw. Looks at all that died since.
pub fn held<'s>(rows: &dyn Rows, images: impl Iterator<Item = (&'s Space, Origin)>, older: bool) -> Result<Held> {
    let (mut held, mut extents) = (Held::default(), HashMap::new());
    for (space, origin) in images {
        if !older && space.holds.get(&origin.epoch).is_some_and(|count| *count > 1) {
            continue;
        }
        let before = space.holds.range(..origin.epoch).next_back().map_or(0, |(epoch, _)| *epoch);
        let is_alone = |born: u64| born <= origin.epoch && (older || born > before);
        let mut count = |key: &[u8], value: &[u8]| {
            held.rows += 1;
            if key.first() == Some(&keys::MAPPING) && !is_tombstone(value) {
                let row = MappingRow::decode(value)?;
                held.content_bytes += u64::from(row.length);
                *extents.entry(row.extent).or_insert(0) += 1;
            }
            Ok::<_, Error>(())
        };
        let next = space.holds.range(origin.epoch + 1..).next().map(|(epoch, _)| *epoch);
        let from = keys::dead(space.id, if older { 0 } else { origin.epoch + 1 }, b"");
        let to = next.map_or_else(|| keys::span(keys::DEAD, space.id).1, |next| keys::dead(space.id, next + 1, b""));
        for row in rows.range(&from, &to, false) {
            let (dead, _) = row?;
            let live = keys::dead_of(&dead);
            let value = rows.get(&keys::history(live, died(&dead)))?;
            let value = value.ok_or_else(|| Error::Damaged("a dead list names a row that is not there".into()))?;
            if is_alone(born(&value)?) {
                count(live, &value)?;
            }
        }
        // Nothing leads there: its newest snapshot holds what lives in it too.
        if space.row.is_left && next.is_none() {
            for table in TABLES {
                let (from, to) = keys::space_span(table, space.id);
                for row in rows.range(&from, &to, false) {
                    let (key, value) = row?;
                    if is_alone(born(&value)?) {
                        count(&key, &value)?;
                    }
                }
            }
        }
    }
    held.stored_bytes = content::stored_bytes_of(rows, &extents)?;
    Ok(held)
}
