//! Restores in place: what a snapshot shows takes the place of what is there now, which is kept as another snapshot.
//!
//! A space's root (a view, a clone) gives its name to a clone that belongs to the same line; the space is left. Anything else gives its name to a clone with
//! a line of its own inside the space, and is given up as if it had been removed: a directory's tree step by step (`removed_trees`). Invariants: each is
//! one transaction, whatever it holds; a volume goes on as what the snapshot has of it, or is none any more; nothing that a host has is replaced.

#[cfg(test)]
use super::faults::Fault;
use super::file_names::{keep_history, succeed};
use super::rows::{ElementRow, Kind};
use super::snapshot_paths::{self, Place};
use super::snapshots::{self, Lines, Part, Request, SnapshotInfo, UPLOADS_MAX, abandon, enter_root, image_parts, spawn, take};
use super::space::SpaceRow;
use super::transaction::Transaction;
use super::{keys, path, removed_trees, volumes};
use crate::error::{Error, Result};
use crate::filesystem::Errno;
use std::collections::BTreeMap;

/// What lies at a place is again what a snapshot shows there; what it was is kept. `undo.path` is the place's path. Returns what keeps it, and the new
/// element. Raises Invalid, NotFound("snapshot"), Conflict.
pub fn restore(tx: &mut Transaction, place: &Place, name: &str, undo: &Request) -> Result<(SnapshotInfo, u64)> {
    let space = keys::space_of(place.element);
    let now = tx.spaces().known(space)?.row.clone();
    if now.root == place.element {
        match snapshots::get(tx, now.lineage, name) {
            Ok(info) if keys::number_of(info.row.root) == keys::number_of(place.element) => {
                return restore_root(tx, place, &now, &info, undo);
            }
            Ok(_) if place.directory == keys::ROOT => {
                return Err(Error::Invalid("that snapshot is of a part only: restore or clone that part".into()));
            }
            Err(error) if place.directory == keys::ROOT || !matches!(error, Error::NotFound(_)) => return Err(error),
            _ => {}
        }
    }
    restore_part(tx, place, name, undo)
}

fn restore_root(tx: &mut Transaction, place: &Place, now: &SpaceRow, info: &SnapshotInfo, undo: &Request) -> Result<(SnapshotInfo, u64)> {
    let kept = take(tx, place.element, undo)?;
    let parts = image_parts(tx, info.row.root)?;
    let row = path::element(tx, info.row.root)?;
    let ids = spawn(tx, &parts, now.parent, false, Lines::Kept)?;
    let root = keys::in_space(place.element, ids[0]);
    move_uploads(tx, place.element, root)?;
    enter_root(tx, root, row, place.directory, &place.spelled, true)?;
    volumes::restored(tx, &by_lineage(&parts, &ids), None)?;
    abandon(tx, keys::space_of(place.element))?;
    Ok((kept, root))
}

/// The new spaces by the lines of those that they replace.
fn by_lineage(parts: &[Part], ids: &[u64]) -> BTreeMap<u64, u64> {
    parts.iter().zip(ids).map(|(part, id)| (part.lineage, *id)).collect()
}

fn restore_part(tx: &mut Transaction, place: &Place, name: &str, undo: &Request) -> Result<(SnapshotInfo, u64)> {
    let seen = snapshot_paths::seen_at(tx, &undo.path, name)?;
    let (row, old) = (path::element(tx, seen)?, path::element(tx, place.element)?);
    check_kinds(&row, &old)?;
    tx.check_writable(place.directory)?;
    if old.kind == Kind::Directory {
        keep_history(tx, place.directory, &place.spelled).map_err(|error| match error {
            Error::File(Errno::XDEV) => {
                Error::Conflict("keys in it have versions, which a restore would lose: copy out of the snapshot".into())
            }
            error => error,
        })?;
    }
    let kept = take(tx, place.element, undo)?;
    let mut parts = image_parts(tx, seen)?;
    parts[0].root = keys::in_space(seen, parts[0].origin.space);
    let ids = spawn(tx, &parts, keys::space_of(place.directory), false, Lines::NewInPlace)?;
    let root = keys::in_space(seen, ids[0]);
    enter_root(tx, root, row, place.directory, &place.spelled, true)?;
    // Before anything is given up: a volume must have been led on by then.
    volumes::restored(tx, &by_lineage(&parts, &ids), Some(place.element))?;
    #[cfg(test)]
    let kept = match is_late(tx, old.kind) {
        true => take_late(tx, root, undo, &kept)?,
        false => kept,
    };
    #[cfg(test)]
    if leaves(tx, old.kind) {
        return Ok((kept, root));
    }
    give_up(tx, place, root)?;
    Ok((kept, root))
}

/// Faults that a test asked for.
#[cfg(test)]
fn leaves(tx: &Transaction, kind: Kind) -> bool {
    match kind {
        Kind::Directory => tx.has_fault(Fault::RestoreLeavesDirectory),
        _ => tx.has_fault(Fault::RestoreLeavesFile),
    }
}

#[cfg(test)]
fn is_late(tx: &Transaction, kind: Kind) -> bool {
    match kind {
        Kind::Directory => tx.has_fault(Fault::RestoreKeepsDirectoryLate),
        _ => tx.has_fault(Fault::RestoreKeepsFileLate),
    }
}

#[cfg(test)]
fn take_late(tx: &mut Transaction, root: u64, undo: &Request, kept: &SnapshotInfo) -> Result<SnapshotInfo> {
    snapshots::delete(tx, kept.lineage, &kept.name)?;
    take(tx, root, undo)
}

fn check_kinds(row: &ElementRow, old: &ElementRow) -> Result<()> {
    if row.kind != old.kind || !matches!(row.kind, Kind::Directory | Kind::File) || row.aside || old.aside {
        return Err(Error::Invalid(
            "only a directory or a file takes the place of another, and both have a path: copy or clone it out of the snapshot".into(),
        ));
    }
    Ok(())
}

/// What lay there has no name any more.
fn give_up(tx: &mut Transaction, place: &Place, root: u64) -> Result<()> {
    let old = place.element;
    let row = path::element(tx, old)?;
    if row.kind == Kind::File {
        let version = succeed(tx, place.directory, &place.spelled, Some(old))?;
        let mut row = path::element(tx, root)?;
        row.version = version;
        return tx.put_element(root, row);
    }
    if tx.root_of(old)? == old {
        return abandon(tx, keys::space_of(old));
    }
    removed_trees::add(tx, old)
}

/// Raises Limit.
fn move_uploads(tx: &mut Transaction, from: u64, to: u64) -> Result<()> {
    let (first, last) = keys::span(keys::UPLOAD, from);
    let uploads = tx.rows_in(&first, &last, UPLOADS_MAX + 1)?;
    if uploads.len() > UPLOADS_MAX {
        return Err(Error::Limit(format!(
            "a view with more than {UPLOADS_MAX} uploads in progress is not restored"
        )));
    }
    for (key, value) in uploads {
        tx.put([&keys::span(keys::UPLOAD, to).0, &key[9..]].concat(), value)?;
        tx.delete(&key)?;
    }
    Ok(())
}
