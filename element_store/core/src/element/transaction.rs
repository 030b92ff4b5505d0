//! What one running transaction carries: rows, identity, time, the landing area of the open journal record, and notes for after the commit.

use super::Rows;
use super::attachments::Attachments;
use super::files::check_name;
use super::history::{self, Versioned};
use super::keys;
use super::rows::{self, ChunkRow, ElementRow, EntryRow, ExtentRow, Kind, MappingRow, VersionRow};
use super::space::{EPOCH, SPACES, SpaceRow, Spaces};
use crate::error::{Error, Result};
use crate::filesystem::Errno;
use crate::filesystem::news::{Hub, News, Origin};
use crate::journal::Filling;
use crate::meta::{RangeIter, Txn};
use crate::reduction::Mode;
use crate::segment::Location;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

pub use super::shared::{IDS, IDS_LEASED, Ids, Opens, Pin, Pins};

/// What all transactions of a store share.
#[derive(Debug)]
pub struct Shared {
    pub ids: Ids,
    pub pins: Pins,
    pub opens: Opens,
    pub attachments: Attachments,
    pub news: Hub,
    #[cfg(test)]
    pub faults: super::faults::Faults,
    /// As of the newest transaction that was applied.
    spaces: RwLock<Arc<Spaces>>,
}

impl Shared {
    pub fn new(ids: Ids, spaces: Spaces) -> Self {
        Self {
            ids,
            pins: Pins::default(),
            opens: Opens::default(),
            attachments: Attachments::default(),
            news: Hub::default(),
            #[cfg(test)]
            faults: Default::default(),
            spaces: RwLock::new(Arc::new(spaces)),
        }
    }

    pub fn spaces(&self) -> Arc<Spaces> {
        self.spaces.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where payloads of the open journal record go.
#[derive(Debug)]
pub struct Landing {
    pub filling: Arc<Filling>,
    /// Of all payloads of the record.
    pub bytes_max: usize,
}

/// Every payload starts at a multiple of this.
pub const PAYLOAD_ALIGN: usize = 8;

pub struct Transaction<'a> {
    rows: Txn<'a>,
    shared: &'a Shared,
    landing: &'a Landing,
    landing_mark: usize,
    pub now_ns: i64,
    /// Elements that no reader can pin until this is seen.
    dying: Vec<u64>,
    /// Elements that nobody can open until this is seen.
    unopened: Vec<u64>,
    /// Change of live payload bytes, by segment.
    live: HashMap<u64, i64>,
    /// Change of mapped bytes, by element.
    mapped: HashMap<u64, i64>,
    /// How what it lands is to be reduced, where its element does not say.
    pub landing_mode: Option<Mode>,
    /// In whose name it changes what it changes.
    pub origin: Origin,
    /// `None`: nobody listens.
    news: Option<Vec<News>>,
    spaces: Arc<Spaces>,
    spaces_changed: bool,
    /// Also what is read-only or was given up may be changed: what it holds is being freed.
    is_freeing: bool,
    /// Volumes came, went, or are of another size.
    volumes_changed: bool,
}

/// What became of a row that was taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Nobody sees it any more: what it refers to is the caller's to give up.
    Gone,
    /// A snapshot or a clone sees it still, or it was an origin's all the time: what it refers to is not the caller's.
    Stays,
}

/// What the space of a row says to a change of it.
struct Rule {
    hold: Option<u64>,
    inherits: bool,
}

/// What the store must know of a transaction that went through.
#[derive(Debug, Default)]
pub struct Effects {
    pub live: HashMap<u64, i64>,
    dying: Vec<u64>,
    unopened: Vec<u64>,
    origin: Origin,
    news: Vec<News>,
    spaces: Option<Arc<Spaces>>,
    volumes_changed: bool,
}

impl Effects {
    /// Call once the transaction is applied, before readers see it.
    pub fn install(&mut self, shared: &Shared) {
        if let Some(spaces) = self.spaces.take() {
            *shared.spaces.write().unwrap_or_else(PoisonError::into_inner) = spaces;
        }
    }

    /// Call once readers see the transaction, or once it is known that it will never be seen.
    pub fn settle(&self, shared: &Shared) {
        if !self.dying.is_empty() {
            shared.pins.buried(&self.dying);
        }
        if !self.unopened.is_empty() {
            shared.opens.buried(&self.unopened);
        }
        if self.volumes_changed {
            shared.attachments.note_change();
        }
        shared.news.tell(self.origin, &self.news);
    }
}

impl<'a> Transaction<'a> {
    #[cfg(test)]
    pub(super) fn has_fault(&self, fault: super::faults::Fault) -> bool {
        self.shared.faults.has(fault)
    }

