//! Spaces: who an element's id belongs to, and where a space's missing rows are read.
//!
//! Owns the rows of spaces and their table in memory, which every look and every transaction carries (`Spaces`). Invariants: a space's origin is there
//! as long as the space; a hold of a space is the origin of another, and nothing else; the table in memory is that of the rows as of the newest
//! transaction, but for images that were deleted and are still read (`doomed`).

use super::{Rows, keys};
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};
use crate::filesystem::Errno;
use crate::meta::decode_counter;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The counter row of the epoch.
pub const EPOCH: &str = "epoch";
/// The counter row of the space that was given out last.
pub const SPACES: &str = "spaces";
/// Of a pool without snapshots.
const FIRST_EPOCH: u64 = 1;
const LAYOUT: u8 = 1;

/// Where the rows are that a space lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    pub space: u64,
    pub epoch: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceRow {
    /// The element below which all of it lies.
    pub root: u64,
    /// The space in which its root has its name.
    pub parent: u64,
    pub origin: Option<Origin>,
    /// The first space of its line: a restored tree is of the line of what it replaced. Snapshots are listed by it.
    pub lineage: u64,
    /// Spaces that came about together, from origins that knew of one another; 0: none.
    pub group: u64,
    /// Nothing in it ever changes.
    pub is_image: bool,
    /// Nothing leads to its root any more.
    pub is_left: bool,
    /// Its root took the place of something in the space that names it: that one's snapshots show it too.
    pub is_restored: bool,
    /// It had an origin once: what hid that one's rows may lie in it still.
    pub is_split: bool,
    pub created_ns: i64,
}

impl SpaceRow {
    pub fn encode(&self) -> Vec<u8> {
        let origin = self.origin.unwrap_or(Origin { space: 0, epoch: 0 });
        let mut writer = Writer::new();
        writer.u8(LAYOUT).u8(self.flags()).varint(self.root).varint(self.parent);
        writer
            .varint(origin.space)
            .varint(origin.epoch)
            .varint(self.lineage)
            .varint(self.group);
        writer.i64(self.created_ns);
        writer.bytes
    }

    fn flags(&self) -> u8 {
        let flags = [self.is_image, self.is_left, self.is_restored, self.is_split];
        flags.iter().enumerate().fold(0, |all, (at, flag)| all | u8::from(*flag) << at)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != LAYOUT {
            return Err(Error::Damaged("a space's row is of unknown layout".into()));
        }
        let flags = reader.u8()?;
        let (root, parent) = (reader.varint()?, reader.varint()?);
        let origin = Origin {
            space: reader.varint()?,
            epoch: reader.varint()?,
        };
        let row = Self {
            root,
            parent,
            origin: (origin.space != 0).then_some(origin),
            lineage: reader.varint()?,
            group: reader.varint()?,
            is_image: flags & 1 != 0,
            is_left: flags & 2 != 0,
            is_restored: flags & 4 != 0,
            is_split: flags & 8 != 0,
            created_ns: reader.i64()?,
        };
        reader.finish()?;
        Ok(row)
    }
}

/// Of a group: the member for each origin's space.
pub type Members = BTreeMap<u64, u64>;

#[derive(Debug, Clone)]
pub struct Space {
    pub id: u64,
    pub row: SpaceRow,
    pub members: Arc<Members>,
    /// Epochs that other spaces read here, with their number.
    pub holds: BTreeMap<u64, u32>,
    /// An image without a name or a row, for those who read it still.
    pub is_doomed: bool,
}

impl Space {
    /// What an id in an origin's row means here.
    pub fn retag(&self, id: u64) -> u64 {
        let of_space = keys::space_of(id);
        match self.members.get(&of_space) {
            Some(member) if of_space != 0 => keys::in_space(id, *member),
            _ => id,
        }
    }

    pub fn hold_max(&self) -> Option<u64> {
        self.holds.keys().next_back().copied()
    }

    /// Does anybody see what lived from `born` until `died`?
    pub fn is_held(&self, born: u64, died: u64) -> bool {
        born < died && self.holds.range(born..died).next().is_some()
    }
}

#[derive(Debug, Clone)]
pub struct Spaces {
    table: HashMap<u64, Arc<Space>>,
    /// Of rows that are written now.
    pub epoch: u64,
    last_id: u64,
}

impl Default for Spaces {
    fn default() -> Self {
        Self {
            table: HashMap::new(),
            epoch: FIRST_EPOCH,
            last_id: 0,
        }
    }
}

fn counter(rows: &dyn Rows, name: &str) -> Result<Option<u64>> {
    let value = rows.get(&keys::counter(name))?;
    value.map(|value| decode_counter(&value).map(|value| value as u64)).transpose()
}

impl Spaces {
    pub fn load(rows: &dyn Rows) -> Result<Self> {
        let mut spaces = Self {
            epoch: counter(rows, EPOCH)?.unwrap_or(FIRST_EPOCH),
            last_id: counter(rows, SPACES)?.unwrap_or(0),
            ..Self::default()
        };
        let (from, to) = keys::table(keys::SPACE);
        let mut groups: HashMap<u64, Vec<(u64, SpaceRow)>> = HashMap::new();
        for row in rows.range(&from, &to, false) {
            let (key, value) = row?;
            let row = SpaceRow::decode(&value)?;
            groups.entry(row.group).or_default().push((keys::id_of(&key), row));
        }
        for row in groups.remove(&0).unwrap_or_default() {
            spaces.insert(vec![row]);
        }
        groups.into_values().for_each(|group| spaces.insert(group));
        spaces.count_holds();
        Ok(spaces)
    }

