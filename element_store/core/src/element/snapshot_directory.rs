//! `.snapshot`, which files find in every directory and no listing shows: the directory as each snapshot has it.
//!
//! It is made up: its inode is the directory's with a bit set; its names are those of the snapshots that show the directory. What is found there is an
//! image's element. A user's own `.snapshot`, which only keys can make, comes first. An image's directories have none.

use super::files::{fail, find, row as any_row};
use super::rows::{Attributes, ElementRow, Kind};
use super::snapshots::{self, DIRECTORY, SnapshotInfo};
use super::{Rows, aside};
use crate::error::{Error, Result};
use crate::filesystem::{Errno, ROOT};

/// Of a `.snapshot`, beside the directory's id.
const INODE_BIT: u64 = 1 << 63;
/// Everyone may look; whose content it is decides what they see there.
const MODE: u32 = 0o555;

pub fn inode_of(directory: u64) -> u64 {
    directory | INODE_BIT
}

/// The directory, if the inode is a `.snapshot`.
pub fn of(inode: u64) -> Option<u64> {
    (inode & INODE_BIT != 0).then_some(inode & !INODE_BIT)
}

/// Is this name in this directory a `.snapshot`?
pub fn is_here(rows: &dyn Rows, directory: u64, name: &[u8]) -> Result<bool> {
    let may_be = name == DIRECTORY && directory != ROOT && of(directory).is_none() && aside::view_of(directory).is_none();
    Ok(may_be && snapshots::lineage_of(rows, directory)?.is_some() && find(rows, directory, name)?.is_none())
}

/// Those of its lines.
fn infos(rows: &dyn Rows, directory: u64) -> Result<Vec<SnapshotInfo>> {
    let lineages = snapshots::lineages_of(rows, directory)?;
    if lineages.is_empty() {
        return fail(Errno::STALE);
    }
    let infos = lineages.into_iter().map(|lineage| snapshots::list(rows, Some(lineage)));
    Ok(infos.collect::<Result<Vec<_>>>()?.concat())
}

/// Those that show the directory, oldest first.
fn all(rows: &dyn Rows, directory: u64) -> Result<Vec<(SnapshotInfo, u64)>> {
    let mut found = Vec::new();
    for info in infos(rows, directory)? {
        if let Some(seen) = snapshots::seen_by(rows, directory, &info)? {
            found.push((info, seen));
        }
    }
    found.sort_by_key(|(info, _)| info.row.group);
    Ok(found)
}

/// Raises ESTALE.
pub fn row(rows: &dyn Rows, inode: u64) -> Result<ElementRow> {
    let directory = inode & !INODE_BIT;
    let above = any_row(rows, directory)?;
    if above.kind != Kind::Directory {
        return fail(Errno::STALE);
    }
    let infos = infos(rows, directory)?;
    let newest = infos.iter().map(|info| info.row.created_ns).max().unwrap_or(above.created_ns);
    let attributes = Attributes {
        mode: MODE,
        xattrs: Default::default(),
        ..above.attributes
    };
    let mut row = ElementRow::new(Kind::Directory, newest, attributes);
    (row.parent, row.detail) = (directory, [DIRECTORY, b"/"].concat());
    row.content_version = 1 + infos.iter().map(|info| info.row.group).max().unwrap_or(0) + infos.len() as u64;
    row.created_ns = above.created_ns;
    Ok(row)
}

/// What a snapshot's name leads to.
pub fn look_up(rows: &dyn Rows, directory: u64, name: &[u8]) -> Result<Option<u64>> {
    let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
    match snapshots::seen_in(rows, directory, name) {
        Ok(seen) => Ok(Some(seen)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// After a cookie, at most `limit`: (cookie, name, element).
pub fn list(rows: &dyn Rows, directory: u64, after: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>, u64)>> {
    let all = all(rows, directory)?.into_iter().filter(|(info, _)| info.row.group > after);
    Ok(all
        .take(limit)
        .map(|(info, seen)| (info.row.group, info.name.into_bytes(), seen))
        .collect())
}
