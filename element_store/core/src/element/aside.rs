//! Keys that have no path among files, and `/<bucket>/.keys`, where files find them all the same.
//!
//! Owns the table of entries that lie aside: their name is none that POSIX knows, or a directory has the same, or the directory that they lie in is
//! itself out of reach. Invariants: an entry that is no directory has a row in the table exactly if it lies aside; a directory out of reach knows it.
//! Only `directory` changes the table. Nothing here ever refuses a key, but for views whose policy says so.
//!
//! The directory `.keys` is made up: its inode is the view's with a bit set, its names are whole keys, percent-encoded as RFC 3986 has it. A name that
//! would be too long ends in `%~` and the entry's cookie, 16 hex digits, which no encoded key can hold.

use super::files::{fail, find, row as any_row};
use super::info::hex;
use super::path::Walk;
use super::rows::{Attributes, ElementRow, EntryRow, Kind, plain_bytes};
use super::transaction::Transaction;
use super::{Rows, keys, path};
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};
use crate::filesystem::{Errno, NAME_BYTES_MAX, ROOT};

/// In every view root. What S3 calls so lies aside itself.
pub const NAME: &[u8] = b".keys";
/// Of a view's `.keys`, beside the view's id. Ids count up from 1 and never come here.
const INODE_BIT: u64 = 1 << 62;
/// What a name that is cut ends in, before the cookie.
const CUT: &[u8] = b"%~";
const COOKIE_DIGITS: usize = 16;
/// Where a view says which keys it takes; absent: all that are legal.
pub const POLICY: &str = "trefoil.key_policy";
pub const POLICY_POSIX: &[u8] = b"posix";

pub fn inode_of(view: u64) -> u64 {
    view | INODE_BIT
}

/// The view, if the inode is a `.keys`.
pub fn view_of(inode: u64) -> Option<u64> {
    (inode & INODE_BIT != 0).then_some(inode & !INODE_BIT)
}

fn bare(spelled: &[u8]) -> &[u8] {
    spelled.strip_suffix(b"/").unwrap_or(spelled)
}

/// Is it a name that no file can have?
fn is_no_name(spelled: &[u8]) -> bool {
    let name = bare(spelled);
    matches!(name, b"" | b"." | b"..") || name.len() > NAME_BYTES_MAX
}

/// Is it one that no file can have in this directory?
pub fn is_misfit(directory: &ElementRow, spelled: &[u8]) -> bool {
    is_no_name(spelled) || directory.parent == ROOT && bare(spelled) == NAME
}

/// Does an entry that is no directory lie aside?
pub fn is_aside(rows: &dyn Rows, directory: u64, row: &ElementRow, name: &[u8]) -> Result<bool> {
    Ok(row.aside || is_misfit(row, name) || path::entry(rows, directory, &[name, b"/"].concat())?.is_some())
}

fn view_above(rows: &dyn Rows, row: &ElementRow, directory: u64) -> Result<u64> {
    let (mut view, mut above) = (directory, row.parent);
    while above != ROOT {
        (view, above) = (above, path::element(rows, above)?.parent);
    }
    Ok(view)
}

/// How often `.keys` changed, and when it did last.
fn changes(rows: &dyn Rows, view: u64) -> Result<(u64, i64)> {
    match rows.get(&keys::aside(view, 0))? {
        Some(bytes) => {
            let mut reader = Reader::new(plain_bytes(&bytes)?);
            Ok((reader.u64()?, reader.i64()?))
        }
        None => Ok((0, 0)),
    }
}

/// An entry begins or ceases to lie aside.
fn set(tx: &mut Transaction, directory: u64, row: &ElementRow, name: &[u8], cookie: u64, aside: bool) -> Result<()> {
    let view = view_above(tx, row, directory)?;
    let key = keys::aside(view, cookie);
    if tx.get(&key)?.is_some() == aside {
        return Ok(());
    }
    if aside {
        tx.put_plain(key, &[&directory.to_be_bytes(), name].concat())?;
    } else {
        tx.delete(&key)?;
    }
    let mut writer = Writer::new();
    writer.u64(changes(tx, view)?.0 + 1).i64(tx.now_ns);
    tx.put_plain(keys::aside(view, 0), &writer.bytes)
}

/// The directory of that row has got the name, which is new to it.
pub(super) fn entered(tx: &mut Transaction, directory: u64, row: &ElementRow, spelled: &[u8], cookie: u64) -> Result<()> {
    match spelled.strip_suffix(b"/") {
        Some(name) => shadow(tx, directory, row, name, true),
        None if is_aside(tx, directory, row, spelled)? => set(tx, directory, row, spelled, cookie, true),
        None => Ok(()),
    }
}

