//! `readdir`, with and without attributes.
//!
//! An offset is where a listing goes on: 0 at the start, 1 after `.`, 2 after `..`, and the store's cookie and 2 after any other entry. So it stays
//! right for as long as the directory lives, whatever happens to other entries. A listing ends with the newest entry that was there when it began at the start:
//! names that are renamed all the while would come again and again.

use std::collections::HashMap;
use std::sync::Mutex;

use trefoil_core::filesystem::{Node, Result, Type};

use super::names::is_snapshots;
use super::shape::kind;
use super::{Answer, Call, Engine};
use crate::invalidations::Freshness;
use crate::known::lock;
use crate::wire::{DIRENT_BYTES, ENTRY_OUT_BYTES, Writer, operation};

/// Offsets before the first cookie's.
const DOTS: u64 = 2;
/// A name's bytes in the middle, to ask the store for about as many entries as fit.
const NAME_BYTES_USUAL: usize = 16;
const ENTRIES_MAX: usize = 4096;
const ALIGNMENT: usize = 8;

/// Where the listings of open directories end, by handle: the last cookie.
#[derive(Default)]
pub struct Listings(Mutex<HashMap<u64, u64>>);

impl Listings {
    fn begin(&self, handle: u64, last: u64) {
        lock(&self.0).insert(handle, last);
    }

    fn last(&self, handle: u64) -> u64 {
        lock(&self.0).get(&handle).copied().unwrap_or(u64::MAX)
    }

    pub fn end(&self, handle: u64) {
        lock(&self.0).remove(&handle);
    }
}

/// What one answer has room for.
struct Page<'a> {
    out: &'a mut Writer,
    bytes_max: usize,
    plus: bool,
    since: Freshness,
    /// Nobody tells when these names go.
    is_brief: bool,
}

impl Engine {
    pub(super) fn readdir(&self, call: &mut Call) -> Result<Answer> {
        let (handle, offset, bytes_max) = (call.body.u64()?, call.body.u64()?, call.body.u32()? as usize);
        let plus = call.header.operation == operation::READDIRPLUS;
        let mut page = Page {
            out: call.out,
            bytes_max,
            plus,
            since: call.since,
            is_brief: is_snapshots(call.inode),
        };
        if offset == 0 {
            self.listings.begin(handle, self.fs.newest_cookie(call.inode)?);
            if self.notes_accesses() {
                self.fs.note_access(call.inode);
            }
        }
        let last = self.listings.last(handle);
        if offset < DOTS && !self.dots(&mut page, call.inode, offset)? {
            return Ok(Answer::Payload);
        }
        for entry in self.fs.list(call.inode, offset.saturating_sub(DOTS), page.entries_usual())? {
            if entry.cookie > last || !self.push(&mut page, &entry.name, &entry.node, entry.cookie + DOTS) {
                break;
            }
        }
        Ok(Answer::Payload)
    }

    /// Whether there is room for more.
    fn dots(&self, page: &mut Page, directory: u64, offset: u64) -> Result<bool> {
        if offset == 0 && !page.push_dot(b".", self.outward(directory), 1) {
            return Ok(false);
        }
        let parent = if directory == self.options.root {
            directory
        } else {
            self.fs.parent(directory)?.inode
        };
        Ok(page.push_dot(b"..", self.outward(parent), 2))
    }

    /// False if it does not fit, which is where the next answer goes on.
    fn push(&self, page: &mut Page, name: &[u8], node: &Node, offset: u64) -> bool {
        if !page.fits(name) {
            return false;
        }
        match page.plus {
            true if page.is_brief => self.brief_entry_out(page.out, node),
            true => self.entry_out(page.out, node, page.since),
            false => {}
        }
        page.dirent(name, self.outward(node.inode), node.kind, offset);
        true
    }
}

impl Page<'_> {
    fn entry_bytes(&self, name_bytes: usize) -> usize {
        let head = if self.plus { ENTRY_OUT_BYTES + DIRENT_BYTES } else { DIRENT_BYTES };
        (head + name_bytes).next_multiple_of(ALIGNMENT)
    }

    fn entries_usual(&self) -> usize {
        ((self.bytes_max - self.out.len().min(self.bytes_max)) / self.entry_bytes(NAME_BYTES_USUAL) + 1).min(ENTRIES_MAX)
    }

    fn fits(&self, name: &[u8]) -> bool {
        self.out.len() + self.entry_bytes(name.len()) <= self.bytes_max
    }

    /// Without attributes: node number 0 says that there are none.
    fn push_dot(&mut self, name: &[u8], inode: u64, offset: u64) -> bool {
        if !self.fits(name) {
            return false;
        }
        if self.plus {
            self.out.zeros(ENTRY_OUT_BYTES);
        }
        self.dirent(name, inode, Type::Directory, offset);
        true
    }

    /// `struct fuse_dirent`
    fn dirent(&mut self, name: &[u8], inode: u64, of: Type, offset: u64) {
        let padding = (DIRENT_BYTES + name.len()).next_multiple_of(ALIGNMENT) - DIRENT_BYTES - name.len();
        self.out
            .u64(inode)
            .u64(offset)
            .u32(name.len() as u32)
            .u32(kind(of).0 >> 12)
            .bytes(name)
            .zeros(padding);
    }
}
