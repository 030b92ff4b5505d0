//! Rows as a space sees them: its own, else its origin's at the origin's epoch.
//!
//! `Versioned` is `Rows` over `Rows`, so that whatever reads rows reads snapshots and clones. Invariants: what a space's origin shows at its epoch never
//! changes while the space is there; a row of history is named by its key and the epoch in which it died, and lived from its birth until then.
//! Ranges of versioned tables must lie in one space; whole tables are read raw.

use super::rows::{ElementRow, EntryRow, VersionRow, born, is_tombstone, plain, plain_bytes};
use super::space::{Space, Spaces};
use super::{Row, Rows, keys};
use crate::error::{Error, Result};
use crate::meta::{RangeIter, Snapshot};
use std::cmp::Ordering;
use std::iter::Peekable;
use std::sync::Arc;

/// Tables whose rows snapshots see.
pub const TABLES: [u8; 7] = [
    keys::MAPPING,
    keys::PARTS,
    keys::ASIDE,
    keys::COOKIE,
    keys::ENTRY,
    keys::VERSION,
    keys::ELEMENT,
];
/// A table's letter and an id.
const PREFIX_BYTES: usize = 9;

/// The space of a key of a versioned table; none for space 0, of which there are no snapshots.
pub fn space_of(key: &[u8]) -> Option<u64> {
    let table = key.first().filter(|table| TABLES.contains(table))?;
    let space = keys::space_of(u64::from_be_bytes(key.get(1..PREFIX_BYTES)?.try_into().ok()?));
    debug_assert!(TABLES.contains(table));
    (space != 0).then_some(space)
}

/// The same key or bound in another space.
fn key_in(key: &[u8], space: u64) -> Vec<u8> {
    let mut moved = key.to_vec();
    // A bound may have lost zeros at its end.
    moved.resize(moved.len().max(PREFIX_BYTES), 0);
    let id = keys::in_space(keys::id_of(&moved), space);
    moved[1..PREFIX_BYTES].copy_from_slice(&id.to_be_bytes());
    moved
}

/// An origin's row as it reads in a space: ids in it are the space's.
fn retag(space: &Space, key: &[u8], value: Vec<u8>) -> Result<Vec<u8>> {
    match key.first() {
        Some(&keys::ELEMENT) => {
            let mut row = ElementRow::decode(&value)?;
            row.parent = space.retag(row.parent);
            Ok(row.encode())
        }
        Some(&keys::ENTRY) => {
            let mut row = EntryRow::decode(&value)?;
            row.element = space.retag(row.element);
            Ok(row.encode())
        }
        Some(&keys::VERSION) => {
            let mut row = VersionRow::decode(&value)?;
            row.element = space.retag(row.element);
            Ok(row.encode())
        }
        Some(&keys::ASIDE) if keys::ordinal_of(key) != 0 => {
            let damaged = || Error::Damaged("an entry that lies aside is short".into());
            let (directory, name) = plain_bytes(&value)?.split_first_chunk::<8>().ok_or_else(damaged)?;
            let directory = space.retag(u64::from_be_bytes(*directory));
            Ok(plain(born(&value)?, &[&directory.to_be_bytes(), name].concat()))
        }
        _ => Ok(value),
    }
}

/// Rows and the spaces that they belong to.
#[derive(Clone, Copy)]
pub struct Versioned<'a> {
    pub raw: &'a dyn Rows,
    pub spaces: &'a Spaces,
}

impl<'a> Versioned<'a> {
    pub fn get(self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(space) = space_of(key) else { return self.raw.get(key) };
        let space = self.spaces.known(space)?;
        match self.raw.get(key)? {
            Some(own) if is_tombstone(&own) => Ok(None),
            None if space.row.origin.is_some() => self.inherited(space, key),
            own => Ok(own),
        }
    }

    /// What the space's origin shows under a key of the space.
    pub fn inherited(self, space: &Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(origin) = space.row.origin else { return Ok(None) };
        let found = self.at_epoch(origin.space, &key_in(key, origin.space), origin.epoch)?;
        found.map(|value| retag(space, key, value)).transpose()
    }

