//! Changes of names as files ask for them.
//!
//! Invariants: a key with a history keeps it, whatever files do with its name (what they replace or remove becomes a version); a directory that
//! holds such a key stays where it is.

use super::files::{MODE_BITS, SET_GID, as_directory, check_name, directory_row, fail, find, growing_row, node, row};
use super::info::Versioning;
use super::namespace::{bury_row, detach, unname};
use super::rows::{Attributes, ElementRow, Kind};
use super::transaction::Transaction;
use super::{Rows, aside, directory, keys, modes, path, snapshot_directory, versions, volumes};
use crate::error::{Error, Result};
use crate::filesystem::acl::{self, Birth};
use crate::filesystem::{Errno, LINKS_MAX, New, Node, Owner, ROOT, Replace, TARGET_BYTES_MAX};

/// The view and the key of a name, if anything in the view has a history.
fn history(rows: &dyn Rows, directory: u64, spelled: &[u8]) -> Result<Option<(u64, Vec<u8>)>> {
    let (view, key) = path::key_of(rows, directory, spelled)?;
    let (from, to) = keys::span(keys::VERSION, view);
    Ok(rows.range(&from, &to, false).next().map(|_| (view, key)))
}

/// Files have changed it: it stays when its last key goes.
pub(super) fn claim_directory(tx: &mut Transaction, inode: u64) -> Result<()> {
    let mut row = directory_row(tx, inode)?;
    if row.implicit {
        row.implicit = false;
        tx.put_element(inode, row)?;
    }
    Ok(())
}

/// Something appears under a name: what the name led to becomes a version, or is given up. Returns the version that the new one is.
pub(super) fn succeed(tx: &mut Transaction, directory: u64, spelled: &[u8], old: Option<u64>) -> Result<u64> {
    let old = old.map(|id| Ok::<_, Error>((id, path::element(tx, id)?))).transpose()?;
    let is_key = old.as_ref().is_none_or(|(_, row)| row.kind == Kind::File);
    match history(tx, directory, spelled)? {
        Some((view, key)) if is_key && versions::newest(tx, view, &key)?.is_some() => {
            versions::succeed(tx, view, &key, old, Versioning::Enabled)
        }
        _ => {
            old.map(|(id, row)| detach(tx, id, &row)).transpose()?;
            Ok(versions::NULL)
        }
    }
}

/// A name goes; with `old`, so does what it led to. A key with a history gets a delete marker.
pub(super) fn vanish(tx: &mut Transaction, directory: u64, spelled: &[u8], old: Option<(u64, ElementRow)>, version: u64) -> Result<()> {
    if let Some((view, key)) = history(tx, directory, spelled)?
        && (version != versions::NULL || versions::newest(tx, view, &key)?.is_some())
    {
        return versions::mark_deleted(tx, view, &key, old, Versioning::Enabled).map(|_| ());
    }
    old.map(|(id, row)| detach(tx, id, &row)).transpose()?;
    Ok(())
}

/// `New` for a transaction that runs in another thread.
#[derive(Debug)]
pub struct OwnedNew {
    template: New<'static>,
    target: Vec<u8>,
}

impl From<&New<'_>> for OwnedNew {
    fn from(new: &New<'_>) -> Self {
        let (template, target) = match new {
            New::Symlink(target) => (New::Symlink(b""), target.to_vec()),
            New::Directory => (New::Directory, Vec::new()),
            New::File => (New::File, Vec::new()),
            New::Fifo => (New::Fifo, Vec::new()),
            New::Socket => (New::Socket, Vec::new()),
            New::CharacterDevice(number) => (New::CharacterDevice(*number), Vec::new()),
            New::BlockDevice(number) => (New::BlockDevice(*number), Vec::new()),
        };
        Self { template, target }
    }
}

impl OwnedNew {
    pub fn borrow(&self) -> New<'_> {
        match &self.template {
            New::Symlink(_) => New::Symlink(&self.target),
            other => other.clone(),
        }
    }
}

/// What is asked for. The umask counts where the directory has no default ACL.
#[derive(Debug, Clone, Copy)]
pub struct Mode {
    pub bits: u32,
    pub umask: u32,
}

