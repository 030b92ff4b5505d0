//! Snapshots, clones and restores as changes of spaces. `snapshot_work` frees what they leave; `docs/decisions/0009-snapshots.md` says why it is so.
//!
//! Invariants: a snapshot is one group of images with one row for each of them, under the lineage of its origin and the snapshot's name; what is taken,
//! cloned or restored is there in one transaction, whatever it holds; names of a lineage are unique.

use super::file_names::{claim_directory, is_at_or_above, refuse_aside, succeed};
use super::files::{as_directory, check_name, find, growing_row};
use super::rows::{ElementRow, Kind};
use super::snapshot_work;
use super::space::{Origin, SpaceRow};
use super::transaction::Transaction;
use super::{Rows, directory, keys, metadata, namespace, path, volumes};
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};

pub const NAME_BYTES_MAX: usize = 128;
/// Between a bucket's name and a snapshot's in the name of a read-only bucket.
pub const ALIAS: &str = "--at--";
/// Where files find snapshots, in every directory.
pub const DIRECTORY: &[u8] = b".snapshot";
/// Uploads that one restore takes over.
pub const UPLOADS_MAX: usize = 1000;
const LAYOUT: u8 = 1;

/// Of a snapshot, under the lineage of one of its spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRow {
    pub epoch: u64,
    /// The images' group.
    pub group: u64,
    /// What it shows of the lineage, in its image.
    pub root: u64,
    /// The snapshot was taken of this lineage, not of one around it.
    pub is_top: bool,
    /// The store made it before it replaced something.
    pub is_automatic: bool,
    pub created_ns: i64,
    /// Nobody deletes it before.
    pub protected_until_ns: i64,
    /// Of what it was taken, as it was called then.
    pub path: Vec<u8>,
}

impl SnapshotRow {
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(LAYOUT).u8(u8::from(self.is_top) | u8::from(self.is_automatic) << 1);
        writer.varint(self.epoch).varint(self.group).varint(self.root);
        writer.i64(self.created_ns).i64(self.protected_until_ns).blob(&self.path);
        writer.bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != LAYOUT {
            return Err(Error::Damaged("a snapshot's row is of unknown layout".into()));
        }
        let flags = reader.u8()?;
        let row = Self {
            is_top: flags & 1 != 0,
            is_automatic: flags & 2 != 0,
            epoch: reader.varint()?,
            group: reader.varint()?,
            root: reader.varint()?,
            created_ns: reader.i64()?,
            protected_until_ns: reader.i64()?,
            path: reader.blob()?.to_vec(),
        };
        reader.finish()?;
        Ok(row)
    }
}

/// A snapshot as callers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    pub lineage: u64,
    pub name: String,
    pub row: SnapshotRow,
}

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub name: String,
    pub path: Vec<u8>,
    pub protected_until_ns: i64,
    pub is_automatic: bool,
}

/// Raises Invalid.
pub fn check_snapshot_name(name: &str) -> Result<()> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('.') || !name.bytes().all(is_legal) {
        return Err(Error::Invalid(format!(
            "a snapshot's name has 1 to {NAME_BYTES_MAX} letters, digits, dots, colons, dashes and underscores, and no dot first"
        )));
    }
    Ok(())
}

/// A space for a view that is about to be made; returns the id of its root.
pub(super) fn new_root(tx: &mut Transaction) -> Result<u64> {
    let space = tx.spaces().next_ids(1)?[0];
    let root = tx.new_element(space)?;
    let row = SpaceRow {
        root,
        parent: 0,
        origin: None,
        lineage: tx.new_id(),
        group: 0,
        is_image: false,
        is_left: false,
        is_restored: false,
        is_split: false,
        created_ns: tx.now_ns,
    };
    tx.add_spaces(vec![(space, row)])?;
    Ok(root)
}

/// One space that a new group has a member for.
pub(super) struct Part {
    pub origin: Origin,
    /// In the origin's space, as `parent` is a space beside it.
    pub root: u64,
    pub parent: u64,
    pub lineage: u64,
    pub is_restored: bool,
}

