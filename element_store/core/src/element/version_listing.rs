//! Listing versions: two walks in byte order of keys, of the live tree and of the table of versions, merged.

use super::info::{VersionInfo, VersionPage};
use super::listing::{Cursor, ListQuery, common_prefix, lower_bound};
use super::rows::{EntryRow, Kind};
use super::versions::{self, NULL, Past};
use super::{Rows, keys, namespace, path};
use crate::error::{Error, Result};
use crate::meta::{RangeIter, prefix_end};

#[derive(Debug, Clone, Default)]
pub struct VersionQuery {
    /// Its limit counts versions and prefixes.
    pub list: ListQuery,
    /// Go on after this version of the key `list.start_after`; None: after all of them.
    pub after_version: Option<u64>,
}

/// Where a key's versions are taken up again.
struct Resumed {
    /// What the key names was listed.
    past_live: bool,
    /// Rows of the table down to this sequence number were listed.
    sequence: u64,
    /// The next version is the key's newest.
    is_latest: bool,
}

struct Merge<'a> {
    rows: &'a dyn Rows,
    view: u64,
    tree: Cursor<'a>,
    table: RangeIter<'a>,
    /// The heads of both.
    live: Option<(Vec<u8>, EntryRow)>,
    past: Option<(Vec<u8>, Past)>,
}

impl<'a> Merge<'a> {
    fn new(rows: &'a dyn Rows, view: u64, from: &[u8]) -> Result<Self> {
        let mut merge = Self {
            rows,
            view,
            tree: Cursor::new(rows, view, from)?,
            table: table_from(rows, view, &keys::versions(view, from)),
            live: None,
            past: None,
        };
        merge.next_live()?;
        merge.next_past()?;
        Ok(merge)
    }

    /// `from`: a key, or what keys begin with.
    fn seek(&mut self, from: &[u8]) -> Result<()> {
        *self = Self::new(self.rows, self.view, from)?;
        Ok(())
    }

    fn next_live(&mut self) -> Result<()> {
        let mut key = Vec::new();
        self.live = loop {
            match self.tree.next(&mut key)? {
                Some(_) if key.len() > path::KEY_BYTES_MAX => {}
                Some(entry) if entry.kind == Kind::Directory => self.tree.enter(entry.element, &key),
                Some(entry) if entry.kind != Kind::File => {}
                found => break found.map(|entry| (key, entry)),
            }
        };
        Ok(())
    }

    fn next_past(&mut self) -> Result<()> {
        let found = self.table.next().map(|row| Past::decode(row?)).transpose()?;
        let key_of = |past: &Past| keys::version_of(&past.row_key).map_or(Vec::new(), |(key, _)| key.to_vec());
        self.past = found.map(|past| (key_of(&past), past));
        Ok(())
    }

    /// The key whose versions come next.
    fn key(&self) -> Option<Vec<u8>> {
        let live = self.live.as_ref().map(|(key, _)| key);
        let past = self.past.as_ref().map(|(key, _)| key);
        live.into_iter().chain(past).min().cloned()
    }

    /// The key's next version, newest first. None at its end.
    fn version(&mut self, key: &[u8], is_latest: bool) -> Result<Option<VersionInfo>> {
        if let Some((_, entry)) = self.live.take_if(|(live, _)| live == key) {
            self.next_live()?;
            let row = path::element(self.rows, entry.element)?;
            return Ok(Some(versions::of_element(key, entry.element, row, is_latest)));
        }
        let Some((_, past)) = self.past.take_if(|(past, _)| past == key) else {
            return Ok(None);
        };
        self.next_past()?;
        versions::of_past(self.rows, key, &past, is_latest).map(Some)
    }

    fn resume(&mut self, key: &[u8], resumed: &Resumed) -> Result<()> {
        if resumed.past_live && self.live.as_ref().is_some_and(|(live, _)| live == key) {
            self.next_live()?;
        }
        let from = [keys::version(self.view, key, resumed.sequence).as_slice(), &[0]].concat();
        self.table = table_from(self.rows, self.view, &from);
        self.next_past()
    }
}

fn table_from<'a>(rows: &'a dyn Rows, view: u64, from: &[u8]) -> RangeIter<'a> {
    let (_, to) = keys::span(keys::VERSION, view);
    rows.range(from, &to, false)
}

/// What was listed of the key before its version `after`, which may be gone since.
fn resumed(rows: &dyn Rows, view: u64, key: &[u8], after: u64) -> Result<Resumed> {
    let live = namespace::current(rows, &path::walk(rows, view, key)?)?.map(|(_, row)| row.version);
    let (past_live, sequence) = match versions::past(rows, view, key, after)? {
        _ if live == Some(after) => (true, u64::MAX),
        Some(past) => (true, past.sequence),
        None if after == NULL => (false, u64::MAX),
        None => (live.is_some_and(|live| live > after), after),
    };
    let is_latest = match live {
        Some(_) => !past_live,
        None => versions::newest(rows, view, key)?.is_some_and(|newest| newest.sequence < sequence),
    };
    Ok(Resumed {
        past_live,
        sequence,
        is_latest,
    })
}

/// Raises NotFound("view"), Invalid.
pub fn list(rows: &dyn Rows, view: &str, query: &VersionQuery) -> Result<VersionPage> {
    let view = path::view_id(rows, view)?;
    let (list, marker) = (&query.list, query.list.start_after.as_slice());
    let mut page = VersionPage::default();
    let Some(after) = query.after_version.filter(|_| marker.starts_with(&list.prefix)) else {
        fill(&mut page, &mut Merge::new(rows, view, &lower_bound(list))?, list, None)?;
        return Ok(page);
    };
    if marker.is_empty() {
        return Err(Error::Invalid("a version to go on after needs its key".into()));
    }
    let resumed = resumed(rows, view, marker, after)?;
    let mut merge = Merge::new(rows, view, marker)?;
    merge.resume(marker, &resumed)?;
    fill(&mut page, &mut merge, list, Some((marker, resumed.is_latest)))?;
    Ok(page)
}

/// `resumed`: the key that an earlier page ended in, and whether its newest version is still to come.
fn fill(page: &mut VersionPage, merge: &mut Merge, list: &ListQuery, resumed: Option<(&[u8], bool)>) -> Result<()> {
    let mut last = None;
    while let Some(key) = merge.key().filter(|key| key.starts_with(&list.prefix)) {
        if let Some(prefix) = common_prefix(list, &key) {
            if is_full(page, list, &mut last) {
                return Ok(());
            }
            page.prefixes.push(prefix.to_vec());
            last = Some((prefix.to_vec(), None));
            merge.seek(&prefix_end(prefix))?;
            continue;
        }
        let mut is_latest = resumed.is_none_or(|(marker, is_latest)| marker != key || is_latest);
        while let Some(version) = merge.version(&key, is_latest)? {
            if is_full(page, list, &mut last) {
                return Ok(());
            }
            is_latest = false;
            last = Some((key.clone(), Some(version.version)));
            page.versions.push(version);
        }
    }
    Ok(())
}

/// If so, the next page begins after the last that was listed.
fn is_full(page: &mut VersionPage, list: &ListQuery, last: &mut Option<(Vec<u8>, Option<u64>)>) -> bool {
    let full = page.versions.len() + page.prefixes.len() >= list.limit;
    if full {
        page.next_after = last.take();
    }
    full
}