fn new_row(tx: &Transaction, parent: &ElementRow, new: &New<'_>, mode: Mode, owner: Owner) -> Result<ElementRow> {
    let (kind, detail) = match new {
        New::Directory => (Kind::Directory, Vec::new()),
        New::File => (Kind::File, Vec::new()),
        New::Symlink(target) if target.len() > TARGET_BYTES_MAX => return fail(Errno::NAMETOOLONG),
        New::Symlink([]) => return fail(Errno::NOENT),
        New::Symlink(target) if target.contains(&0) => return fail(Errno::INVAL),
        New::Symlink(target) => (Kind::Symlink, target.to_vec()),
        New::Fifo => (Kind::Fifo, Vec::new()),
        New::Socket => (Kind::Socket, Vec::new()),
        New::CharacterDevice(number) => (Kind::CharacterDevice, number.to_le_bytes().to_vec()),
        New::BlockDevice(number) => (Kind::BlockDevice, number.to_le_bytes().to_vec()),
    };
    let inherits = parent.attributes.mode & SET_GID != 0;
    let default = parent.attributes.xattrs.get(acl::DEFAULT).filter(|_| kind != Kind::Symlink);
    let birth = Birth::new(
        default.map(Vec::as_slice),
        mode.bits & MODE_BITS,
        mode.umask,
        kind == Kind::Directory,
    );
    let mut attributes = Attributes {
        mode: birth.mode,
        xattrs: birth.lists.into_iter().map(|(name, list)| (name.to_owned(), list)).collect(),
        uid: owner.uid,
        gid: if inherits { parent.attributes.gid } else { owner.gid },
    };
    if inherits && kind == Kind::Directory {
        attributes.mode |= SET_GID;
    }
    if kind == Kind::File {
        modes::inherit(parent, &mut attributes);
    }
    let mut row = ElementRow::new(kind, tx.now_ns, attributes);
    if kind == Kind::Symlink {
        row.size = detail.len() as u64;
    }
    row.detail = detail;
    Ok(row)
}

/// Is it a name that the store makes up in this directory?
fn is_made_up(rows: &dyn Rows, directory: u64, name: &[u8]) -> Result<bool> {
    Ok(aside::is_here(rows, directory, name)? || snapshot_directory::is_here(rows, directory, name)?)
}

/// Raises EROFS.
fn refuse_snapshot(directory: u64) -> Result<()> {
    match snapshot_directory::of(directory) {
        Some(_) => fail(Errno::ROFS),
        None => Ok(()),
    }
}

/// `.keys` and `.snapshot` are what they are: no name in them is made or moved by files. Raises EPERM, EROFS.
pub(super) fn refuse_aside(rows: &dyn Rows, directory: u64, name: &[u8]) -> Result<()> {
    refuse_snapshot(directory)?;
    if aside::view_of(directory).is_some() || is_made_up(rows, directory, name)? {
        return fail(Errno::PERM);
    }
    Ok(())
}

/// Raises EEXIST, EPERM in ROOT, where views are made otherwise.
pub fn create(tx: &mut Transaction, parent: u64, name: &[u8], new: &New<'_>, mode: Mode, owner: Owner) -> Result<Node> {
    check_name(name)?;
    let above = growing_row(tx, parent)?;
    if is_made_up(tx, parent, name)? {
        return fail(Errno::EXIST);
    }
    refuse_aside(tx, parent, name)?;
    if find(tx, parent, name)?.is_some() {
        return fail(Errno::EXIST);
    }
    if parent == ROOT && *new != New::Directory {
        return fail(Errno::PERM);
    }
    claim_directory(tx, parent)?;
    let mut row = new_row(tx, &above, new, mode, owner)?;
    let inode = if row.kind == Kind::Directory {
        directory::make(tx, parent, &as_directory(name), row)?
    } else {
        let inode = tx.new_element(keys::space_of(parent))?;
        row.parent = tx.root_of(parent)?;
        if row.kind == Kind::File {
            row.version = succeed(tx, parent, name, None)?;
        }
        let kind = row.kind;
        tx.put_element(inode, row)?;
        directory::enter(tx, parent, name, inode, kind)?;
        inode
    };
    Ok(node(inode, &self::row(tx, inode)?))
}

/// A file without a name, which the caller has open.
pub fn create_unnamed(tx: &mut Transaction, inode: u64, parent: u64, mode: Mode, owner: Owner) -> Result<Node> {
    let above = growing_row(tx, parent)?;
    refuse_snapshot(parent)?;
    if parent == ROOT || aside::view_of(parent).is_some() {
        return fail(Errno::PERM);
    }
    let mut row = new_row(tx, &above, &New::File, mode, owner)?;
    (row.links, row.parent) = (0, tx.root_of(parent)?);
    let node = node(inode, &row);
    tx.put_element(inode, row)?;
    tx.put(keys::orphan(inode), Vec::new())?;
    Ok(node)
}

/// The last one who had it open is gone.
pub fn forget(tx: &mut Transaction, inode: u64) -> Result<()> {
    let orphan = keys::orphan(inode);
    tx.begin_freeing();
    if tx.get(&orphan)?.is_none() || !tx.claim_unopened(inode) {
        return Ok(());
    }
    tx.delete(&orphan)?;
    let row = row(tx, inode)?;
    bury_row(tx, inode, &row)
}

