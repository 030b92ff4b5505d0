//! The messages of DH-HMAC-CHAP on the wire (base specification 2.0, section 8.13.5).

use super::crypto::{Hash, prove};
use super::group::Group;
use super::secret::Secret;
use crate::wire::{put, u16_at, u32_at};

const COMMON: u8 = 0;
const CHAP: u8 = 1;
const NEGOTIATE_BYTES: usize = 72;
const HEAD_BYTES: usize = 16;
/// Where a protocol's lists of hashes and groups are.
const LISTS_AT: usize = 12;
const LIST_ENTRIES_MAX: usize = 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Negotiate,
    Reply,
    Success,
    Failure,
}

/// Why it ends (reason code explanation).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure(u8);

impl Failure {
    pub const FAILED: Self = Self(1);
    pub const PROTOCOL: Self = Self(2);
    pub const SECURE_CHANNEL: Self = Self(3);
    pub const HASH: Self = Self(4);
    pub const GROUP: Self = Self(5);
    pub const PAYLOAD: Self = Self(6);
    pub const MESSAGE: Self = Self(7);

    /// AUTH_Failure1.
    pub fn message(self, transaction: u16) -> Vec<u8> {
        let mut bytes = vec![COMMON, 0xf1, 0, 0, 0, 0, 1, self.0];
        put(&mut bytes, 4, &transaction.to_le_bytes());
        bytes
    }
}

/// What a host sent, and the transaction that it names.
pub fn kind(data: &[u8]) -> Result<(Kind, u16), Failure> {
    if data.len() < 8 {
        return Err(Failure::PAYLOAD);
    }
    let kind = match (data[0], data[1]) {
        (COMMON, 0x00) => Kind::Negotiate,
        (CHAP, 0x02) => Kind::Reply,
        (CHAP, 0x04) => Kind::Success,
        (COMMON, 0xf0) => Kind::Failure,
        _ => return Err(Failure::MESSAGE),
    };
    Ok((kind, u16_at(data, 4)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer<'a> {
    pub hashes: &'a [u8],
    pub groups: &'a [u8],
}

/// What the host can do; the first protocol that it names is ours, or none.
pub fn negotiate(data: &[u8]) -> Result<Offer<'_>, Failure> {
    if data.len() < NEGOTIATE_BYTES || data[7] == 0 {
        return Err(Failure::PAYLOAD);
    }
    if data[6] != 0 {
        return Err(Failure::SECURE_CHANNEL);
    }
    if data[8] != CHAP {
        return Err(Failure::PROTOCOL);
    }
    let (hashes, groups) = (usize::from(data[10]), usize::from(data[11]));
    if hashes > LIST_ENTRIES_MAX || groups > LIST_ENTRIES_MAX {
        return Err(Failure::PAYLOAD);
    }
    let groups_at = LISTS_AT + LIST_ENTRIES_MAX;
    Ok(Offer {
        hashes: &data[LISTS_AT..LISTS_AT + hashes],
        groups: &data[groups_at..groups_at + groups],
    })
}

pub fn challenge(transaction: u16, hash: Hash, group: Group, sequence: u32, challenge: &[u8], public: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEAD_BYTES];
    (bytes[0], bytes[1]) = (CHAP, 0x01);
    put(&mut bytes, 4, &transaction.to_le_bytes());
    bytes[6] = hash.bytes() as u8;
    (bytes[8], bytes[9]) = (hash as u8, group as u8);
    put(&mut bytes, 10, &(public.len() as u16).to_le_bytes());
    put(&mut bytes, 12, &sequence.to_le_bytes());
    [&bytes, challenge, public].concat()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<'a> {
    pub proof: &'a [u8],
    /// What we are asked to prove, and its number.
    pub challenge: Option<(&'a [u8], u32)>,
    pub public: &'a [u8],
}

pub fn reply(data: &[u8], hash: Hash) -> Result<Reply<'_>, Failure> {
    if data.len() < HEAD_BYTES || usize::from(data[6]) != hash.bytes() {
        return Err(Failure::PAYLOAD);
    }
    let (length, public) = (hash.bytes(), usize::from(u16_at(data, 10)));
    let rest = &data[HEAD_BYTES..];
    if rest.len() < 2 * length + public {
        return Err(Failure::PAYLOAD);
    }
    Ok(Reply {
        proof: &rest[..length],
        challenge: (data[8] & 1 != 0).then(|| (&rest[length..2 * length], u32_at(data, 12))),
        public: &rest[2 * length..2 * length + public],
    })
}

/// AUTH_Success1, with our proof if the host asked for one.
pub fn success(transaction: u16, hash: Hash, proof: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = vec![0; HEAD_BYTES];
    (bytes[0], bytes[1]) = (CHAP, 0x03);
    put(&mut bytes, 4, &transaction.to_le_bytes());
    bytes[6] = hash.bytes() as u8;
    bytes[8] = u8::from(proof.is_some());
    bytes.extend(proof.unwrap_or_default());
    bytes
}

/// One side's proofs in one transaction.
pub struct Proof<'a> {
    hash: Hash,
    key: Vec<u8>,
    transaction: u16,
    role: &'static str,
    names: (&'a str, &'a str),
}

impl<'a> Proof<'a> {
    /// `names`: the host's and the subsystem's.
    pub fn of_host(hash: Hash, secret: &Secret, transaction: u16, names: (&'a str, &'a str)) -> Self {
        let (key, role) = (secret.transformed(names.0), "HostHost");
        Self {
            hash,
            key,
            transaction,
            role,
            names,
        }
    }

    pub fn of_controller(hash: Hash, secret: &Secret, transaction: u16, names: (&'a str, &'a str)) -> Self {
        let (key, role, names) = (secret.transformed(names.1), "Controller", (names.1, names.0));
        Self {
            hash,
            key,
            transaction,
            role,
            names,
        }
    }

    pub fn prove(&self, challenge: &[u8], sequence: u32) -> Vec<u8> {
        prove(self.hash, &self.key, challenge, sequence, self.transaction, self.role, self.names)
    }
}
