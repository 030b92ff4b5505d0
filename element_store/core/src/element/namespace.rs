//! Changes of names: views, the directories that keys imply, elements appearing under a key and vanishing from it.
//!
//! Invariants: an entry names an element that has a row; a directory that a key implied vanishes with its last entry; an element that
//! neither an entry nor a version names has no row, and its mappings are gone or marked detached.

use super::content::{self, INLINE_MAPPINGS_MAX, Source};
use super::files::SET_GID;
use super::info::{Condition, Deletion, Digests, ElementInfo, Naming, PartInfo, Removal, Terms, Versioning, ViewInfo, etag_text};
use super::path::{self, Walk};
use super::rows::{Attributes, ElementRow, Etag, Kind, PARTS_PER_ROW, PartRow, XATTR_BYTES_MAX};
use super::transaction::{Pin, Transaction};
use super::{Rows, aside, directory, keys, metadata, modes, snapshots, versions, volumes};
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};

pub const VIEW_NAME_BYTES_MAX: usize = 255;

/// What a new element is besides its bytes.
#[derive(Debug)]
pub struct Description {
    pub attributes: Attributes,
    pub etag: Etag,
    pub composite: bool,
    pub digests: Digests,
    pub parts: Vec<(u32, PartRow)>,
}

impl Description {
    /// Content written whole; `digests` must hold the MD5. Raises Invalid.
    pub fn whole(attributes: Attributes, mut digests: Digests) -> Result<Self> {
        let md5 = digests.remove("md5").and_then(|md5| md5.try_into().ok());
        let md5 = md5.ok_or_else(|| Error::Invalid("content needs an md5 of 16 bytes".into()))?;
        Ok(Self {
            attributes,
            etag: Etag::Md5(md5),
            composite: false,
            digests,
            parts: Vec::new(),
        })
    }
}

/// Where a new element's bytes come from.
#[derive(Debug)]
pub enum Origin {
    New(Source),
    /// Shares bytes [start, stop) of an element that the caller has pinned; at most SHARED_RUNS_MAX runs.
    Share {
        source: Pin,
        start: u64,
        stop: u64,
    },
    /// A hidden element that was assembled before. `mapped_bytes`: what this change has not counted of its content that is no hole.
    Hidden {
        element: u64,
        size: u64,
        mapped_bytes: i64,
    },
}

/// Runs that one transaction shares; longer content is assembled in a hidden element first.
pub const SHARED_RUNS_MAX: usize = 2048;

pub fn check_attributes(attributes: &Attributes) -> Result<()> {
    let bytes: usize = attributes.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > XATTR_BYTES_MAX {
        return Err(Error::Limit(format!(
            "attributes of {bytes} bytes are longer than {XATTR_BYTES_MAX}"
        )));
    }
    Ok(())
}

/// Raises Precondition, or NotFound("key") for an `if_match` of an absent key.
pub fn check_condition(condition: Option<&Condition>, current: Option<&(u64, ElementRow)>) -> Result<()> {
    let Some(condition) = condition else { return Ok(()) };
    let etag = current.map(|(id, row)| etag_text(*id, row));
    let names = |list: &[String]| {
        etag.as_ref()
            .is_some_and(|etag| list.iter().any(|wanted| wanted == "*" || wanted == etag))
    };
    if !condition.if_match.is_empty() && !names(&condition.if_match) {
        return Err(if current.is_none() {
            Error::NotFound("key".into())
        } else {
            Error::Precondition("if-match".into())
        });
    }
    if names(&condition.if_none_match) {
        return Err(Error::Precondition("if-none-match".into()));
    }
    Ok(())
}

fn blank(tx: &Transaction, kind: Kind, attributes: Attributes) -> ElementRow {
    ElementRow::new(kind, tx.now_ns, attributes)
}

/// A pool without a root gets one.
pub fn create_root(tx: &mut Transaction) -> Result<()> {
    if tx.get(&keys::element(keys::ROOT))?.is_none() {
        let row = blank(
            tx,
            Kind::Directory,
            Attributes {
                mode: 0o755,
                ..Attributes::default()
            },
        );
        tx.put_element(keys::ROOT, row)?;
    }
    Ok(())
}