    fn at_epoch(self, space: u64, key: &[u8], epoch: u64) -> Result<Option<Vec<u8>>> {
        match self.own_at(key, epoch)? {
            Some(own) => Ok((!is_tombstone(&own)).then_some(own)),
            None => self.inherited(self.spaces.known(space)?, key),
        }
    }

    /// The row under a key as it was at an epoch, tombstones too.
    fn own_at(self, key: &[u8], epoch: u64) -> Result<Option<Vec<u8>>> {
        if let Some(live) = self.raw.get(key)?
            && born(&live)? <= epoch
        {
            return Ok(Some(live));
        }
        let (from, to) = (keys::history(key, epoch + 1), keys::history(key, u64::MAX));
        let Some(next) = self.raw.range(&from, &to, false).next() else {
            return Ok(None);
        };
        let (_, value) = next?;
        Ok((born(&value)? <= epoch).then_some(value))
    }

    pub fn range(self, from: &[u8], to: &[u8], reverse: bool) -> RangeIter<'a> {
        let Some(space) = space_of(from).filter(|_| from < to) else {
            return self.raw.range(from, to, reverse);
        };
        match self.spaces.known(space) {
            Ok(space) if space.row.origin.is_some() => shown(self.merged(space, from, to, reverse, None)),
            Ok(space) if space.row.is_split => shown(self.raw.range(from, to, reverse)),
            Ok(_) => self.raw.range(from, to, reverse),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }

    /// The space's rows, as they are or as they were at an epoch, laid over its origin's. Tombstones are among them.
    fn merged(self, space: &'a Space, from: &[u8], to: &[u8], reverse: bool, epoch: Option<u64>) -> RangeIter<'a> {
        let end = keys::space_span(from[0], space.id).1;
        let to = to.min(end.as_slice());
        let own = match epoch {
            None => self.raw.range(from, to, reverse),
            Some(epoch) => self.own_range_at(from, to, reverse, epoch),
        };
        if space.row.origin.is_none() {
            return own;
        }
        Box::new(Overlay {
            over: own.peekable(),
            under: self.inherited_from(space, from, to, reverse).peekable(),
            reverse,
        })
    }

    /// What the space's origin shows in a range of the space.
    pub fn inherited_range(self, space: &'a Space, from: &[u8], to: &[u8]) -> RangeIter<'a> {
        self.inherited_from(space, from, to, false)
    }

    /// `to`: at most the end of the space.
    fn inherited_from(self, space: &'a Space, from: &[u8], to: &[u8], reverse: bool) -> RangeIter<'a> {
        let Some(origin) = space.row.origin.filter(|_| from < to) else {
            return Box::new(std::iter::empty());
        };
        let origin_space = match self.spaces.known(origin.space) {
            Ok(found) => found,
            Err(error) => return Box::new(std::iter::once(Err(error))),
        };
        let (table, end) = (from[0], keys::space_span(from[0], space.id).1);
        let there_to = if to == end {
            keys::space_span(table, origin.space).1
        } else {
            key_in(to, origin.space)
        };
        let there = self.merged(origin_space, &key_in(from, origin.space), &there_to, reverse, Some(origin.epoch));
        let moved = shown(there).map(move |row| {
            let (key, value) = row?;
            let key = key_in(&key, space.id);
            let value = retag(space, &key, value)?;
            Ok((key, value))
        });
        Box::new(moved)
    }

    fn own_range_at(self, from: &[u8], to: &[u8], reverse: bool, epoch: u64) -> RangeIter<'a> {
        let old_from = [&[keys::HISTORY], from].concat();
        let old_to = [&[keys::HISTORY], to].concat();
        let (first, last) = (from.to_vec(), to.to_vec());
        let past = Past {
            rows: self.raw.range(&old_from, &old_to, reverse).peekable(),
            epoch,
        };
        let past = past.filter(move |row| row.as_ref().map_or(true, |(key, _)| *key >= first && *key < last));
        let live = self.raw.range(from, to, reverse);
        let live = live.filter(move |row| {
            row.as_ref()
                .map_or(true, |(_, value)| born(value).map_or(true, |born| born <= epoch))
        });
        Box::new(Overlay {
            over: (Box::new(live) as RangeIter<'a>).peekable(),
            under: (Box::new(past) as RangeIter<'a>).peekable(),
            reverse,
        })
    }
}

impl Rows for Versioned<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Versioned::get(*self, key)
    }

    fn range(&self, from: &[u8], to: &[u8], reverse: bool) -> RangeIter<'_> {
        Versioned::range(*self, from, to, reverse)
    }
}

fn shown(rows: RangeIter<'_>) -> RangeIter<'_> {
    Box::new(rows.filter(|row| row.as_ref().map_or(true, |(_, value)| !is_tombstone(value))))
}

/// Two ranges of the same keys: where both have one, `over` counts.
struct Overlay<'a> {
    over: Peekable<RangeIter<'a>>,
    under: Peekable<RangeIter<'a>>,
    reverse: bool,
}

impl Iterator for Overlay<'_> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        let order = match (self.over.peek(), self.under.peek()) {
            (Some(Ok((over, _))), Some(Ok((under, _)))) if self.reverse => under.cmp(over),
            (Some(Ok((over, _))), Some(Ok((under, _)))) => over.cmp(under),
            (Some(_), _) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        match order {
            Ordering::Less => self.over.next(),
            Ordering::Greater => self.under.next(),
            Ordering::Equal => {
                self.under.next();
                self.over.next()
            }
        }
    }
}

