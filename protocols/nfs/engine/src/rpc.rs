//! ONC RPC version 2 (RFC 5531): what a call's header says, and the heads of replies.
//!
//! AUTH_SYS and AUTH_NONE are understood; a verifier is read over, and answered with AUTH_NONE. A reply begins with its record mark (section 11), so
//! that it can be sent as it is.

use crate::xdr::{Decoded, Decoder, Encoder, Garbage};

pub const AUTH_NONE: u32 = 0;
pub const AUTH_SYS: u32 = 1;
/// Section 8.2: bytes of a credential's or verifier's body.
const AUTH_BYTES_MAX: usize = 400;
/// Appendix A.
const MACHINE_NAME_BYTES_MAX: usize = 255;
pub const GROUPS_MAX: usize = 16;

const VERSION: u32 = 2;
const CALL: u32 = 0;
const REPLY: u32 = 1;
const ACCEPTED: u32 = 0;
const DENIED: u32 = 1;
const RPC_MISMATCH: u32 = 0;
const AUTH_ERROR: u32 = 1;
const AUTH_BAD_CREDENTIAL: u32 = 1;
const AUTH_REJECTED_CREDENTIAL: u32 = 2;
const LAST_FRAGMENT: u32 = 1 << 31;
/// What a record begins with, and a datagram does not.
pub const MARK_BYTES: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemCredential {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<'a> {
    pub xid: u32,
    pub program: u32,
    pub version: u32,
    pub procedure: u32,
    /// `None` is AUTH_NONE.
    pub credential: Option<SystemCredential>,
    pub arguments: &'a [u8],
}

/// Why there is no call to answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not a call at all: who sends this speaks something else.
    NotACall,
    /// To be sent.
    Answer(Vec<u8>),
}

/// What section 9 calls accept_stat, for a call whose procedure did not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unavailable {
    Program,
    /// With the versions that there are.
    Version(u32, u32),
    Procedure,
    Garbage,
    /// Our bug.
    System,
}

impl<'a> Call<'a> {
    pub fn parse(record: &'a [u8]) -> Result<Self, Refused> {
        let mut decoder = Decoder::new(record);
        let xid = decoder.u32().map_err(|Garbage| Refused::NotACall)?;
        if decoder.u32() != Ok(CALL) {
            return Err(Refused::NotACall);
        }
        if decoder.u32().map_err(|Garbage| Refused::NotACall)? != VERSION {
            return Err(Refused::Answer(denied(xid, &[RPC_MISMATCH, VERSION, VERSION])));
        }
        Self::parse_body(xid, &mut decoder).map_err(|Garbage| Refused::NotACall)?
    }

    fn parse_body(xid: u32, decoder: &mut Decoder<'a>) -> Decoded<Result<Self, Refused>> {
        let (program, version, procedure) = (decoder.u32()?, decoder.u32()?, decoder.u32()?);
        let (flavor, body) = (decoder.u32()?, decoder.opaque(AUTH_BYTES_MAX)?);
        let (_, _) = (decoder.u32()?, decoder.opaque(AUTH_BYTES_MAX)?);
        let refuse = |why| Ok(Err(Refused::Answer(denied(xid, &[AUTH_ERROR, why]))));
        let credential = match flavor {
            AUTH_NONE => None,
            AUTH_SYS => match SystemCredential::parse(body) {
                Ok(credential) => Some(credential),
                Err(Garbage) => return refuse(AUTH_BAD_CREDENTIAL),
            },
            _ => return refuse(AUTH_REJECTED_CREDENTIAL),
        };
        Ok(Ok(Self {
            xid,
            program,
            version,
            procedure,
            credential,
            arguments: decoder.rest(),
        }))
    }
}

impl SystemCredential {
    fn parse(body: &[u8]) -> Decoded<Self> {
        let mut decoder = Decoder::new(body);
        let (_stamp, _machine) = (decoder.u32()?, decoder.opaque(MACHINE_NAME_BYTES_MAX)?);
        let (uid, gid, count) = (decoder.u32()?, decoder.u32()?, decoder.u32()? as usize);
        if count > GROUPS_MAX {
            return Err(Garbage);
        }
        let groups = (0..count).map(|_| decoder.u32()).collect::<Decoded<_>>()?;
        Ok(Self { uid, gid, groups })
    }
}

/// The head of a reply whose procedure ran; its results follow.
pub fn accepted(xid: u32, capacity: usize) -> Encoder {
    let mut reply = Encoder::with_capacity(capacity);
    reply.words(&[LAST_FRAGMENT, xid, REPLY, ACCEPTED, AUTH_NONE, 0, 0]);
    reply
}

pub fn unavailable(xid: u32, why: Unavailable) -> Vec<u8> {
    let mut reply = Encoder::default();
    reply.words(&[0, xid, REPLY, ACCEPTED, AUTH_NONE, 0]);
    match why {
        Unavailable::Program => reply.u32(1),
        Unavailable::Version(low, high) => reply.words(&[2, low, high]),
        Unavailable::Procedure => reply.u32(3),
        Unavailable::Garbage => reply.u32(4),
        Unavailable::System => reply.u32(5),
    }
    finish(reply, 0)
}

fn denied(xid: u32, why: &[u32]) -> Vec<u8> {
    let mut reply = Encoder::default();
    reply.words(&[0, xid, REPLY, DENIED]);
    reply.words(why);
    finish(reply, 0)
}

/// Completes the record mark, for `payload` bytes sent after these.
pub fn finish(mut reply: Encoder, payload: usize) -> Vec<u8> {
    let length = (reply.len() - 4 + payload) as u32;
    reply.patch(0, LAST_FRAGMENT | length);
    reply.into_bytes()
}

/// A fragment header: its bytes, and whether it is the record's last.
pub fn fragment(header: [u8; 4]) -> (usize, bool) {
    let header = u32::from_be_bytes(header);
    ((header & !LAST_FRAGMENT) as usize, header & LAST_FRAGMENT != 0)
}

/// A call of ours, with the credential of nobody; its arguments are `body`.
pub fn call(xid: u32, (program, version, procedure): (u32, u32, u32), body: &[u8]) -> Vec<u8> {
    let mut call = Encoder::default();
    call.words(&[0, xid, CALL, VERSION, program, version, procedure, AUTH_NONE, 0, AUTH_NONE, 0]);
    call.fixed(body);
    finish(call, 0)
}

/// What follows the header of a reply to our call; none if it was not done.
pub fn results(record: &[u8], xid: u32) -> Option<&[u8]> {
    let mut reply = Decoder::new(record);
    let heading = [reply.u32().ok()?, reply.u32().ok()?, reply.u32().ok()?];
    let (_flavor, _verifier) = (reply.u32().ok()?, reply.opaque(AUTH_BYTES_MAX).ok()?);
    (heading == [xid, REPLY, ACCEPTED] && reply.u32() == Ok(0)).then(|| reply.rest())
}
