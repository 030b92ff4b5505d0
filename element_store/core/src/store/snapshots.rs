//! Snapshots and clones of the store: the calls. `snapshot_jobs` does what they leave to be done.
//!
//! Each call is one durable transaction: everything that was acknowledged before it, by any face, is in the snapshot, as lazy changes come before it in
//! the journal.

use super::{Store, wait};
use crate::element::restore;
use crate::element::snapshot_paths;
use crate::element::snapshot_work::{self, Held};
use crate::element::snapshots::{self, Removed, Request, SnapshotInfo};
use crate::element::space::{Origin, Space};
use crate::element::split;
use crate::element::transaction::Transaction;
use crate::element::{Rows, keys};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// Rows of one space in a change that makes it.
const SPACE_BYTES: usize = 768;
/// Names, paths and a root with all its attributes.
const CHANGE_BYTES: usize = 96 * 1024;

/// A snapshot and what depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotEntry {
    pub info: SnapshotInfo,
    /// Where what it was taken of is now; as it was called then, if that is gone.
    pub path: Vec<u8>,
    /// Paths of clones that share its content.
    pub clones: Vec<Vec<u8>>,
}

/// An element's path, if something leads there; a file's is not known from it.
pub(super) fn path_of(rows: &dyn Rows, element: u64) -> Option<Vec<u8>> {
    let (mut at, mut names) = (element, Vec::new());
    while at != keys::ROOT {
        let row = crate::element::path::element(rows, at).ok()?;
        if row.kind != super::Kind::Directory {
            return None;
        }
        names.push(row.detail);
        at = row.parent;
    }
    let path: Vec<u8> = names.iter().rev().flatten().copied().collect();
    Some([b"/", path.strip_suffix(b"/").unwrap_or(&path)].concat())
}