/// Of each key's history the row that lived at an epoch.
struct Past<'a> {
    rows: Peekable<RangeIter<'a>>,
    epoch: u64,
}

impl Past<'_> {
    /// The row of history that died first after the epoch, of the next key; its birth is not looked at.
    fn next_key(&mut self) -> Result<Option<(Vec<u8>, Option<Vec<u8>>)>> {
        let damaged = || Error::Damaged("a key of history is short".into());
        let (mut key, mut found): (Option<Vec<u8>>, Option<(u64, Vec<u8>)>) = (None, None);
        while let Some(row) = self.rows.next_if(|row| match (row, &key) {
            (Ok((next, _)), Some(key)) => keys::history_of(next).is_some_and(|(next, _)| next == key),
            _ => true,
        }) {
            let (row_key, value) = row?;
            let (live, died) = keys::history_of(&row_key).ok_or_else(damaged)?;
            key.get_or_insert_with(|| live.to_vec());
            if died > self.epoch && found.as_ref().is_none_or(|(earlier, _)| died < *earlier) {
                found = Some((died, value));
            }
        }
        Ok(key.map(|key| (key, found.map(|(_, value)| value))))
    }
}

impl Iterator for Past<'_> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Result<Row>> {
        loop {
            match self.next_key() {
                Err(error) => return Some(Err(error)),
                Ok(None) => return None,
                Ok(Some((_, None))) => {}
                Ok(Some((key, Some(value)))) => match born(&value) {
                    Ok(born) if born <= self.epoch => return Some(Ok((key, value))),
                    Ok(_) => {}
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }
}

/// A committed state with the spaces of that moment.
pub struct View {
    pub raw: Snapshot,
    spaces: Arc<Spaces>,
}

impl View {
    /// `spaces` is asked before and after: a space that goes or loses its origin in between is not missed.
    pub fn new(snapshot: impl Fn() -> Snapshot, spaces: impl Fn() -> Arc<Spaces>) -> Self {
        loop {
            let before = spaces();
            let raw = snapshot();
            let after = spaces();
            if Arc::ptr_eq(&before, &after) {
                return Self { raw, spaces: after };
            }
        }
    }

    pub fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    pub fn sequence(&self) -> u64 {
        self.raw.sequence()
    }

    pub fn versioned(&self) -> Versioned<'_> {
        Versioned {
            raw: &self.raw,
            spaces: &self.spaces,
        }
    }
}

impl Rows for View {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.versioned().get(key)
    }

    fn range(&self, from: &[u8], to: &[u8], reverse: bool) -> RangeIter<'_> {
        self.versioned().range(from, to, reverse)
    }
}