fn view_info(name: &str, id: u64, row: ElementRow) -> ViewInfo {
    ViewInfo {
        name: name.into(),
        id,
        created_ns: row.created_ns,
        attributes: row.attributes,
        snapshot_of: None,
    }
}

/// Raises Conflict if it exists.
pub fn create_view(tx: &mut Transaction, name: &str, attributes: Attributes) -> Result<ViewInfo> {
    check_attributes(&attributes)?;
    if name.is_empty() || name.len() > VIEW_NAME_BYTES_MAX || name.contains(['/', '\0']) {
        return Err(Error::Invalid(format!(
            "a view's name has 1 to {VIEW_NAME_BYTES_MAX} bytes without / and NUL"
        )));
    }
    let entry = path::view_name(name);
    if path::entry(tx, keys::ROOT, &entry)?.is_some() {
        return Err(Error::Conflict("view".into()));
    }
    let row = blank(tx, Kind::Directory, attributes);
    let id = directory::make(tx, keys::ROOT, &entry, row.clone())?;
    Ok(view_info(name, id, row))
}

pub fn view(rows: &dyn Rows, name: &str) -> Result<ViewInfo> {
    let id = path::view_id(rows, name)?;
    let is_alias = path::entry(rows, keys::ROOT, &path::view_name(name))?.is_none();
    let snapshot_of = name.split_once(snapshots::ALIAS).filter(|_| is_alias).map(|(view, _)| view.into());
    Ok(ViewInfo {
        snapshot_of,
        ..view_info(name, id, path::element(rows, id)?)
    })
}

pub fn views(rows: &dyn Rows) -> Result<Vec<ViewInfo>> {
    let (from, to) = keys::span(keys::ENTRY, keys::ROOT);
    let mut views = Vec::new();
    for row in rows.range(&from, &to, false) {
        let (key, _) = row?;
        let name = String::from_utf8_lossy(&key[from.len()..key.len() - 1]).into_owned();
        views.push(view(rows, &name)?);
    }
    // With its slash `a-b/` sorts before `a/`; names sort by themselves.
    views.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(views)
}

pub fn set_view_attributes(tx: &mut Transaction, name: &str, attributes: Attributes) -> Result<ViewInfo> {
    check_attributes(&attributes)?;
    let id = path::view_id(tx, name)?;
    let mut row = path::element(tx, id)?;
    row.attributes = attributes;
    row.changed_ns = tx.now_ns;
    tx.put_element(id, row.clone())?;
    Ok(view_info(name, id, row))
}

/// The view must hold no key, no version and no upload. Raises NotFound, Conflict.
pub fn delete_view(tx: &mut Transaction, name: &str) -> Result<()> {
    let id = path::view_id(tx, name)?;
    tx.check_writable(id)?;
    let holds = |table| {
        let (from, to) = keys::span(table, id);
        tx.range(&from, &to, false).next().is_some()
    };
    if !directory::is_empty(tx, id, b"")? || holds(keys::UPLOAD) || holds(keys::VERSION) {
        return Err(Error::Conflict("view".into()));
    }
    tx.delete(&keys::aside(id, 0))?;
    directory::leave(tx, keys::ROOT, &path::view_name(name))?;
    let row = path::element(tx, id)?;
    detach(tx, id, &row)
}

/// Directories that a key makes: of a mode and an owner.
#[derive(Debug, Clone, Copy)]
pub(super) struct Implied {
    mode: u32,
    uid: u32,
    gid: u32,
}

impl Implied {
    /// Whose element it is, theirs are the directories.
    fn by(mode: u32, of: &Attributes) -> Self {
        let (uid, gid) = (of.uid, of.gid);
        Self { mode, uid, gid }
    }
}

/// The directory for the key's last component, made with all above it where absent.
fn make_directories(tx: &mut Transaction, walk: &Walk, implied: Implied) -> Result<u64> {
    let mut at = walk.parent();
    for name in &walk.absent {
        let attributes = Attributes {
            mode: implied.mode,
            uid: implied.uid,
            gid: implied.gid,
            ..Attributes::default()
        };
        let row = ElementRow {
            implicit: true,
            ..blank(tx, Kind::Directory, attributes)
        };
        at = directory::make(tx, at, name, row)?;
    }
    Ok(at)
}

