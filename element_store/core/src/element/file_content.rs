//! Changes of content in place.
//!
//! Invariants: content that changed loses its S3 digests and gets another ETag; nobody has pinned it, for whoever reads it as an object was given a
//! copy; no mapping lies beyond the size.

use super::content::{self, Source, Spot};
use super::files::{fail, file_row, node, strip};
use super::rows::{ElementRow, Etag};
use super::transaction::Transaction;
use super::{Rows, keys, volumes};
use crate::error::{Error, Result};
use crate::filesystem::{Allocation, CAPABILITY, Errno, FILE_BYTES_MAX, Node, Seek};

/// Runs that one transaction cuts away.
pub const CUT_RUNS_MAX: usize = 1024;

/// The content is no longer what S3 wrote. Raises Conflict for content that is pinned, and for a volume that hosts have attached.
pub(super) fn changed_content(tx: &mut Transaction, inode: u64, row: &mut ElementRow) -> Result<()> {
    volumes::refuse_attached(tx, inode, row)?;
    volumes::settle_row(tx, inode, row)?;
    renew(tx, inode, row)?;
    // Whoever reads it as an object has it pinned, and was given a copy; nobody pins it until this is seen.
    if tx.claim(inode) {
        Ok(())
    } else {
        Err(Error::Conflict(PINNED.into()))
    }
}

/// What a row says of content that is another from now on.
pub(super) fn renew(tx: &mut Transaction, inode: u64, row: &mut ElementRow) -> Result<()> {
    if matches!(row.etag, Etag::Multipart(..)) {
        let (from, to) = keys::span(keys::PARTS, inode);
        tx.delete_range(&from, &to)?;
    }
    (row.etag, row.composite) = (Etag::Version, false);
    row.digests.clear();
    row.attributes.xattrs.remove(CAPABILITY);
    // An id never returns, so no ETag of a change that a crash took back is given again.
    row.content_version = tx.new_id().max(row.content_version + 1);
    (row.modified_ns, row.changed_ns) = (tx.now_ns, tx.now_ns);
    Ok(())
}

/// The content has that size from now on; what was mapped and cut before this call is counted.
pub(super) fn resize(tx: &mut Transaction, inode: u64, row: &mut ElementRow, size: u64) {
    let mapped = (row.size - row.holes).saturating_add_signed(tx.take_mapped(inode));
    (row.size, row.holes) = (size, size.saturating_sub(mapped));
}

/// What `changed_content` says of content that is pinned: share it into a hidden element first.
pub const PINNED: &str = "pinned";

/// Cuts content from its end towards `size`, at most CUT_RUNS_MAX runs; true once it is there.
pub fn shrink(tx: &mut Transaction, inode: u64, size: u64) -> Result<bool> {
    let mut row = file_row(tx, inode)?;
    if row.size <= size {
        return Ok(true);
    }
    let reached = if content::runs(tx, inode, size, row.size, CUT_RUNS_MAX + 1)?.len() <= CUT_RUNS_MAX {
        size
    } else {
        let (from, to) = (keys::mapping(inode, size + 1), keys::mapping(inode, u64::MAX));
        let last = tx.get_range(&from, &to, CUT_RUNS_MAX, true)?;
        let first = last.last().map(|(key, value)| content::run_of(key, value)).transpose()?;
        first.map_or(size, |run| run.offset.max(size))
    };
    content::cut(tx, inode, reached, row.size, usize::MAX)?;
    changed_content(tx, inode, &mut row)?;
    resize(tx, inode, &mut row, reached);
    tx.put_element(inode, row)?;
    Ok(reached == size)
}

/// Where `write` puts its bytes.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    At(u64),
    End,
}