impl Store {
    fn change_spaces<T: Send + 'static>(&self, work: impl FnOnce(&mut Transaction) -> Result<T> + Send + 'static) -> Result<T> {
        // A group is as large as the tree of clones in which it is taken.
        let rows = CHANGE_BYTES + SPACE_BYTES * self.core.committer.shared.spaces().iter().count().min(4096);
        wait(|done| self.core.committer.submit(0, rows, done, work))
    }

    /// Of what lies at a path now. Raises NotFound("path"), Conflict("snapshot"), Invalid.
    pub fn create_snapshot(&self, path: &[u8], name: &str, protected_until_ns: i64) -> Result<SnapshotInfo> {
        let request = Request {
            name: name.to_owned(),
            path: path.to_vec(),
            protected_until_ns,
            is_automatic: false,
        };
        self.change_spaces(move |tx| {
            let place = snapshot_paths::resolve(tx, &request.path)?;
            snapshots::take(tx, place.element, &request)
        })
    }

    /// With `path`: those that show what lies there. Raises NotFound("path").
    pub fn snapshots(&self, path: Option<&[u8]>) -> Result<Vec<SnapshotEntry>> {
        self.look_at_spaces(|view| {
            let infos = match path {
                None => snapshots::list(view, None)?,
                Some(path) => {
                    let lineages = snapshots::lineages_of(view, snapshot_paths::resolve(view, path)?.element)?;
                    let lists = lineages.into_iter().map(|lineage| snapshots::list(view, Some(lineage)));
                    lists.collect::<Result<Vec<_>>>()?.concat()
                }
            };
            let mut roots: BTreeMap<u64, u64> = BTreeMap::new();
            let mut clones: BTreeMap<Origin, Vec<Vec<u8>>> = BTreeMap::new();
            for space in view.spaces().iter().filter(|space| !space.row.is_image && !space.row.is_left) {
                roots.insert(space.row.lineage, space.row.root);
                if let Some(origin) = space.row.origin {
                    let path = path_of(view, space.row.root).unwrap_or_default();
                    clones.entry(origin).or_default().push(path);
                }
            }
            let found = infos.into_iter().map(|info| {
                let image = view.spaces().get(keys::space_of(info.row.root));
                let origin = image.and_then(|image| image.row.origin);
                let space = roots.get(&info.lineage).map_or(0, |root| keys::space_of(*root));
                SnapshotEntry {
                    path: path_of(view, keys::in_space(info.row.root, space)).unwrap_or_else(|| info.row.path.clone()),
                    clones: origin.and_then(|origin| clones.get(&origin).cloned()).unwrap_or_default(),
                    info,
                }
            });
            Ok(found.collect())
        })
    }

    pub(super) fn look_at_spaces<T>(&self, look: impl FnOnce(&crate::element::history::View) -> Result<T>) -> Result<T> {
        self.check_open()?;
        look(&self.core.snapshot())
    }

    /// Found by what lies at the path, or by what lay there once. Raises NotFound("snapshot").
    pub fn snapshot(&self, path: &[u8], name: &str) -> Result<SnapshotInfo> {
        self.look_at_spaces(|view| snapshot_paths::find(view, path, name))
    }

    /// What it alone holds; with `older`, what goes if all older ones go too.
    pub fn snapshot_space(&self, path: &[u8], name: &str, older: bool) -> Result<Held> {
        self.look_at_spaces(|view| {
            let info = snapshot_paths::find(view, path, name)?;
            let image = view.spaces().known(keys::space_of(info.row.root))?;
            let members = image.members.values().filter_map(|id| view.spaces().get(*id));
            let origins: Vec<(&Space, Origin)> = members
                .filter_map(|image| Some((view.spaces().get(image.row.origin?.space)?, image.row.origin?)))
                .collect();
            snapshot_work::held(&view.raw, origins.into_iter(), older)
        })
    }

    /// Raises NotFound("snapshot"), Conflict if it is protected.
    pub fn delete_snapshot(&self, path: &[u8], name: &str) -> Result<Removed> {
        let info = self.snapshot(path, name)?;
        let removed = self.change_spaces(move |tx| snapshots::delete(tx, info.lineage, &info.name))?;
        self.core.wake_upkeep();
        Ok(removed)
    }

    /// Raises NotFound("snapshot").
    pub fn protect_snapshot(&self, path: &[u8], name: &str, until_ns: i64) -> Result<SnapshotInfo> {
        let info = self.snapshot(path, name)?;
        self.change_spaces(move |tx| snapshots::protect(tx, info.lineage, &info.name, until_ns))
    }

    /// Of a path as a snapshot has it, or as it is now. Raises NotFound, Conflict("path"), Invalid.
    pub fn clone_path(&self, source: &[u8], snapshot: Option<&str>, target: &[u8]) -> Result<u64> {
        let (source, snapshot, target) = (source.to_vec(), snapshot.map(str::to_owned), target.to_vec());
        self.change_spaces(move |tx| {
            let element = match &snapshot {
                Some(name) => snapshot_paths::seen_at(tx, &source, name)?,
                None => snapshot_paths::resolve(tx, &source)?.element,
            };
            let (above, name) = split(&target)?;
            let directory = match above.iter().all(|byte| *byte == b'/') {
                true => keys::ROOT,
                false => snapshot_paths::resolve(tx, above)?.element,
            };
            snapshots::clone(tx, element, directory, name)
        })
    }

    /// What lies at a path is again what a snapshot shows there; what it was until now is kept as the snapshot `undo`. Raises NotFound, Conflict, Invalid.
    pub fn restore_snapshot(&self, path: &[u8], name: &str, undo: &str) -> Result<SnapshotInfo> {
        let (name, request) = (
            name.to_owned(),
            Request {
                name: undo.to_owned(),
                path: path.to_vec(),
                protected_until_ns: 0,
                is_automatic: true,
            },
        );
        let kept = self.change_spaces(move |tx| {
            let place = snapshot_paths::resolve(tx, &request.path)?;
            restore::restore(tx, &place, &name, &request)
        })?;
        self.core.wake_upkeep();
        Ok(kept.0)
    }

    /// The clone at a path is to share nothing with the snapshot that it was made of, once a job has given it rows of its own. Raises NotFound, Invalid.
    pub fn split_clone(&self, path: &[u8]) -> Result<()> {
        let path = path.to_vec();
        self.change_spaces(move |tx| split::begin(tx, snapshot_paths::resolve(tx, &path)?.element))?;
        self.core.wake_upkeep();
        Ok(())
    }
}

/// (what is above, name). Raises Invalid.
fn split(path: &[u8]) -> Result<(&[u8], &[u8])> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (above, name) = path.split_at(at);
    if name.is_empty() {
        return Err(Error::Invalid("a clone needs a path of its own".into()));
    }
    Ok((above, name))
}
