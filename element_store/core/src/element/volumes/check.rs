//! What must hold of the rows of volumes.

use super::{Mark, PLACE, Place, images};
use crate::element::rows::ElementRow;
use crate::element::{Rows, keys, path};
use crate::error::Result;
use std::collections::BTreeSet;

/// All that must hold of volumes; what is wrong, a sentence each. A mark to which no row of a volume leads is a clone's or a snapshot's.
pub fn check(rows: &dyn Rows) -> Result<Vec<String>> {
    let (mut wrong, mut known) = (Vec::new(), BTreeSet::new());
    let (from, to) = keys::table(keys::VOLUME);
    for row in rows.range(&from, &to, false) {
        let (key, value) = row?;
        let (Some(id), Some(what)) = (key.get(1..5).and_then(|id| id.try_into().ok()), key.get(5)) else {
            wrong.push("a volume's key is short".into());
            continue;
        };
        let id = u32::from_be_bytes(id);
        if *what != PLACE {
            if !known.contains(&id) {
                wrong.push(format!("something is kept of volume {id}, which is not there"));
            }
            continue;
        }
        known.insert(id);
        let place = Place::decode(&value)?;
        if let Some(image) = &place.image {
            wrong.extend(images::wrong(rows, id, &place, image)?);
            continue;
        }
        let row = rows
            .get(&keys::element(place.element))?
            .map(|bytes| ElementRow::decode(&bytes))
            .transpose()?;
        if row
            .map(|row| Mark::of(&row))
            .transpose()?
            .flatten()
            .is_none_or(|mark| mark.id != id)
        {
            wrong.push(format!("volume {id} has no element that is marked so"));
        }
        if path::entry(rows, place.directory, &place.name)?.is_none_or(|entry| entry.element != place.element) {
            wrong.push(format!("element {} is volume {id} and cannot be found as that", place.element));
        }
    }
    Ok(wrong)
}
