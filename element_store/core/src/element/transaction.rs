//! What one running transaction carries: rows, identity, time, the landing area of the open journal record, and notes for after the commit.

use super::Rows;
use super::attachments::Attachments;
use super::files::check_name;
use super::keys;
use super::rows::{ChunkRow, ElementRow, EntryRow, ExtentRow, Kind, MappingRow, VersionRow};
use crate::error::{Error, Result};
use crate::filesystem::news::{Hub, News, Origin};
use crate::journal::Filling;
use crate::meta::{RangeIter, Txn};
use crate::segment::Location;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Hands out ids that never return: a lease of them is written ahead, so a crash skips ids but never repeats one.
#[derive(Debug)]
pub struct Ids {
    next: AtomicU64,
    leased: AtomicU64,
}

/// The counter row of the lease.
pub const IDS: &str = "ids";
/// Ids leased ahead by one counter row.
pub const IDS_LEASED: u64 = 1 << 16;

impl Ids {
    /// `leased`: the counter row's value, or the first free id of a new pool.
    pub fn new(leased: u64) -> Self {
        Self {
            next: AtomicU64::new(leased),
            leased: AtomicU64::new(leased),
        }
    }

    /// Used at once only inside a transaction, which renews the lease in the same record; elsewhere see `take_leased`.
    pub fn take(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// `None` while the lease in force is used up: commit a renewal, then ask again.
    pub fn take_leased(&self) -> Option<u64> {
        let leased = self.leased.load(Ordering::Acquire);
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| (next < leased).then_some(next + 1))
            .ok()
    }

    /// The value to write if the lease runs low.
    pub fn renewal(&self) -> Option<u64> {
        let next = self.next.load(Ordering::Relaxed);
        (next + IDS_LEASED / 2 > self.leased.load(Ordering::Relaxed)).then_some(next + IDS_LEASED)
    }

    /// The renewal is durable.
    pub fn renewed(&self, leased: u64) {
        self.leased.fetch_max(leased, Ordering::Release);
    }
}

/// Which elements readers hold, and which ones a commit on its way changes or gives up.
#[derive(Debug, Default)]
pub struct Pins {
    inner: Mutex<PinTable>,
}

#[derive(Debug, Default)]
struct PinTable {
    pinned: HashMap<u64, Vec<Pin>>,
    dying: HashSet<u64>,
}

/// A reader's hold on content: the element that has it now. See `Pins::redirect`.
#[derive(Debug, Clone)]
pub struct Pin(Arc<AtomicU64>);

