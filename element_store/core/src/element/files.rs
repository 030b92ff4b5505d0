//! What files see of elements, and changes of their attributes. `file_names` changes names, `file_content` content in place.
//!
//! One function, one transaction. Invariant: a directory in which files changed something is no longer implied by keys.

use super::directory;
use super::file_content::{changed_content, resize};
use super::rows::{ElementRow, Kind};
use super::transaction::Transaction;
use super::{Rows, aside, keys, metadata, path, snapshot_directory, volumes};
use crate::error::{Error, Result};
use crate::filesystem::acl;
use crate::filesystem::{CAPABILITY, Changes, Entry, Errno, FILE_BYTES_MAX, NAME_BYTES_MAX, Node, ROOT, Time, Type, XattrMode};

/// Accesses after a noted one that are not noted.
const ACCESS_NS_MAX: i64 = 24 * 3600 * 1_000_000_000;
const SET_UID: u32 = 0o4000;
pub(super) const SET_GID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o010;
pub(super) const MODE_BITS: u32 = 0o7777;
/// XATTR_NAME_MAX
const XATTR_NAME_BYTES_MAX: usize = 255;
/// Entries that one look at a directory decodes.
const LIST_ROWS: usize = 1024;

pub(super) fn fail<T>(errno: Errno) -> Result<T> {
    Err(Error::File(errno))
}

pub fn check_name(name: &[u8]) -> Result<()> {
    match name {
        _ if name.len() > NAME_BYTES_MAX => fail(Errno::NAMETOOLONG),
        b"" | b"." | b".." => fail(Errno::INVAL),
        _ if name.contains(&b'/') || name.contains(&0) => fail(Errno::INVAL),
        _ => Ok(()),
    }
}

pub(super) fn as_directory(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

/// Raises ESTALE.
pub fn row(rows: &dyn Rows, inode: u64) -> Result<ElementRow> {
    if aside::view_of(inode).is_some() {
        return aside::row(rows, inode);
    }
    if snapshot_directory::of(inode).is_some() {
        return snapshot_directory::row(rows, inode);
    }
    match rows.get(&keys::element(inode))? {
        Some(bytes) => ElementRow::decode(&bytes),
        None => fail(Errno::STALE),
    }
}

/// Raises ESTALE, ENOTDIR.
pub fn directory_row(rows: &dyn Rows, inode: u64) -> Result<ElementRow> {
    let row = row(rows, inode)?;
    if row.kind == Kind::Directory {
        Ok(row)
    } else {
        fail(Errno::NOTDIR)
    }
}

/// A directory that can get entries. Raises ENOENT for one that was removed and is still open.
pub fn growing_row(rows: &dyn Rows, inode: u64) -> Result<ElementRow> {
    let row = directory_row(rows, inode)?;
    if row.links > 0 { Ok(row) } else { fail(Errno::NOENT) }
}

/// Raises ESTALE, EISDIR, EINVAL.
pub fn file_row(rows: &dyn Rows, inode: u64) -> Result<ElementRow> {
    let row = row(rows, inode)?;
    match row.kind {
        Kind::File => Ok(row),
        Kind::Directory => fail(Errno::ISDIR),
        _ => fail(Errno::INVAL),
    }
}

fn kind_of(row: &ElementRow) -> Type {
    let number = || row.detail.as_slice().try_into().map_or(0, u64::from_le_bytes);
    match row.kind {
        Kind::Directory => Type::Directory,
        Kind::File => Type::File,
        Kind::Symlink => Type::Symlink,
        Kind::Fifo => Type::Fifo,
        Kind::Socket => Type::Socket,
        Kind::CharacterDevice => Type::CharacterDevice(number()),
        Kind::BlockDevice => Type::BlockDevice(number()),
    }
}

pub fn node(inode: u64, row: &ElementRow) -> Node {
    let allocated = match row.kind {
        Kind::File => row.size.saturating_sub(row.holes),
        _ => 0,
    };
    Node {
        inode,
        kind: kind_of(row),
        mode: row.attributes.mode & MODE_BITS,
        links: row.links,
        uid: row.attributes.uid,
        gid: row.attributes.gid,
        size: row.size,
        allocated,
        block_bytes: volumes::block_bytes(row),
        accessed_ns: row.accessed_ns,
        modified_ns: row.modified_ns,
        changed_ns: row.changed_ns,
        created_ns: row.created_ns,
        version: row.content_version,
    }
}

/// What a name leads to, and how the directory spells it: a directory hides an object of its name.
pub(super) fn find(rows: &dyn Rows, directory: u64, name: &[u8]) -> Result<Option<(u64, Vec<u8>)>> {
    let spelled = as_directory(name);
    if let Some(entry) = path::entry(rows, directory, &spelled)? {
        return Ok(Some((entry.element, spelled)));
    }
    Ok(path::entry(rows, directory, name)?.map(|entry| (entry.element, name.to_vec())))
}

/// Raises ENOENT, ENOTDIR, ESTALE.
pub fn lookup(rows: &dyn Rows, directory: u64, name: &[u8]) -> Result<Node> {
    check_name(name)?;
    if let Some(view) = aside::view_of(directory) {
        let found = aside::look_up(rows, view, name)?.ok_or(Error::File(Errno::NOENT))?;
        return Ok(node(found.entry.element, &path::element(rows, found.entry.element)?));
    }
    if let Some(shown) = snapshot_directory::of(directory) {
        let found = snapshot_directory::look_up(rows, shown, name)?.ok_or(Error::File(Errno::NOENT))?;
        return Ok(node(found, &row(rows, found)?));
    }
    for (is_here, inode) in [
        (aside::is_here(rows, directory, name)?, aside::inode_of(directory)),
        (
            snapshot_directory::is_here(rows, directory, name)?,
            snapshot_directory::inode_of(directory),
        ),
    ] {
        if is_here {
            return Ok(node(inode, &row(rows, inode)?));
        }
    }
    match find(rows, directory, name)? {
        Some((inode, _)) => Ok(node(inode, &path::element(rows, inode)?)),
        None => directory_row(rows, directory).and_then(|_| fail(Errno::NOENT)),
    }
}

/// May files see an entry of this spelling? What lies aside is shown in `.keys`.
fn shown_name<'n>(rows: &dyn Rows, directory: u64, row: &ElementRow, spelled: &'n [u8]) -> Result<Option<&'n [u8]>> {
    let hidden = match spelled.ends_with(b"/") {
        true => aside::is_misfit(row, spelled),
        false => aside::is_aside(rows, directory, row, spelled)?,
    };
    Ok((!hidden).then(|| spelled.strip_suffix(b"/").unwrap_or(spelled)))
}

