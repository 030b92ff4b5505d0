//! Listing keys in byte order: a walk of the tree whose steps are entries, with a jump over everything under a common prefix.

use super::info::{ElementInfo, Page};
use super::rows::{EntryRow, Kind};
use super::{Rows, keys, path};
use crate::error::Result;
use crate::meta::{RangeIter, prefix_end};

#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    pub prefix: Vec<u8>,
    /// Empty: none.
    pub delimiter: Vec<u8>,
    /// A common prefix here skips all of it.
    pub start_after: Vec<u8>,
    /// Elements and prefixes.
    pub limit: usize,
}

struct Level<'a> {
    entries: RangeIter<'a>,
    /// Bytes of the path down to and with this directory.
    depth: usize,
}

/// Where the walk is: a stack of directories, each read lazily.
pub(super) struct Cursor<'a> {
    rows: &'a dyn Rows,
    view: u64,
    stack: Vec<Level<'a>>,
    /// The path of the innermost directory.
    path: Vec<u8>,
}

impl<'a> Cursor<'a> {
    pub fn new(rows: &'a dyn Rows, view: u64, from: &[u8]) -> Result<Self> {
        let mut cursor = Self {
            rows,
            view,
            stack: Vec::new(),
            path: Vec::new(),
        };
        cursor.seek(from)?;
        Ok(cursor)
    }

    fn push(&mut self, directory: u64, from: &[u8]) {
        let (_, to) = keys::span(keys::ENTRY, directory);
        let entries = self.rows.range(&keys::entry(directory, from), &to, false);
        self.stack.push(Level {
            entries,
            depth: self.path.len(),
        });
    }

    /// The next step is the first key at or after `from`, or a directory above it.
    fn seek(&mut self, from: &[u8]) -> Result<()> {
        self.stack.clear();
        self.path.clear();
        let (directories, name) = path::components(from);
        let mut at = self.view;
        for directory in directories {
            match path::entry(self.rows, at, directory)? {
                Some(row) if row.kind == Kind::Directory => {
                    // What follows the directory itself; its inside comes first.
                    self.push(at, &[directory, &[0]].concat());
                    self.path.extend_from_slice(directory);
                    at = row.element;
                }
                _ => {
                    self.push(at, directory);
                    return Ok(());
                }
            }
        }
        self.push(at, name);
        Ok(())
    }

    /// A file, or a directory, which is passed over unless the caller enters it. `key` becomes its whole path.
    pub fn next(&mut self, key: &mut Vec<u8>) -> Result<Option<EntryRow>> {
        while let Some(level) = self.stack.last_mut() {
            self.path.truncate(level.depth);
            let Some(row) = level.entries.next() else {
                self.stack.pop();
                continue;
            };
            let (row_key, value) = row?;
            key.clear();
            key.extend_from_slice(&self.path);
            key.extend_from_slice(&row_key[9..]);
            return EntryRow::decode(&value).map(Some);
        }
        Ok(None)
    }

    pub fn enter(&mut self, directory: u64, path: &[u8]) {
        self.path.clear();
        self.path.extend_from_slice(path);
        self.push(directory, b"");
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The common prefix that a key is shown as.
pub(super) fn common_prefix<'k>(query: &ListQuery, key: &'k [u8]) -> Option<&'k [u8]> {
    if query.delimiter.is_empty() {
        return None;
    }
    let at = find(key.get(query.prefix.len()..)?, &query.delimiter)?;
    Some(&key[..query.prefix.len() + at + query.delimiter.len()])
}

/// The first key that the page may show.
pub(super) fn lower_bound(query: &ListQuery) -> Vec<u8> {
    let after = match common_prefix(query, &query.start_after) {
        Some(shown) if shown == query.start_after && shown.starts_with(&query.prefix) => prefix_end(shown),
        _ if query.start_after.is_empty() => Vec::new(),
        _ => [query.start_after.as_slice(), &[0]].concat(),
    };
    after.max(query.prefix.clone())
}

/// Is it a key, or a directory with one below it? What files made need not be.
fn holds_key(rows: &dyn Rows, entry: &EntryRow) -> Result<bool> {
    let mut directories = match entry.kind {
        Kind::Directory => vec![entry.element],
        kind => return Ok(kind == Kind::File),
    };
    while let Some(directory) = directories.pop() {
        let (from, to) = keys::span(keys::ENTRY, directory);
        for row in rows.range(&from, &to, false) {
            match EntryRow::decode(&row?.1)? {
                entry if entry.kind == Kind::File => return Ok(true),
                entry if entry.kind == Kind::Directory => directories.push(entry.element),
                _ => {}
            }
        }
    }
    Ok(false)
}

/// Raises NotFound("view").
pub fn list(rows: &dyn Rows, view: &str, query: &ListQuery) -> Result<Page> {
    let view = path::view_id(rows, view)?;
    let mut page = Page::default();
    let (mut last, mut key) = (None, Vec::new());
    let mut cursor = Cursor::new(rows, view, &lower_bound(query))?;
    while let Some(entry) = cursor.next(&mut key)? {
        // Files may make paths that are longer than keys: nobody could ask for them.
        if key.len() > path::KEY_BYTES_MAX {
            continue;
        }
        let is_directory = entry.kind == Kind::Directory;
        let above_prefix = is_directory && query.prefix.starts_with(&key);
        if !key.starts_with(&query.prefix) && !above_prefix {
            if key > query.prefix {
                break;
            }
            continue;
        }
        let shown = common_prefix(query, &key).map(<[u8]>::to_vec);
        if shown.is_none() && is_directory {
            cursor.enter(entry.element, &key);
            continue;
        }
        if !holds_key(rows, &entry)? {
            continue;
        }
        if page.elements.len() + page.prefixes.len() >= query.limit {
            page.next_after = last;
            break;
        }
        if let Some(prefix) = shown {
            if !(is_directory && prefix == key) {
                cursor.seek(&prefix_end(&prefix))?;
            }
            last = Some(prefix.clone());
            page.prefixes.push(prefix);
        } else {
            page.elements.push(ElementInfo {
                id: entry.element,
                key: key.clone(),
                row: path::element(rows, entry.element)?,
                parts: Vec::new(),
            });
            last = Some(key.clone());
        }
    }
    Ok(page)
}
