//! NFS version 3 (RFC 1813): the 22 procedures over the file system, one file for each group of them.
//!
//! A procedure reads its arguments whole, acts, and writes its result. What it changed is in the file system when it returns but not yet durable:
//! `Effect::Durable` says that its reply must wait for a `sync`. Permissions are checked here before each operation, as the client's user under the
//! export's rules.

pub mod attributes;
mod create;
mod directory;
mod file;
mod information;
mod names;
mod status;

pub use status::{OK, Status};

use crate::counters::Counters;
use crate::export::{Client, Export, Exports};
use crate::handle::{HANDLE_BYTES, HANDLE_BYTES_MAX, Handle, Handles};
use crate::permission::{Caller, EXECUTE, WRITE};
use crate::rpc::{Call, SystemCredential, Unavailable};
use crate::xdr::{Decoded, Decoder, Encoder};
use attributes::Wcc;
use std::sync::Arc;
use trefoil_core::filesystem::{FileSystem, Inode, Node, Type};

pub const PROGRAM: u32 = 100_003;
pub const VERSION: u32 = 3;

pub const SETATTR: u32 = 2;
pub const READ: u32 = 6;
pub const WRITE_PROCEDURE: u32 = 7;
pub const READDIR: u32 = 16;
pub const READDIRPLUS: u32 = 17;
pub const COMMIT: u32 = 21;
const CREATE: u32 = 8;
const LINK: u32 = 15;

/// Whether doing it twice may answer differently from doing it once, so that a repeated call must get the first answer.
pub fn is_non_idempotent(procedure: u32) -> bool {
    procedure == SETATTR || (CREATE..=LINK).contains(&procedure)
}

/// What the procedures work on.
pub struct Service {
    pub fs: Arc<dyn FileSystem>,
    pub exports: Exports,
    pub handles: Handles,
    pub counters: Counters,
    /// New at each start: a client that sees it change writes again what it was not told to be stable.
    pub verifier: [u8; 8],
}

/// What a reply needs besides its words.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    Nothing,
    /// A `sync` before it is sent.
    Durable,
    /// Sent after the words; padded.
    Payload(Vec<u8>),
}

/// One call, and for whom.
pub struct Operation<'a> {
    pub service: &'a Service,
    pub client: Client,
    pub credential: Option<&'a SystemCredential>,
}

/// What a handle names, and the rules under which it is named.
pub struct Place {
    pub node: Node,
    pub export_root: Inode,
    pub export: Arc<Export>,
    pub caller: Caller,
}

impl Place {
    pub fn writable(&self) -> Result<(), Status> {
        if self.export.read_only { Err(Status::READ_ONLY) } else { Ok(()) }
    }
}

impl Operation<'_> {
    pub fn fs(&self) -> &dyn FileSystem {
        &*self.service.fs
    }

    pub fn fsid(&self) -> u64 {
        self.service.handles.fsid()
    }

    pub fn place(&self, handle: &[u8]) -> Result<Place, Status> {
        let Handle { export_root, inode } = self.service.handles.decode(handle)?;
        let export = self.service.exports.rules(export_root, self.client)?;
        let caller = Caller::new(self.credential, &export);
        Ok(Place {
            node: self.fs().stat(inode)?,
            export_root,
            export,
            caller,
        })
    }

    /// NFS3ERR_NOTDIR for anything else.
    pub fn directory(&self, handle: &[u8]) -> Result<Place, Status> {
        let place = self.place(handle)?;
        if place.node.kind != Type::Directory {
            return Err(Status::NOT_DIRECTORY);
        }
        Ok(place)
    }

    /// A directory whose entries the caller may change. `wcc` learns of it whatever comes out.
    pub fn changeable_directory(&self, handle: &[u8], wcc: &mut Wcc) -> Result<Place, Status> {
        let place = self.place(handle)?;
        wcc.before(&place.node);
        if place.node.kind != Type::Directory {
            return Err(Status::NOT_DIRECTORY);
        }
        place.writable()?;
        place.caller.may(self.fs(), &place.node, WRITE | EXECUTE)?;
        Ok(place)
    }

    pub fn handle(&self, place: &Place, inode: Inode) -> [u8; HANDLE_BYTES] {
        self.service.handles.encode(Handle {
            export_root: place.export_root,
            inode,
        })
    }
}

/// `nfs_fh3`
pub fn decode_handle<'a>(arguments: &mut Decoder<'a>) -> Decoded<&'a [u8]> {
    arguments.opaque(HANDLE_BYTES_MAX)
}

/// `diropargs3`. Names too long for us are the file system's to refuse.
pub fn decode_entry<'a>(arguments: &mut Decoder<'a>) -> Decoded<(&'a [u8], &'a [u8])> {
    Ok((decode_handle(arguments)?, arguments.opaque(usize::MAX)?))
}

/// Runs one procedure; its result follows what `reply` holds.
pub fn perform(operation: &Operation<'_>, call: &Call<'_>, reply: &mut Encoder) -> Result<Effect, Unavailable> {
    if call.version != VERSION {
        return Err(Unavailable::Version(VERSION, VERSION));
    }
    let arguments = &mut Decoder::new(call.arguments);
    let done = match call.procedure {
        0 => Ok(Effect::Nothing),
        1 => file::getattr(operation, arguments, reply),
        SETATTR => file::setattr(operation, arguments, reply),
        3 => names::lookup(operation, arguments, reply),
        4 => file::access(operation, arguments, reply),
        5 => file::readlink(operation, arguments, reply),
        READ => file::read(operation, arguments, reply),
        WRITE_PROCEDURE => file::write(operation, arguments, reply),
        CREATE => create::create(operation, arguments, reply),
        9 => create::mkdir(operation, arguments, reply),
        10 => create::symlink(operation, arguments, reply),
        11 => create::mknod(operation, arguments, reply),
        12 => names::remove(operation, arguments, reply),
        13 => names::rmdir(operation, arguments, reply),
        14 => names::rename(operation, arguments, reply),
        LINK => names::link(operation, arguments, reply),
        READDIR => directory::readdir(operation, arguments, reply),
        READDIRPLUS => directory::readdirplus(operation, arguments, reply),
        18 => information::fsstat(operation, arguments, reply),
        19 => information::fsinfo(operation, arguments, reply),
        20 => information::pathconf(operation, arguments, reply),
        COMMIT => file::commit(operation, arguments, reply),
        _ => return Err(Unavailable::Procedure),
    };
    done.map_err(|_| Unavailable::Garbage)
}

/// The result of a procedure that failed without having looked at anything: its status, and as many FALSE words as it has optional attributes.
pub fn encode_failure(procedure: u32, status: Status, reply: &mut Encoder) {
    let optional = match procedure {
        0 | 1 => 0,
        2 | 7..=13 | COMMIT => 2,
        14 => 4,
        LINK => 3,
        _ => 1,
    };
    reply.u32(status.0);
    reply.words(&[0; 4][..optional]);
}

/// `wcc_data` after the status, for procedures that answer nothing else.
fn finish(operation: &Operation<'_>, result: Result<(), Status>, wcc: Wcc, reply: &mut Encoder) -> Effect {
    reply.u32(result.map_or_else(|status| status.0, |()| OK));
    wcc.encode(reply, operation.service);
    if result.is_ok() { Effect::Durable } else { Effect::Nothing }
}
