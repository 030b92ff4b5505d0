//! `fattr3`, `sattr3` and weak cache consistency data (RFC 1813, sections 2.5 and 2.6).

use crate::nfs::Service;
use crate::xdr::{Decoded, Decoder, Encoder, Garbage};
use trefoil_core::filesystem::{Changes, Inode, Node, Time, Type};

const NANOSECONDS: i64 = 1_000_000_000;
/// Bytes of a `post_op_attr` that has attributes.
pub const ATTRIBUTES_BYTES: usize = 88;

/// `nfstime3`, which ends in 2106 and begins in 1970.
pub fn time(nanoseconds: i64) -> [u32; 2] {
    match u32::try_from(nanoseconds.div_euclid(NANOSECONDS)) {
        Ok(seconds) => [seconds, nanoseconds.rem_euclid(NANOSECONDS) as u32],
        Err(_) if nanoseconds < 0 => [0, 0],
        Err(_) => [u32::MAX, 0],
    }
}

pub fn nanoseconds([seconds, nanoseconds]: [u32; 2]) -> i64 {
    i64::from(seconds) * NANOSECONDS + i64::from(nanoseconds).min(NANOSECONDS - 1)
}

/// `ftype3`, and major and minor number.
fn kind(kind: Type) -> (u32, [u32; 2]) {
    match kind {
        Type::File => (1, [0, 0]),
        Type::Directory => (2, [0, 0]),
        Type::BlockDevice(number) => (3, device(number)),
        Type::CharacterDevice(number) => (4, device(number)),
        Type::Symlink => (5, [0, 0]),
        Type::Socket => (6, [0, 0]),
        Type::Fifo => (7, [0, 0]),
    }
}

/// A `dev_t`'s major and minor number.
fn device(number: u64) -> [u32; 2] {
    let major = ((number >> 32) & 0xffff_f000) | ((number >> 8) & 0xfff);
    let minor = ((number >> 12) & 0xffff_ff00) | (number & 0xff);
    [major as u32, minor as u32]
}

pub fn device_number([major, minor]: [u32; 2]) -> u64 {
    let (major, minor) = (u64::from(major), u64::from(minor));
    ((major & 0xffff_f000) << 32) | ((major & 0xfff) << 8) | ((minor & 0xffff_ff00) << 12) | (minor & 0xff)
}

/// `fattr3`
pub fn encode(reply: &mut Encoder, fsid: u64, node: &Node) {
    let (kind, device) = kind(node.kind);
    reply.words(&[kind, node.mode & 0o7777, node.links, node.uid, node.gid]);
    reply.u64(node.size);
    reply.u64(node.allocated);
    reply.words(&device);
    reply.u64(fsid);
    reply.u64(node.inode);
    for nanoseconds in [node.accessed_ns, node.modified_ns, node.changed_ns] {
        reply.words(&time(nanoseconds));
    }
}

/// `post_op_attr`
pub fn encode_after(reply: &mut Encoder, fsid: u64, node: Option<&Node>) {
    reply.boolean(node.is_some());
    if let Some(node) = node {
        encode(reply, fsid, node);
    }
}

/// `sattr3`
pub fn decode_changes(arguments: &mut Decoder<'_>) -> Decoded<Changes> {
    let mut word = || -> Decoded<Option<u32>> {
        if arguments.boolean()? {
            arguments.u32().map(Some)
        } else {
            Ok(None)
        }
    };
    let (mode, uid, gid) = (word()?.map(|mode| mode & 0o7777), word()?, word()?);
    let size = if arguments.boolean()? { Some(arguments.u64()?) } else { None };
    let (accessed, modified) = (decode_time(arguments)?, decode_time(arguments)?);
    Ok(Changes {
        mode,
        uid,
        gid,
        size,
        accessed,
        modified,
        strip_privileges: false,
    })
}

/// `set_atime` and `set_mtime`
fn decode_time(arguments: &mut Decoder<'_>) -> Decoded<Option<Time>> {
    match arguments.u32()? {
        0 => Ok(None),
        1 => Ok(Some(Time::Now)),
        2 => Ok(Some(Time::At(nanoseconds([arguments.u32()?, arguments.u32()?])))),
        _ => Err(Garbage),
    }
}

/// `wcc_data` of one file or directory: its attributes before and after an operation.
///
/// A client that finds its cached attributes in the ones before takes the ones after for its own change alone and keeps what it has cached. So they are
/// told only if nothing else changed the content in between, which `Node::version` shows.
#[derive(Debug, Default)]
pub struct Wcc {
    before: Option<Node>,
    after: Option<Node>,
    changes: u64,
}

impl Wcc {
    pub fn before(&mut self, node: &Node) {
        self.before = Some(node.clone());
    }

    /// The operation changed the content (the entries), once.
    pub fn changed(&mut self) {
        self.changes += 1;
    }

    pub fn after(&mut self, node: Node) {
        self.after = Some(node);
    }

    pub fn inode(&self) -> Option<Inode> {
        self.before.as_ref().map(|node| node.inode)
    }

    pub fn encode(mut self, reply: &mut Encoder, service: &Service) {
        if self.after.is_none() {
            self.after = self.inode().and_then(|inode| service.fs.stat(inode).ok());
        }
        match (&self.before, &self.after) {
            (Some(before), Some(after)) if after.version.wrapping_sub(before.version) == self.changes => {
                reply.boolean(true);
                reply.u64(before.size);
                reply.words(&time(before.modified_ns));
                reply.words(&time(before.changed_ns));
            }
            _ => reply.boolean(false),
        }
        encode_after(reply, service.handles.fsid(), self.after.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_outside_what_the_protocol_knows_are_its_ends() {
        assert_eq!(time(-1), [0, 0]);
        assert_eq!(time(1), [0, 1]);
        assert_eq!(time(5 * NANOSECONDS + 7), [5, 7]);
        assert_eq!(time(i64::MAX), [u32::MAX, 0]);
        assert_eq!(time(nanoseconds([u32::MAX, 999_999_999])), [u32::MAX, 999_999_999]);
    }

    #[test]
    fn device_numbers_survive() {
        for numbers in [[1, 3], [8, 17], [0xfff, 0xff], [4095, 0xf_ffff], [0x12345, 0x6789a]] {
            assert_eq!(device(device_number(numbers)), numbers);
        }
        assert_eq!(device_number([1, 3]), 0x103);
    }
}
