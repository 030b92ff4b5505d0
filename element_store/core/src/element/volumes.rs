//! Volumes: files that hosts attach as namespaces.
//!
//! A volume is a file with a mark (`MARK`, an attribute that no face shows) and rows that lead from its id to it. It has one name. What takes the name
//! away, or makes another version of it, leaves a plain file; nothing does so while hosts have it attached, and nothing but they change its content.
//!
//! Hosts write too often for the element's row to follow each write. The first write of a period renews it (another ETag) and makes the row UNSETTLED, which
//! counts what is mapped since; `settle` ends the period: the element gets one more ETag and its holes are counted in it. So nobody is shown old
//! content's ETag after a period, and a crash in one leaves the row that says so. Invariant: holes of the element less UNSETTLED are its holes.

mod check;
pub mod images;
mod rows;

pub use check::check;
pub use rows::{BLOCK_BYTES, Image, MARK, Mark, Place};

use super::content::{self, Spot};
use super::file_content::renew;
use super::file_names::{is_at_or_above, vanish};
use super::namespace::{self, Description, Origin};
use super::rows::{Attributes, ElementRow, Etag, Kind};
use super::transaction::Transaction;
use super::{Rows, keys, path};
use crate::block::{VOLUMES_MAX, VolumeId};
use crate::element::info::{Condition, Terms};
use crate::error::{Error, Result};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Where a volume is: `Place`.
const PLACE: u8 = 0;
/// What hosts reserved: the block face's record, as it is.
const RESERVATION: u8 = 1;
/// Bytes mapped since the element's row was written, i64: hosts have changed content that the row does not say yet.
const UNSETTLED: u8 = 2;

/// What a change of an attached volume by another face says.
pub const ATTACHED: &str = "attached";
/// What a host's request beyond the end says.
pub const PAST_END: &str = "past the end of the volume";
/// Why a file is not made a volume.
pub const LINKED: &str = "a volume has one name, and the file has several";
pub const IS_VOLUME: &str = "it is a volume already";

/// One volume as one state shows it.
#[derive(Debug, Clone)]
pub struct Found {
    pub mark: Mark,
    pub place: Place,
    pub row: ElementRow,
    /// View and key.
    pub path: String,
    /// Of the size.
    pub hole_bytes: u64,
}

impl Found {
    /// Whole blocks: files may have left a part of one at the end.
    pub fn size_bytes(&self) -> u64 {
        whole_blocks(self.row.size, self.mark.block_bytes)
    }
}

fn whole_blocks(size: u64, block_bytes: u32) -> u64 {
    size - size % u64::from(block_bytes)
}

fn is_marked(row: &ElementRow) -> bool {
    row.attributes.xattrs.contains_key(MARK)
}

