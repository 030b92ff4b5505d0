//! CREATE, MKDIR, SYMLINK, MKNOD.
//!
//! A file that needs more than mode and owner from its first moment (a size, times, a verifier) is made without a name, completed, and then named: no
//! crash and no other client finds it half made. The verifier of an exclusive create is kept as Linux does, in the times, so that a repeated call finds
//! it after a restart too.

use super::attributes::{Wcc, decode_changes, device_number, encode_after, nanoseconds};
use super::{Effect, OK, Operation, Place, Status, decode_entry};
use crate::permission::{SET_GID, WRITE};
use crate::xdr::{Decoded, Decoder, Encoder, Garbage};
use trefoil_core::filesystem::{Changes, Errno, New, Node, Owner, Time, Type};

/// Where a client names none.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
const SYMLINK_MODE: u32 = 0o777;
/// How often a name may come and go while we look and make.
const ATTEMPTS_MAX: usize = 8;

/// `createhow3`
enum How {
    Unchecked(Changes),
    Guarded(Changes),
    /// The verifier, as access and modification time.
    Exclusive([i64; 2]),
}

impl How {
    fn decode(arguments: &mut Decoder<'_>) -> Decoded<Self> {
        match arguments.u32()? {
            0 => Ok(Self::Unchecked(decode_changes(arguments)?)),
            1 => Ok(Self::Guarded(decode_changes(arguments)?)),
            2 => {
                let mut half = || -> Decoded<i64> { Ok(nanoseconds([arguments.u32()?, 0])) };
                Ok(Self::Exclusive([half()?, half()?]))
            }
            _ => Err(Garbage),
        }
    }
}

pub fn create(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    let (handle, name) = decode_entry(arguments)?;
    let how = How::decode(arguments)?;
    make(operation, handle, name, reply, |place, wcc| match how {
        How::Unchecked(changes) => create_unchecked(operation, place, name, changes, wcc),
        How::Guarded(changes) => create_file(operation, place, name, changes, wcc),
        How::Exclusive(times) => create_exclusive(operation, place, name, times, wcc),
    })
}

pub fn mkdir(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    let ((handle, name), changes) = (decode_entry(arguments)?, decode_changes(arguments)?);
    make(operation, handle, name, reply, |place, wcc| {
        create_other(operation, place, (name, New::Directory, DIRECTORY_MODE), changes, wcc)
    })
}

pub fn symlink(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    let ((handle, name), changes, target) = (decode_entry(arguments)?, decode_changes(arguments)?, arguments.opaque(usize::MAX)?);
    make(operation, handle, name, reply, |place, wcc| {
        let changes = Changes { mode: None, ..changes };
        create_other(operation, place, (name, New::Symlink(target), SYMLINK_MODE), changes, wcc)
    })
}

pub fn mknod(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    let ((handle, name), kind) = (decode_entry(arguments)?, arguments.u32()?);
    let changes = if matches!(kind, 3 | 4 | 6 | 7) {
        decode_changes(arguments)?
    } else {
        Changes::default()
    };
    let mut number = || -> Decoded<u64> { Ok(device_number([arguments.u32()?, arguments.u32()?])) };
    let new = match kind {
        3 => Some(New::BlockDevice(number()?)),
        4 => Some(New::CharacterDevice(number()?)),
        6 => Some(New::Socket),
        7 => Some(New::Fifo),
        1 | 2 | 5 => None,
        _ => return Err(Garbage),
    };
    make(operation, handle, name, reply, |place, wcc| {
        let new = new.ok_or(Status::BAD_TYPE)?;
        let device = matches!(new, New::BlockDevice(_) | New::CharacterDevice(_));
        if device && !place.caller.is_root() {
            return Err(Errno::PERM.into());
        }
        create_other(operation, place, (name, new, FILE_MODE), changes, wcc)
    })
}

/// What all four share: the directory's check, and the result.
fn make(
    operation: &Operation<'_>,
    handle: &[u8],
    name: &[u8],
    reply: &mut Encoder,
    act: impl FnOnce(&Place, &mut Wcc) -> Result<Node, Status>,
) -> Decoded<Effect> {
    let mut wcc = Wcc::default();
    let made = operation.changeable_directory(handle, &mut wcc).and_then(|place| {
        if matches!(name, b"." | b"..") {
            return Err(Status::EXIST);
        }
        Ok((act(&place, &mut wcc)?, place))
    });
    let effect = if made.is_ok() { Effect::Durable } else { Effect::Nothing };
    match made {
        Ok((node, place)) => {
            reply.u32(OK);
            reply.boolean(true);
            reply.opaque(&operation.handle(&place, node.inode));
            encode_after(reply, operation.fsid(), Some(&node));
        }
        Err(status) => reply.u32(status.0),
    }
    wcc.encode(reply, operation.service);
    Ok(effect)
}