pub fn link(tx: &mut Transaction, inode: u64, parent: u64, name: &[u8]) -> Result<Node> {
    check_name(name)?;
    growing_row(tx, parent)?;
    refuse_snapshot(parent)?;
    let mut row = row(tx, inode)?;
    if row.kind == Kind::Directory || parent == ROOT || aside::view_of(parent).is_some() {
        return fail(Errno::PERM);
    }
    if is_made_up(tx, parent, name)? {
        return fail(Errno::EXIST);
    }
    if keys::space_of(parent) != keys::space_of(inode) {
        return fail(Errno::XDEV);
    }
    if find(tx, parent, name)?.is_some() {
        return fail(Errno::EXIST);
    }
    // A volume has one name, which leads from its id to its path.
    if volumes::is_volume(tx, inode, &row)? {
        return fail(Errno::PERM);
    }
    if row.links >= LINKS_MAX {
        return fail(Errno::MLINK);
    }
    claim_directory(tx, parent)?;
    if row.links == 0 {
        tx.delete(&keys::orphan(inode))?;
    }
    if row.kind == Kind::File {
        succeed(tx, parent, name, None)?;
    }
    row.links += 1;
    row.changed_ns = tx.now_ns;
    directory::enter(tx, parent, name, inode, row.kind)?;
    let node = node(inode, &row);
    tx.put_element(inode, row)?;
    Ok(node)
}

pub fn unlink(tx: &mut Transaction, parent: u64, name: &[u8]) -> Result<()> {
    check_name(name)?;
    directory_row(tx, parent)?;
    refuse_snapshot(parent)?;
    if let Some(view) = aside::view_of(parent) {
        return unlink_aside(tx, view, name);
    }
    if is_made_up(tx, parent, name)? {
        return fail(Errno::ISDIR);
    }
    let Some((inode, spelled)) = find(tx, parent, name)? else {
        return fail(Errno::NOENT);
    };
    if spelled.ends_with(b"/") {
        return fail(Errno::ISDIR);
    }
    claim_directory(tx, parent)?;
    directory::leave(tx, parent, &spelled)?;
    let row = path::element(tx, inode)?;
    let version = row.version;
    vanish(tx, parent, &spelled, Some((inode, row)), version)
}

/// As S3 deletes the key: directories that only it implied go too.
fn unlink_aside(tx: &mut Transaction, view: u64, name: &[u8]) -> Result<()> {
    let Some(found) = aside::look_up(tx, view, name)? else {
        return fail(Errno::NOENT);
    };
    let (_, key) = path::key_of(tx, found.directory, &found.name)?;
    let row = path::element(tx, found.entry.element)?;
    let version = row.version;
    vanish(tx, found.directory, &found.name, Some((found.entry.element, row)), version)?;
    let walk = path::walk(tx, view, &key)?;
    unname(tx, &walk)
}

/// Takes an empty directory's row away, and the marker that a key may have left in it. Its entry is the caller's. Raises ENOTEMPTY.
fn remove_empty(tx: &mut Transaction, inode: u64) -> Result<()> {
    let (from, to) = keys::span(keys::ENTRY, inode);
    let entries = tx.get_range(&from, &to, 2, false)?;
    match entries.as_slice() {
        [] => {}
        [(key, _)] if key.len() == from.len() => {
            let marker = path::entry(tx, inode, b"")?.ok_or_else(|| Error::Damaged("a marker vanished".into()))?;
            let row = path::element(tx, marker.element)?;
            let version = row.version;
            vanish(tx, inode, b"", Some((marker.element, row)), version)?;
            directory::leave(tx, inode, b"")?;
        }
        _ => return fail(Errno::NOTEMPTY),
    }
    let row = directory_row(tx, inode)?;
    detach(tx, inode, &row)
}

pub fn remove_directory(tx: &mut Transaction, parent: u64, name: &[u8]) -> Result<()> {
    check_name(name)?;
    directory_row(tx, parent)?;
    if let Some(view) = aside::view_of(parent) {
        return fail(aside::look_up(tx, view, name)?.map_or(Errno::NOENT, |_| Errno::NOTDIR));
    }
    refuse_aside(tx, parent, name)?;
    match find(tx, parent, name)? {
        None => fail(Errno::NOENT),
        Some((_, spelled)) if !spelled.ends_with(b"/") => fail(Errno::NOTDIR),
        Some((inode, spelled)) => {
            remove_empty(tx, inode)?;
            claim_directory(tx, parent)?;
            directory::leave(tx, parent, &spelled)
        }
    }
}

/// Is `inode` the directory or one above it?
pub(super) fn is_at_or_above(rows: &dyn Rows, inode: u64, directory: u64) -> Result<bool> {
    let mut at = directory;
    while at != ROOT {
        if at == inode {
            return Ok(true);
        }
        at = directory_row(rows, at)?.parent;
    }
    Ok(inode == ROOT)
}

