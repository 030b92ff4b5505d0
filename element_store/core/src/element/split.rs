//! Splitting a clone: it gets rows of its own for all that it sees of its origin, step by step, and then has no origin any more.
//!
//! All spaces of the clone's group are split together, as they name one another by their origins. What is copied is walked as the origin has it at its epoch,
//! which nobody changes, so names may move in the clone meanwhile. Invariants: after each step every space reads as before, at every epoch that somebody
//! holds; a row that is copied keeps its birth, which is older than any such epoch; an extent gets a reference with each mapping that is copied.

#[cfg(test)]
use super::faults::Fault;
use super::history::Versioned;
use super::rows::{ElementRow, EntryRow, Kind, MappingRow, VersionRow, born, is_tombstone};
use super::snapshot_work::{self, SPLIT, Step, TRIM, Tally, Work};
use super::space::{Space, SpaceRow};
use super::transaction::Transaction;
use super::{Row, Rows, keys};
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};

/// Where a walk of one space is: which space, what of it, the last row that was looked at there, and how far the element that it names was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Cursor {
    space: u64,
    stage: u8,
    /// The key of a row of the stage's table; empty: none yet.
    key: Vec<u8>,
    /// The row of that very key is still to be looked at.
    is_before: bool,
    /// Mappings that end before it are copied.
    offset: u64,
}

const LAYOUT: u8 = 1;
/// The root's own rows; entries below it; of a whole view: versions, and what lies aside.
const ROOT: u8 = 0;
const ENTRIES: u8 = 1;
const VERSIONS: u8 = 2;
const ASIDE: u8 = 3;
const END: u8 = 4;

impl Cursor {
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(LAYOUT).varint(self.space).u8(self.stage).varint(self.offset);
        writer.blob(&self.key).u8(u8::from(self.is_before));
        writer.bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut reader = Reader::new(bytes);
        if reader.u8()? != LAYOUT {
            return Err(Error::Damaged("the row of a split is of unknown layout".into()));
        }
        let cursor = Self {
            space: reader.varint()?,
            stage: reader.u8()?,
            offset: reader.varint()?,
            key: reader.blob()?.to_vec(),
            is_before: reader.u8()? != 0,
        };
        reader.finish().map(|()| cursor)
    }

    /// The first row, from where the cursor is, of what a space inherits.
    fn next(&self, tx: &Transaction, space: &Space, to: &[u8]) -> Result<Option<Row>> {
        let mut from = self.key.clone();
        if !self.is_before {
            from.push(0);
        }
        tx.versioned().inherited_range(space, &from, to).next().transpose()
    }

    fn pass(&mut self, key: Vec<u8>) {
        (self.key, self.is_before, self.offset) = (key, false, 0);
    }
}

/// Begins it. The element is the root of a clone. Raises Invalid.
pub fn begin(tx: &mut Transaction, element: u64) -> Result<()> {
    let space = tx.spaces().known(keys::space_of(element))?;
    if space.row.root != element || space.row.origin.is_none() || space.row.is_image {
        return Err(Error::Invalid(
            "what is split is a clone that shares something with a snapshot".into(),
        ));
    }
    let group = space.row.group;
    snapshot_work::add(tx, SPLIT, keys::space_of(element), group)
}

/// The spaces that are split together and still have an origin, by id.
fn members(tx: &Transaction, group: u64) -> Vec<Space> {
    let is_member = |space: &&Space| space.row.group == group && space.row.origin.is_some() && !space.row.is_image && !space.row.is_left;
    let mut found: Vec<Space> = tx.spaces().iter().filter(is_member).cloned().collect();
    found.sort_by_key(|space| space.id);
    found
}

pub(super) fn step(tx: &mut Transaction, work: &Work, limit: usize, bytes_max: usize, done: &mut Tally) -> Result<Step> {
    let members = members(tx, work.epoch);
    let mut walk = Walk {
        cursor: Cursor::decode(&work.after)?,
        left: limit,
        bytes_max,
    };
    for space in &members {
        if space.id < walk.cursor.space {
            continue;
        }
        if space.id > walk.cursor.space {
            walk.cursor = Cursor {
                space: space.id,
                ..Cursor::default()
            };
        }
        let is_whole = walk.space(tx, space)?;
        done.rows = (limit - walk.left) as u64;
        if !is_whole {
            tx.put(keys::work(SPLIT, work.space, work.epoch), walk.cursor.encode())?;
            return Ok(Step::More);
        }
    }
    for space in members {
        let Some(origin) = space.row.origin else { continue };
        let row = SpaceRow {
            origin: None,
            is_split: true,
            ..space.row
        };
        tx.put_space(space.id, row)?;
        snapshot_work::add(tx, TRIM, origin.space, origin.epoch)?;
    }
    Ok(Step::Done)
}