    pub fn get(&self, id: u64) -> Option<&Space> {
        self.table.get(&id).map(Arc::as_ref)
    }

    /// Raises ESTALE.
    pub fn known(&self, id: u64) -> Result<&Space> {
        self.get(id).ok_or(Error::File(Errno::STALE))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Space> {
        self.table.values().map(Arc::as_ref)
    }

    /// Those that read a space, whatever the epoch.
    pub fn readers_of(&self, space: u64) -> impl Iterator<Item = &Space> {
        self.iter()
            .filter(move |other| other.row.origin.is_some_and(|origin| origin.space == space))
    }

    /// Does it show all that its origins did, from their roots on?
    pub fn is_whole(&self, space: &Space) -> bool {
        let Some(origin) = space.row.origin.and_then(|origin| self.get(origin.space)) else {
            return true;
        };
        keys::number_of(origin.row.root) == keys::number_of(space.row.root) && self.is_whole(origin)
    }

    /// The space and all whose roots have their names in one of them. Images aside.
    pub fn tree(&self, space: u64) -> Vec<u64> {
        let mut found = vec![space];
        let mut at = 0;
        while let Some(above) = found.get(at).copied() {
            let below = self
                .iter()
                .filter(|other| other.row.parent == above && !other.row.is_left && !other.row.is_image);
            found.extend(below.map(|other| other.id).filter(|id| *id != above));
            at += 1;
        }
        found
    }

    /// Ids that no space has, and that were given out longest ago. Raises Limit.
    pub fn next_ids(&self, count: usize) -> Result<Vec<u64>> {
        const IDS: u64 = keys::SPACES_MAX - 1;
        let ids = (0..IDS).map(|step| (self.last_id + step) % IDS + 1);
        let free: Vec<u64> = ids.filter(|id| !self.table.contains_key(id)).take(count).collect();
        if free.len() < count {
            return Err(Error::Limit(format!("a pool has at most {IDS} views, snapshots and clones")));
        }
        Ok(free)
    }

    /// All of a group at once. Their holds are counted by `hold`.
    fn insert(&mut self, group: Vec<(u64, SpaceRow)>) {
        let members = group.iter().filter_map(|(id, row)| Some((row.origin?.space, *id)));
        let members: Arc<Members> = Arc::new(members.collect());
        for (id, row) in group {
            let space = Space {
                id,
                row,
                members: members.clone(),
                holds: BTreeMap::new(),
                is_doomed: false,
            };
            self.table.insert(id, Arc::new(space));
        }
    }

    fn count_holds(&mut self) {
        let origins: Vec<Origin> = self.iter().filter_map(|space| space.row.origin).collect();
        origins.into_iter().for_each(|origin| self.hold(origin, true));
    }

    fn hold(&mut self, origin: Origin, begins: bool) {
        self.edit(origin.space, |space| {
            let count = space.holds.entry(origin.epoch).or_default();
            *count = if begins { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                space.holds.remove(&origin.epoch);
            }
        });
    }

    fn edit(&mut self, id: u64, change: impl FnOnce(&mut Space)) {
        if let Some(space) = self.table.get_mut(&id) {
            change(Arc::make_mut(space));
        }
    }

    pub(super) fn add(&mut self, group: Vec<(u64, SpaceRow)>) {
        let origins: Vec<Origin> = group.iter().filter_map(|(_, row)| row.origin).collect();
        self.last_id = group.last().map_or(self.last_id, |(id, _)| *id);
        self.insert(group);
        origins.into_iter().for_each(|origin| self.hold(origin, true));
    }

    pub(super) fn replace(&mut self, id: u64, row: SpaceRow) {
        let old = self.get(id).and_then(|space| space.row.origin);
        let lost = old.filter(|_| row.origin.is_none());
        self.edit(id, |space| space.row = row);
        if let Some(origin) = lost {
            self.hold(origin, false);
        }
    }

    pub(super) fn doom(&mut self, id: u64) {
        self.edit(id, |space| space.is_doomed = true);
    }

    pub(super) fn remove(&mut self, id: u64) {
        let removed = self.table.remove(&id);
        if let Some(origin) = removed.and_then(|space| space.row.origin) {
            self.hold(origin, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(root: u64) -> SpaceRow {
        SpaceRow {
            root,
            parent: 0,
            origin: None,
            lineage: 1,
            group: 0,
            is_image: false,
            is_left: false,
            is_restored: false,
            is_split: false,
            created_ns: -1,
        }
    }

    #[test]
    fn ids_of_spaces_go_round() {
        let mut spaces = Spaces::default();
        for expected in 1..=3 {
            let id = spaces.next_ids(1).unwrap()[0];
            assert_eq!(id, expected);
            spaces.add(vec![(id, row(id))]);
        }
        spaces.remove(3);
        assert_eq!(spaces.next_ids(1).unwrap(), [4], "what went does not come back at once");
        spaces.last_id = keys::SPACES_MAX - 1;
        assert_eq!(spaces.next_ids(2).unwrap(), [3, 4]);
    }

    proptest! {
        #[test]
        fn rows_survive(root: u64, parent: u64, origin in proptest::option::of((1..u64::MAX, any::<u64>())), is_image: bool, is_restored: bool, is_split: bool) {
            let origin = origin.map(|(space, epoch)| Origin { space, epoch });
            let row = SpaceRow { root, parent, origin, is_image, is_restored, is_split, ..row(1) };
            prop_assert_eq!(SpaceRow::decode(&row.encode()).unwrap(), row);
        }

        #[test]
        fn any_bytes_are_a_row_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _either = SpaceRow::decode(&bytes);
        }
    }
}
