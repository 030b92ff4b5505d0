//! The port mapper (RFC 1833): version 2, and GETADDR of versions 3 and 4, which is all that clients ask for.
//!
//! It is answered on the server's own port, so that a client that is told that port needs no rpcbind, and at an address of its own if there is one.

use crate::rpc::{Call, Unavailable};
use crate::xdr::{Decoded, Decoder, Encoder};
use crate::{mount, nfs, nlm, nsm};

pub const PROGRAM: u32 = 100_000;
pub const VERSION: u32 = 2;
const VERSION_MAX: u32 = 4;
const TCP: u32 = 6;
const UDP: u32 = 17;
const TEXT_BYTES_MAX: usize = 256;

/// Where what is served.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub tcp: u16,
    /// Of the port mapper's own address, where it and the status monitor answer datagrams.
    pub udp: Option<u16>,
    /// With NLM and NSM.
    pub locks: bool,
}

impl Ports {
    /// Program, version, transport, port.
    fn served(self) -> impl Iterator<Item = (u32, u32, u32, u16)> {
        let always = [(PROGRAM, VERSION), (nfs::PROGRAM, nfs::VERSION), (mount::PROGRAM, mount::VERSION)];
        let locks = [(nlm::PROGRAM, nlm::VERSION), (nsm::PROGRAM, nsm::VERSION)];
        let tcp = always.into_iter().chain(locks.into_iter().filter(move |_| self.locks));
        let datagrams = [(PROGRAM, VERSION, true), (nsm::PROGRAM, nsm::VERSION, self.locks)]
            .into_iter()
            .filter(|served| served.2);
        let udp = self
            .udp
            .into_iter()
            .flat_map(move |port| datagrams.clone().map(move |(program, version, _)| (program, version, UDP, port)));
        tcp.map(move |(program, version)| (program, version, TCP, self.tcp)).chain(udp)
    }

    /// A version that is not served gets the port too: the program itself says which versions it has.
    fn port(self, program: u32, transport: u32) -> Option<u16> {
        self.served()
            .find(|served| (served.0, served.2) == (program, transport))
            .map(|served| served.3)
    }
}

pub fn perform(ports: Ports, call: &Call<'_>, reply: &mut Encoder) -> Result<(), Unavailable> {
    let arguments = &mut Decoder::new(call.arguments);
    match (call.version, call.procedure) {
        (VERSION..=VERSION_MAX, 0) => Ok(()),
        (VERSION, 3) => getport(ports, arguments, reply).map_err(|_| Unavailable::Garbage),
        (VERSION, 4) => {
            for (program, version, transport, port) in ports.served() {
                reply.words(&[1, program, version, transport, u32::from(port)]);
            }
            reply.u32(0);
            Ok(())
        }
        (3..=VERSION_MAX, 3) => getaddr(ports, arguments, reply).map_err(|_| Unavailable::Garbage),
        (VERSION..=VERSION_MAX, _) => Err(Unavailable::Procedure),
        _ => Err(Unavailable::Version(VERSION, VERSION_MAX)),
    }
}

/// The port, or 0 for what is not served.
fn getport(ports: Ports, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<()> {
    let (program, _version, transport, _port) = (arguments.u32()?, arguments.u32()?, arguments.u32()?, arguments.u32()?);
    reply.u32(ports.port(program, transport).map_or(0, u32::from));
    Ok(())
}

/// A universal address (RFC 5665), or an empty one. Its host part is "any": clients keep the one that they asked.
fn getaddr(ports: Ports, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<()> {
    let (program, _version, network) = (arguments.u32()?, arguments.u32()?, arguments.opaque(TEXT_BYTES_MAX)?);
    let (_address, _owner) = (arguments.opaque(TEXT_BYTES_MAX)?, arguments.opaque(TEXT_BYTES_MAX)?);
    let (transport, host) = match network {
        b"tcp" => (TCP, "0.0.0.0"),
        b"tcp6" => (TCP, "::"),
        b"udp" => (UDP, "0.0.0.0"),
        b"udp6" => (UDP, "::"),
        _ => (0, ""),
    };
    let address = ports
        .port(program, transport)
        .map(|port| format!("{host}.{}.{}", port >> 8, port & 0xff));
    reply.opaque(address.unwrap_or_default().as_bytes());
    Ok(())
}
