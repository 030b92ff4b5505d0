//! What paths of files lead to, now and in snapshots.

use super::files::{self, check_name};
use super::snapshots::{self, SnapshotInfo};
use super::{Rows, keys};
use crate::error::{Error, Result};

/// What a path of files leads to: (its directory, how that spells it, the element).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub directory: u64,
    pub spelled: Vec<u8>,
    pub element: u64,
}

fn steps(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect()
}

fn no_path() -> Error {
    Error::NotFound("path".into())
}

fn step(rows: &dyn Rows, directory: u64, name: &[u8]) -> Result<Place> {
    check_name(name).map_err(|_| no_path())?;
    let (element, spelled) = files::find(rows, directory, name)?.ok_or_else(no_path)?;
    Ok(Place {
        directory,
        spelled,
        element,
    })
}

/// Raises NotFound("path").
pub fn resolve(rows: &dyn Rows, path: &[u8]) -> Result<Place> {
    let (mut at, mut found) = (keys::ROOT, None);
    for name in steps(path) {
        let place = step(rows, at, name)?;
        at = place.element;
        found = Some(place);
    }
    found.ok_or_else(no_path)
}

/// What lay at a path when a snapshot of it, or of anything above it, was taken. Raises NotFound("path"), NotFound("snapshot").
fn resolve_at(rows: &dyn Rows, path: &[u8], name: &str) -> Result<u64> {
    let names = steps(path);
    let mut at = keys::ROOT;
    for (depth, name_here) in names.iter().enumerate() {
        at = step(rows, at, name_here)?.element;
        let seen = match snapshots::get_any(rows, at, name) {
            Ok(info) if keys::number_of(info.row.root) == keys::number_of(at) => info.row.root,
            Err(error) if !matches!(error, Error::NotFound(_)) => return Err(error),
            _ => continue,
        };
        return names[depth + 1..]
            .iter()
            .try_fold(seen, |at, name| Ok(step(rows, at, name)?.element));
    }
    Err(Error::NotFound("snapshot".into()))
}

/// What a snapshot shows at a path, also if nothing is there now but a snapshot was taken of just that. Raises NotFound("path"), NotFound("snapshot").
pub fn seen_at(rows: &dyn Rows, path: &[u8], name: &str) -> Result<u64> {
    match resolve_at(rows, path, name) {
        Err(Error::NotFound(what)) => taken_of(rows, path, name)?.map(|info| info.row.root).ok_or(Error::NotFound(what)),
        found => found,
    }
}

/// A snapshot that was taken of what was called so.
fn taken_of(rows: &dyn Rows, path: &[u8], name: &str) -> Result<Option<SnapshotInfo>> {
    let past = snapshots::list(rows, None)?;
    Ok(past
        .into_iter()
        .find(|info| info.name == name && steps(&info.row.path) == steps(path)))
}

/// Found by what lies at the path, or by what lay there once. Raises NotFound("snapshot").
pub fn find(rows: &dyn Rows, path: &[u8], name: &str) -> Result<SnapshotInfo> {
    let here = resolve(rows, path).and_then(|place| snapshots::get_any(rows, place.element, name));
    match here {
        Err(Error::NotFound(_)) => taken_of(rows, path, name)?.ok_or_else(|| Error::NotFound("snapshot".into())),
        found => found,
    }
}