/// It has lost it.
pub(super) fn left(tx: &mut Transaction, directory: u64, row: &ElementRow, spelled: &[u8], cookie: u64) -> Result<()> {
    match spelled.strip_suffix(b"/") {
        Some(name) => shadow(tx, directory, row, name, false),
        None if is_aside(tx, directory, row, spelled)? => set(tx, directory, row, spelled, cookie, false),
        None => Ok(()),
    }
}

/// A directory comes to lie before the file of its name, or goes.
fn shadow(tx: &mut Transaction, directory: u64, row: &ElementRow, name: &[u8], aside: bool) -> Result<()> {
    if row.aside || is_misfit(row, name) {
        return Ok(());
    }
    match path::entry(tx, directory, name)? {
        Some(file) => set(tx, directory, row, name, file.cookie, aside),
        None => Ok(()),
    }
}

/// Of a `.keys`: it belongs to whom the bucket belongs to. Raises ESTALE.
pub fn row(rows: &dyn Rows, inode: u64) -> Result<ElementRow> {
    let view = inode & !INODE_BIT;
    let above = any_row(rows, view)?;
    if above.parent != ROOT || above.kind != Kind::Directory || view == ROOT {
        return fail(Errno::STALE);
    }
    let (version, changed_ns) = changes(rows, view)?;
    let attributes = Attributes {
        xattrs: Default::default(),
        ..above.attributes
    };
    let mut row = ElementRow::new(Kind::Directory, changed_ns.max(above.created_ns), attributes);
    (row.parent, row.detail, row.content_version) = (view, [NAME, b"/"].concat(), version + 1);
    row.created_ns = above.created_ns;
    Ok(row)
}

/// Is this name in this directory a `.keys`?
pub fn is_here(rows: &dyn Rows, directory: u64, name: &[u8]) -> Result<bool> {
    Ok(name == NAME && directory != ROOT && view_of(directory).is_none() && any_row(rows, directory)?.parent == ROOT)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn encode(key: &[u8]) -> Vec<u8> {
    let dots = matches!(key, b"." | b"..");
    let mut name = Vec::with_capacity(key.len() + 16);
    for byte in key {
        if is_unreserved(*byte) && !dots {
            name.push(*byte);
        } else {
            name.push(b'%');
            name.extend(hex(&[*byte]).to_ascii_uppercase().into_bytes());
        }
    }
    name
}

/// None for what `encode` never says.
fn decode(name: &[u8]) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            key.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            key.push(*first);
            rest = after;
        }
    }
    (encode(&key) == name).then_some(key)
}

/// How `.keys` calls a key.
fn name_of(key: &[u8], cookie: u64) -> Vec<u8> {
    let mut name = encode(key);
    if name.len() > NAME_BYTES_MAX {
        name.truncate(NAME_BYTES_MAX - CUT.len() - COOKIE_DIGITS);
        if let Some(escape) = name.iter().rposition(|byte| *byte == b'%').filter(|at| at + 3 > name.len()) {
            name.truncate(escape);
        }
        name.extend_from_slice(CUT);
        name.extend(format!("{cookie:016x}").bytes());
    }
    name
}

/// An entry that lies aside: the directory, the name there, and what it names.
pub struct Found {
    pub directory: u64,
    pub name: Vec<u8>,
    pub entry: EntryRow,
}

fn found(rows: &dyn Rows, value: &[u8]) -> Result<(Found, Vec<u8>)> {
    let damaged = || Error::Damaged("an entry that lies aside is not there".into());
    let (directory, name) = plain_bytes(value)?.split_first_chunk::<8>().ok_or_else(damaged)?;
    let directory = u64::from_be_bytes(*directory);
    let entry = path::entry(rows, directory, name)?.ok_or_else(damaged)?;
    let key = path::key_of(rows, directory, name)?.1;
    let name = name.to_vec();
    Ok((Found { directory, name, entry }, key))
}

