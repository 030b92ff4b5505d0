//! Versions of keys: what keys named before, and the delete markers.
//!
//! Invariants: the live tree names the newest version of a key, unless that is a delete marker; all others have a row in the table of versions,
//! sorted by a sequence number that is the version's id, or, of the null version, an id taken when it became history. An element has one name:
//! an entry or a version's row. A key has at most one null version, history included. Views that never had versions have no such rows, and their keys are changed without looking for any.

use super::info::{Condition, ElementInfo, VersionInfo, Versioning};
use super::namespace::{self, check_condition, detach};
use super::rows::{ElementRow, VersionRow};
use super::transaction::Transaction;
use super::{Row, Rows, keys, path, volumes};
use crate::error::{Error, Result};
use crate::meta::prefix_end;

/// The version of content that was written without versioning, or while it was suspended.
pub const NULL: u64 = 0;

/// A row of the table of versions.
#[derive(Debug)]
pub(super) struct Past {
    pub row_key: Vec<u8>,
    pub sequence: u64,
    pub row: VersionRow,
}

impl Past {
    pub fn decode((row_key, value): Row) -> Result<Self> {
        let (_, sequence) = keys::version_of(&row_key).ok_or_else(|| Error::Damaged("a version's key is short".into()))?;
        Ok(Self {
            sequence,
            row: VersionRow::decode(&value)?,
            row_key,
        })
    }

    /// None for a delete marker.
    pub fn element(&self, rows: &dyn Rows) -> Result<Option<(u64, ElementRow)>> {
        let id = self.row.element;
        (id != 0).then(|| Ok((id, path::element(rows, id)?))).transpose()
    }
}

/// The newest version that is not what the key names.
pub(super) fn newest(rows: &dyn Rows, view: u64, key: &[u8]) -> Result<Option<Past>> {
    let from = keys::versions(view, key);
    let first = rows.range(&from, &prefix_end(&from), false).next();
    first.map(|row| Past::decode(row?)).transpose()
}

/// A version that is not what the key names. The null version is looked for one by one.
pub(super) fn past(rows: &dyn Rows, view: u64, key: &[u8], version: u64) -> Result<Option<Past>> {
    if version != NULL {
        let row_key = keys::version(view, key, version);
        let found = rows.get(&row_key)?.map(|value| Past::decode((row_key, value))).transpose()?;
        return Ok(found.filter(|past| past.row.version == version));
    }
    let from = keys::versions(view, key);
    for row in rows.range(&from, &prefix_end(&from), false) {
        let past = Past::decode(row?)?;
        if past.row.version == NULL {
            return Ok(Some(past));
        }
    }
    Ok(None)
}

/// A new version is about to follow what the key names, which becomes history or is given up. Returns the new version's id.
pub(super) fn succeed(tx: &mut Transaction, view: u64, key: &[u8], old: Option<(u64, ElementRow)>, versioning: Versioning) -> Result<u64> {
    let is_outside = |id: u64| keys::space_of(id) != keys::space_of(view);
    let had_null = match &old {
        // What lies in a clone inside the view has no history.
        Some((id, row)) if is_outside(*id) => {
            detach(tx, *id, row)?;
            true
        }
        Some((id, row)) if row.version != NULL || versioning == Versioning::Enabled => {
            keep(tx, view, key, *id, row)?;
            false
        }
        Some((id, row)) => {
            detach(tx, *id, row)?;
            true
        }
        // Also without versioning: a request that knew of none may be under way when it was turned on, and meet a null delete marker.
        None => false,
    };
    if versioning == Versioning::Enabled {
        return Ok(tx.new_id());
    }
    if !had_null {
        give_up_null(tx, view, key)?;
    }
    Ok(NULL)
}

/// What the key named becomes history.
fn keep(tx: &mut Transaction, view: u64, key: &[u8], element: u64, row: &ElementRow) -> Result<()> {
    if volumes::is_volume(tx, element, row)? {
        let plain = volumes::without_name(tx, element, row)?.into_owned();
        tx.put_element(element, plain)?;
    }
    let mut sequence = row.version;
    if sequence == NULL {
        // One may be there if a request that knew of no versioning was under way when it was turned on.
        give_up_null(tx, view, key)?;
        sequence = tx.new_id();
    }
    let row = VersionRow {
        born: 0,
        element,
        version: row.version,
        modified_ns: row.modified_ns,
    };
    tx.put_version(view, key, sequence, row)
}