/// Whose lines new spaces belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// Those of their origins.
    Kept,
    /// Their own.
    New,
    /// Their own, and the first takes the place of something.
    NewInPlace,
}

/// An element and the spaces of the clones below it, the element's first, as they are now.
fn live_parts(tx: &Transaction, element: u64, epoch: u64) -> Result<Vec<Part>> {
    let space = keys::space_of(element);
    let mut parts = Vec::new();
    for id in tx.spaces().tree(space) {
        let row = &tx.spaces().known(id)?.row;
        if id != space && !is_below(tx, row.root, element)? {
            continue;
        }
        parts.push(Part {
            origin: Origin { space: id, epoch },
            root: if id == space { element } else { row.root },
            parent: row.parent,
            lineage: row.lineage,
            is_restored: row.is_restored,
        });
    }
    Ok(parts)
}

/// Has the root its name at or below an element?
fn is_below(rows: &dyn Rows, root: u64, element: u64) -> Result<bool> {
    is_at_or_above(rows, element, path::element(rows, root)?.parent)
}

/// The image of an element and those of its group that lie below it, as origins for others.
pub(super) fn image_parts(tx: &Transaction, element: u64) -> Result<Vec<Part>> {
    let (spaces, image) = (tx.spaces(), keys::space_of(element));
    let group: Vec<u64> = spaces.known(image)?.members.values().copied().collect();
    let (mut found, mut at) = (vec![image], 0);
    while let Some(above) = found.get(at).copied() {
        for id in &group {
            let row = &spaces.known(*id)?.row;
            if row.parent == above && is_below(tx, row.root, element)? {
                found.push(*id);
            }
        }
        at += 1;
    }
    let origin_of = |id: u64| spaces.get(id).and_then(|space| space.row.origin);
    let part = |id: u64| {
        let row = &spaces.known(id)?.row;
        let origin = row.origin.ok_or_else(|| Error::Damaged("an image has no origin".into()))?;
        Ok(Part {
            origin,
            root: keys::in_space(row.root, origin.space),
            parent: origin_of(row.parent).map_or(0, |origin| origin.space),
            lineage: row.lineage,
            is_restored: row.is_restored,
        })
    };
    found.into_iter().map(part).collect()
}

/// New spaces for all parts; the first is that of the top, whose parent is given.
pub(super) fn spawn(tx: &mut Transaction, parts: &[Part], parent: u64, is_image: bool, lines: Lines) -> Result<Vec<u64>> {
    let ids = tx.spaces().next_ids(parts.len())?;
    let group = tx.new_id();
    let member = |space: u64| parts.iter().position(|part| part.origin.space == space).map(|at| ids[at]);
    let rows = parts.iter().zip(&ids).enumerate().map(|(at, (part, id))| {
        let row = SpaceRow {
            root: keys::in_space(part.root, *id),
            parent: if at == 0 { parent } else { member(part.parent).unwrap_or(0) },
            origin: Some(part.origin),
            lineage: if lines == Lines::Kept { part.lineage } else { tx.new_id() },
            group,
            is_image,
            is_left: false,
            is_restored: match lines {
                Lines::NewInPlace if at == 0 => true,
                Lines::New if at == 0 => false,
                _ => part.is_restored,
            },
            is_split: false,
            created_ns: tx.now_ns,
        };
        (*id, row)
    });
    let rows = rows.collect();
    tx.add_spaces(rows)?;
    Ok(ids)
}

