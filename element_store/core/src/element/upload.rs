//! Multipart uploads: what is on its way to a key, outside the namespace.
//!
//! Invariants: a part's bytes are a hidden element that only its part row names; a completed upload leaves neither upload nor part rows.

use super::content;
use super::info::{Digests, ElementInfo, Terms, UploadInfo, UploadedPart, hex};
use super::namespace::{self, Description, Origin};
use super::rows::{Attributes, Etag, PartRow, UploadRow};
use super::transaction::Transaction;
use super::{Rows, aside, keys, modes, path};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

pub const PART_NUMBER_MAX: u32 = 10_000;
/// Of what the gateway remembers with an upload.
pub const EXTRA_BYTES_MAX: usize = 16 * 1024;

/// Of more parts than this, none is given back in the transaction that gives them up.
pub const GIVEN_UP_AT_ONCE_MAX: usize = 64;

#[derive(Debug)]
pub struct Completion {
    /// (number, ETag), ascending.
    pub parts: Vec<(u32, String)>,
    pub etag_digest: [u8; 16],
    pub digests: Digests,
    pub composite: bool,
    pub terms: Terms,
}

fn id_text(id: u64) -> String {
    format!("{id:016x}")
}

fn absent() -> Error {
    Error::NotFound("upload".into())
}

fn id_from(text: &str) -> Result<u64> {
    let well_formed = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase());
    well_formed.then(|| u64::from_str_radix(text, 16).ok()).flatten().ok_or_else(absent)
}

fn info(id: u64, key: &[u8], row: UploadRow) -> UploadInfo {
    UploadInfo {
        id: id_text(id),
        key: key.to_vec(),
        created_ns: row.created_ns,
        attributes: row.attributes,
        extra: row.extra,
    }
}

fn part_info(number: u32, row: &PartRow) -> UploadedPart {
    let mut digests = row.digests.clone();
    digests.insert("md5".into(), row.md5.to_vec());
    UploadedPart {
        number,
        size: row.size,
        etag: hex(&row.md5),
        modified_ns: row.modified_ns,
        digests,
    }
}

/// (upload id, its row's key, its row). Raises NotFound("view"), NotFound("upload").
fn find(rows: &dyn Rows, view: &str, key: &[u8], id: &str) -> Result<(u64, Vec<u8>, UploadRow)> {
    let view = path::view_id(rows, view)?;
    let id = id_from(id)?;
    let row_key = keys::upload(view, key, id);
    let row = rows.get(&row_key)?.ok_or_else(absent)?;
    Ok((id, row_key, UploadRow::decode(&row)?))
}

pub fn create(
    tx: &mut Transaction,
    view: &str,
    key: &[u8],
    attributes: Attributes,
    extra: BTreeMap<String, Vec<u8>>,
) -> Result<UploadInfo> {
    path::check_key(key)?;
    namespace::check_attributes(&attributes)?;
    if extra.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > EXTRA_BYTES_MAX {
        return Err(Error::Limit(format!("an upload remembers at most {EXTRA_BYTES_MAX} bytes")));
    }
    let (view, id) = (path::view_id(tx, view)?, tx.new_id());
    tx.check_writable(view)?;
    // Better now than after the last part.
    aside::check_policy(tx, view, &path::walk(tx, view, key)?, 1)?;
    let row = UploadRow {
        created_ns: tx.now_ns,
        attributes,
        extra,
    };
    tx.put(keys::upload(view, key, id), row.encode())?;
    Ok(info(id, key, row))
}

pub fn get(rows: &dyn Rows, view: &str, key: &[u8], id: &str) -> Result<UploadInfo> {
    let (id, _, row) = find(rows, view, key, id)?;
    Ok(info(id, key, row))
}

fn part(rows: &dyn Rows, upload: u64, number: u32) -> Result<Option<PartRow>> {
    rows.get(&keys::upload_part(upload, number))?
        .map(|bytes| PartRow::decode(&bytes))
        .transpose()
}

/// `origin`: new content, or bytes shared with an element; a part of that number from before is given up.
pub fn put_part(
    tx: &mut Transaction,
    view: &str,
    key: &[u8],
    id: &str,
    number: u32,
    origin: Origin,
    mut digests: Digests,
) -> Result<UploadedPart> {
    if !(1..=PART_NUMBER_MAX).contains(&number) {
        return Err(Error::Invalid(format!("a part's number is 1 to {PART_NUMBER_MAX}")));
    }
    let md5 = digests
        .remove("md5")
        .and_then(|md5| md5.try_into().ok())
        .ok_or_else(|| Error::Invalid("a part needs an md5 of 16 bytes".into()))?;
    let (upload, _, _) = find(tx, view, key, id)?;
    let directory = path::walk(tx, path::view_id(tx, view)?, key)?.parent();
    tx.landing_mode = modes::above(tx, directory)?;
    let old = part(tx, upload, number)?;
    let element = match origin {
        Origin::Hidden { element, .. } => element,
        _ => tx.new_id(),
    };
    let size = namespace::fill(tx, element, origin)?;
    let row = PartRow {
        element,
        size,
        md5,
        modified_ns: tx.now_ns,
        digests,
    };
    tx.put(keys::upload_part(upload, number), row.encode())?;
    if let Some(old) = old {
        namespace::give_up(tx, old.element)?;
    }
    Ok(part_info(number, &row))
}