fn give_up_null(tx: &mut Transaction, view: u64, key: &[u8]) -> Result<()> {
    match past(tx, view, key, NULL)? {
        Some(past) => give_up(tx, &past),
        None => Ok(()),
    }
}

fn give_up(tx: &mut Transaction, past: &Past) -> Result<()> {
    tx.delete(&past.row_key)?;
    match past.element(tx)? {
        Some((id, row)) => detach(tx, id, &row),
        None => Ok(()),
    }
}

/// Sets a delete marker before what the key named; returns its version.
pub(super) fn mark_deleted(
    tx: &mut Transaction,
    view: u64,
    key: &[u8],
    old: Option<(u64, ElementRow)>,
    versioning: Versioning,
) -> Result<u64> {
    let version = succeed(tx, view, key, old, versioning)?;
    if versioning == Versioning::Off {
        give_up_null(tx, view, key)?;
    }
    let sequence = if version == NULL { tx.new_id() } else { version };
    let row = VersionRow {
        born: 0,
        element: 0,
        version,
        modified_ns: tx.now_ns,
    };
    tx.put_version(view, key, sequence, row)?;
    Ok(version)
}

/// Gives up a version that is not what the key names. (Was it there, was it a delete marker)
pub(super) fn remove(tx: &mut Transaction, view: u64, key: &[u8], version: u64, condition: Option<&Condition>) -> Result<(bool, bool)> {
    let Some(past) = past(tx, view, key, version)? else {
        check_condition(condition, None)?;
        return Ok((false, false));
    };
    check_condition(condition, past.element(tx)?.as_ref())?;
    give_up(tx, &past)?;
    Ok((true, past.row.element == 0))
}

/// Takes the newest version out of history, for the key to name it; None if that is a delete marker.
pub(super) fn take_newest(tx: &mut Transaction, view: u64, key: &[u8]) -> Result<Option<u64>> {
    let Some(past) = newest(tx, view, key)?.filter(|past| past.row.element != 0) else {
        return Ok(None);
    };
    tx.delete(&past.row_key)?;
    Ok(Some(past.row.element))
}

pub(super) fn of_element(key: &[u8], id: u64, row: ElementRow, is_latest: bool) -> VersionInfo {
    VersionInfo {
        key: key.to_vec(),
        version: row.version,
        is_latest,
        modified_ns: row.modified_ns,
        element: Some(ElementInfo {
            id,
            key: key.to_vec(),
            row,
            parts: Vec::new(),
        }),
    }
}

pub(super) fn of_past(rows: &dyn Rows, key: &[u8], past: &Past, is_latest: bool) -> Result<VersionInfo> {
    Ok(match past.element(rows)? {
        Some((id, row)) => of_element(key, id, row, is_latest),
        None => VersionInfo {
            key: key.to_vec(),
            version: past.row.version,
            is_latest,
            modified_ns: past.row.modified_ns,
            element: None,
        },
    })
}

/// A version, or the newest one; a delete marker too. Raises NotFound("view"), NotFound("version").
pub fn version(rows: &dyn Rows, view: &str, key: &[u8], version: Option<u64>) -> Result<VersionInfo> {
    let view = path::view_id(rows, view)?;
    let current = namespace::current(rows, &path::walk(rows, view, key)?)?;
    let has_current = current.is_some();
    if let Some((id, row)) = current.filter(|(_, row)| version.is_none_or(|version| row.version == version)) {
        return Ok(of_element(key, id, row, true));
    }
    let found = match version {
        Some(version) => past(rows, view, key, version)?,
        None => newest(rows, view, key)?,
    };
    let found = found.ok_or_else(|| Error::NotFound("version".into()))?;
    let is_latest = !has_current && newest(rows, view, key)?.is_some_and(|newest| newest.sequence == found.sequence);
    of_past(rows, key, &found, is_latest)
}

/// Raises NotFound("view"), NotFound("version"), NotFound("marker").
pub(super) fn lookup(rows: &dyn Rows, view: &str, key: &[u8], wanted: u64) -> Result<(u64, ElementRow)> {
    let found = version(rows, view, key, Some(wanted))?;
    let element = found.element.ok_or_else(|| Error::NotFound("marker".into()))?;
    Ok((element.id, element.row))
}
