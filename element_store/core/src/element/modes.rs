//! Which mode of reduction holds for an element: its own mark, else that of the directories above it, else the pool's.
//!
//! The mark is an attribute of files, volumes and directories, views among them, that no face shows. A file's row does not say in which directory it lies,
//! as it may lie in several: so what is made in a directory below a view's root is given the directory's mark, and such a mark holds for what was made since.
//! A view's own holds at once.

use super::history::View;
use super::path;
use super::rows::{Attributes, ElementRow, Kind};
use super::transaction::Transaction;
use super::{Rows, keys};
use crate::error::{Error, Result};
use crate::reduction::Mode;

pub const MARK: &str = "trefoil.reduction";
/// Directories above one another that are asked.
const DEPTH_MAX: usize = 4096;

pub fn own(row: &ElementRow) -> Option<Mode> {
    let name = row.attributes.xattrs.get(MARK)?;
    Mode::from_name(std::str::from_utf8(name).ok()?)
}

/// What is made in a directory has its mark.
pub fn inherit(directory: &ElementRow, attributes: &mut Attributes) {
    if directory.parent != keys::ROOT
        && let Some(mark) = directory.attributes.xattrs.get(MARK)
    {
        attributes.xattrs.insert(MARK.into(), mark.clone());
    }
}

/// None: that of what lies above it holds. Raises Limit.
pub fn set(tx: &mut Transaction, element: u64, mode: Option<Mode>) -> Result<()> {
    let mut row = path::element(tx, element)?;
    let xattrs = &mut row.attributes.xattrs;
    match mode {
        Some(mode) => xattrs.insert(MARK.into(), mode.name().into()),
        None => xattrs.remove(MARK),
    };
    row.attributes.check()?;
    tx.put_element(element, row)
}

/// Directories in a directory.
pub fn directories(rows: &dyn Rows, directory: u64) -> Result<Vec<u64>> {
    let (from, to) = keys::span(keys::ENTRY, directory);
    let mut found = Vec::new();
    for row in rows.range(&from, &to, false) {
        let entry = super::rows::EntryRow::decode(&row?.1)?;
        if entry.kind == Kind::Directory {
            found.push(entry.element);
        }
    }
    Ok(found)
}

/// Of an element or of what lies above it; None: the pool's. What has no row, as parts of uploads, has its view's.
pub fn of(view: &View, element: u64) -> Result<Option<Mode>> {
    let Some(space) = view.spaces().get(keys::space_of(element)) else {
        // Its space is gone, and what landed in it is named by clones.
        return Ok(None);
    };
    let is_there = view.get(&keys::element(element))?.is_some();
    above(view, if is_there { element } else { space.row.root })
}

/// The same, where it is known that the element has a row.
pub fn above(rows: &dyn Rows, element: u64) -> Result<Option<Mode>> {
    let mut at = element;
    for _ in 0..DEPTH_MAX {
        if at == 0 || at == keys::ROOT {
            return Ok(None);
        }
        let row = match path::element(rows, at) {
            Err(Error::NotFound(_) | Error::Damaged(_) | Error::File(_)) => return Ok(None),
            row => row?,
        };
        if let Some(mode) = own(&row) {
            return Ok(Some(mode));
        }
        at = row.parent;
    }
    Ok(None)
}