/// The mark of a volume. What a clone or a snapshot of one has is the same mark, but the volume's rows do not lead to it: it is a plain file.
fn mark_of(rows: &dyn Rows, element: u64, row: &ElementRow) -> Result<Option<Mark>> {
    let Some(mark) = Mark::of(row)? else { return Ok(None) };
    match place_of(rows, mark.id) {
        Ok(place) => Ok((place.element == element).then_some(mark)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

pub fn is_volume(rows: &dyn Rows, element: u64, row: &ElementRow) -> Result<bool> {
    mark_of(rows, element, row).map(|mark| mark.is_some())
}

/// Bytes of a block of a volume; 0 of anything else.
pub(super) fn block_bytes(row: &ElementRow) -> u32 {
    Mark::of(row).ok().flatten().map_or(0, |mark| mark.block_bytes)
}

/// New content of a key is no volume, whatever it was copied from.
pub(super) fn unmark(attributes: &mut Attributes) {
    attributes.xattrs.remove(MARK);
}

/// Whoever sets all attributes does not know of the mark, or knows an old one.
pub(super) fn keep_mark(old: &Attributes, new: &mut Attributes) {
    unmark(new);
    if let Some(mark) = old.xattrs.get(MARK) {
        new.xattrs.insert(MARK.into(), mark.clone());
    }
}

/// Raises Conflict(ATTACHED) while only hosts may change it.
pub(super) fn refuse_attached(tx: &Transaction, element: u64, row: &ElementRow) -> Result<()> {
    if is_marked(row) && tx.attachments().refuses(element, tx.origin) {
        return Err(Error::Conflict(ATTACHED.into()));
    }
    Ok(())
}

/// The element is about to lose its name, or to become history: it is a volume no more. Raises Conflict(ATTACHED).
pub(super) fn without_name<'r>(tx: &mut Transaction, element: u64, row: &'r ElementRow) -> Result<Cow<'r, ElementRow>> {
    if !is_volume(tx, element, row)? {
        return Ok(Cow::Borrowed(row));
    }
    refuse_attached(tx, element, row)?;
    let mut plain = row.clone();
    forget(tx, element, &mut plain)?;
    Ok(Cow::Owned(plain))
}

/// Takes the volume out of the row and its own rows away.
fn forget(tx: &mut Transaction, element: u64, row: &mut ElementRow) -> Result<()> {
    settle_row(tx, element, row)?;
    if let Some(mark) = mark_of(tx, element, row)? {
        for what in [PLACE, RESERVATION] {
            tx.delete(&keys::volume(mark.id, what))?;
        }
        unmark(&mut row.attributes);
        tx.note_volumes();
    }
    Ok(())
}

/// The element has another name now. Raises Conflict(ATTACHED).
pub(super) fn renamed(tx: &mut Transaction, element: u64, row: &ElementRow, directory: u64, name: &[u8]) -> Result<()> {
    let Some(mark) = mark_of(tx, element, row)? else {
        return Ok(());
    };
    refuse_attached(tx, element, row)?;
    put_place(tx, mark.id, element, directory, name)
}

fn put_place(tx: &mut Transaction, id: VolumeId, element: u64, directory: u64, name: &[u8]) -> Result<()> {
    let place = Place {
        element,
        directory,
        name: name.to_vec(),
        image: None,
    };
    tx.note_volumes();
    tx.put(keys::volume(id, PLACE), place.encode(tx.epoch()))
}

fn unsettled(rows: &dyn Rows, id: VolumeId) -> Result<Option<i64>> {
    let decode = |bytes: Vec<u8>| {
        let bytes = bytes
            .try_into()
            .map_err(|_| Error::Damaged("a volume's count is not 8 bytes".into()))?;
        Ok(i64::from_le_bytes(bytes))
    };
    rows.get(&keys::volume(id, UNSETTLED))?.map(decode).transpose()
}

/// Counts in the row what hosts mapped; the row is the caller's to write. False: they changed nothing.
pub(super) fn settle_row(tx: &mut Transaction, element: u64, row: &mut ElementRow) -> Result<bool> {
    let Some(mark) = mark_of(tx, element, row)? else {
        return Ok(false);
    };
    let Some(mapped) = unsettled(tx, mark.id)? else { return Ok(false) };
    row.holes = row.holes.saturating_add_signed(-mapped);
    tx.delete(&keys::volume(mark.id, UNSETTLED))?;
    Ok(true)
}

/// Ends a period of writes by hosts, if there was one.
pub fn settle(tx: &mut Transaction, element: u64) -> Result<()> {
    let Some(bytes) = tx.get(&keys::element(element))? else {
        return Ok(());
    };
    let mut row = ElementRow::decode(&bytes)?;
    if settle_row(tx, element, &mut row)? {
        renew(tx, element, &mut row)?;
        tx.put_element(element, row)?;
    }
    Ok(())
}

fn place_of(rows: &dyn Rows, id: VolumeId) -> Result<Place> {
    let bytes = rows.get(&keys::volume(id, PLACE))?;
    Place::decode(&bytes.ok_or_else(|| Error::NotFound("volume".into()))?)
}

fn found(rows: &dyn Rows, id: VolumeId, place: Place) -> Result<Found> {
    if let Some(image) = place.image.clone() {
        return images::found(rows, id, place, &image);
    }
    let row = path::element(rows, place.element)?;
    let mark = Mark::of(&row)?.ok_or_else(|| Error::Damaged(format!("element {} is said to be a volume", place.element)))?;
    let (view, key) = path::key_of(rows, place.directory, &place.name)?;
    let view = path::element(rows, view)?.detail;
    let hole_bytes = row.holes.saturating_add_signed(-unsettled(rows, mark.id)?.unwrap_or(0));
    Ok(Found {
        mark,
        path: String::from_utf8_lossy(&[view, key].concat()).into_owned(),
        place,
        row,
        hole_bytes,
    })
}

/// Raises NotFound("volume").
pub fn find(rows: &dyn Rows, id: VolumeId) -> Result<Found> {
    found(rows, id, place_of(rows, id)?)
}

/// By id.
pub fn list(rows: &dyn Rows) -> Result<Vec<Found>> {
    let found = places(rows)?.into_iter().map(|(id, place)| found(rows, id, place));
    found.collect()
}

fn places(rows: &dyn Rows) -> Result<Vec<(VolumeId, Place)>> {
    let (from, to) = keys::table(keys::VOLUME);
    let mut places = Vec::new();
    for row in rows.range(&from, &to, false) {
        let (key, value) = row?;
        if let [_, a, b, c, d, PLACE] = key[..] {
            places.push((VolumeId::from_be_bytes([a, b, c, d]), Place::decode(&value)?));
        }
    }
    Ok(places)
}

/// Spaces, by lineage, are replaced by clones of snapshots of theirs: the volumes in them are the clones' from now on. One that the snapshot does not
/// have, or has under another name, is none any more. `within`: only an element, or what lies below it. Raises Conflict(ATTACHED).
pub(super) fn restored(tx: &mut Transaction, clones: &BTreeMap<u64, u64>, within: Option<u64>) -> Result<()> {
    for Found { mark, place, mut row, .. } in list(tx)?.into_iter().filter(|found| found.place.image.is_none()) {
        if let Some(within) = within
            && place.element != within
            && !is_below(tx, within, place.directory)?
        {
            continue;
        }
        let Some(moved) = moved(tx, clones, place.element)? else { continue };
        refuse_attached(tx, place.element, &row)?;
        let directory = match within == Some(place.element) {
            true => place.directory,
            false => self::moved(tx, clones, place.directory)?.unwrap_or(place.directory),
        };
        let named = path::entry(tx, directory, &place.name)?.map(|entry| entry.element);
        let old = tx.get(&keys::element(moved))?.map(|bytes| ElementRow::decode(&bytes)).transpose()?;
        let old = old.map(|row| Mark::of(&row)).transpose()?.flatten();
        if named == Some(moved) && old.is_some_and(|old| old.uuid == mark.uuid) {
            put_place(tx, mark.id, moved, directory, &place.name)?;
        } else {
            forget(tx, place.element, &mut row)?;
        }
    }
    Ok(())
}

/// Is it that directory, or does it lie in it?
fn is_below(rows: &dyn Rows, above: u64, directory: u64) -> Result<bool> {
    Ok(path::element(rows, above)?.kind == Kind::Directory && is_at_or_above(rows, above, directory)?)
}

/// The same element in the clone of its space, if that is replaced.
fn moved(tx: &Transaction, clones: &BTreeMap<u64, u64>, element: u64) -> Result<Option<u64>> {
    if keys::space_of(element) == 0 {
        return Ok(None);
    }
    let lineage = tx.spaces().known(keys::space_of(element))?.row.lineage;
    Ok(clones.get(&lineage).map(|space| keys::in_space(element, *space)))
}

/// What hosts changed until now is said in the elements' rows.
pub(super) fn settle_all(tx: &mut Transaction) -> Result<()> {
    unsettled_elements(tx)?.into_iter().try_for_each(|element| settle(tx, element))
}

/// The volumes whose periods a crash left open.
pub fn unsettled_elements(rows: &dyn Rows) -> Result<Vec<u64>> {
    let open = list(rows)?
        .into_iter()
        .map(|found| Ok((unsettled(rows, found.mark.id)?, found.place.element)));
    let open: Vec<(Option<i64>, u64)> = open.collect::<Result<_>>()?;
    Ok(open.into_iter().filter_map(|(mapped, element)| mapped.map(|_| element)).collect())
}

fn free_id(rows: &dyn Rows) -> Result<VolumeId> {
    let used: Vec<VolumeId> = places(rows)?.into_iter().map(|(id, _)| id).collect();
    (1..=VOLUMES_MAX)
        .find(|id| !used.contains(id))
        .ok_or_else(|| Error::Limit(format!("there are {VOLUMES_MAX} volumes")))
}

/// Raises Invalid.
pub fn check_size(size: u64, block_bytes: u32) -> Result<()> {
    if !BLOCK_BYTES.contains(&block_bytes) {
        return Err(Error::Invalid("a volume has blocks of 512 or 4096 bytes".into()));
    }
    if size == 0 || !size.is_multiple_of(u64::from(block_bytes)) || size > crate::filesystem::FILE_BYTES_MAX {
        return Err(Error::Invalid(format!(
            "a volume's size is a multiple of its block, {block_bytes} bytes, and {size} is not"
        )));
    }
    Ok(())
}

/// What a new volume is.
#[derive(Debug, Clone)]
pub struct New {
    pub size_bytes: u64,
    pub block_bytes: u32,
    pub uuid: [u8; 16],
}

/// Makes a file the volume that the mark says; the row is the caller's to write.
fn mark(tx: &mut Transaction, view: u64, key: &[u8], element: u64, row: &mut ElementRow, new: &New) -> Result<()> {
    check_size(new.size_bytes, new.block_bytes)?;
    let mark = Mark {
        id: free_id(tx)?,
        block_bytes: new.block_bytes,
        uuid: new.uuid,
    };
    let walk = path::walk(tx, view, key)?;
    put_place(tx, mark.id, element, walk.parent(), walk.name)?;
    row.attributes.xattrs.insert(MARK.into(), mark.encode());
    row.attributes.check()
}

/// A thin volume under a key that names nothing. Raises NotFound("view"), Precondition where it names something, Invalid, Limit.
pub fn create(tx: &mut Transaction, view: &str, key: &[u8], attributes: Attributes, new: &New) -> Result<Found> {
    check_size(new.size_bytes, new.block_bytes)?;
    let description = Description {
        attributes,
        etag: Etag::Version,
        composite: false,
        digests: BTreeMap::new(),
        parts: Vec::new(),
    };
    let terms = Terms {
        condition: Some(Condition {
            if_none_match: vec!["*".into()],
            ..Condition::default()
        }),
        ..Terms::default()
    };
    let nothing = Origin::New(content::Source::Small(Vec::new()));
    let made = namespace::publish(tx, view, key, nothing, description, &terms)?;
    let mut row = made.row;
    (row.size, row.holes) = (new.size_bytes, new.size_bytes);
    row.content_version = tx.new_id();
    let view = path::view_id(tx, view)?;
    mark(tx, view, key, made.id, &mut row, new)?;
    tx.put_element(made.id, row)?;
    at(tx, made.id)
}

fn at(rows: &dyn Rows, element: u64) -> Result<Found> {
    let mark = Mark::of(&path::element(rows, element)?)?;
    find(rows, mark.map_or(0, |mark| mark.id))
}

/// Makes what a key names a volume, its content staying where it is. Raises NotFound, Invalid, Conflict, Limit.
pub fn from_file(tx: &mut Transaction, view: &str, key: &[u8], block_bytes: u32, uuid: [u8; 16]) -> Result<Found> {
    let (element, mut row) = path::lookup(tx, view, key)?;
    if is_volume(tx, element, &row)? {
        return Err(Error::Conflict(IS_VOLUME.into()));
    }
    if row.links != 1 {
        return Err(Error::Conflict(LINKED.into()));
    }
    let new = New {
        size_bytes: row.size,
        block_bytes,
        uuid,
    };
    let view = path::view_id(tx, view)?;
    mark(tx, view, key, element, &mut row, &new)?;
    row.changed_ns = tx.now_ns;
    tx.put_element(element, row)?;
    at(tx, element)
}

/// Of an operator: `force` disregards hosts.
fn refuse(tx: &Transaction, found: &Found, force: bool) -> Result<()> {
    if force {
        Ok(())
    } else {
        refuse_attached(tx, found.place.element, &found.row)
    }
}

/// It is a plain file from now on. Raises NotFound("volume"), Conflict(ATTACHED).
pub fn to_file(tx: &mut Transaction, id: VolumeId, force: bool) -> Result<Found> {
    let found = find(tx, id)?;
    images::refuse(&found)?;
    refuse(tx, &found, force)?;
    settle(tx, found.place.element)?;
    let mut row = path::element(tx, found.place.element)?;
    forget(tx, found.place.element, &mut row)?;
    tx.put_element(found.place.element, row)?;
    Ok(found)
}

/// Takes it and its name away; a key with a history keeps its content as a version. A snapshot's is only not shown to hosts any more.
/// Raises NotFound("volume"), Conflict(ATTACHED).
pub fn delete(tx: &mut Transaction, id: VolumeId, force: bool) -> Result<Found> {
    let found = find(tx, id)?;
    if found.place.image.is_some() {
        refuse(tx, &found, force)?;
        return images::hide(tx, id).map(|()| found);
    }
    to_file(tx, id, force)?;
    let Place {
        element, directory, name, ..
    } = &found.place;
    let (view, key) = path::key_of(tx, *directory, name)?;
    let row = path::element(tx, *element)?;
    let version = row.version;
    vanish(tx, *directory, name, Some((*element, row)), version)?;
    let walk = path::walk(tx, view, &key)?;
    namespace::unname(tx, &walk)?;
    Ok(found)
}

/// One step to another size: true once it is there. Growing is one step; shrinking gives back `runs_max` runs a step. None: readers have it pinned.
pub fn resize(tx: &mut Transaction, id: VolumeId, size: u64, runs_max: usize) -> Result<Option<bool>> {
    let found = find(tx, id)?;
    images::refuse(&found)?;
    let Found { mark, place, .. } = found;
    check_size(size, mark.block_bytes)?;
    let element = place.element;
    let mut row = path::element(tx, element)?;
    if row.size == size {
        return Ok(Some(true));
    }
    if !tx.claim(element) {
        return Ok(None);
    }
    settle_row(tx, element, &mut row)?;
    renew(tx, element, &mut row)?;
    let (from, to) = (keys::mapping(element, size + 1), keys::mapping(element, u64::MAX));
    let last = tx.get_range(&from, &to, runs_max, true)?;
    let reached = match last.last() {
        Some((key, value)) if last.len() == runs_max => whole_blocks(content::run_of(key, value)?.offset, mark.block_bytes).max(size),
        _ => size,
    };
    if reached < row.size {
        content::cut(tx, element, reached, row.size, usize::MAX)?;
    }
    super::file_content::resize(tx, element, &mut row, reached);
    tx.put_element(element, row)?;
    tx.note_volumes();
    Ok(Some(reached == size))
}

pub fn reservation(rows: &dyn Rows, id: VolumeId) -> Result<Option<Vec<u8>>> {
    rows.get(&keys::volume(id, RESERVATION))
}

pub fn keep_reservation(tx: &mut Transaction, id: VolumeId, record: Option<Vec<u8>>) -> Result<()> {
    place_of(tx, id)?;
    let key = keys::volume(id, RESERVATION);
    match record {
        Some(record) => tx.put(key, record),
        None => tx.delete(&key),
    }
}

/// What a handle goes by: an id may be another volume's later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    pub id: VolumeId,
    pub element: u64,
    pub uuid: [u8; 16],
    /// A snapshot's.
    pub is_image: bool,
}

