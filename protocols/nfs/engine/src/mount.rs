//! MOUNT version 3 (RFC 1813, appendix I): from an export's path to its first handle.
//!
//! A directory below an export may be mounted by who may search the way to it. The list of mounts that DUMP shows is what clients said, kept for people
//! (`showmount`); nothing depends on it and a restart forgets it.

use crate::export::{parts, walk};
use crate::handle::Handle;
use crate::nfs::{Operation, Status};
use crate::permission::{Caller, EXECUTE};
use crate::rpc::{AUTH_NONE, AUTH_SYS, Call, Unavailable};
use crate::xdr::{Decoded, Decoder, Encoder};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Mutex;

pub const PROGRAM: u32 = 100_005;
pub const VERSION: u32 = 3;
/// MNTPATHLEN
const PATH_BYTES_MAX: usize = 1024;
/// Mounts that are remembered; the oldest is forgotten for a new one.
const MOUNTS_MAX: usize = 1024;

#[derive(Default)]
pub struct Mounts(Mutex<VecDeque<(IpAddr, Vec<u8>)>>);

impl Mounts {
    fn add(&self, address: IpAddr, path: &[u8]) {
        self.remove(address, Some(path));
        let mut mounts = self.0.lock().unwrap();
        if mounts.len() == MOUNTS_MAX {
            mounts.pop_front();
        }
        mounts.push_back((address, path.to_vec()));
    }

    /// One, or all of a client.
    fn remove(&self, address: IpAddr, path: Option<&[u8]>) {
        self.0
            .lock()
            .unwrap()
            .retain(|mount| mount.0 != address || path.is_some_and(|path| path != mount.1));
    }
}

pub fn perform(operation: &Operation<'_>, mounts: &Mounts, call: &Call<'_>, reply: &mut Encoder) -> Result<(), Unavailable> {
    if call.version != VERSION {
        return Err(Unavailable::Version(VERSION, VERSION));
    }
    let arguments = &mut Decoder::new(call.arguments);
    let address = operation.client.address;
    let done = match call.procedure {
        0 => Ok(()),
        1 => mount(operation, mounts, arguments, reply),
        2 => {
            dump(mounts, reply);
            Ok(())
        }
        3 => arguments.opaque(PATH_BYTES_MAX).map(|path| mounts.remove(address, Some(path))),
        4 => {
            mounts.remove(address, None);
            Ok(())
        }
        5 => {
            export(operation, reply);
            Ok(())
        }
        _ => return Err(Unavailable::Procedure),
    };
    done.map_err(|_| Unavailable::Garbage)
}

fn mount(operation: &Operation<'_>, mounts: &Mounts, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<()> {
    let path = arguments.opaque(PATH_BYTES_MAX)?;
    match find(operation, path) {
        Ok(handle) => {
            mounts.add(operation.client.address, path);
            reply.u32(0);
            reply.opaque(&operation.service.handles.encode(handle));
            reply.words(&[2, AUTH_SYS, AUTH_NONE]);
        }
        // `mountstat3` has the numbers of `nfsstat3`, but not all of them.
        Err(Status::STALE) => reply.u32(2),
        Err(status) => reply.u32(status.0),
    }
    Ok(())
}

fn find(operation: &Operation<'_>, path: &[u8]) -> Result<Handle, Status> {
    let (export, root, rest) = operation.service.exports.containing(path, operation.client)?;
    let caller = Caller::new(operation.credential, &export);
    let enter = |node: &_| caller.may(operation.fs(), node, EXECUTE);
    let node = walk(operation.fs(), rest.into_iter(), root, enter)?;
    Ok(Handle {
        export_root: root,
        inode: node.inode,
    })
}

fn dump(mounts: &Mounts, reply: &mut Encoder) {
    for (address, path) in mounts.0.lock().unwrap().iter() {
        reply.boolean(true);
        reply.opaque(address.to_string().as_bytes());
        reply.opaque(path);
    }
    reply.boolean(false);
}

/// What this client may mount, with the networks that may.
fn export(operation: &Operation<'_>, reply: &mut Encoder) {
    let client = operation.client;
    for export in operation.service.exports.list().iter().filter(|export| export.admits(client)) {
        reply.boolean(true);
        reply.opaque(plain(&export.path).as_bytes());
        for network in &export.networks {
            reply.boolean(true);
            reply.opaque(network.to_string().as_bytes());
        }
        reply.boolean(false);
    }
    reply.boolean(false);
}

/// Without what does not count in a path.
fn plain(path: &str) -> String {
    let parts: Vec<_> = parts(path.as_bytes()).map(String::from_utf8_lossy).collect();
    format!("/{}", parts.join("/"))
}