/// Rows of entries that are still to be looked at, at most `limit`: about as many files and directories. Of the space that is split now.
pub(super) fn backlog(rows: Versioned<'_>, work: &Work, limit: usize) -> Result<Tally> {
    let cursor = Cursor::decode(&work.after)?;
    let id = if cursor.space == 0 { work.space } else { cursor.space };
    let Some(space) = rows.spaces.get(id) else {
        return Ok(Tally::default());
    };
    let (from, to) = keys::space_span(keys::ENTRY, id);
    Ok(Tally {
        rows: rows.inherited_range(space, &from, &to).take(limit).count() as u64,
        bytes: 0,
    })
}

/// One step's walk.
struct Walk {
    cursor: Cursor,
    left: usize,
    bytes_max: usize,
}

fn inherited(tx: &Transaction, space: &Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
    tx.versioned().inherited(space, key)
}

impl Walk {
    fn is_full(&self, tx: &Transaction) -> bool {
        self.left == 0 || tx.encoded_bytes_max() >= self.bytes_max
    }

    /// True: all of it is copied.
    fn space(&mut self, tx: &mut Transaction, space: &Space) -> Result<bool> {
        let is_whole = tx.spaces().is_whole(space);
        while self.cursor.stage != END {
            let is_done = match self.cursor.stage {
                ROOT => self.element(tx, space, space.row.root)?,
                ENTRIES => self.entries(tx, space)?,
                VERSIONS if is_whole => self.versions(tx, space)?,
                ASIDE if is_whole => self.aside(tx, space)?,
                _ => true,
            };
            if !is_done {
                return Ok(false);
            }
            self.cursor = Cursor {
                space: space.id,
                stage: self.cursor.stage + 1,
                ..Cursor::default()
            };
        }
        Ok(true)
    }

    /// Depth first: after an entry come those of the directory that it names, and after the last of a directory its next sister.
    fn entries(&mut self, tx: &mut Transaction, space: &Space) -> Result<bool> {
        let root = space.row.root;
        if self.cursor.key.is_empty() {
            (self.cursor.key, self.cursor.is_before) = (keys::span(keys::ENTRY, root).0, true);
        }
        loop {
            if self.is_full(tx) {
                return Ok(false);
            }
            self.left -= 1;
            let directory = keys::id_of(&self.cursor.key);
            let (_, to) = keys::span(keys::ENTRY, directory);
            match self.cursor.next(tx, space, &to)? {
                Some((key, value)) => {
                    let entry = EntryRow::decode(&value)?;
                    if !self.entry(tx, space, &key, &value, &entry)? {
                        return Ok(false);
                    }
                    self.cursor.pass(key);
                    if entry.kind == Kind::Directory && keys::space_of(entry.element) == space.id {
                        (self.cursor.key, self.cursor.is_before) = (keys::span(keys::ENTRY, entry.element).0, true);
                    }
                }
                None if directory == root => return Ok(true),
                None => {
                    let row = inherited(tx, space, &keys::element(directory))?;
                    let row = row.ok_or_else(|| Error::Damaged(format!("directory {directory} of an origin has no row")))?;
                    let row = ElementRow::decode(&row)?;
                    self.cursor.pass(keys::entry(row.parent, &row.detail));
                }
            }
        }
    }

    /// An entry, its cookie and the element that it names. False: there is more of that.
    fn entry(&mut self, tx: &mut Transaction, space: &Space, key: &[u8], value: &[u8], entry: &EntryRow) -> Result<bool> {
        copy(tx, space, key, value, None)?;
        let cookie = keys::cookie(keys::id_of(key), entry.cookie);
        if let Some(value) = inherited(tx, space, &cookie)? {
            copy(tx, space, &cookie, &value, None)?;
        }
        match keys::space_of(entry.element) == space.id {
            true => self.element(tx, space, entry.element),
            false => Ok(true),
        }
    }

    /// Its row, parts and mappings. False: there are more.
    fn element(&mut self, tx: &mut Transaction, space: &Space, element: u64) -> Result<bool> {
        let key = keys::element(element);
        let Some(value) = inherited(tx, space, &key)? else {
            return Ok(true);
        };
        copy(tx, space, &key, &value, None)?;
        let (from, to) = keys::span(keys::PARTS, element);
        let parts: Vec<Row> = tx.versioned().inherited_range(space, &from, &to).collect::<Result<_>>()?;
        for (key, value) in parts {
            copy(tx, space, &key, &value, None)?;
        }
        let death = death(tx, element)?;
        let to = keys::mapping(element, u64::MAX);
        loop {
            if self.is_full(tx) {
                return Ok(false);
            }
            let from = keys::mapping(element, self.cursor.offset);
            let found: Vec<Row> = tx
                .versioned()
                .inherited_range(space, &from, &to)
                .take(self.left.min(64))
                .collect::<Result<_>>()?;
            let Some((last, _)) = found.last() else { break };
            self.cursor.offset = keys::ordinal_of(last) + 1;
            self.left -= found.len();
            for (key, value) in &found {
                copy(tx, space, key, value, death)?;
            }
        }
        self.cursor.offset = 0;
        Ok(true)
    }

