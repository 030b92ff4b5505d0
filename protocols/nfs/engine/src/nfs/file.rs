//! GETATTR, SETATTR, ACCESS, READLINK, READ, WRITE, COMMIT.
//!
//! READ and READLINK tell attributes from before they read: content newer than its attributes is read again when they are seen to change, content
//! older than them would stay in the client's cache.

use super::attributes::{Wcc, decode_changes, encode, encode_after, time};
use super::{Effect, OK, Operation, Place, Status, decode_handle, finish};
use crate::permission::{EXECUTE, READ, WRITE};
use crate::xdr::{Decoded, Decoder, Encoder, Garbage, padding};
use trefoil_core::filesystem::{Changes, Errno, Node, TRANSFER_BYTES_MAX, Type};

const ACCESS_READ: u32 = 1;
const ACCESS_LOOKUP: u32 = 2;
const ACCESS_MODIFY: u32 = 4;
const ACCESS_EXTEND: u32 = 8;
const ACCESS_DELETE: u32 = 16;
const ACCESS_EXECUTE: u32 = 32;

const UNSTABLE: u32 = 0;
const FILE_SYNC: u32 = 2;

pub fn getattr(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    match operation.place(decode_handle(arguments)?) {
        Ok(place) => {
            reply.u32(OK);
            encode(reply, operation.fsid(), &place.node);
        }
        Err(status) => reply.u32(status.0),
    }
    Ok(Effect::Nothing)
}

pub fn setattr(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    let (handle, changes) = (decode_handle(arguments)?, decode_changes(arguments)?);
    let guard = if arguments.boolean()? {
        Some([arguments.u32()?, arguments.u32()?])
    } else {
        None
    };
    let mut wcc = Wcc::default();
    let result = set(operation, handle, changes, guard, &mut wcc);
    Ok(finish(operation, result, wcc, reply))
}

fn set(operation: &Operation<'_>, handle: &[u8], mut changes: Changes, guard: Option<[u32; 2]>, wcc: &mut Wcc) -> Result<(), Status> {
    let place = operation.place(handle)?;
    wcc.before(&place.node);
    place.writable()?;
    if guard.is_some_and(|changed| changed != time(place.node.changed_ns)) {
        return Err(Status::NOT_SYNCHRONIZED);
    }
    place.caller.may_change(operation.fs(), &place.node, &mut changes)?;
    if changes.size.is_some() {
        has_content(&place.node)?;
        wcc.changed();
    }
    wcc.after(operation.fs().change(place.node.inode, &changes)?);
    Ok(())
}

pub fn access(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    let (handle, wanted) = (decode_handle(arguments)?, arguments.u32()?);
    let found = operation.place(handle).and_then(|place| Ok((granted(operation, &place)?, place)));
    match found {
        Ok((granted, place)) => {
            reply.u32(OK);
            encode_after(reply, operation.fsid(), Some(&place.node));
            reply.u32(granted & wanted);
        }
        Err(status) => reply.words(&[status.0, 0]),
    }
    Ok(Effect::Nothing)
}

fn granted(operation: &Operation<'_>, place: &Place) -> Result<u32, Status> {
    let granted = place.caller.granted(operation.fs(), &place.node)?;
    let directory = place.node.kind == Type::Directory;
    let when = |granted: bool, bits: u32| if granted { bits } else { 0 };
    let writable = !place.export.read_only;
    let changes = if directory {
        when(
            writable && granted.has(WRITE | EXECUTE),
            ACCESS_MODIFY | ACCESS_EXTEND | ACCESS_DELETE,
        )
    } else {
        when(writable && granted.has(WRITE), ACCESS_MODIFY | ACCESS_EXTEND)
    };
    let enters = when(granted.has(EXECUTE), if directory { ACCESS_LOOKUP } else { ACCESS_EXECUTE });
    Ok(when(granted.has(READ), ACCESS_READ) | enters | changes)
}

pub fn readlink(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    let handle = decode_handle(arguments)?;
    let found = operation
        .place(handle)
        .and_then(|place| Ok((operation.fs().read_link(place.node.inode)?, place.node)));
    match found {
        Ok((target, node)) => {
            reply.u32(OK);
            encode_after(reply, operation.fsid(), Some(&node));
            reply.opaque(&target);
        }
        Err(status) => reply.words(&[status.0, 0]),
    }
    Ok(Effect::Nothing)
}