pub fn rename(tx: &mut Transaction, from: (u64, &[u8]), to: (u64, &[u8]), replace: Replace) -> Result<()> {
    check_name(from.1)?;
    check_name(to.1)?;
    growing_row(tx, from.0)?;
    growing_row(tx, to.0)?;
    refuse_aside(tx, from.0, from.1)?;
    refuse_aside(tx, to.0, to.1)?;
    if from.0 == ROOT || to.0 == ROOT {
        return fail(if from.0 == ROOT { Errno::PERM } else { Errno::XDEV });
    }
    if keys::space_of(from.0) != keys::space_of(to.0) {
        return fail(Errno::XDEV);
    }
    let Some(source) = find(tx, from.0, from.1)? else {
        return fail(Errno::NOENT);
    };
    let target = find(tx, to.0, to.1)?;
    match (&target, replace) {
        (Some(_), Replace::No) => return fail(Errno::EXIST),
        (None, Replace::Exchange) => return fail(Errno::NOENT),
        _ => {}
    }
    let is_directory = |found: &(u64, Vec<u8>)| found.1.ends_with(b"/");
    if is_directory(&source) && is_at_or_above(tx, source.0, to.0)? {
        return fail(Errno::INVAL);
    }
    if target.as_ref().is_some_and(|target| target.0 == source.0) {
        return Ok(());
    }
    claim_directory(tx, from.0)?;
    claim_directory(tx, to.0)?;
    if let (Some(target), Replace::Exchange) = (&target, replace) {
        if is_directory(target) && is_at_or_above(tx, target.0, from.0)? {
            return fail(Errno::INVAL);
        }
        return exchange(tx, from, to, &source, target);
    }
    if let Some(target) = &target {
        match (is_directory(&source), is_directory(target)) {
            (true, false) => return fail(Errno::NOTDIR),
            (false, true) => return fail(Errno::ISDIR),
            (true, true) => {
                remove_empty(tx, target.0)?;
                directory::leave(tx, to.0, &target.1)?;
            }
            (false, false) => {}
        }
    }
    if is_directory(&source) {
        keep_history(tx, from.0, &source.1)?;
        directory::leave(tx, from.0, &source.1)?;
        return place(tx, to.0, &as_directory(to.1), source.0, None);
    }
    let version = path::element(tx, source.0)?.version;
    directory::leave(tx, from.0, &source.1)?;
    vanish(tx, from.0, &source.1, None, version)?;
    let version = succeed(tx, to.0, to.1, target.map(|target| target.0))?;
    place(tx, to.0, to.1, source.0, Some(version))
}

/// A history stays with its key, so a directory that holds keys with one is copied by its user, key by key. Raises EXDEV.
pub(super) fn keep_history(rows: &dyn Rows, directory: u64, spelled: &[u8]) -> Result<()> {
    let Some((view, key)) = history(rows, directory, spelled)? else {
        return Ok(());
    };
    let mut from = keys::versions(view, &key);
    from.pop();
    match rows.range(&from, &crate::meta::prefix_end(&from), false).next() {
        Some(_) => fail(Errno::XDEV),
        None => Ok(()),
    }
}

/// Gives a moved element its new name.
fn place(tx: &mut Transaction, directory: u64, spelled: &[u8], inode: u64, version: Option<u64>) -> Result<()> {
    let mut row = row(tx, inode)?;
    row.changed_ns = tx.now_ns;
    if let Some(version) = version {
        row.version = version;
    }
    let kind = row.kind;
    if kind == Kind::Directory {
        (row.parent, row.detail) = (directory, spelled.to_vec());
    } else if tx.root_of(inode)? == inode {
        row.parent = directory;
    }
    volumes::renamed(tx, inode, &row, directory, spelled)?;
    tx.put_element(inode, row)?;
    directory::enter(tx, directory, spelled, inode, kind)
}

type Found = (u64, Vec<u8>);

fn exchange(tx: &mut Transaction, from: (u64, &[u8]), to: (u64, &[u8]), source: &Found, target: &Found) -> Result<()> {
    if history(tx, from.0, from.1)?.is_some() {
        return fail(Errno::XDEV);
    }
    let spell = |name: &[u8], found: &Found| {
        if found.1.ends_with(b"/") {
            as_directory(name)
        } else {
            name.to_vec()
        }
    };
    directory::leave(tx, from.0, &source.1)?;
    directory::leave(tx, to.0, &target.1)?;
    place(tx, to.0, &spell(to.1, source), source.0, None)?;
    place(tx, from.0, &spell(from.1, target), target.0, None)
}