    fn versions(&mut self, tx: &mut Transaction, space: &Space) -> Result<bool> {
        self.rows(tx, space, keys::VERSION, |walk, tx, value| {
            let element = VersionRow::decode(value)?.element;
            Ok(element == 0 || walk.element(tx, space, element)?)
        })
    }

    fn aside(&mut self, tx: &mut Transaction, space: &Space) -> Result<bool> {
        self.rows(tx, space, keys::ASIDE, |_, _, _| Ok(true))
    }

    /// The root's rows in a table, and what belongs to each.
    fn rows(
        &mut self,
        tx: &mut Transaction,
        space: &Space,
        table: u8,
        more: impl Fn(&mut Self, &mut Transaction, &[u8]) -> Result<bool>,
    ) -> Result<bool> {
        let (from, to) = keys::span(table, space.row.root);
        if self.cursor.key.is_empty() {
            (self.cursor.key, self.cursor.is_before) = (from, true);
        }
        loop {
            if self.is_full(tx) {
                return Ok(false);
            }
            self.left -= 1;
            let Some((key, value)) = self.cursor.next(tx, space, &to)? else {
                return Ok(true);
            };
            copy(tx, space, &key, &value, None)?;
            if !more(self, tx, &value)? {
                return Ok(false);
            }
            self.cursor.pass(key);
        }
    }
}

/// When an element was given up that had mappings to its end, of which nothing else speaks. None: it is there, or it is being given up still.
fn death(tx: &Transaction, element: u64) -> Result<Option<u64>> {
    let row = tx.raw(&keys::element(element))?;
    let Some(row) = row.filter(|row| is_tombstone(row)) else {
        return Ok(None);
    };
    match tx.get(&keys::detached(element))? {
        Some(_) => Ok(None),
        None => born(&row).map(Some),
    }
}

/// The birth of the first row that a space had of its own under a key.
fn oldest(tx: &Transaction, key: &[u8]) -> Result<Option<u64>> {
    let (from, to) = (keys::history(key, 0), keys::history(key, u64::MAX));
    if let Some((_, value)) = tx.raw_rows(&from, &to, 1)?.pop() {
        return born(&value).map(Some);
    }
    tx.raw(key)?.map(|value| born(&value)).transpose()
}

/// Lays what is inherited under a key into the space, where its own rows leave room for it: at the beginning. `death`: until then it was seen, though the space
/// has no row of its own.
fn copy(tx: &mut Transaction, space: &Space, key: &[u8], value: &[u8], death: Option<u64>) -> Result<()> {
    debug_assert!(!is_tombstone(value));
    let until = oldest(tx, key)?.or(death);
    #[cfg(test)]
    if forgets(tx, key, until.is_some()) {
        return Ok(());
    }
    match until {
        None => tx.lay(key, value)?,
        Some(until) if space.is_held(born(value)?, until) => {
            tx.lay(&keys::history(key, until), value)?;
            tx.lay(&keys::dead(space.id, until, key), &[])?;
        }
        Some(_) => return Ok(()),
    }
    #[cfg(test)]
    if tx.has_fault(Fault::SplitForgetsReferences) {
        return Ok(());
    }
    if key.first() == Some(&keys::MAPPING) {
        tx.add(&keys::extent_shares(MappingRow::decode(value)?.extent), 1)?;
    }
    Ok(())
}

/// A fault that a test asked for leaves this row out.
#[cfg(test)]
fn forgets(tx: &Transaction, key: &[u8], has_own: bool) -> bool {
    match has_own {
        true => tx.has_fault(Fault::SplitForgetsHistory),
        false => key.first() == Some(&keys::MAPPING) && tx.has_fault(Fault::SplitForgetsContent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cursors_survive(space: u64, stage: u8, key: Vec<u8>, is_before: bool, offset: u64) {
            let cursor = Cursor { space, stage, key, is_before, offset };
            prop_assert_eq!(Cursor::decode(&cursor.encode()).unwrap(), cursor);
        }

        #[test]
        fn any_bytes_are_a_cursor_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _either = Cursor::decode(&bytes);
        }
    }
}