/// An existing file is opened, and cut if a size is named; nothing else of `changes` applies to it.
fn create_unchecked(operation: &Operation<'_>, place: &Place, name: &[u8], changes: Changes, wcc: &mut Wcc) -> Result<Node, Status> {
    for _ in 0..ATTEMPTS_MAX {
        match operation.fs().lookup(place.node.inode, name) {
            Ok(node) => return open_existing(operation, place, node, changes.size),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        match create_file(operation, place, name, changes.clone(), wcc) {
            Err(Status::EXIST) => {}
            done => return done,
        }
    }
    Err(Status::LATER)
}

fn open_existing(operation: &Operation<'_>, place: &Place, node: Node, size: Option<u64>) -> Result<Node, Status> {
    match (node.kind, size) {
        (Type::Directory, _) => Err(Status::IS_DIRECTORY),
        (Type::File, Some(size)) => {
            if place.caller.uid != node.uid {
                place.caller.may(operation.fs(), &node, WRITE)?;
            }
            let changes = Changes {
                size: Some(size),
                strip_privileges: !place.caller.is_root(),
                ..Changes::default()
            };
            Ok(operation.fs().change(node.inode, &changes)?)
        }
        _ => Ok(node),
    }
}

/// EEXIST if the name is there.
fn create_file(operation: &Operation<'_>, place: &Place, name: &[u8], mut changes: Changes, wcc: &mut Wcc) -> Result<Node, Status> {
    let (mode, owner) = beginnings(place, &mut changes, FILE_MODE);
    let fs = operation.fs();
    let node = if changes == Changes::default() {
        fs.create(place.node.inode, name, New::File, mode, owner)?
    } else {
        create_complete(operation, place, name, (mode, owner), &changes)?
    };
    wcc.changed();
    Ok(node)
}

/// Made without a name, changed, named.
fn create_complete(
    operation: &Operation<'_>,
    place: &Place,
    name: &[u8],
    (mode, owner): (u32, Owner),
    changes: &Changes,
) -> Result<Node, Status> {
    let fs = operation.fs();
    match fs.lookup(place.node.inode, name) {
        Ok(_) => return Err(Status::EXIST),
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let unnamed = fs.create_unnamed(place.node.inode, mode, owner)?;
    let named = fs
        .change(unnamed.inode, changes)
        .and_then(|_| fs.link(unnamed.inode, place.node.inode, name));
    fs.close(unnamed.inode);
    Ok(named?)
}

fn create_exclusive(operation: &Operation<'_>, place: &Place, name: &[u8], times: [i64; 2], wcc: &mut Wcc) -> Result<Node, Status> {
    let [accessed, modified] = times;
    let changes = Changes {
        accessed: Some(Time::At(accessed)),
        modified: Some(Time::At(modified)),
        ..Changes::default()
    };
    match create_file(operation, place, name, changes, wcc) {
        Err(Status::EXIST) => {}
        done => return done,
    }
    let node = operation.fs().lookup(place.node.inode, name)?;
    let ours = node.kind == Type::File && node.size == 0 && [node.accessed_ns, node.modified_ns] == times;
    if ours { Ok(node) } else { Err(Status::EXIST) }
}

fn create_other(
    operation: &Operation<'_>,
    place: &Place,
    (name, new, mode): (&[u8], New<'_>, u32),
    changes: Changes,
    wcc: &mut Wcc,
) -> Result<Node, Status> {
    let mut changes = Changes { size: None, ..changes };
    let (mode, owner) = beginnings(place, &mut changes, mode);
    let mut node = operation.fs().create(place.node.inode, name, new, mode, owner)?;
    wcc.changed();
    if changes != Changes::default() {
        node = operation.fs().change(node.inode, &changes)?;
    }
    Ok(node)
}

/// Mode and owner of something new, taken out of `changes`; what stays there is for `change`. Only root says whose it is.
fn beginnings(place: &Place, changes: &mut Changes, mode: u32) -> (u32, Owner) {
    let caller = &place.caller;
    // It begins empty anyway.
    changes.size = changes.size.filter(|&size| size > 0);
    let (uid, gid) = (changes.uid.take(), changes.gid.take());
    let mut mode = changes.mode.take().unwrap_or(mode);
    let inherits = place.node.mode & SET_GID != 0;
    if caller.is_root() {
        // A directory with the set-gid bit gives its own group to what is made in it, unless root says otherwise.
        changes.gid = if inherits { gid } else { None };
        return (
            mode,
            Owner {
                uid: uid.unwrap_or(caller.uid),
                gid: gid.unwrap_or(caller.gid),
            },
        );
    }
    let group = if inherits { place.node.gid } else { caller.gid };
    if !caller.in_group(group) {
        mode &= !SET_GID;
    }
    (
        mode,
        Owner {
            uid: caller.uid,
            gid: caller.gid,
        },
    )
}