/// Entries after `cookie`, at most `limit`; none is the end. Raises ESTALE, ENOTDIR.
pub fn list(rows: &dyn Rows, inode: u64, cookie: u64, limit: usize) -> Result<Vec<Entry>> {
    let above = directory_row(rows, inode)?;
    let shown = |name: Vec<u8>, cookie: u64, element: u64| {
        let node = node(element, &row(rows, element)?);
        Ok(Entry { name, cookie, node })
    };
    let made_up = match (aside::view_of(inode), snapshot_directory::of(inode)) {
        (Some(view), _) => Some(aside::list(rows, view, cookie, limit)?),
        (_, Some(directory)) => Some(snapshot_directory::list(rows, directory, cookie, limit)?),
        _ => None,
    };
    if let Some(found) = made_up {
        return found
            .into_iter()
            .map(|(cookie, name, element)| shown(name, cookie, element))
            .collect();
    }
    let (mut entries, mut after) = (Vec::new(), cookie);
    while entries.len() < limit {
        let found = directory::list(rows, inode, after, LIST_ROWS.min(limit - entries.len()))?;
        let Some((last, ..)) = found.last() else { break };
        after = *last;
        for (cookie, spelled, entry) in found {
            if let Some(name) = shown_name(rows, inode, &above, &spelled)? {
                entries.push(shown(name.to_vec(), cookie, entry.element)?);
            }
        }
    }
    Ok(entries)
}

/// Of a directory's entries; without an end where the directory is made up. Raises ESTALE, ENOTDIR.
pub fn newest_cookie(rows: &dyn Rows, inode: u64) -> Result<u64> {
    directory_row(rows, inode)?;
    if aside::view_of(inode).is_some() || snapshot_directory::of(inode).is_some() {
        return Ok(u64::MAX);
    }
    let (from, to) = keys::span(keys::COOKIE, inode);
    let newest = rows.range(&from, &to, true).next().transpose()?;
    Ok(newest.map_or(0, |(key, _)| keys::ordinal_of(&key)))
}

/// Of an element that files may change: `.keys` is none, nor is `.snapshot`. Raises ESTALE, EPERM, EROFS.
fn changing_row(rows: &dyn Rows, inode: u64) -> Result<ElementRow> {
    match aside::view_of(inode) {
        _ if snapshot_directory::of(inode).is_some() => fail(Errno::ROFS),
        Some(_) => fail(Errno::PERM),
        None => row(rows, inode),
    }
}

pub(super) fn strip(row: &mut ElementRow) {
    if row.kind != Kind::Directory {
        let mode = &mut row.attributes.mode;
        *mode &= !SET_UID;
        if *mode & GROUP_EXECUTE != 0 {
            *mode &= !SET_GID;
        }
    }
}

