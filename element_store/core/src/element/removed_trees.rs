//! Trees that lost their name whole: what lies in them is removed step by step, as a user would.
//!
//! Owns the rows of work of kind TREE, one for each root of such a tree. Invariants: a step goes down to a directory without directories, so it needs to know
//! nothing of the one before; a root is removed last, and its row of work with it. A space that is left is dropped whole, with the trees in it.

use super::namespace::detach;
use super::rows::{ElementRow, EntryRow, Kind};
use super::snapshot_work::{self, Step, TREE, Tally, Work};
use super::snapshots::abandon;
use super::transaction::Transaction;
use super::{Rows, directory, keys, path};
use crate::error::Result;

/// The directory has no name any more, and gets no entries any more.
pub(super) fn add(tx: &mut Transaction, root: u64) -> Result<()> {
    let row = ElementRow {
        links: 0,
        ..path::element(tx, root)?
    };
    tx.put_element(root, row)?;
    snapshot_work::add(tx, TREE, keys::space_of(root), root)
}

/// Entries of the tree that are left, at most about `limit`, and the content of its files.
pub(super) fn backlog(rows: &dyn Rows, root: u64, limit: usize) -> Result<Tally> {
    let mut left = Tally { rows: 1, bytes: 0 };
    let mut directories = vec![root];
    while let Some(at) = directories.pop() {
        let (from, to) = keys::span(keys::ENTRY, at);
        for row in rows.range(&from, &to, false).take(limit.saturating_sub(left.rows as usize)) {
            let entry = EntryRow::decode(&row?.1)?;
            left.rows += 1;
            left.bytes += bytes_of(rows, &entry)?;
            if entry.kind == Kind::Directory && keys::space_of(entry.element) == keys::space_of(root) {
                directories.push(entry.element);
            }
        }
    }
    Ok(left)
}

fn bytes_of(rows: &dyn Rows, entry: &EntryRow) -> Result<u64> {
    Ok(match entry.kind {
        Kind::File => path::element(rows, entry.element)?.size,
        _ => 0,
    })
}

pub(super) fn step(tx: &mut Transaction, work: &Work, limit: usize, bytes_max: usize, done: &mut Tally) -> Result<Step> {
    let root = work.epoch;
    if tx.spaces().get(work.space).is_none_or(|space| space.row.is_left) {
        return Ok(Step::Done);
    }
    // Where to look, and what of the root was looked at last: before that are deletions only.
    let (mut at, mut from) = (root, work.after.clone());
    for _ in 0..limit {
        if tx.encoded_bytes_max() >= bytes_max {
            break;
        }
        match first(tx, at, &from)? {
            Some((_, entry)) if is_directory_of(&entry, at) => (at, from) = (entry.element, Vec::new()),
            Some((name, entry)) => {
                done.add(Tally {
                    rows: 1,
                    bytes: bytes_of(tx, &entry)?,
                });
                remove(tx, at, &name, &entry)?;
                from = name;
            }
            None if !from.is_empty() => from = Vec::new(),
            None => {
                done.rows += 1;
                let row = path::element(tx, at)?;
                if at == root {
                    detach(tx, root, &row)?;
                    return Ok(Step::Done);
                }
                directory::leave(tx, row.parent, &row.detail)?;
                detach(tx, at, &row)?;
                (at, from) = (row.parent, row.detail);
            }
        }
    }
    match at == root {
        true => snapshot_work::go_on_after(tx, work, &from),
        false => Ok(Step::More),
    }
}

fn is_directory_of(entry: &EntryRow, directory: u64) -> bool {
    entry.kind == Kind::Directory && keys::space_of(entry.element) == keys::space_of(directory)
}

/// The first entry after a name; empty: of all.
fn first(rows: &dyn Rows, directory: u64, after: &[u8]) -> Result<Option<(Vec<u8>, EntryRow)>> {
    let (mut from, to) = keys::span(keys::ENTRY, directory);
    let prefix = from.len();
    if !after.is_empty() {
        from.extend_from_slice(after);
        from.push(0);
    }
    let row = rows.range(&from, &to, false).next().transpose()?;
    row.map(|(key, value)| Ok((key[prefix..].to_vec(), EntryRow::decode(&value)?)))
        .transpose()
}

/// Something that is no directory of this space.
fn remove(tx: &mut Transaction, at: u64, name: &[u8], entry: &EntryRow) -> Result<()> {
    directory::leave(tx, at, name)?;
    if entry.kind == Kind::Directory {
        return abandon(tx, keys::space_of(entry.element));
    }
    let row = path::element(tx, entry.element)?;
    detach(tx, entry.element, &row)
}
