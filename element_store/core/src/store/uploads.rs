//! Copies and multipart uploads: content that appears under a key without its bytes being moved.
//!
//! What one transaction can share is shared in it; longer content is assembled step by step in a hidden element, which a crash gives back.

use super::commit::Rank;
use super::read::Pinned;
use super::{
    Attributes, Completion, Content, Core, Digests, Done, ElementInfo, Staged, Store, Terms, UploadInfo, UploadedPart, rows_for, wait,
};
use crate::element::content::{self, Source, Spot};
use crate::element::namespace::{self, Description, Origin, SHARED_RUNS_MAX};
use crate::element::rows::ExtentRow;
use crate::element::transaction::{Pin, Transaction};
use crate::element::{keys, path, upload};
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Rows that a shared run costs at most, with those that give up its part.
const RUN_BYTES: usize = 160;
const PART_BYTES: usize = 260;

/// An element without a name, kept from the freeing job while this lives, whose content is put together piece by piece.
pub(super) struct Hidden {
    element: u64,
    size: u64,
    mapped_bytes: i64,
    _pin: Pinned,
}

impl Hidden {
    pub fn origin(&self) -> Origin {
        Origin::Hidden {
            element: self.element,
            size: self.size,
            mapped_bytes: self.mapped_bytes,
        }
    }
}

impl Core {
    /// `space`: of the directory in which it will be named; 0 if it never is.
    fn create_hidden(self: &Arc<Self>, space: u64) -> Result<Hidden> {
        let element = keys::in_space(self.staged_id()?, space);
        let pin = Pinned::new(self, element).ok_or_else(|| Error::Conflict("a new element is being given up".into()))?;
        self.committer
            .run_own(Rank::Own, 64, move |tx| namespace::mark_hidden(tx, element))?;
        Ok(Hidden {
            element,
            size: 0,
            mapped_bytes: 0,
            _pin: pin,
        })
    }

    /// Appends bytes [start, stop) of the source to what is in `hidden`.
    fn share_into(&self, hidden: &mut Hidden, source: &Pin, start: u64, stop: u64) -> Result<()> {
        let (target, offset, mut reached) = (hidden.element, hidden.size, start);
        while reached < stop {
            let (source, from) = (source.clone(), reached);
            let (to, mapped_bytes) = self.committer.run_own(Rank::Own, RUN_BYTES * SHARED_RUNS_MAX, move |tx| {
                let to = content::share(tx, source.element(), from, stop, target, offset + (from - start), SHARED_RUNS_MAX)?;
                Ok((to, tx.take_mapped(target)))
            })?;
            reached = to;
            hidden.mapped_bytes += mapped_bytes;
        }
        hidden.size += stop - start;
        Ok(())
    }

    /// Gives those who have the element pinned a copy to read, so that it can change; the caller keeps others from changing it meanwhile.
    pub(super) fn part_with_readers(self: &Arc<Self>, element: u64, size: u64) -> Result<()> {
        let Some(pin) = Pinned::new(self, element) else { return Ok(()) };
        let mut hidden = self.create_hidden(0)?;
        self.share_into(&mut hidden, pin.pin(), 0, size)?;
        self.committer.shared.pins.redirect(element, hidden.element);
        Ok(())
    }

    /// Maps staged extents into a hidden element, a batch at a time.
    pub(super) fn assemble_staged(self: &Arc<Self>, space: u64, extents: Vec<(u64, ExtentRow)>) -> Result<Hidden> {
        const EXTENT_ROW_BYTES: usize = 400;
        let mut hidden = self.create_hidden(space)?;
        let element = hidden.element;
        let mut left = extents;
        while !left.is_empty() {
            let rest = left.split_off(left.len().min(SHARED_RUNS_MAX));
            let batch = std::mem::replace(&mut left, rest);
            let offset = hidden.size;
            hidden.size = self.committer.run_own(Rank::Own, EXTENT_ROW_BYTES * batch.len(), move |tx| {
                content::append(tx, Spot::at(element, offset), batch)
            })?;
        }
        hidden.mapped_bytes = hidden.size as i64;
        Ok(hidden)
    }
}

impl Store {
    /// Shares the source's content under another key. Raises what `publish` does.
    pub fn copy(
        &self,
        source: &Content,
        view: &str,
        key: &[u8],
        attributes: Attributes,
        digests: Digests,
        terms: Terms,
    ) -> Result<ElementInfo> {
        let rows = rows_for(key, Some(&attributes), Some(&digests));
        let space = self.look(|rows| path::space_of(rows, view, key))?;
        let (view, key) = (view.to_owned(), key.to_vec());
        let name = move |tx: &mut Transaction, origin| {
            namespace::publish(tx, &view, &key, origin, Description::whole(attributes, digests)?, &terms)
        };
        self.share(source, 0..source.element.row.size, space, rows, name)
    }

    /// A part that shares bytes [start, stop) of the source.
    #[allow(clippy::too_many_arguments, reason = "they are what UploadPartCopy consists of")]
    pub fn copy_part(
        &self,
        view: &str,
        key: &[u8],
        id: &str,
        number: u32,
        source: &Content,
        start: u64,
        stop: u64,
        digests: Digests,
    ) -> Result<UploadedPart> {
        if start > stop || stop > source.element.row.size {
            return Err(Error::Invalid(format!("bytes {start} to {stop} of {}", source.element.row.size)));
        }
        let rows = rows_for(key, None, Some(&digests));
        let (view, key, id) = (view.to_owned(), key.to_vec(), id.to_owned());
        self.share(source, start..stop, 0, rows, move |tx, origin| {
            upload::put_part(tx, &view, &key, &id, number, origin, digests)
        })
    }

