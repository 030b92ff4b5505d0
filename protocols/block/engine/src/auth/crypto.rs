//! The hash functions that may be agreed on, and what is made of them.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// By number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Hash {
    Sha256 = 1,
    Sha384 = 2,
    Sha512 = 3,
}

impl Hash {
    pub fn new(number: u8) -> Option<Self> {
        [Self::Sha256, Self::Sha384, Self::Sha512]
            .into_iter()
            .find(|hash| *hash as u8 == number)
    }

    /// Of its digests, and of challenges.
    pub fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha384 => Sha384::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }
}

fn authenticate<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("a key may have any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

pub fn hmac(hash: Hash, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    match hash {
        Hash::Sha256 => authenticate::<Hmac<Sha256>>(key, parts),
        Hash::Sha384 => authenticate::<Hmac<Sha384>>(key, parts),
        Hash::Sha512 => authenticate::<Hmac<Sha512>>(key, parts),
    }
}

/// The challenge, mixed with what both sides computed if they exchanged keys.
pub fn augment(hash: Hash, shared: Option<&[u8]>, challenge: &[u8]) -> Vec<u8> {
    match shared {
        Some(shared) => hmac(hash, &hash.digest(shared), &[challenge]),
        None => challenge.to_vec(),
    }
}

/// What shows that somebody knows `key`. `role` and the names say who to whom.
pub fn prove(hash: Hash, key: &[u8], challenge: &[u8], sequence: u32, transaction: u16, role: &str, names: (&str, &str)) -> Vec<u8> {
    let (sequence, transaction) = (sequence.to_le_bytes(), transaction.to_le_bytes());
    let (from, to) = (names.0.as_bytes(), names.1.as_bytes());
    hmac(
        hash,
        key,
        &[challenge, &sequence, &transaction, &[0], role.as_bytes(), from, &[0], to],
    )
}

pub fn random(into: &mut [u8]) -> std::io::Result<()> {
    let mut filled = 0;
    while filled < into.len() {
        filled += rustix::rand::getrandom(&mut into[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}

/// In a time that does not tell where they differ.
pub fn equal(one: &[u8], other: &[u8]) -> bool {
    let differences = one
        .iter()
        .zip(other)
        .fold(0, |all, (one, other)| std::hint::black_box(all | (one ^ other)));
    one.len() == other.len() && differences == 0
}
