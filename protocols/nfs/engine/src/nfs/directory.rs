//! READDIR and READDIRPLUS.
//!
//! A cookie is the file system's own plus COOKIES_BEFORE; `.` is 1 and `..` is 2. They stay good while other entries come and go, so the verifier never
//! changes and is not looked at.

use super::attributes::{ATTRIBUTES_BYTES, encode_after};
use super::names::parent;
use super::{Effect, OK, Operation, Place, Status, decode_handle};
use crate::handle::HANDLE_BYTES;
use crate::permission::READ;
use crate::xdr::{Decoded, Decoder, Encoder, padding};
use trefoil_core::filesystem::{Entry, Node, TRANSFER_BYTES_MAX};

const COOKIES_BEFORE: u64 = 2;
/// Of the longest reply.
pub const LISTING_BYTES_MAX: usize = TRANSFER_BYTES_MAX;
/// Entries asked of the file system at once.
const BATCH_ENTRIES_MAX: usize = 512;
/// After the entries: that there are no more, and whether it is the directory's end.
const END_BYTES: usize = 4 + 4;
/// Of an entry with a name of one to four bytes: inode, name and cookie; attributes and handle.
const ENTRY_BYTES_MIN: usize = 4 + 8 + 8 + 8;
const PLUS_BYTES: usize = ATTRIBUTES_BYTES + 4 + 4 + HANDLE_BYTES;

/// What one call asks for.
struct Wanted {
    cookie: u64,
    /// Of the result; of the names, cookies and inodes in it.
    bytes_max: usize,
    plain_bytes_max: usize,
    plus: bool,
}

pub fn readdir(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    let (handle, cookie, _verifier, bytes) = (decode_handle(arguments)?, arguments.u64()?, arguments.u64()?, arguments.u32()?);
    let bytes_max = (bytes as usize).min(LISTING_BYTES_MAX);
    answer(
        operation,
        handle,
        &Wanted {
            cookie,
            bytes_max,
            plain_bytes_max: bytes_max,
            plus: false,
        },
        reply,
    )
}

pub fn readdirplus(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    let (handle, cookie, _verifier) = (decode_handle(arguments)?, arguments.u64()?, arguments.u64()?);
    let (plain, bytes) = (arguments.u32()?, arguments.u32()?);
    let bytes_max = (bytes as usize).min(LISTING_BYTES_MAX);
    answer(
        operation,
        handle,
        &Wanted {
            cookie,
            bytes_max,
            plain_bytes_max: plain as usize,
            plus: true,
        },
        reply,
    )
}

fn answer(operation: &Operation<'_>, handle: &[u8], wanted: &Wanted, reply: &mut Encoder) -> Decoded<Effect> {
    let start = reply.len();
    let mut directory = None;
    if let Err(status) = list(operation, handle, wanted, &mut directory, reply) {
        reply.truncate(start);
        reply.u32(status.0);
        encode_after(reply, operation.fsid(), directory.as_ref());
    }
    Ok(Effect::Nothing)
}

fn list(
    operation: &Operation<'_>,
    handle: &[u8],
    wanted: &Wanted,
    directory: &mut Option<Node>,
    reply: &mut Encoder,
) -> Result<(), Status> {
    let place = operation.directory(handle)?;
    *directory = Some(place.node.clone());
    place.caller.may(operation.fs(), &place.node, READ)?;
    reply.u32(OK);
    let start = reply.len();
    encode_after(reply, operation.fsid(), Some(&place.node));
    reply.u64(0);
    let mut listing = Listing {
        operation,
        place: &place,
        wanted,
        reply,
        start,
        plain_bytes: 0,
        entries: 0,
    };
    let end = listing.fill()?;
    if listing.entries == 0 && !end {
        return Err(Status::TOO_SMALL);
    }
    reply.boolean(false);
    reply.boolean(end);
    Ok(())
}

struct Listing<'a> {
    operation: &'a Operation<'a>,
    place: &'a Place,
    wanted: &'a Wanted,
    reply: &'a mut Encoder,
    start: usize,
    plain_bytes: usize,
    entries: usize,
}

impl Listing<'_> {
    /// Whether the directory ended before the room did.
    fn fill(&mut self) -> Result<bool, Status> {
        let first = self.wanted.cookie;
        if first < 1 && !self.push(b".", 1, &self.place.node) {
            return Ok(false);
        }
        if first < 2 {
            let parent = parent(self.operation, self.place).unwrap_or_else(|_| self.place.node.clone());
            if !self.push(b"..", 2, &parent) {
                return Ok(false);
            }
        }
        let mut cookie = first.saturating_sub(COOKIES_BEFORE);
        loop {
            let entries = self.operation.fs().list(self.place.node.inode, cookie, self.batch())?;
            let Some(last) = entries.last() else { return Ok(true) };
            cookie = last.cookie;
            if !entries
                .iter()
                .all(|Entry { name, cookie, node }| self.push(name, cookie + COOKIES_BEFORE, node))
            {
                return Ok(false);
            }
        }
    }

    /// As many entries as could find room if their names are short.
    fn batch(&self) -> usize {
        let room = self.wanted.bytes_max.saturating_sub(self.reply.len() - self.start);
        let bytes = ENTRY_BYTES_MIN + if self.wanted.plus { PLUS_BYTES } else { 0 };
        let plain_room = self.wanted.plain_bytes_max.saturating_sub(self.plain_bytes);
        (room / bytes)
            .min(plain_room / (ENTRY_BYTES_MIN - 4))
            .saturating_add(1)
            .min(BATCH_ENTRIES_MAX)
    }

    /// False if it finds no room.
    fn push(&mut self, name: &[u8], cookie: u64, node: &Node) -> bool {
        let before = self.reply.len();
        self.reply.boolean(true);
        self.reply.u64(node.inode);
        self.reply.opaque(name);
        self.reply.u64(cookie);
        if self.wanted.plus {
            encode_after(self.reply, self.operation.fsid(), Some(node));
            self.reply.boolean(true);
            self.reply.opaque(&self.operation.handle(self.place, node.inode));
        }
        let plain_bytes = self.plain_bytes + 8 + 4 + 8 + name.len() + padding(name.len());
        let fits = self.reply.len() - self.start + END_BYTES <= self.wanted.bytes_max;
        // At least one entry is told whatever `dircount` says: it is a hint, and some clients send 0.
        if !fits || (self.entries > 0 && plain_bytes > self.wanted.plain_bytes_max) {
            self.reply.truncate(before);
            return false;
        }
        self.plain_bytes = plain_bytes;
        self.entries += 1;
        true
    }
}
