//! The port mapper, version 2 (RFC 1833, section 3), answered on the server's own port: a client that asks there needs no rpcbind.

use crate::rpc::{Call, Unavailable};
use crate::xdr::{Decoded, Decoder, Encoder};
use crate::{mount, nfs};

pub const PROGRAM: u32 = 100_000;
const VERSION: u32 = 2;
const TCP: u32 = 6;

/// Programs and versions.
const SERVED: [(u32, u32); 3] = [(PROGRAM, VERSION), (nfs::PROGRAM, nfs::VERSION), (mount::PROGRAM, mount::VERSION)];

pub fn perform(port: u16, call: &Call<'_>, reply: &mut Encoder) -> Result<(), Unavailable> {
    if call.version != VERSION {
        return Err(Unavailable::Version(VERSION, VERSION));
    }
    match call.procedure {
        0 => Ok(()),
        3 => getport(port, &mut Decoder::new(call.arguments), reply).map_err(|_| Unavailable::Garbage),
        4 => {
            for (program, version) in SERVED {
                reply.words(&[1, program, version, TCP, u32::from(port)]);
            }
            reply.u32(0);
            Ok(())
        }
        _ => Err(Unavailable::Procedure),
    }
}

/// The port, or 0 for what is not served. A version that is not gets the port too: the program itself says which versions it has.
fn getport(port: u16, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<()> {
    let (program, _version, transport, _port) = (arguments.u32()?, arguments.u32()?, arguments.u32()?, arguments.u32()?);
    let known = transport == TCP && SERVED.iter().any(|&(known, _)| known == program);
    reply.u32(if known { u32::from(port) } else { 0 });
    Ok(())
}
