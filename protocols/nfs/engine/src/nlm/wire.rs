//! The structures of NLM version 4.

use super::Status;
use crate::handle::HANDLE_BYTES_MAX;
use crate::xdr::{Decoded, Decoder, Encoder};
use trefoil_core::filesystem::locks::{Hold, Lock};

/// LM_MAXSTRLEN and MAXNETOBJ_SZ
pub const NAME_BYTES_MAX: usize = 1024;
const COOKIE_BYTES_MAX: usize = 1024;

/// `nlm4_lock`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireLock<'a> {
    pub caller: &'a [u8],
    pub handle: &'a [u8],
    pub owner: &'a [u8],
    pub process: u32,
    pub offset: u64,
    /// 0: to the end.
    pub length: u64,
}

impl<'a> WireLock<'a> {
    fn decode(arguments: &mut Decoder<'a>) -> Decoded<Self> {
        Ok(Self {
            caller: arguments.opaque(NAME_BYTES_MAX)?,
            handle: arguments.opaque(HANDLE_BYTES_MAX)?,
            owner: arguments.opaque(COOKIE_BYTES_MAX)?,
            process: arguments.u32()?,
            offset: arguments.u64()?,
            length: arguments.u64()?,
        })
    }

    fn encode(&self, call: &mut Encoder) {
        call.opaque(self.caller);
        call.opaque(self.handle);
        call.opaque(self.owner);
        call.u32(self.process);
        call.u64(self.offset);
        call.u64(self.length);
    }
}

/// `nlm4_testargs`
pub struct TestArguments<'a> {
    pub cookie: &'a [u8],
    pub exclusive: bool,
    pub lock: WireLock<'a>,
}

impl<'a> TestArguments<'a> {
    pub fn decode(arguments: &mut Decoder<'a>) -> Decoded<Self> {
        Ok(Self {
            cookie: arguments.opaque(COOKIE_BYTES_MAX)?,
            exclusive: arguments.boolean()?,
            lock: WireLock::decode(arguments)?,
        })
    }

    /// As GRANTED takes it.
    pub fn encode(&self) -> Vec<u8> {
        let mut call = Encoder::default();
        call.opaque(self.cookie);
        call.boolean(self.exclusive);
        self.lock.encode(&mut call);
        call.into_bytes()
    }
}

/// `nlm4_lockargs`
pub struct LockArguments<'a> {
    pub cookie: &'a [u8],
    pub block: bool,
    pub exclusive: bool,
    pub lock: WireLock<'a>,
    pub reclaim: bool,
    /// The host's state number, which changes when it restarts.
    pub state: u32,
}

impl<'a> LockArguments<'a> {
    pub fn decode(arguments: &mut Decoder<'a>) -> Decoded<Self> {
        Ok(Self {
            cookie: arguments.opaque(COOKIE_BYTES_MAX)?,
            block: arguments.boolean()?,
            exclusive: arguments.boolean()?,
            lock: WireLock::decode(arguments)?,
            reclaim: arguments.boolean()?,
            state: arguments.u32()?,
        })
    }
}

/// `nlm4_cancargs`
pub struct CancelArguments<'a> {
    pub cookie: &'a [u8],
    pub exclusive: bool,
    pub lock: WireLock<'a>,
}

impl<'a> CancelArguments<'a> {
    pub fn decode(arguments: &mut Decoder<'a>) -> Decoded<Self> {
        let (cookie, _block) = (arguments.opaque(COOKIE_BYTES_MAX)?, arguments.boolean()?);
        Ok(Self {
            cookie,
            exclusive: arguments.boolean()?,
            lock: WireLock::decode(arguments)?,
        })
    }
}

/// `nlm4_unlockargs`
pub struct UnlockArguments<'a> {
    pub cookie: &'a [u8],
    pub lock: WireLock<'a>,
}

impl<'a> UnlockArguments<'a> {
    pub fn decode(arguments: &mut Decoder<'a>) -> Decoded<Self> {
        Ok(Self {
            cookie: arguments.opaque(COOKIE_BYTES_MAX)?,
            lock: WireLock::decode(arguments)?,
        })
    }
}

/// `nlm4_notify`: the name of the host that gives all up.
pub fn decode_free_all<'a>(arguments: &mut Decoder<'a>) -> Decoded<&'a [u8]> {
    let (name, _state) = (arguments.opaque(NAME_BYTES_MAX)?, arguments.u32()?);
    Ok(name)
}

/// `nlm4_res`
pub fn encode_status(reply: &mut Encoder, cookie: &[u8], status: Status) {
    reply.opaque(cookie);
    reply.u32(status.0);
}

/// `nlm4_testres`; a holder goes with DENIED.
pub fn encode_test(reply: &mut Encoder, cookie: &[u8], status: Status, holder: Option<&Lock>) {
    encode_status(reply, cookie, status);
    if let Some(holder) = holder {
        reply.boolean(holder.hold == Hold::Exclusive);
        reply.u32(holder.process);
        reply.opaque(b"");
        reply.u64(holder.range.start());
        reply.u64(holder.range.length());
    }
}