/// Raises Invalid, Conflict("snapshot"), EROFS.
pub fn take(tx: &mut Transaction, element: u64, request: &Request) -> Result<SnapshotInfo> {
    check_snapshot_name(&request.name)?;
    let space = keys::space_of(element);
    if space == 0 {
        return Err(Error::Invalid("a snapshot is taken of a view or of something in it".into()));
    }
    tx.check_writable(element)?;
    path::element(tx, element)?;
    volumes::settle_all(tx)?;
    let epoch = tx.epoch();
    let parts = live_parts(tx, element, epoch)?;
    for part in &parts {
        if tx.raw(&keys::snapshot(part.lineage, &request.name))?.is_some() {
            return Err(Error::Conflict("snapshot".into()));
        }
    }
    let parent = tx.spaces().known(space)?.row.parent;
    let ids = spawn(tx, &parts, parent, true, Lines::Kept)?;
    tx.raise_epoch()?;
    let group = tx.spaces().known(ids[0])?.row.group;
    let row = |at: usize| SnapshotRow {
        epoch,
        group,
        root: keys::in_space(parts[at].root, ids[at]),
        is_top: at == 0,
        is_automatic: request.is_automatic,
        created_ns: tx.now_ns,
        protected_until_ns: request.protected_until_ns,
        path: request.path.clone(),
    };
    let rows: Vec<SnapshotRow> = (0..parts.len()).map(row).collect();
    for (part, row) in parts.iter().zip(&rows) {
        tx.put(keys::snapshot(part.lineage, &request.name), row.encode())?;
    }
    Ok(SnapshotInfo {
        lineage: parts[0].lineage,
        name: request.name.clone(),
        row: rows[0].clone(),
    })
}

fn absent() -> Error {
    Error::NotFound("snapshot".into())
}

/// Raises NotFound("snapshot").
pub fn get(rows: &dyn Rows, lineage: u64, name: &str) -> Result<SnapshotInfo> {
    let row = rows.get(&keys::snapshot(lineage, name))?.ok_or_else(absent)?;
    Ok(SnapshotInfo {
        lineage,
        name: name.to_owned(),
        row: SnapshotRow::decode(&row)?,
    })
}

/// By name; of one lineage, or all that were taken.
pub fn list(rows: &dyn Rows, lineage: Option<u64>) -> Result<Vec<SnapshotInfo>> {
    let (from, to) = lineage.map_or_else(|| keys::table(keys::SNAPSHOT), |lineage| keys::span(keys::SNAPSHOT, lineage));
    let mut found = Vec::new();
    for row in rows.range(&from, &to, false) {
        let (key, value) = row?;
        let row = SnapshotRow::decode(&value)?;
        if lineage.is_some() || row.is_top {
            let name = String::from_utf8_lossy(&key[9..]).into_owned();
            let lineage = keys::id_of(&key);
            found.push(SnapshotInfo { lineage, name, row });
        }
    }
    Ok(found)
}

/// The line of an element's space; none in space 0, and in what is an image.
pub fn lineage_of(rows: &dyn Rows, element: u64) -> Result<Option<u64>> {
    let row = rows.get(&keys::space(keys::space_of(element)))?;
    let row = row.map(|row| SpaceRow::decode(&row)).transpose()?;
    Ok(row.filter(|row| !row.is_image).map(|row| row.lineage))
}

/// The lines whose snapshots show an element: its space's, and that of the space around it if it was restored in its place there.
pub fn lineages_of(rows: &dyn Rows, element: u64) -> Result<Vec<u64>> {
    let (mut space, mut found) = (keys::space_of(element), Vec::new());
    loop {
        let row = rows.get(&keys::space(space))?.map(|row| SpaceRow::decode(&row)).transpose()?;
        let Some(row) = row.filter(|row| !row.is_image) else {
            return Ok(found);
        };
        found.push(row.lineage);
        if !row.is_restored {
            return Ok(found);
        }
        space = row.parent;
    }
}

/// A snapshot of one of those, the innermost first. Raises NotFound("snapshot").
pub fn get_any(rows: &dyn Rows, element: u64, name: &str) -> Result<SnapshotInfo> {
    for lineage in lineages_of(rows, element)? {
        match get(rows, lineage, name) {
            Err(Error::NotFound(_)) => {}
            found => return found,
        }
    }
    Err(absent())
}

/// The element as a snapshot has it that shows it. Raises NotFound("snapshot") also for what the snapshot does not hold.
pub fn seen_in(rows: &dyn Rows, element: u64, name: &str) -> Result<u64> {
    seen_by(rows, element, &get_any(rows, element, name)?)?.ok_or_else(absent)
}

/// The same of a snapshot of its lineage; none if that does not hold it.
pub(super) fn seen_by(rows: &dyn Rows, element: u64, info: &SnapshotInfo) -> Result<Option<u64>> {
    let seen = keys::in_space(element, keys::space_of(info.row.root));
    Ok(is_within(rows, seen, info.row.root)?.then_some(seen))
}