/// A part's number is in bytes 9..13 of its key.
fn number_of(key: &[u8]) -> u32 {
    key.get(9..13).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn parts(rows: &dyn Rows, upload: u64, after: u32, limit: usize) -> Result<Vec<(u32, PartRow)>> {
    let (_, to) = keys::span(keys::UPLOAD_PART, upload);
    let found = rows.get_range(&keys::upload_part(upload, after.saturating_add(1)), &to, limit, false)?;
    found
        .iter()
        .map(|(key, value)| Ok((number_of(key), PartRow::decode(value)?)))
        .collect()
}

pub fn list_parts(rows: &dyn Rows, view: &str, key: &[u8], id: &str, after: u32, limit: usize) -> Result<Vec<UploadedPart>> {
    let (upload, _, _) = find(rows, view, key, id)?;
    Ok(parts(rows, upload, after, limit)?
        .iter()
        .map(|(number, row)| part_info(*number, row))
        .collect())
}

/// By key, then by age.
pub fn list(rows: &dyn Rows, view: &str, prefix: &[u8], after_key: &[u8], after_id: &str, limit: usize) -> Result<Vec<UploadInfo>> {
    let view = path::view_id(rows, view)?;
    let (start, end) = keys::span(keys::UPLOAD, view);
    let mut from = [start.as_slice(), prefix].concat();
    let to = if prefix.is_empty() { end } else { crate::meta::prefix_end(&from) };
    if !after_key.is_empty() {
        let after = if after_id.is_empty() {
            Some(u64::MAX)
        } else {
            id_from(after_id).ok()
        };
        let key = keys::upload(view, after_key, after.unwrap_or(u64::MAX));
        from = from.max([key.as_slice(), &[0]].concat());
    }
    let decode = |(key, value): (Vec<u8>, Vec<u8>)| {
        let (key, id) = key[9..]
            .split_last_chunk::<8>()
            .ok_or_else(|| Error::Damaged("an upload's key is short".into()))?;
        Ok(info(u64::from_be_bytes(*id), &key[..key.len() - 1], UploadRow::decode(&value)?))
    };
    rows.get_range(&from, &to, limit, false)?.into_iter().map(decode).collect()
}

/// The named parts in order. Raises Invalid for one that is absent or has another ETag.
pub fn chosen(rows: &dyn Rows, view: &str, key: &[u8], id: &str, completion: &Completion) -> Result<Vec<(u32, PartRow)>> {
    let (upload, _, _) = find(rows, view, key, id)?;
    let choose = |(number, etag): &(u32, String)| match part(rows, upload, *number)? {
        Some(row) if hex(&row.md5) == *etag => Ok((*number, row)),
        _ => Err(Error::Invalid(format!("part {number}"))),
    };
    completion.parts.iter().map(choose).collect()
}

/// Publishes the parts under the key and forgets the upload. `assembled`: the hidden element in which `pieces` were put before, if they are many.
pub fn complete(
    tx: &mut Transaction,
    view: &str,
    key: &[u8],
    id: &str,
    completion: Completion,
    pieces: &[(u32, PartRow)],
    assembled: Option<Origin>,
) -> Result<ElementInfo> {
    if chosen(tx, view, key, id, &completion)? != pieces {
        return Err(Error::Conflict("a part changed while the upload was completed".into()));
    }
    let (upload, row_key, row) = find(tx, view, key, id)?;
    let origin = match assembled {
        Some(origin) => origin,
        None => {
            let space = path::space_of(tx, view, key)?;
            assemble(tx, pieces, space)?
        }
    };
    let description = Description {
        attributes: row.attributes,
        etag: Etag::Multipart(completion.etag_digest, pieces.len() as u32),
        composite: completion.composite,
        digests: completion.digests,
        parts: pieces
            .iter()
            .map(|(number, part)| {
                (
                    *number,
                    PartRow {
                        element: 0,
                        ..part.clone()
                    },
                )
            })
            .collect(),
    };
    let element = namespace::publish(tx, view, key, origin, description, &completion.terms)?;
    tx.delete(&row_key)?;
    give_up_parts(tx, upload)?;
    Ok(element)
}

fn assemble(tx: &mut Transaction, pieces: &[(u32, PartRow)], space: u64) -> Result<Origin> {
    let element = tx.new_element(space)?;
    namespace::mark_hidden(tx, element)?;
    let mut offset = 0;
    for (_, part) in pieces {
        if content::share(tx, part.element, 0, part.size, element, offset, namespace::SHARED_RUNS_MAX)? < part.size {
            return Err(Error::Limit("content has too many runs to share in one transaction".into()));
        }
        offset += part.size;
    }
    Ok(Origin::Hidden {
        element,
        size: offset,
        mapped_bytes: 0,
    })
}

fn give_up_parts(tx: &mut Transaction, upload: u64) -> Result<()> {
    let parts = parts(tx, upload, 0, usize::MAX)?;
    let few = parts.len() <= GIVEN_UP_AT_ONCE_MAX;
    for (number, part) in &parts {
        tx.delete(&keys::upload_part(upload, *number))?;
        if few {
            namespace::give_up(tx, part.element)?
        } else {
            tx.put(keys::detached(part.element), Vec::new())?
        }
    }
    Ok(())
}

pub fn abort(tx: &mut Transaction, view: &str, key: &[u8], id: &str) -> Result<()> {
    let (upload, row_key, _) = find(tx, view, key, id)?;
    tx.delete(&row_key)?;
    give_up_parts(tx, upload)
}