/// Takes away directories that only keys implied, from the deepest up, once `name` was the last in it.
fn prune(tx: &mut Transaction, walk: &Walk) -> Result<()> {
    let mut near = walk.name;
    for pair in walk.trail.windows(2).rev() {
        let [(above, _), (id, name)] = *pair else { break };
        let row = path::element(tx, id)?;
        if !row.implicit || !directory::is_empty(tx, id, near)? {
            break;
        }
        directory::leave(tx, above, name)?;
        detach(tx, id, &row)?;
        near = name;
    }
    Ok(())
}

pub(super) fn current(rows: &dyn Rows, walk: &Walk) -> Result<Option<(u64, ElementRow)>> {
    let found = walk.entry.filter(|entry| entry.kind == Kind::File);
    found
        .map(|entry| Ok((entry.element, path::element(rows, entry.element)?)))
        .transpose()
}

pub fn fill(tx: &mut Transaction, id: u64, origin: Origin) -> Result<u64> {
    match origin {
        Origin::New(source) => content::attach(tx, id, source),
        Origin::Hidden { size, mapped_bytes, .. } => {
            tx.count_mapped(id, mapped_bytes);
            tx.delete(&keys::detached(id)).map(|()| size)
        }
        Origin::Share { source, start, stop } => {
            if content::share(tx, source.element(), start, stop, id, 0, SHARED_RUNS_MAX)? < stop {
                return Err(Error::Limit("content has too many runs to share in one transaction".into()));
            }
            Ok(stop - start)
        }
    }
}

/// Makes the key name the element. A symlink or special file of that name is replaced.
pub(super) fn name(tx: &mut Transaction, walk: &Walk, element: u64, implied: Implied) -> Result<()> {
    if let Some(other) = walk.entry.filter(|entry| entry.kind != Kind::File) {
        let row = path::element(tx, other.element)?;
        detach(tx, other.element, &row)?;
    }
    let parent = make_directories(tx, walk, implied)?;
    directory::enter(tx, parent, walk.name, element, Kind::File)
}

/// The key names nothing any more.
pub(super) fn unname(tx: &mut Transaction, walk: &Walk) -> Result<()> {
    directory::leave(tx, walk.parent(), walk.name)?;
    prune(tx, walk)
}

/// Whose the new element is, and whose and what directories its key makes: as files do it where a directory hands its group on.
fn own(rows: &dyn Rows, walk: &Walk, old: Option<&(u64, ElementRow)>, attributes: &mut Attributes, naming: &Naming) -> Result<Implied> {
    let above = path::element(rows, walk.parent())?;
    attributes.xattrs.remove(modes::MARK);
    modes::inherit(&above, attributes);
    if let Some(mark) = old.and_then(|(_, old)| old.attributes.xattrs.get(modes::MARK)) {
        attributes.xattrs.insert(modes::MARK.into(), mark.clone());
    }
    if let Some((_, old)) = old.filter(|_| naming.inherit) {
        metadata::inherit(&old.attributes, attributes);
        return Ok(Implied::by(naming.directory_mode, attributes));
    }
    let above = above.attributes;
    let hands_on = above.mode & SET_GID;
    if hands_on != 0 {
        attributes.gid = above.gid;
    }
    Ok(Implied::by(naming.directory_mode | hands_on, attributes))
}

/// Gives new content a key; what the key named before is kept or given up. Raises NotFound("view"), Precondition, Invalid, Limit.
pub fn publish(
    tx: &mut Transaction,
    view: &str,
    key: &[u8],
    origin: Origin,
    mut description: Description,
    terms: &Terms,
) -> Result<ElementInfo> {
    path::check_key(key)?;
    let view = path::view_id(tx, view)?;
    let walk = path::walk(tx, view, key)?;
    let old = current(tx, &walk)?;
    check_condition(terms.condition.as_ref(), old.as_ref())?;
    volumes::unmark(&mut description.attributes);
    let implied = own(tx, &walk, old.as_ref(), &mut description.attributes, &terms.naming)?;
    check_attributes(&description.attributes)?;
    let space = keys::space_of(walk.parent());
    let id = match origin {
        Origin::Hidden { element, .. } => element,
        _ => tx.new_element(space)?,
    };
    if keys::space_of(id) != space {
        return Err(Error::Conflict("the directory of the key was replaced meanwhile".into()));
    }
    let mut row = blank(tx, Kind::File, description.attributes);
    row.parent = tx.root_of(id)?;
    row.content_version = old.as_ref().map_or(1, |(_, old)| old.content_version + 1);
    (row.etag, row.composite, row.digests) = (description.etag, description.composite, description.digests);
    // What the key names may be the source: filled first, then succeeded.
    row.size = fill(tx, id, origin)?;
    aside::check_policy(tx, view, &walk, row.size)?;
    row.holes = row.size.saturating_add_signed(-tx.take_mapped(id));
    row.version = versions::succeed(tx, view, key, old, terms.versioning)?;
    for (index, parts) in description.parts.chunks(PARTS_PER_ROW).enumerate() {
        tx.put(keys::parts(id, index as u32), PartRow::encode_many(tx.epoch(), parts))?;
    }
    name(tx, &walk, id, implied)?;
    tx.put_element(id, row.clone())?;
    let parts = part_infos(&row, description.parts.iter().map(|(_, part)| part));
    Ok(ElementInfo {
        id,
        key: key.to_vec(),
        row,
        parts,
    })
}