    fn share<T: Send + 'static>(
        &self,
        source: &Content,
        Range { start, end: stop }: Range<u64>,
        space: u64,
        rows: usize,
        name: impl FnOnce(&mut Transaction, Origin) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(pin) = source.pin().map(|pinned| pinned.pin().clone()) else {
            let piece = source.prefetched.as_deref().unwrap_or_default()[start as usize..stop as usize].to_vec();
            return wait(|done| {
                self.core
                    .committer
                    .submit(piece.len(), rows, done, move |tx| name(tx, Origin::New(Source::Small(piece))))
            });
        };
        let runs = content::clipped_runs(&self.core.snapshot(), pin.element(), start, stop, SHARED_RUNS_MAX + 1)?.len();
        if runs <= SHARED_RUNS_MAX {
            let origin = Origin::Share { source: pin, start, stop };
            return wait(|done| {
                self.core
                    .committer
                    .submit(0, rows + RUN_BYTES * runs, done, move |tx| name(tx, origin))
            });
        }
        let mut hidden = self.core.create_hidden(space)?;
        self.core.share_into(&mut hidden, &pin, start, stop)?;
        let origin = hidden.origin();
        wait(|done| self.core.committer.submit(0, rows, done, move |tx| name(tx, origin)))
    }

    pub fn create_upload(&self, view: &str, key: &[u8], attributes: Attributes, extra: BTreeMap<String, Vec<u8>>, done: Done<UploadInfo>) {
        let (view, key) = (view.to_owned(), key.to_vec());
        let rows = rows_for(&key, Some(&attributes), Some(&extra));
        self.core
            .committer
            .submit(0, rows, done, move |tx| upload::create(tx, &view, &key, attributes, extra));
    }

    pub fn upload(&self, view: &str, key: &[u8], id: &str) -> Result<UploadInfo> {
        self.look(|rows| upload::get(rows, view, key, id))
    }

    #[allow(clippy::too_many_arguments, reason = "they are what UploadPart consists of")]
    pub fn put_part(&self, view: &str, key: &[u8], id: &str, number: u32, staged: Staged, digests: Digests, done: Done<UploadedPart>) {
        let rows = rows_for(key, None, Some(&digests));
        let (view, key, id) = (view.to_owned(), key.to_vec(), id.to_owned());
        self.place(staged, Ok(0), rows, done, move |tx, origin| {
            upload::put_part(tx, &view, &key, &id, number, origin, digests)
        });
    }

    pub fn list_parts(&self, view: &str, key: &[u8], id: &str, after: u32, limit: usize) -> Result<Vec<UploadedPart>> {
        self.look(|rows| upload::list_parts(rows, view, key, id, after, limit))
    }

    pub fn list_uploads(&self, view: &str, prefix: &[u8], after_key: &[u8], after_id: &str, limit: usize) -> Result<Vec<UploadInfo>> {
        self.look(|rows| upload::list(rows, view, prefix, after_key, after_id, limit))
    }

    pub fn abort_upload(&self, view: &str, key: &[u8], id: &str, done: Done<()>) {
        const PARTS_BYTES: usize = 64 * upload::PART_NUMBER_MAX as usize;
        let parts = self.list_parts(view, key, id, 0, usize::MAX).map_or(0, |parts| parts.len());
        let rows = (rows_for(key, None, None) + PART_BYTES * parts).min(PARTS_BYTES) + upload::GIVEN_UP_AT_ONCE_MAX * 4096;
        let (view, key, id) = (view.to_owned(), key.to_vec(), id.to_owned());
        self.core
            .committer
            .submit(0, rows, done, move |tx| upload::abort(tx, &view, &key, &id));
    }

    /// Concatenates the parts by reference. Raises NotFound, Invalid("part N"), Precondition.
    pub fn complete_upload(&self, view: &str, key: &[u8], id: &str, completion: Completion) -> Result<ElementInfo> {
        let pieces = self.look(|rows| upload::chosen(rows, view, key, id, &completion))?;
        let snapshot = self.core.snapshot();
        let mut runs = 0;
        for (_, part) in &pieces {
            runs += content::runs(&snapshot, part.element, 0, u64::MAX, SHARED_RUNS_MAX)?.len();
            if runs > SHARED_RUNS_MAX {
                break;
            }
        }
        drop(snapshot);
        let hidden = if runs > SHARED_RUNS_MAX {
            Some(self.assemble_parts(&pieces, self.look(|rows| path::space_of(rows, view, key))?)?)
        } else {
            None
        };
        let digest_bytes = pieces.first().map_or(0, |(_, part)| {
            part.digests.iter().map(|(name, value)| name.len() + value.len() + 4).sum()
        });
        let rows = rows_for(key, None, Some(&completion.digests))
            + (PART_BYTES + digest_bytes) * pieces.len()
            + if hidden.is_some() { 0 } else { RUN_BYTES * runs }
            + upload::GIVEN_UP_AT_ONCE_MAX * 4096;
        let (view, key, id, assembled) = (view.to_owned(), key.to_vec(), id.to_owned(), hidden.as_ref().map(Hidden::origin));
        wait(|done| {
            self.core.committer.submit(0, rows, done, move |tx| {
                upload::complete(tx, &view, &key, &id, completion, &pieces, assembled)
            })
        })
    }

    fn assemble_parts(&self, pieces: &[(u32, crate::element::rows::PartRow)], space: u64) -> Result<Hidden> {
        let mut hidden = self.core.create_hidden(space)?;
        for (_, part) in pieces {
            // A part that is replaced meanwhile may be given up in the middle; the last transaction sees that it changed.
            let pin = Pinned::new(&self.core, part.element).ok_or_else(|| Error::Conflict("a part was replaced meanwhile".into()))?;
            self.core.share_into(&mut hidden, pin.pin(), 0, part.size)?;
        }
        Ok(hidden)
    }
}
