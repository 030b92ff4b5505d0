//! Secrets as `nvme gen-dhchap-key` prints them: `DHHC-1:hh:base64(key, CRC-32):`.

use super::crypto::{Hash, hmac};
use crc_fast::{CrcAlgorithm, checksum};
use std::fmt;
use std::str::FromStr;

const CHECK_BYTES: usize = 4;
const SALT: &[u8] = b"NVMe-over-Fabrics";

#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    key: Vec<u8>,
    /// How it is bound to the name of whom it belongs to.
    transform: Option<Hash>,
}

/// Secrets stay out of logs.
impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Secret({} bytes)", self.key.len())
    }
}

impl Secret {
    /// What is used as the key of a proof by `nqn`, its owner.
    pub fn transformed(&self, nqn: &str) -> Vec<u8> {
        match self.transform {
            Some(hash) => hmac(hash, &self.key, &[nqn.as_bytes(), SALT]),
            None => self.key.clone(),
        }
    }
}

impl FromStr for Secret {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a secret looks like DHHC-1:00:…: (nvme gen-dhchap-key makes one)".to_owned();
        let rest = text.trim().strip_prefix("DHHC-1:").ok_or_else(wrong)?;
        let (number, rest) = rest.split_once(':').ok_or_else(wrong)?;
        let encoded = rest.strip_suffix(':').ok_or_else(wrong)?;
        let transform = match number {
            "00" => None,
            "01" | "02" | "03" => Hash::new(number.as_bytes()[1] - b'0'),
            _ => return Err(wrong()),
        };
        let bytes = decode(encoded).ok_or_else(wrong)?;
        let length = bytes.len().checked_sub(CHECK_BYTES).ok_or_else(wrong)?;
        let (key, check) = bytes.split_at(length);
        if ![32, 48, 64].contains(&key.len()) || transform.is_some_and(|hash| hash.bytes() != key.len()) {
            return Err(format!("a secret has 32, 48 or 64 bytes as its hash says, not {}", key.len()));
        }
        if check != (checksum(CrcAlgorithm::Crc32IsoHdlc, key) as u32).to_le_bytes() {
            return Err("the secret was mistyped: its checksum is wrong".into());
        }
        let key = key.to_vec();
        Ok(Self { key, transform })
    }
}

/// Base64 (RFC 4648), with its padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    let symbols = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - symbols.len() > 2 {
        return None;
    }
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for symbol in symbols.bytes() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (bits, count) = (bits << 6 | u32::from(value), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}