fn part_infos<'p>(row: &ElementRow, parts: impl Iterator<Item = &'p PartRow>) -> Vec<PartInfo> {
    let kind = row.digests.keys().find(|name| *name != "md5");
    parts
        .map(|part| PartInfo {
            size: part.size,
            digest: kind.and_then(|kind| part.digests.get(kind).cloned()),
        })
        .collect()
}

/// With its parts; what the key names, or one of its versions. Raises NotFound.
pub fn lookup(rows: &dyn Rows, view: &str, key: &[u8], version: Option<u64>) -> Result<ElementInfo> {
    let (id, row) = match version {
        None => path::lookup(rows, view, key)?,
        Some(version) => versions::lookup(rows, view, key, version)?,
    };
    let mut parts = Vec::new();
    if matches!(row.etag, Etag::Multipart(..)) {
        let (from, to) = keys::span(keys::PARTS, id);
        for found in rows.range(&from, &to, false) {
            parts.extend(PartRow::decode_many(&found?.1)?);
        }
    }
    let parts = part_infos(&row, parts.iter().map(|(_, part)| part));
    Ok(ElementInfo {
        id,
        key: key.to_vec(),
        row,
        parts,
    })
}

/// What the key names becomes history behind a delete marker, or is given up; or one version is given up.
pub fn delete(tx: &mut Transaction, view: &str, removal: &Removal, versioning: Versioning) -> Result<Deletion> {
    let view = path::view_id(tx, view)?;
    let walk = path::walk(tx, view, &removal.key)?;
    let old = current(tx, &walk)?;
    // Before anything is changed: of several deletions in one transaction, each fails for itself.
    if let Some((id, row)) = &old {
        volumes::refuse_attached(tx, *id, row)?;
    }
    if let Some(version) = removal.version {
        return delete_version(tx, view, &walk, old, removal, version);
    }
    check_condition(removal.condition.as_ref(), old.as_ref())?;
    let existed = old.is_some();
    if existed {
        unname(tx, &walk)?;
    }
    // A request that knew of no versioning may still be under way when it was turned on: what is history stays behind a marker.
    let has_history = existed && versioning == Versioning::Off && versions::newest(tx, view, &removal.key)?.is_some();
    if versioning == Versioning::Off && !has_history && old.as_ref().is_none_or(|(_, row)| row.version == 0) {
        old.map(|(id, row)| detach(tx, id, &row)).transpose()?;
        return Ok(Deletion {
            existed,
            ..Deletion::default()
        });
    }
    path::check_key(&removal.key)?;
    let version = versions::mark_deleted(tx, view, &removal.key, old, versioning)?;
    Ok(Deletion {
        existed,
        marker: true,
        version,
    })
}

/// Whatever is then the newest version is what the key names.
fn delete_version(
    tx: &mut Transaction,
    view: u64,
    walk: &Walk,
    current: Option<(u64, ElementRow)>,
    removal: &Removal,
    version: u64,
) -> Result<Deletion> {
    let condition = removal.condition.as_ref();
    let is_current = current.as_ref().is_some_and(|(_, row)| row.version == version);
    let (existed, marker) = if is_current {
        check_condition(condition, current.as_ref())?;
        current.as_ref().map(|(id, row)| detach(tx, *id, row)).transpose()?;
        (true, false)
    } else {
        versions::remove(tx, view, &removal.key, version, condition)?
    };
    if is_current || current.is_none() {
        match versions::take_newest(tx, view, &removal.key)? {
            Some(element) => {
                let of = path::element(tx, element)?.attributes;
                name(tx, walk, element, Implied::by(Naming::default().directory_mode, &of))?;
            }
            None if is_current => unname(tx, walk)?,
            None => {}
        }
    }
    Ok(Deletion { existed, marker, version })
}

