//! Snapshots of volumes that hosts attach: namespaces in which nothing changes.
//!
//! What a snapshot has of a volume is the volume's element in the snapshot's image, which nobody can change. A row leads to it as to any volume, with a uuid
//! of its own, since a host may see both. Invariants: the row goes in the transaction that deletes the snapshot, which is refused while a host holds a
//! handle; two rows never lead to one image.

use super::{ATTACHED, Found, Image, Mark, PLACE, Place, RESERVATION, Target, free_id, place_of, places};
use crate::block::VolumeId;
use crate::element::rows::{ElementRow, Kind};
use crate::element::transaction::Transaction;
use crate::element::{Rows, keys, path, snapshot_paths};
use crate::error::{Error, Result};

/// Between a volume's path and a snapshot's name.
const AT: char = '@';
const IS_IMAGE: &str = "a snapshot of a volume does not change; clone it";

pub(super) fn found(rows: &dyn Rows, id: VolumeId, place: Place, image: &Image) -> Result<Found> {
    let row = path::element(rows, place.element)?;
    let damaged = || Error::Damaged(format!("element {} is said to be a volume", place.element));
    let mark = Mark {
        id,
        uuid: image.uuid,
        ..Mark::of(&row)?.ok_or_else(damaged)?
    };
    let path = format!("{}{AT}{}", String::from_utf8_lossy(&place.name), image.snapshot);
    let hole_bytes = row.holes;
    Ok(Found {
        mark,
        place,
        row,
        path,
        hole_bytes,
    })
}

/// Raises Invalid of a snapshot's.
pub(super) fn refuse(found: &Found) -> Result<()> {
    match found.place.image {
        Some(_) => Err(Error::Invalid(IS_IMAGE.into())),
        None => Ok(()),
    }
}

/// What the handle of a snapshot's is of; none if it is not shown any more.
pub(super) fn mark(rows: &dyn Rows, target: &Target, row: &ElementRow) -> Result<Option<Mark>> {
    let shown = match place_of(rows, target.id) {
        Ok(place) => place.element == target.element && place.image.is_some_and(|image| image.uuid == target.uuid),
        Err(Error::NotFound(_)) => false,
        Err(error) => return Err(error),
    };
    Ok(Mark::of(row)?.filter(|_| shown))
}

/// The row that leads to what a snapshot has of the volume at a path, made if need be. `uuid_of`: from what no other image ever has.
/// Raises NotFound("path"), NotFound("snapshot"), Invalid, Limit.
pub fn show(tx: &mut Transaction, path: &str, snapshot: &str, uuid_of: impl FnOnce(&[u8]) -> [u8; 16]) -> Result<Found> {
    let element = snapshot_paths::seen_at(tx, path.as_bytes(), snapshot)?;
    let row = path::element(tx, element)?;
    if row.kind != Kind::File || Mark::of(&row)?.is_none() {
        return Err(Error::Invalid(format!(
            "/{path} was no volume when the snapshot {snapshot} was taken"
        )));
    }
    if let Some((id, place)) = places(tx)?.into_iter().find(|(_, place)| place.element == element) {
        return super::found(tx, id, place);
    }
    let group = tx.spaces().known(keys::space_of(element))?.row.group;
    let image = Image {
        uuid: uuid_of(&[group.to_be_bytes(), element.to_be_bytes()].concat()),
        snapshot: snapshot.to_owned(),
    };
    let place = Place {
        element,
        directory: 0,
        name: path.as_bytes().to_vec(),
        image: Some(image),
    };
    let id = free_id(tx)?;
    tx.note_volumes();
    tx.put(keys::volume(id, PLACE), place.encode(tx.epoch()))?;
    super::found(tx, id, place)
}

/// Hosts see it no more; the snapshot stays.
pub(super) fn hide(tx: &mut Transaction, id: VolumeId) -> Result<()> {
    tx.note_volumes();
    for what in [PLACE, RESERVATION] {
        tx.delete(&keys::volume(id, what))?;
    }
    Ok(())
}

/// The images are about to go. Raises Conflict(ATTACHED).
pub fn gone(tx: &mut Transaction, images: &[u64]) -> Result<()> {
    for (id, place) in places(tx)? {
        if place.image.is_none() || !images.contains(&keys::space_of(place.element)) {
            continue;
        }
        if tx.attachments().handles(place.element) > 0 {
            return Err(Error::Conflict(ATTACHED.into()));
        }
        hide(tx, id)?;
    }
    Ok(())
}

/// What is wrong with a row that leads to an image.
pub(super) fn wrong(rows: &dyn Rows, id: VolumeId, place: &Place, image: &Image) -> Result<Option<String>> {
    let row = rows.get(&keys::element(place.element))?;
    let row = row.map(|bytes| ElementRow::decode(&bytes)).transpose()?;
    let is_marked = row.map(|row| Mark::of(&row)).transpose()?.flatten().is_some();
    let sentence = || format!("volume {id} is of the snapshot {}, which does not have it", image.snapshot);
    Ok((!is_marked).then(sentence))
}