impl Pin {
    pub fn element(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Pins {
    fn table(&self) -> MutexGuard<'_, PinTable> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None if the element is being changed or given up right now: look its key up again.
    pub fn pin(&self, element: u64) -> Option<Pin> {
        let mut table = self.table();
        if table.dying.contains(&element) {
            return None;
        }
        let pin = Pin(Arc::new(AtomicU64::new(element)));
        table.pinned.entry(element).or_default().push(pin.clone());
        Some(pin)
    }

    /// True if this was the last reader.
    pub fn unpin(&self, pin: &Pin) -> bool {
        let mut table = self.table();
        let element = pin.element();
        let Some(pins) = table.pinned.get_mut(&element) else { return false };
        pins.retain(|other| !Arc::ptr_eq(&other.0, &pin.0));
        pins.is_empty() && table.pinned.remove(&element).is_some()
    }

    pub fn is_pinned(&self, element: u64) -> bool {
        self.table().pinned.contains_key(&element)
    }

    /// Whoever reads `element` reads `copy` from now on, which has the same content in every state from now on.
    pub fn redirect(&self, element: u64, copy: u64) {
        let mut table = self.table();
        let pins = table.pinned.remove(&element).unwrap_or_default();
        pins.iter().for_each(|pin| pin.0.store(copy, Ordering::SeqCst));
        table.pinned.entry(copy).or_default().extend(pins);
    }

    /// Claims an unpinned element for changing it or giving it up; no reader can pin it until `buried`.
    fn claim(&self, element: u64) -> bool {
        let mut table = self.table();
        !table.pinned.contains_key(&element) && {
            table.dying.insert(element);
            true
        }
    }

    fn buried(&self, elements: &[u64]) {
        let mut table = self.table();
        elements.iter().for_each(|element| {
            table.dying.remove(element);
        });
    }
}

/// Elements that files have open, counted: what loses its last name lives on until it is closed.
#[derive(Debug, Default)]
pub struct Opens {
    inner: Mutex<OpenTable>,
    buried: Condvar,
}

#[derive(Debug, Default)]
struct OpenTable {
    counts: HashMap<u64, OpenCount>,
    /// A change on its way gives them up, as nobody had them open.
    dying: HashSet<u64>,
}

#[derive(Debug, Default)]
struct OpenCount {
    opens: usize,
    /// A change, perhaps on its way still, would have given it up.
    outlives: bool,
}

impl Opens {
    fn table(&self) -> MutexGuard<'_, OpenTable> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a change on its way gives up is gone when this returns; anything else stays until it is closed. Not for the writer's thread.
    pub fn open(&self, element: u64) {
        let mut table = self
            .buried
            .wait_while(self.table(), |table| table.dying.contains(&element))
            .unwrap_or_else(PoisonError::into_inner);
        table.counts.entry(element).or_default().opens += 1;
    }

    /// True if it was the last, of an element that was to be given up meanwhile.
    pub fn close(&self, element: u64) -> bool {
        let mut table = self.table();
        match table.counts.get_mut(&element) {
            Some(count) if count.opens > 1 => {
                count.opens -= 1;
                false
            }
            _ => table.counts.remove(&element).is_some_and(|count| count.outlives),
        }
    }

    /// It is to be given up when it is closed.
    pub fn outlive(&self, element: u64) {
        self.table().counts.entry(element).and_modify(|count| count.outlives = true);
    }

    /// Claims what nobody has open for giving it up; nobody can open it until `buried`.
    fn claim(&self, element: u64) -> bool {
        let mut table = self.table();
        if let Some(count) = table.counts.get_mut(&element) {
            count.outlives = true;
            return false;
        }
        table.dying.insert(element);
        true
    }

    fn buried(&self, elements: &[u64]) {
        let mut table = self.table();
        elements.iter().for_each(|element| {
            table.dying.remove(element);
        });
        self.buried.notify_all();
    }
}

/// What all transactions of a store share.
#[derive(Debug)]
pub struct Shared {
    pub ids: Ids,
    pub pins: Pins,
    pub opens: Opens,
    pub attachments: Attachments,
    pub epoch: AtomicU64,
    pub news: Hub,
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
    /// In whose name it changes what it changes.
    pub origin: Origin,
    /// `None`: nobody listens.
    news: Option<Vec<News>>,
    /// Volumes came, went, or are of another size.
    volumes_changed: bool,
}

/// What the store must know of a transaction that went through.
#[derive(Debug, Default)]
pub struct Effects {
    pub live: HashMap<u64, i64>,
    dying: Vec<u64>,
    unopened: Vec<u64>,
    origin: Origin,
    news: Vec<News>,
    volumes_changed: bool,
}

impl Effects {
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
            origin: 0,
            news: shared.news.is_heard().then(Vec::new),
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
        self.shared.epoch.load(Ordering::Relaxed)
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

    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        self.rows.put(&key, &value)
    }

    pub fn delete(&mut self, key: &[u8]) -> Result<()> {
        match key.first() {
            Some(&keys::ELEMENT) => self.note(|| News::Attributes(keys::id_of(key))),
            Some(&keys::ENTRY) => self.note_entry(keys::id_of(key), &key[9..]),
            _ => {}
        }
        self.rows.delete(key)
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
        let Some(old) = self.rows.get(&keys::element(id))? else {
            return Ok(());
        };
        let old = ElementRow::decode(&old)?;
        let is_content = row.kind == Kind::File && (old.content_version, old.size) != (row.content_version, row.size);
        self.note(|| if is_content { News::Content(id) } else { News::Attributes(id) });
        Ok(())
    }

    pub fn delete_range(&mut self, from: &[u8], to: &[u8]) -> Result<usize> {
        self.rows.delete_range(from, to)
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

    pub fn put_mapping(&mut self, element: u64, offset: u64, mut row: MappingRow) -> Result<()> {
        row.born = self.epoch();
        self.put(keys::mapping(element, offset), row.encode())
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
        self.rows.get(key)
    }

    fn range(&self, from: &[u8], to: &[u8], reverse: bool) -> RangeIter<'_> {
        self.rows.range(from, to, reverse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    /// An open that came between a removal and its being seen found the element, which then went away under it.
    #[test]
    fn what_is_being_given_up_is_opened_only_when_that_is_seen() {
        let opens = Arc::new(Opens::default());
        assert!(opens.claim(7));
        let (opened, wait) = channel();
        let opener = std::thread::spawn({
            let opens = opens.clone();
            move || {
                opens.open(7);
                opened.send(()).unwrap();
            }
        });
        assert!(wait.recv_timeout(Duration::from_millis(50)).is_err());
        opens.buried(&[7]);
        opener.join().unwrap();
        assert!(!opens.claim(7), "it is open now");
        opens.open(7);
        assert!(!opens.close(7));
        assert!(opens.close(7), "it was to be given up meanwhile");
        opens.open(8);
        assert!(!opens.close(8));
    }
}
