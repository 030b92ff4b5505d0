//! From a key to an element and back up: a key is a path of components, each up to and with the next `/`.
//!
//! Every key has exactly one path and every path one key; there are no special components: `a//b`, `./x` and `a/` are keys like others.

use super::keys;
use super::rows::{ElementRow, EntryRow, Kind};
use super::{Rows, snapshots};
use crate::error::{Error, Result};

pub const KEY_BYTES_MAX: usize = 1024;

/// Raises Invalid for what is no key.
pub fn check_key(key: &[u8]) -> Result<()> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX || key.contains(&0) {
        return Err(Error::Invalid(format!("a key has 1 to {KEY_BYTES_MAX} bytes, none of them NUL")));
    }
    Ok(())
}

/// `a/b/c` is `a/`, `b/`, `c`; `a/` is `a/` and the empty name.
pub fn components(key: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut directories: Vec<&[u8]> = key.split_inclusive(|byte| *byte == b'/').collect();
    let name = match directories.last() {
        Some(last) if !last.ends_with(b"/") => directories.pop().unwrap_or_default(),
        _ => &[],
    };
    (directories, name)
}

/// Where a key leads as far as its directories exist.
#[derive(Debug)]
pub struct Walk<'k> {
    /// The view root and each directory below it, with the name that leads to it (empty for the root).
    pub trail: Vec<(u64, &'k [u8])>,
    /// Directories that are not there.
    pub absent: Vec<&'k [u8]>,
    pub name: &'k [u8],
    pub entry: Option<EntryRow>,
}

impl Walk<'_> {
    /// The deepest directory that exists.
    pub fn parent(&self) -> u64 {
        self.trail.last().map_or(keys::ROOT, |(id, _)| *id)
    }
}

pub fn entry(rows: &dyn Rows, parent: u64, name: &[u8]) -> Result<Option<EntryRow>> {
    rows.get(&keys::entry(parent, name))?
        .map(|bytes| EntryRow::decode(&bytes))
        .transpose()
}

pub fn element(rows: &dyn Rows, id: u64) -> Result<ElementRow> {
    let bytes = rows
        .get(&keys::element(id))?
        .ok_or_else(|| Error::Damaged(format!("element {id} has an entry but no row")))?;
    ElementRow::decode(&bytes)
}

/// The view root of a directory, and the key that a name in it has.
pub fn key_of(rows: &dyn Rows, directory: u64, spelled: &[u8]) -> Result<(u64, Vec<u8>)> {
    let (mut at, mut parts) = (directory, vec![spelled.to_vec()]);
    loop {
        let row = element(rows, at)?;
        if row.parent == keys::ROOT || at == keys::ROOT {
            break;
        }
        parts.push(row.detail);
        at = row.parent;
    }
    Ok((at, parts.into_iter().rev().flatten().collect()))
}

/// The name under which the root holds a view.
pub fn view_name(view: &str) -> Vec<u8> {
    [view.as_bytes(), b"/"].concat()
}

/// Raises NotFound("view").
pub fn view_id(rows: &dyn Rows, view: &str) -> Result<u64> {
    let found = match entry(rows, keys::ROOT, &view_name(view))? {
        _ if view.is_empty() || view.contains('/') => None,
        Some(row) => Some(row.element),
        None => snapshots::aliased(rows, view)?,
    };
    found.ok_or_else(|| Error::NotFound("view".into()))
}

/// The space in which the element of a key lies, or will. Raises NotFound("view").
pub fn space_of(rows: &dyn Rows, view: &str, key: &[u8]) -> Result<u64> {
    let view = view_id(rows, view)?;
    Ok(keys::space_of(walk(rows, view, key)?.parent()))
}

pub fn walk<'k>(rows: &dyn Rows, view: u64, key: &'k [u8]) -> Result<Walk<'k>> {
    let (directories, name) = components(key);
    let mut trail = vec![(view, &key[..0])];
    let mut at = view;
    for (index, directory) in directories.iter().enumerate() {
        match entry(rows, at, directory)? {
            Some(row) if row.kind == Kind::Directory => {
                at = row.element;
                trail.push((at, directory));
            }
            _ => {
                return Ok(Walk {
                    trail,
                    absent: directories[index..].to_vec(),
                    name,
                    entry: None,
                });
            }
        }
    }
    Ok(Walk {
        trail,
        absent: Vec::new(),
        name,
        entry: entry(rows, at, name)?,
    })
}

/// The element that a key names. Raises NotFound("view"), NotFound("key").
pub fn lookup(rows: &dyn Rows, view: &str, key: &[u8]) -> Result<(u64, ElementRow)> {
    let view = view_id(rows, view)?;
    let entry = walk(rows, view, key)?.entry.filter(|entry| entry.kind == Kind::File);
    let found = entry.ok_or_else(|| Error::NotFound("key".into()))?;
    Ok((found.element, element(rows, found.element)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_paths_are_one_to_one() {
        for key in [&b"a"[..], b"a/", b"a//", b"/", b"//x", b"a/b/c", b"./..", b"a/b/"] {
            let (directories, name) = components(key);
            assert_eq!([directories.concat().as_slice(), name].concat(), key);
            assert!(directories.iter().all(|directory| directory.ends_with(b"/")) && !name.contains(&b'/'));
        }
    }
}