    pub fn new(rows: Txn<'a>, shared: &'a Shared, landing: &'a Landing, now_ns: i64) -> Self {
        let landing_mark = landing.filling.len();
        Self {
            rows,
            shared,
            landing,
            landing_mark,
            now_ns,
            dying: Vec::new(),
            unopened: Vec::new(),
            live: HashMap::new(),
            mapped: HashMap::new(),
            landing_mode: None,
            origin: 0,
            news: shared.news.is_heard().then(Vec::new),
            spaces: shared.spaces(),
            spaces_changed: false,
            is_freeing: false,
            volumes_changed: false,
        }
    }

    /// Adds the segments' live counters; hands back the rows to apply.
    pub fn finish(mut self) -> Result<(Txn<'a>, Effects)> {
        self.live.retain(|_, delta| *delta != 0);
        for (segment, delta) in &self.live {
            if let Err(error) = self.rows.add(&keys::segment_live(*segment), *delta) {
                return Err(self.abort(error));
            }
        }
        Ok((
            self.rows,
            Effects {
                live: self.live,
                dying: self.dying,
                unopened: self.unopened,
                origin: self.origin,
                news: self.news.unwrap_or_default(),
                spaces: self.spaces_changed.then_some(self.spaces),
                volumes_changed: self.volumes_changed,
            },
        ))
    }

    /// Takes everything back.
    pub fn abort(self, error: Error) -> Error {
        self.landing.filling.truncate(self.landing_mark);
        self.shared.pins.buried(&self.dying);
        self.shared.opens.buried(&self.unopened);
        error
    }

    pub fn new_id(&self) -> u64 {
        self.shared.ids.take()
    }

    pub fn epoch(&self) -> u64 {
        self.spaces.epoch
    }

    /// An id for what lies in a space. Raises Limit.
    pub fn new_element(&self, space: u64) -> Result<u64> {
        let number = self.new_id();
        if number > keys::NUMBER_MAX {
            return Err(Error::Limit("the pool has no ids left for elements".into()));
        }
        Ok(keys::in_space(number, space))
    }

    pub fn spaces(&self) -> &Spaces {
        &self.spaces
    }

    /// Of the space in which an element lies. Raises ESTALE.
    pub fn root_of(&self, element: u64) -> Result<u64> {
        self.spaces.known(keys::space_of(element)).map(|space| space.row.root)
    }

    fn change_spaces(&mut self) -> &mut Spaces {
        self.spaces_changed = true;
        Arc::make_mut(&mut self.spaces)
    }

    /// New spaces of one group.
    pub fn add_spaces(&mut self, group: Vec<(u64, SpaceRow)>) -> Result<()> {
        for (id, row) in &group {
            self.rows.put(&keys::space(*id), &row.encode())?;
            self.rows.put(&keys::counter(SPACES), &id.to_le_bytes())?;
        }
        self.change_spaces().add(group);
        Ok(())
    }

    pub fn put_space(&mut self, id: u64, row: SpaceRow) -> Result<()> {
        self.rows.put(&keys::space(id), &row.encode())?;
        self.change_spaces().replace(id, row);
        Ok(())
    }

    /// Its row goes; those who read it may go on until `remove_space`.
    pub fn doom_space(&mut self, id: u64) -> Result<()> {
        self.change_spaces().doom(id);
        self.rows.delete(&keys::space(id))
    }

    pub fn remove_space(&mut self, id: u64) -> Result<()> {
        self.change_spaces().remove(id);
        self.rows.delete(&keys::space(id))
    }

    /// What is written from now on is not seen by whoever holds the epoch that it was until now. Returns that.
    pub fn raise_epoch(&mut self) -> Result<u64> {
        let spaces = self.change_spaces();
        let epoch = spaces.epoch;
        spaces.epoch += 1;
        self.rows.put(&keys::counter(EPOCH), &(epoch + 1).to_le_bytes())?;
        Ok(epoch)
    }

    /// What follows gives back what nobody sees any more.
    pub fn begin_freeing(&mut self) {
        self.is_freeing = true;
    }

    /// Does somebody read, or have open, anything in the space?
    pub fn is_in_use(&self, space: u64) -> bool {
        self.shared.pins.is_space_pinned(space) || self.shared.opens.is_space_open(space)
    }

    /// Lands payload bytes in the journal record of this transaction; returns their position.
    pub fn land(&mut self, payload: &[u8]) -> Result<u64> {
        self.landing
            .filling
            .push(payload, PAYLOAD_ALIGN, self.landing.bytes_max)
            .ok_or_else(|| Error::Limit("the journal record is full".into()))
    }

    /// Payload bytes of the open record, those of the transactions before this one included.
    pub fn landed_bytes(&self) -> usize {
        self.landing.filling.len()
    }

    /// May the element's content be changed or given back now? If so, no reader can pin it until that is seen.
    pub fn claim(&mut self, element: u64) -> bool {
        let claimed = self.shared.pins.claim(element);
        if claimed {
            self.dying.push(element);
        }
        claimed
    }