/// `length` is the source's.
pub fn write(tx: &mut Transaction, inode: u64, place: Place, source: Source, length: u64, strip_privileges: bool) -> Result<Node> {
    let mut row = file_row(tx, inode)?;
    let offset = match place {
        Place::At(offset) => offset,
        Place::End => row.size,
    };
    let end = offset.checked_add(length).filter(|end| *end <= FILE_BYTES_MAX);
    let Some(end) = end else { return fail(Errno::FBIG) };
    changed_content(tx, inode, &mut row)?;
    content::cut(tx, inode, offset, end.min(row.size), usize::MAX)?;
    let spot = if offset < row.size {
        Spot::in_place(inode, offset)
    } else {
        Spot::at(inode, offset)
    };
    content::place(tx, spot, source)?;
    let size = row.size.max(end);
    resize(tx, inode, &mut row, size);
    if strip_privileges {
        strip(&mut row);
    }
    let node = node(inode, &row);
    tx.put_element(inode, row)?;
    Ok(node)
}

/// One step of making a range a hole: at most CUT_RUNS_MAX runs. Returns how far it came.
pub fn punch(tx: &mut Transaction, inode: u64, start: u64, stop: u64) -> Result<u64> {
    let mut row = file_row(tx, inode)?;
    let stop = stop.min(row.size);
    if start >= stop {
        return Ok(u64::MAX);
    }
    changed_content(tx, inode, &mut row)?;
    let reached = content::cut(tx, inode, start, stop, CUT_RUNS_MAX)?;
    let size = row.size;
    resize(tx, inode, &mut row, size);
    tx.put_element(inode, row)?;
    Ok(if reached >= stop { u64::MAX } else { reached })
}

/// What an allocation leaves behind, once the range is a hole if it has to. Raises EFBIG.
pub fn allocate(tx: &mut Transaction, inode: u64, how: Allocation, end: u64) -> Result<Node> {
    let mut row = file_row(tx, inode)?;
    let grows = matches!(
        how,
        Allocation::Reserve { keep_size: false } | Allocation::Zero { keep_size: false }
    );
    changed_content(tx, inode, &mut row)?;
    if grows && end > row.size {
        resize(tx, inode, &mut row, end);
    }
    let node = node(inode, &row);
    tx.put_element(inode, row)?;
    Ok(node)
}

/// Shares at most SHARED runs of [start, stop) of another file, or of a part of this one that does not overlap. Returns how many bytes.
pub fn copy(tx: &mut Transaction, from: (u64, u64), to: (u64, u64), length: u64, runs_max: usize) -> Result<u64> {
    file_row(tx, from.0)?;
    let mut row = file_row(tx, to.0)?;
    let found = content::clipped_runs(tx, from.0, from.1, from.1 + length, runs_max)?;
    let length = match found.last() {
        Some(last) if found.len() == runs_max => last.offset + u64::from(last.length) - from.1,
        _ => length,
    };
    let end = to.1 + length;
    if end > FILE_BYTES_MAX {
        return fail(Errno::FBIG);
    }
    changed_content(tx, to.0, &mut row)?;
    content::cut(tx, to.0, to.1, end.min(row.size), usize::MAX)?;
    content::share(tx, from.0, from.1, from.1 + length, to.0, to.1, usize::MAX)?;
    let size = row.size.max(end);
    resize(tx, to.0, &mut row, size);
    tx.put_element(to.0, row)?;
    Ok(length)
}

/// Raises ENXIO.
pub fn seek(rows: &dyn Rows, inode: u64, offset: u64, what: Seek) -> Result<u64> {
    let row = file_row(rows, inode)?;
    if offset >= row.size {
        return fail(Errno::NXIO);
    }
    let mut at = offset;
    loop {
        let next = content::runs(rows, inode, at, row.size, 1)?.pop();
        match (what, next) {
            (Seek::Data, Some(run)) => return Ok(run.offset.max(at)),
            (Seek::Data, None) => return fail(Errno::NXIO),
            (Seek::Hole, Some(run)) if run.offset <= at => at = run.offset + u64::from(run.length),
            (Seek::Hole, _) => return Ok(at),
        }
        if at >= row.size {
            return Ok(row.size);
        }
    }
}