/// The row of a volume that has the range. Raises NotFound("volume") if it is gone, Invalid(PAST_END).
pub fn reach(rows: &dyn Rows, target: &Target, offset: u64, length: u64) -> Result<ElementRow> {
    let absent = || Error::NotFound("volume".into());
    let row = ElementRow::decode(&rows.get(&keys::element(target.element))?.ok_or_else(absent)?)?;
    let mark = match target.is_image {
        true => images::mark(rows, target, &row)?,
        false => Mark::of(&row)?.filter(|mark| mark.uuid == target.uuid && row.kind == Kind::File),
    };
    let size = whole_blocks(row.size, mark.ok_or_else(absent)?.block_bytes);
    if offset.checked_add(length).is_none_or(|end| end > size) {
        return Err(Error::Invalid(PAST_END.into()));
    }
    Ok(row)
}

/// A host's change of bytes in a range. None: readers have the content pinned; give them a copy, then do it again.
pub fn change<T>(
    tx: &mut Transaction,
    target: &Target,
    (offset, length): (u64, u64),
    work: impl FnOnce(&mut Transaction) -> Result<T>,
) -> Result<Option<T>> {
    let mut row = reach(tx, target, offset, length)?;
    if !tx.claim(target.element) {
        return Ok(None);
    }
    let before = unsettled(tx, target.id)?;
    if before.is_none() {
        renew(tx, target.element, &mut row)?;
        tx.put_element(target.element, row)?;
    } else {
        tx.note_content(target.element);
    }
    let done = work(tx)?;
    let mapped = tx.take_mapped(target.element);
    if before.is_none() || mapped != 0 {
        let mapped = before.unwrap_or(0) + mapped;
        tx.put(keys::volume(target.id, UNSETTLED), mapped.to_le_bytes().to_vec())?;
    }
    Ok(Some(done))
}

/// Bytes instead of what is there.
pub fn lay(tx: &mut Transaction, element: u64, offset: u64, bytes: &[u8]) -> Result<()> {
    content::cut(tx, element, offset, offset + bytes.len() as u64, usize::MAX)?;
    content::land(tx, Spot::in_place(element, offset), bytes)
}

/// Of the element, if it is a volume: what its row does not say yet.
pub(super) fn mapped_since(rows: &dyn Rows, element: u64, row: &ElementRow) -> Result<i64> {
    let mark = mark_of(rows, element, row)?;
    Ok(mark.map(|mark| unsettled(rows, mark.id)).transpose()?.flatten().unwrap_or(0))
}
