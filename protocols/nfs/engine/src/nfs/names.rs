//! LOOKUP, REMOVE, RMDIR, RENAME, LINK.

use super::attributes::{Wcc, encode_after};
use super::{Effect, OK, Operation, Place, Status, decode_entry, decode_handle, finish};
use crate::permission::{EXECUTE, WRITE};
use crate::xdr::{Decoded, Decoder, Encoder};
use trefoil_core::filesystem::{Errno, Inode, Node, ROOT, Replace, Type};

/// How far up `..` looks for the export's root: no path of PATH_MAX bytes is deeper.
const DEPTH_MAX: usize = 2048;

pub fn lookup(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    let (handle, name) = decode_entry(arguments)?;
    let mut directory = None;
    match find(operation, handle, name, &mut directory) {
        Ok((place, node)) => {
            reply.u32(OK);
            reply.opaque(&operation.handle(&place, node.inode));
            encode_after(reply, operation.fsid(), Some(&node));
        }
        Err(status) => reply.u32(status.0),
    }
    encode_after(reply, operation.fsid(), directory.as_ref());
    Ok(Effect::Nothing)
}

fn find(operation: &Operation<'_>, handle: &[u8], name: &[u8], directory: &mut Option<Node>) -> Result<(Place, Node), Status> {
    let place = operation.directory(handle)?;
    let node = &*directory.insert(place.node.clone());
    place.caller.may(operation.fs(), node, EXECUTE)?;
    let found = match name {
        b"." => node.clone(),
        b".." => parent(operation, &place)?,
        _ => operation.fs().lookup(node.inode, name)?,
    };
    Ok((place, found))
}

/// What `..` names: of the export's root itself, and never anything outside of the export.
pub fn parent(operation: &Operation<'_>, place: &Place) -> Result<Node, Status> {
    let root = place.export_root;
    if place.node.inode == root {
        return Ok(place.node.clone());
    }
    let parent = operation.fs().parent(place.node.inode)?;
    let mut above = parent.inode;
    for _ in 0..DEPTH_MAX {
        if above == root {
            return Ok(parent);
        }
        if above == ROOT {
            break;
        }
        above = operation.fs().parent(above)?.inode;
    }
    // It was moved out of the export.
    Err(Status::ACCESS)
}

pub fn remove(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    take_away(operation, arguments, reply, |directory, name| {
        operation.fs().unlink(directory, name)
    })
}

pub fn rmdir(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    take_away(operation, arguments, reply, |directory, name| {
        operation.fs().remove_directory(directory, name)
    })
}

fn take_away(
    operation: &Operation<'_>,
    arguments: &mut Decoder<'_>,
    reply: &mut Encoder,
    act: impl FnOnce(Inode, &[u8]) -> Result<(), Errno>,
) -> Decoded<Effect> {
    let (handle, name) = decode_entry(arguments)?;
    let mut wcc = Wcc::default();
    let result = operation.changeable_directory(handle, &mut wcc).and_then(|place| {
        let node = operation.fs().lookup(place.node.inode, name)?;
        place.caller.may_remove(&place.node, &node)?;
        act(place.node.inode, name)?;
        wcc.changed();
        Ok(())
    });
    Ok(finish(operation, result, wcc, reply))
}

pub fn rename(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    let (from, to) = (decode_entry(arguments)?, decode_entry(arguments)?);
    let mut wcc = [Wcc::default(), Wcc::default()];
    let result = move_entry(operation, from, to, &mut wcc);
    reply.u32(result.map_or_else(|status| status.0, |()| OK));
    wcc.into_iter().for_each(|wcc| wcc.encode(reply, operation.service));
    Ok(if result.is_ok() { Effect::Durable } else { Effect::Nothing })
}

fn move_entry(operation: &Operation<'_>, from: (&[u8], &[u8]), to: (&[u8], &[u8]), wcc: &mut [Wcc; 2]) -> Result<(), Status> {
    let source = operation.changeable_directory(from.0, &mut wcc[0])?;
    let target = operation.changeable_directory(to.0, &mut wcc[1])?;
    if source.export_root != target.export_root {
        return Err(Status::CROSS_DEVICE);
    }
    let fs = operation.fs();
    let moved = fs.lookup(source.node.inode, from.1)?;
    source.caller.may_remove(&source.node, &moved)?;
    match fs.lookup(target.node.inode, to.1) {
        Ok(replaced) => target.caller.may_remove(&target.node, &replaced)?,
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    // Its `..` changes.
    if moved.kind == Type::Directory && source.node.inode != target.node.inode {
        source.caller.may(fs, &moved, WRITE)?;
    }
    fs.rename((source.node.inode, from.1), (target.node.inode, to.1), Replace::Yes)?;
    wcc.iter_mut().for_each(Wcc::changed);
    Ok(())
}

pub fn link(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    let (file, (directory, name)) = (decode_handle(arguments)?, decode_entry(arguments)?);
    let (mut wcc, mut node) = (Wcc::default(), None);
    let result = add_name(operation, file, (directory, name), &mut node, &mut wcc);
    reply.u32(result.map_or_else(|status| status.0, |()| OK));
    encode_after(reply, operation.fsid(), node.as_ref());
    wcc.encode(reply, operation.service);
    Ok(if result.is_ok() { Effect::Durable } else { Effect::Nothing })
}

fn add_name(
    operation: &Operation<'_>,
    file: &[u8],
    (directory, name): (&[u8], &[u8]),
    node: &mut Option<Node>,
    wcc: &mut Wcc,
) -> Result<(), Status> {
    let place = operation.place(file)?;
    let inode = node.insert(place.node).inode;
    let target = operation.changeable_directory(directory, wcc)?;
    if place.export_root != target.export_root {
        return Err(Status::CROSS_DEVICE);
    }
    if matches!(name, b"." | b"..") {
        return Err(Status::EXIST);
    }
    *node = Some(operation.fs().link(inode, target.node.inode, name)?);
    wcc.changed();
    Ok(())
}