/// EISDIR for a directory, EINVAL for the other things that have no bytes.
fn has_content(node: &Node) -> Result<(), Status> {
    match node.kind {
        Type::File => Ok(()),
        Type::Directory => Err(Status::IS_DIRECTORY),
        _ => Err(Status::INVALID),
    }
}

pub fn read(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    let (handle, offset, count) = (decode_handle(arguments)?, arguments.u64()?, arguments.u32()?);
    let length = (count as usize).min(TRANSFER_BYTES_MAX);
    let mut node = None;
    match read_bytes(operation, handle, offset, length, &mut node) {
        Ok((mut bytes, end)) => {
            operation.service.counters.read_bytes.add(bytes.len() as u64);
            reply.u32(OK);
            encode_after(reply, operation.fsid(), node.as_ref());
            reply.words(&[bytes.len() as u32, u32::from(end), bytes.len() as u32]);
            bytes.resize(bytes.len() + padding(bytes.len()), 0);
            Ok(Effect::Payload(bytes))
        }
        Err(status) => {
            reply.u32(status.0);
            encode_after(reply, operation.fsid(), node.as_ref());
            Ok(Effect::Nothing)
        }
    }
}

/// The bytes, and whether the file ends with them.
fn read_bytes(
    operation: &Operation<'_>,
    handle: &[u8],
    offset: u64,
    length: usize,
    node: &mut Option<Node>,
) -> Result<(Vec<u8>, bool), Status> {
    let place = operation.place(handle)?;
    let file = &*node.insert(place.node);
    has_content(file)?;
    // Who opened it may have lost the right since, and owns it still; to execute it means to read it.
    if place.caller.uid != file.uid {
        let granted = place.caller.granted(operation.fs(), file)?;
        if !granted.has(READ) && !granted.has(EXECUTE) {
            return Err(Status::ACCESS);
        }
    }
    if offset >= file.size || length == 0 {
        return Ok((Vec::new(), offset >= file.size));
    }
    let bytes = operation.fs().read(file.inode, offset, length)?;
    let end = bytes.len() < length || offset + bytes.len() as u64 >= file.size;
    Ok((bytes, end))
}

pub fn write(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    let (handle, offset, count, how) = (decode_handle(arguments)?, arguments.u64()?, arguments.u32()?, arguments.u32()?);
    let bytes = arguments.opaque(usize::MAX)?;
    if bytes.len() != count as usize || how > FILE_SYNC {
        return Err(Garbage);
    }
    // More than FSINFO allows is written in part, which a client goes on from.
    let bytes = &bytes[..bytes.len().min(TRANSFER_BYTES_MAX)];
    let mut wcc = Wcc::default();
    let result = write_bytes(operation, handle, offset, bytes, &mut wcc);
    reply.u32(result.map_or_else(|status| status.0, |()| OK));
    wcc.encode(reply, operation.service);
    if result.is_err() {
        return Ok(Effect::Nothing);
    }
    operation.service.counters.write_bytes.add(bytes.len() as u64);
    reply.words(&[bytes.len() as u32, if how == UNSTABLE { UNSTABLE } else { FILE_SYNC }]);
    reply.fixed(&operation.service.verifier);
    Ok(if how == UNSTABLE { Effect::Nothing } else { Effect::Durable })
}

fn write_bytes(operation: &Operation<'_>, handle: &[u8], offset: u64, bytes: &[u8], wcc: &mut Wcc) -> Result<(), Status> {
    let place = operation.place(handle)?;
    wcc.before(&place.node);
    has_content(&place.node)?;
    place.writable()?;
    if place.caller.uid != place.node.uid {
        place.caller.may(operation.fs(), &place.node, WRITE)?;
    }
    if bytes.is_empty() {
        return Ok(());
    }
    offset.checked_add(bytes.len() as u64).ok_or(Errno::FBIG)?;
    wcc.changed();
    wcc.after(operation.fs().write(place.node.inode, offset, bytes, !place.caller.is_root())?);
    Ok(())
}

/// Makes everything durable, which the file's part is of: one `sync` serves all who wait for it.
pub fn commit(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    let (handle, _offset, _count) = (decode_handle(arguments)?, arguments.u64()?, arguments.u32()?);
    let mut wcc = Wcc::default();
    let result = operation.place(handle).and_then(|place| {
        wcc.before(&place.node);
        has_content(&place.node)
    });
    let effect = finish(operation, result, wcc, reply);
    if result.is_ok() {
        reply.fixed(&operation.service.verifier);
    }
    Ok(effect)
}
