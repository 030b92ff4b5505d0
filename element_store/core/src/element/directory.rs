//! Entries of directories: the only code that writes them.
//!
//! Invariants: an entry's cookie is unique in its directory and leads back to its name; a name that stays keeps its cookie, whatever it names; a
//! directory's row knows its parent and counts the directories in it; its times and version follow every change of its entries.

use super::rows::{ElementRow, EntryRow, Kind, plain_bytes};
use super::transaction::Transaction;
use super::{Rows, aside, keys, modes, path, snapshots};
use crate::error::{Error, Result};
use crate::meta::RangeIter;

fn is_directory(name: &[u8]) -> bool {
    name.ends_with(b"/")
}

/// Makes `name` (a directory's ends in `/`) name the element, whatever it named before. The row of a directory that moved here is the caller's.
pub fn enter(tx: &mut Transaction, directory: u64, name: &[u8], element: u64, kind: Kind) -> Result<()> {
    let old = path::entry(tx, directory, name)?;
    let cookie = match &old {
        Some(old) => old.cookie,
        None => {
            let cookie = tx.new_id();
            tx.put_plain(keys::cookie(directory, cookie), name)?;
            cookie
        }
    };
    tx.put_entry(
        directory,
        name,
        EntryRow {
            born: 0,
            element,
            kind,
            cookie,
        },
    )?;
    if old.is_none() && directory != keys::ROOT {
        let row = path::element(tx, directory)?;
        aside::entered(tx, directory, &row, name, cookie)?;
    }
    touch(tx, directory, i32::from(old.is_none() && is_directory(name)))
}

/// Takes the name away. Raises Damaged if it is not there.
pub fn leave(tx: &mut Transaction, directory: u64, name: &[u8]) -> Result<()> {
    let old = path::entry(tx, directory, name)?.ok_or_else(|| Error::Damaged(format!("directory {directory} lost a name")))?;
    if directory != keys::ROOT {
        let row = path::element(tx, directory)?;
        aside::left(tx, directory, &row, name, old.cookie)?;
    }
    tx.delete(&keys::cookie(directory, old.cookie))?;
    tx.delete(&keys::entry(directory, name))?;
    touch(tx, directory, -i32::from(is_directory(name)))
}

/// A directory's entries changed.
fn touch(tx: &mut Transaction, directory: u64, directories: i32) -> Result<()> {
    let mut row = path::element(tx, directory)?;
    row.links = row.links.saturating_add_signed(directories);
    row.content_version += 1;
    (row.modified_ns, row.changed_ns) = (tx.now_ns, tx.now_ns);
    tx.put_element(directory, row)
}

/// A new directory under `name`.
pub fn make(tx: &mut Transaction, parent: u64, name: &[u8], mut row: ElementRow) -> Result<u64> {
    let id = match parent {
        keys::ROOT => snapshots::new_root(tx)?,
        _ => tx.new_element(keys::space_of(parent))?,
    };
    if parent != keys::ROOT {
        let above = path::element(tx, parent)?;
        row.aside = above.aside || aside::is_misfit(&above, name);
        modes::inherit(&above, &mut row.attributes);
    }
    (row.parent, row.detail) = (parent, name.to_vec());
    tx.put_element(id, row)?;
    enter(tx, parent, name, id, Kind::Directory)?;
    Ok(id)
}

/// Has it an entry? `near`: a name that was just taken out; looking on both sides of it passes over as few deleted rows as can be.
pub fn is_empty(rows: &dyn Rows, directory: u64, near: &[u8]) -> Result<bool> {
    let (from, to) = keys::span(keys::ENTRY, directory);
    let middle = keys::entry(directory, near);
    let has = |mut range: RangeIter<'_>| range.next().transpose().map(|row| row.is_some());
    Ok(!has(rows.range(&middle, &to, false))? && !has(rows.range(&from, &middle, true))?)
}

/// Entries after `cookie` in the order of cookies, at most `limit`: (cookie, name, entry).
pub fn list(rows: &dyn Rows, directory: u64, cookie: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>, EntryRow)>> {
    let (_, to) = keys::span(keys::COOKIE, directory);
    let mut found = Vec::new();
    for row in rows
        .range(&keys::cookie(directory, cookie.saturating_add(1)), &to, false)
        .take(limit)
    {
        let (key, value) = row?;
        let name = plain_bytes(&value)?.to_vec();
        let entry = path::entry(rows, directory, &name)?.ok_or_else(|| Error::Damaged(format!("a cookie of {directory} leads nowhere")))?;
        found.push((keys::ordinal_of(&key), name, entry));
    }
    Ok(found)
}