    pub fn is_pinned(&self, element: u64) -> bool {
        self.shared.pins.is_pinned(element)
    }

    /// Has nobody it open? If so, nobody can open it until it is seen that it is gone.
    pub fn claim_unopened(&mut self, element: u64) -> bool {
        let claimed = self.shared.opens.claim(element);
        if claimed {
            self.unopened.push(element);
        }
        claimed
    }

    /// So many bytes more, or less, of the element's content are no hole.
    pub fn count_mapped(&mut self, element: u64, bytes: i64) {
        *self.mapped.entry(element).or_default() += bytes;
    }

    /// What was counted since the last time.
    pub fn take_mapped(&mut self, element: u64) -> i64 {
        self.mapped.remove(&element).unwrap_or(0)
    }

    pub fn occupy(&mut self, location: &Location) {
        *self.live.entry(location.segment).or_default() += location.footprint() as i64;
    }

    pub fn vacate(&mut self, location: &Location) {
        *self.live.entry(location.segment).or_default() -= location.footprint() as i64;
    }

    /// So many bytes more, or less, live in the segment.
    pub fn count_live(&mut self, segment: u64, bytes: i64) {
        *self.live.entry(segment).or_default() += bytes;
    }

    /// Raises EROFS, ESTALE.
    fn rule(&self, key: &[u8]) -> Result<Option<Rule>> {
        let Some(space) = history::space_of(key) else {
            return Ok(None);
        };
        let space = self.spaces.known(space)?;
        if (space.row.is_image || space.row.is_left) && !self.is_freeing {
            return Err(Error::File(Errno::ROFS));
        }
        Ok(Some(Rule {
            hold: space.hold_max(),
            inherits: space.row.origin.is_some(),
        }))
    }

    /// May anything in the space be changed? Raises EROFS, ESTALE.
    pub fn check_writable(&self, element: u64) -> Result<()> {
        self.rule(&keys::element(element)).map(|_| ())
    }