/// As `relatime`: an access is noted if the last one noted is no later than the last change, or older than a day.
pub fn is_access_due(row: &ElementRow, now_ns: i64) -> bool {
    let noted = row.accessed_ns;
    noted <= row.modified_ns || noted <= row.changed_ns || now_ns.saturating_sub(noted) >= ACCESS_NS_MAX
}

/// Whoever is faster notes it; what is gone needs no note.
pub fn note_access(tx: &mut Transaction, inode: u64) -> Result<()> {
    let Some(bytes) = tx.get(&keys::element(inode))? else {
        return Ok(());
    };
    let mut row = ElementRow::decode(&bytes)?;
    if is_access_due(&row, tx.now_ns) {
        row.accessed_ns = tx.now_ns;
        tx.put_element(inode, row)?;
    }
    Ok(())
}

/// All but a smaller size, of which `resize` does a part at a time.
pub fn change(tx: &mut Transaction, inode: u64, changes: &Changes) -> Result<Node> {
    let mut row = changing_row(tx, inode)?;
    let before = row.attributes.mode;
    if let Some(size) = changes.size {
        row = file_row(tx, inode)?;
        if size > FILE_BYTES_MAX {
            return fail(Errno::FBIG);
        }
        volumes::refuse_attached(tx, inode, &row)?;
        if size != row.size {
            changed_content(tx, inode, &mut row)?;
            resize(tx, inode, &mut row, size);
        } else {
            row.content_version += 1;
        }
        row.modified_ns = tx.now_ns;
    }
    let time = |time: Time| match time {
        Time::Now => tx.now_ns,
        Time::At(at) => at,
    };
    let attributes = &mut row.attributes;
    if let Some(mode) = changes.mode {
        attributes.mode = mode & MODE_BITS;
        if let Some(list) = attributes.xattrs.get_mut(acl::ACCESS) {
            *list = acl::after_chmod(list, mode);
        }
    }
    if changes.size.or(changes.uid.map(u64::from)).or(changes.gid.map(u64::from)).is_some() {
        attributes.xattrs.remove(CAPABILITY);
    }
    attributes.uid = changes.uid.unwrap_or(attributes.uid);
    attributes.gid = changes.gid.unwrap_or(attributes.gid);
    row.accessed_ns = changes.accessed.map_or(row.accessed_ns, time);
    row.modified_ns = changes.modified.map_or(row.modified_ns, time);
    if changes.strip_privileges {
        strip(&mut row);
    }
    let asked = Changes {
        strip_privileges: false,
        ..changes.clone()
    };
    if asked != Changes::default() || row.attributes.mode != before {
        row.changed_ns = tx.now_ns;
    }
    row.implicit = false;
    let node = node(inode, &row);
    tx.put_element(inode, row)?;
    Ok(node)
}

pub fn set_xattr(tx: &mut Transaction, inode: u64, name: &str, value: Option<&[u8]>, mode: XattrMode) -> Result<()> {
    let mut row = changing_row(tx, inode)?;
    if value.is_some() && (name.is_empty() || name.contains('\0')) {
        return fail(Errno::INVAL);
    }
    if name.len() > XATTR_NAME_BYTES_MAX {
        return fail(if value.is_some() { Errno::RANGE } else { Errno::NODATA });
    }
    if !metadata::is_shown(name) {
        return fail(if value.is_some() { Errno::INVAL } else { Errno::NODATA });
    }
    let there = row.attributes.xattrs.contains_key(name);
    match (mode, value) {
        (XattrMode::Create, Some(_)) if there => return fail(Errno::EXIST),
        (XattrMode::Replace, Some(_)) | (_, None) if !there => return fail(Errno::NODATA),
        _ => {}
    }
    let value = match value {
        Some(value) => match acl::set(name, value, row.kind == Kind::Directory).map_err(Error::File)? {
            Some(setting) => {
                let mode = &mut row.attributes.mode;
                *mode = setting.mode.map_or(*mode, |bits| *mode & !0o777 | bits);
                setting.kept
            }
            None => Some(value.to_vec()),
        },
        None => None,
    };
    match value {
        Some(value) => row.attributes.xattrs.insert(name.to_owned(), value),
        None => row.attributes.xattrs.remove(name),
    };
    if !metadata::is_allowed(&row.attributes.xattrs, name, row.parent == ROOT) {
        return fail(Errno::INVAL);
    }
    row.attributes.check().map_err(|_| Error::File(Errno::NOSPC))?;
    row.changed_ns = tx.now_ns;
    row.implicit = false;
    tx.put_element(inode, row)
}