/// Is it the root or below it? A file is, if its view is: files do not know their directories.
fn is_within(rows: &dyn Rows, element: u64, root: u64) -> Result<bool> {
    let mut at = element;
    while at != root {
        match rows.get(&keys::element(at))? {
            Some(row) if at != keys::ROOT => at = ElementRow::decode(&row)?.parent,
            _ => return Ok(false),
        }
        if keys::space_of(at) != keys::space_of(root) {
            return Ok(false);
        }
    }
    Ok(rows.get(&keys::element(at))?.is_some())
}

/// The root of a snapshot, for a name made of a bucket's and the snapshot's.
pub(super) fn aliased(rows: &dyn Rows, alias: &str) -> Result<Option<u64>> {
    let Some((view, name)) = alias.split_once(ALIAS) else {
        return Ok(None);
    };
    let Some(entry) = path::entry(rows, keys::ROOT, &path::view_name(view))? else {
        return Ok(None);
    };
    match seen_in(rows, entry.element, name) {
        Ok(root) => Ok(Some(root)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writable at once, sharing everything: of an element of a snapshot, or of one as it is now. Raises Invalid, Conflict, NotFound.
pub fn clone(tx: &mut Transaction, source: u64, directory: u64, name: &[u8]) -> Result<u64> {
    let space = keys::space_of(source);
    if space == 0 {
        return Err(Error::Invalid("a clone is made of a view or of something in it".into()));
    }
    volumes::settle_all(tx)?;
    let row = path::element(tx, source)?;
    let spelled = place_for(tx, &row, directory, name)?;
    let is_image = tx.spaces().known(space)?.row.is_image;
    let mut parts = if is_image {
        image_parts(tx, source)?
    } else {
        let epoch = tx.epoch();
        live_parts(tx, source, epoch)?
    };
    parts[0].root = keys::in_space(source, parts[0].origin.space);
    let ids = spawn(tx, &parts, keys::space_of(directory), false, Lines::New)?;
    if !is_image {
        tx.raise_epoch()?;
    }
    let root = keys::in_space(source, ids[0]);
    enter_root(tx, root, row, directory, &spelled, false)?;
    Ok(root)
}

/// How the directory will spell it; refuses where nothing can be.
fn place_for(tx: &mut Transaction, row: &ElementRow, directory: u64, name: &[u8]) -> Result<Vec<u8>> {
    let kind = row.kind;
    if !matches!(kind, Kind::Directory | Kind::File) || row.aside {
        return Err(Error::Invalid("a clone is made of a directory or a file that has a path".into()));
    }
    check_name(name).map_err(|_| Error::Invalid("a clone's name is a file's".into()))?;
    growing_row(tx, directory)?;
    refuse_aside(tx, directory, name)?;
    if find(tx, directory, name)?.is_some() {
        return Err(Error::Conflict("path".into()));
    }
    if directory == keys::ROOT {
        let is_view = kind == Kind::Directory && std::str::from_utf8(name).is_ok_and(|name| name.len() <= namespace::VIEW_NAME_BYTES_MAX);
        return is_view
            .then(|| as_directory(name))
            .ok_or_else(|| Error::Invalid("a view is a directory with a name of UTF-8".into()));
    }
    tx.check_writable(directory)?;
    claim_directory(tx, directory)?;
    Ok(if kind == Kind::Directory {
        as_directory(name)
    } else {
        name.to_vec()
    })
}

/// The root of a new space, of that row in its origin, gets its own row and its name.
pub(super) fn enter_root(
    tx: &mut Transaction,
    root: u64,
    row: ElementRow,
    directory: u64,
    spelled: &[u8],
    is_restored: bool,
) -> Result<()> {
    let mut row = ElementRow {
        implicit: false,
        changed_ns: tx.now_ns,
        ..row
    };
    let kind = row.kind;
    if kind == Kind::Directory {
        if directory != keys::ROOT && !is_restored {
            row.attributes.xattrs.retain(|name, _| !metadata::is_of_views(name));
        }
        (row.parent, row.detail) = (directory, spelled.to_vec());
    } else {
        (row.parent, row.links) = (directory, 1);
        let old = path::entry(tx, directory, spelled)?.map(|entry| entry.element);
        row.version = if old.is_none() { succeed(tx, directory, spelled, None)? } else { 0 };
    }
    tx.put_element(root, row)?;
    directory::enter(tx, directory, spelled, root, kind)
}

/// Nothing leads to the space any more, nor to those below: they are dropped once nobody reads them.
pub(super) fn abandon(tx: &mut Transaction, space: u64) -> Result<()> {
    for id in tx.spaces().tree(space) {
        let row = SpaceRow {
            is_left: true,
            ..tx.spaces().known(id)?.row.clone()
        };
        tx.put_space(id, row)?;
        snapshot_work::add(tx, snapshot_work::DROP, id, 0)?;
    }
    Ok(())
}

/// The element has no row any more: with a root goes its space.
pub(super) fn buried(tx: &mut Transaction, element: u64) -> Result<()> {
    match tx.spaces().get(keys::space_of(element)) {
        Some(space) if space.row.root == element && !space.row.is_left => abandon(tx, space.id),
        _ => Ok(()),
    }
}

/// What a deletion did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Roots of clones that keep what they share with it.
    pub clones: Vec<u64>,
}

/// Its names go at once; what only it saw is freed by a job. Raises NotFound("snapshot"), Conflict if it is protected, a part of another, or attached.
pub fn delete(tx: &mut Transaction, lineage: u64, name: &str) -> Result<Removed> {
    let info = get(tx, lineage, name)?;
    if !info.row.is_top {
        return Err(Error::Conflict(
            "the snapshot was taken of more than this: delete it where it was taken".into(),
        ));
    }
    if info.row.protected_until_ns > tx.now_ns {
        return Err(Error::Conflict("the snapshot is protected".into()));
    }
    let images: Vec<u64> = tx
        .spaces()
        .known(keys::space_of(info.row.root))?
        .members
        .values()
        .copied()
        .collect();
    volumes::images::gone(tx, &images)?;
    let mut removed = Removed::default();
    for image in images {
        let row = tx.spaces().known(image)?.row.clone();
        let origin = row.origin.ok_or_else(|| Error::Damaged("an image has no origin".into()))?;
        let clones = tx.spaces().readers_of(origin.space);
        let clones = clones.filter(|clone| !clone.row.is_image && clone.row.origin == Some(origin) && !clone.row.is_left);
        removed.clones.extend(clones.map(|clone| clone.row.root));
        tx.delete(&keys::snapshot(row.lineage, name))?;
        tx.doom_space(image)?;
        snapshot_work::add(tx, snapshot_work::TRIM, origin.space, origin.epoch)?;
    }
    Ok(removed)
}

/// Nobody deletes it before; an earlier promise is kept. Raises NotFound("snapshot").
pub fn protect(tx: &mut Transaction, lineage: u64, name: &str, until_ns: i64) -> Result<SnapshotInfo> {
    let mut info = get(tx, lineage, name)?;
    info.row.protected_until_ns = info.row.protected_until_ns.max(until_ns);
    tx.put(keys::snapshot(lineage, name), info.row.encode())?;
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_survive(epoch: u64, group: u64, root: u64, is_top: bool, is_automatic: bool, created_ns: i64, path: Vec<u8>) {
            let row = SnapshotRow { epoch, group, root, is_top, is_automatic, created_ns, protected_until_ns: -1, path };
            prop_assert_eq!(SnapshotRow::decode(&row.encode()).unwrap(), row);
        }

        #[test]
        fn any_bytes_are_a_row_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _either = SnapshotRow::decode(&bytes);
        }
    }

    #[test]
    fn names_are_legal_everywhere() {
        for name in ["a", "hourly-2026-11-30T23:00", "v1.2_x"] {
            check_snapshot_name(name).unwrap();
        }
        for name in ["", ".", "..", ".x", "a/b", "a b", "\u{e4}", &"a".repeat(129)] {
            assert!(check_snapshot_name(name).is_err(), "{name}");
        }
    }
}