    /// A row is about to go: it becomes history if somebody sees it.
    fn retire(&mut self, rule: &Rule, key: &[u8], old: &[u8]) -> Result<Taken> {
        let Some(hold) = rule.hold.filter(|hold| rows::born(old).map_or(true, |born| born <= *hold)) else {
            return Ok(Taken::Gone);
        };
        debug_assert!(hold < self.epoch());
        let (died, space) = (self.epoch(), keys::space_of(keys::id_of(key)));
        self.rows.put(&keys::history(key, died), old)?;
        self.rows.put(&keys::dead(space, died, key), &[])?;
        Ok(Taken::Stays)
    }

    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        if let Some(rule) = self.rule(&key)?
            && rule.hold.is_some()
            && let Some(old) = self.rows.get(&key)?
        {
            self.retire(&rule, &key, &old)?;
        }
        self.rows.put(&key, &value)
    }

    pub fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.take(key).map(|_| ())
    }

    /// Deletes a row.
    pub fn take(&mut self, key: &[u8]) -> Result<Taken> {
        match key.first() {
            Some(&keys::ELEMENT) => self.note(|| News::Attributes(keys::id_of(key))),
            Some(&keys::ENTRY) => self.note_entry(keys::id_of(key), &key[9..]),
            _ => {}
        }
        let Some(rule) = self.rule(key)? else {
            return self.rows.delete(key).map(|()| Taken::Gone);
        };
        if !rule.inherits {
            return self.take_own(key);
        }
        let space = self.spaces.known(keys::space_of(keys::id_of(key)))?;
        let is_inherited = self.versioned().inherited(space, key)?.is_some();
        let own = self.rows.get(key)?;
        if own.as_deref().is_some_and(rows::is_tombstone) {
            return Ok(Taken::Stays);
        }
        let is_own = own.is_some();
        let taken = self.take_own(key)?;
        if is_inherited {
            self.rows.put(key, &rows::tombstone(self.epoch()))?;
        }
        Ok(if is_own { taken } else { Taken::Stays })
    }

    /// Deletes what of a row is the space's own, tombstones too; an origin's shows again.
    pub fn take_own(&mut self, key: &[u8]) -> Result<Taken> {
        let mut taken = Taken::Gone;
        if let Some(rule) = self.rule(key)?
            && rule.hold.is_some()
            && let Some(old) = self.rows.get(key)?
        {
            taken = self.retire(&rule, key, &old)?;
        }
        self.rows.delete(key)?;
        Ok(taken)
    }

    /// Deletes a row as it lies, history or not.
    pub fn erase(&mut self, key: &[u8]) -> Result<()> {
        self.rows.delete(key)
    }

    /// Puts a row as it is, whatever was there, and makes no history of that.
    pub fn lay(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.rows.put(key, value)
    }

    /// Rows as they lie, at most `limit`: history, tombstones, and none of an origin's.
    pub fn raw_rows(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<super::Row>> {
        self.rows.get_range(from, to, limit, false)
    }

    pub fn raw(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.rows.get(key)
    }

    /// All rows as they lie.
    pub fn raw_view(&self) -> &dyn Rows {
        &self.rows
    }

    pub fn versioned(&self) -> Versioned<'_> {
        Versioned {
            raw: &self.rows,
            spaces: &self.spaces,
        }
    }

    fn note(&mut self, news: impl FnOnce() -> News) {
        if let Some(noted) = &mut self.news {
            let one = news();
            if !noted.contains(&one) {
                noted.push(one);
            }
        }
    }

    /// The element has other content, which its row does not say.
    pub fn note_content(&mut self, element: u64) {
        self.note(|| News::Content(element));
    }

    pub fn note_volumes(&mut self) {
        self.volumes_changed = true;
    }

    pub fn attachments(&self) -> &'a Attachments {
        &self.shared.attachments
    }

    /// Names that files cannot have are no news to them.
    fn note_entry(&mut self, parent: u64, spelled: &[u8]) {
        let name = spelled.strip_suffix(b"/").unwrap_or(spelled);
        if check_name(name).is_ok() {
            self.note(|| News::Entry(parent, name.to_vec()));
        }
    }

    /// What nobody can have seen before is no news.
    fn note_element(&mut self, id: u64, row: &ElementRow) -> Result<()> {
        if self.news.is_none() {
            return Ok(());
        }
        let Some(old) = self.get(&keys::element(id))? else {
            return Ok(());
        };
        let old = ElementRow::decode(&old)?;
        let is_content = row.kind == Kind::File && (old.content_version, old.size) != (row.content_version, row.size);
        self.note(|| if is_content { News::Content(id) } else { News::Attributes(id) });
        Ok(())
    }

    /// For ranges that one transaction can take.
    pub fn delete_range(&mut self, from: &[u8], to: &[u8]) -> Result<usize> {
        let found = self.rows_in(from, to, usize::MAX)?;
        found.iter().try_for_each(|(key, _)| self.delete(key))?;
        Ok(found.len())
    }

    pub fn add(&mut self, key: &[u8], delta: i64) -> Result<()> {
        self.rows.add(key, delta)
    }

    /// The most that the rows written so far take in a journal record: a tag and two lengths each, and the counters that `finish` adds.
    pub fn encoded_bytes_max(&self) -> usize {
        const ROW_BYTES: usize = 7;
        const COUNTER_ROW_BYTES: usize = 17 + ROW_BYTES;
        self.rows.bytes() + ROW_BYTES * self.rows.rows() + COUNTER_ROW_BYTES * self.live.len() + 8
    }

    /// Writes the lease of ids ahead.
    pub fn put_lease(&mut self, leased: u64) -> Result<()> {
        self.put(keys::counter(IDS), leased.to_le_bytes().to_vec())
    }

    pub fn put_element(&mut self, id: u64, mut row: ElementRow) -> Result<()> {
        row.born = self.epoch();
        self.note_element(id, &row)?;
        self.put(keys::element(id), row.encode())
    }

    pub fn put_entry(&mut self, parent: u64, name: &[u8], mut row: EntryRow) -> Result<()> {
        row.born = self.epoch();
        self.note_entry(parent, name);
        self.put(keys::entry(parent, name), row.encode())
    }

    pub fn put_version(&mut self, view: u64, key: &[u8], sequence: u64, mut row: VersionRow) -> Result<()> {
        row.born = self.epoch();
        self.put(keys::version(view, key, sequence), row.encode())
    }

    /// A row that is nothing but bytes.
    pub fn put_plain(&mut self, key: Vec<u8>, bytes: &[u8]) -> Result<()> {
        let row = rows::plain(self.epoch(), bytes);
        self.put(key, row)
    }

    pub fn put_mapping(&mut self, element: u64, end: u64, mut row: MappingRow) -> Result<()> {
        row.born = self.epoch();
        self.put(keys::mapping(element, end), row.encode())
    }

    pub fn put_extent(&mut self, id: u64, row: &ExtentRow) -> Result<()> {
        self.put(keys::extent(id), row.encode())
    }

    pub fn put_chunk(&mut self, id: u64, row: &ChunkRow) -> Result<()> {
        self.put(keys::chunk(id), row.encode())
    }

    /// The rows of a range, at most `limit`: a copy, so that the caller may write while it walks.
    pub fn rows_in(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<super::Row>> {
        self.get_range(from, to, limit, false)
    }
}

impl Rows for Transaction<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.versioned().get(key)
    }

    fn range(&self, from: &[u8], to: &[u8], reverse: bool) -> RangeIter<'_> {
        self.versioned().range(from, to, reverse)
    }
}