/// What a name in a view's `.keys` leads to.
pub fn look_up(rows: &dyn Rows, view: u64, name: &[u8]) -> Result<Option<Found>> {
    if let Some((_, cookie)) = name.len().checked_sub(COOKIE_DIGITS).and_then(|at| name.split_at_checked(at))
        && name.len() > COOKIE_DIGITS + CUT.len()
        && name[..name.len() - COOKIE_DIGITS].ends_with(CUT)
    {
        let cookie = std::str::from_utf8(cookie)
            .ok()
            .and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let Some(cookie) = cookie.filter(|cookie| *cookie != 0) else {
            return Ok(None);
        };
        let Some(value) = rows.get(&keys::aside(view, cookie))? else {
            return Ok(None);
        };
        let (found, key) = found(rows, &value)?;
        return Ok((name_of(&key, cookie) == name).then_some(found));
    }
    let Some(key) = decode(name).filter(|key| path::check_key(key).is_ok()) else {
        return Ok(None);
    };
    let walk = path::walk(rows, view, &key)?;
    let Some(entry) = walk.entry.filter(|entry| entry.kind != Kind::Directory) else {
        return Ok(None);
    };
    let directory = walk.parent();
    let aside = is_aside(rows, directory, &path::element(rows, directory)?, walk.name)?;
    Ok(aside.then(|| Found {
        directory,
        name: walk.name.to_vec(),
        entry,
    }))
}

/// A marker without content says no more than its directory does.
fn is_mere_marker(rows: &dyn Rows, found: &Found) -> Result<bool> {
    Ok(found.name.is_empty() && path::element(rows, found.entry.element)?.size == 0 && !path::element(rows, found.directory)?.aside)
}

/// Entries of a view's `.keys` after a cookie, at most `limit`: (cookie, name, element).
pub fn list(rows: &dyn Rows, view: u64, after: u64, limit: usize) -> Result<Vec<(u64, Vec<u8>, u64)>> {
    let (_, to) = keys::span(keys::ASIDE, view);
    let mut entries = Vec::new();
    for row in rows.range(&keys::aside(view, after.saturating_add(1)), &to, false) {
        if entries.len() >= limit {
            break;
        }
        let (row_key, value) = row?;
        let (found, key) = found(rows, &value)?;
        if !is_mere_marker(rows, &found)? {
            let cookie = keys::ordinal_of(&row_key);
            entries.push((cookie, name_of(&key, cookie), found.entry.element));
        }
    }
    Ok(entries)
}

/// Refuses a key that would lie aside, or put another aside, in a view that takes only what files can name. Raises Invalid, Conflict.
pub fn check_policy(rows: &dyn Rows, view: u64, walk: &Walk, size: u64) -> Result<()> {
    let parent = walk.parent();
    let deepest = path::element(rows, parent)?;
    // A marker without content is its directory.
    let name = (!walk.name.is_empty() || size > 0).then_some(walk.name);
    let mut parts = walk.absent.iter().copied().chain(name);
    let has_no_path = deepest.aside || parts.next().is_some_and(|first| is_misfit(&deepest, first)) || parts.any(is_no_name);
    let clash = match walk.absent.first() {
        Some(directory) => find(rows, parent, bare(directory))?.map(|_| PARENT_IS_FILE),
        None if walk.name.is_empty() => None,
        None => path::entry(rows, parent, &[walk.name, b"/"].concat())?.map(|_| IS_DIRECTORY),
    };
    if !has_no_path && clash.is_none() {
        return Ok(());
    }
    match path::element(rows, view)?.attributes.xattrs.get(POLICY) {
        Some(policy) if policy == POLICY_POSIX && has_no_path => Err(Error::Invalid(NO_PATH.into())),
        Some(policy) if policy == POLICY_POSIX => Err(Error::Conflict(clash.unwrap_or_default().into())),
        _ => Ok(()),
    }
}

/// What `check_policy` says. The gateway puts it into words.
pub const NO_PATH: &str = "no path";
pub const IS_DIRECTORY: &str = "is directory";
pub const PARENT_IS_FILE: &str = "parent is file";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_keys_are_one_to_one() {
        for key in [
            &b"a//b"[..],
            b".",
            b"..",
            b"%",
            b"%2F",
            b"a/./b",
            "\u{e4}/".as_bytes(),
            b".keys/x",
            b"~-_.",
        ] {
            let name = encode(key);
            assert!(!name.contains(&b'/') && name != b"." && name != b"..");
            assert_eq!(decode(&name).as_deref(), Some(key));
        }
        assert_eq!(encode(b"a//b"), b"a%2F%2Fb");
        for wrong in [&b"a%2f"[..], b"%", b"%2", b"%zz", b"a/b", b"%41", b"a%~0000000000000001"] {
            assert_eq!(decode(wrong), None, "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        for length in 200..300 {
            let key = [vec![b'/'; length % 7], vec![b'a'; length - length % 7], vec![b' '; 20]].concat();
            let name = name_of(&key, 0xabc);
            assert!(name.len() <= NAME_BYTES_MAX);
            if let Some(cut) = name.strip_suffix(b"%~0000000000000abc") {
                assert!(encode(&key).starts_with(cut) && decode(cut).is_some());
            } else {
                assert_eq!(decode(&name), Some(key));
            }
        }
    }
}