pub fn set_attributes(
    tx: &mut Transaction,
    view: &str,
    key: &[u8],
    version: Option<u64>,
    mut attributes: Attributes,
    condition: Option<&Condition>,
) -> Result<ElementInfo> {
    check_attributes(&attributes)?;
    let mut found = lookup(tx, view, key, version)?;
    let current = (found.id, found.row);
    check_condition(condition, Some(&current))?;
    let (id, mut row) = current;
    volumes::keep_mark(&row.attributes, &mut attributes);
    row.attributes = attributes;
    row.changed_ns = tx.now_ns;
    tx.put_element(id, row.clone())?;
    found.row = row;
    Ok(found)
}

/// An element lost a name or a version. With the last one its row goes, and its content, if that is little and nobody reads it now, else later
/// (`bury`); what is open lives until it is closed.
pub(super) fn detach(tx: &mut Transaction, id: u64, row: &ElementRow) -> Result<()> {
    let row = volumes::without_name(tx, id, row)?;
    let row = row.as_ref();
    let links = if row.kind == Kind::Directory {
        0
    } else {
        row.links.saturating_sub(1)
    };
    if links > 0 || !tx.claim_unopened(id) {
        if links == 0 {
            tx.put(keys::orphan(id), Vec::new())?;
        }
        let row = ElementRow {
            links,
            changed_ns: tx.now_ns,
            ..row.clone()
        };
        return tx.put_element(id, row);
    }
    bury_row(tx, id, row)
}

/// Nothing leads to the element any more.
pub fn bury_row(tx: &mut Transaction, id: u64, row: &ElementRow) -> Result<()> {
    if matches!(row.etag, Etag::Multipart(..)) {
        let (from, to) = keys::span(keys::PARTS, id);
        tx.delete_range(&from, &to)?;
    }
    tx.delete(&keys::element(id))?;
    if row.size > 0 && row.kind == Kind::File {
        give_up(tx, id)?;
    }
    snapshots::buried(tx, id)
}

/// Gives back the mappings of an element that has no row (any more), at once or by the freeing job.
pub fn give_up(tx: &mut Transaction, id: u64) -> Result<()> {
    let few = content::runs(tx, id, 0, u64::MAX, INLINE_MAPPINGS_MAX + 1)?.len() <= INLINE_MAPPINGS_MAX;
    // A clone's may be followed by tombstones of many more.
    if few && tx.claim(id) && content::free(tx, id, 0, INLINE_MAPPINGS_MAX)?.is_none() {
        return Ok(());
    }
    tx.put(keys::detached(id), Vec::new())
}

/// A place to assemble content in; given back after a crash.
pub fn mark_hidden(tx: &mut Transaction, id: u64) -> Result<()> {
    tx.put(keys::detached(id), Vec::new())
}

/// One step of the freeing job: elements detached after `after` that nobody reads, at most `limit` mappings. Returns where to go on, None at the end.
pub fn bury(tx: &mut Transaction, after: u64, limit: usize) -> Result<Option<u64>> {
    let (_, to) = keys::table(keys::DETACHED);
    let Some((key, freed_to)) = tx.get_range(&keys::detached(after + 1), &to, 1, false)?.pop() else {
        return Ok(None);
    };
    let freed_to = if freed_to.is_empty() { 0 } else { Reader::new(&freed_to).varint()? };
    let id = keys::id_of(&key);
    tx.begin_freeing();
    if !tx.claim(id) {
        return Ok(Some(id));
    }
    match content::free(tx, id, freed_to, limit)? {
        None => tx.delete(&key).map(|()| Some(id)),
        Some(freed_to) => {
            let mut row = Writer::new();
            row.varint(freed_to);
            tx.put(key, row.bytes).map(|()| Some(id - 1))
        }
    }
}
