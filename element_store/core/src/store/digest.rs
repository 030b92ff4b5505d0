//! Digests of content by name, several at once in one pass over the bytes.
//!
//! Owns the list of names that may be kept with an element. CRCs come out big-endian, as S3 writes them. Nothing here allocates per
//! update, reads a device or knows what the bytes are.

use crate::element::info::Digests;
use crate::error::{Error, Result};
use crc_fast::{CrcAlgorithm, Digest as Crc};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Bytes that all digests see before any sees the next: half of a first-level data cache, so that only the first of them waits for memory.
const PIECE_BYTES: usize = 16 * 1024;

#[derive(Clone)]
enum State {
    Md5(Md5),
    Sha1(Sha1),
    Sha256(Sha256),
    Crc32(Crc),
    Crc32c(Crc),
    Crc64Nvme(Crc),
}

impl State {
    fn new(name: &str) -> Result<Self> {
        match name {
            "md5" => Ok(State::Md5(Md5::new())),
            "sha1" => Ok(State::Sha1(Sha1::new())),
            "sha256" => Ok(State::Sha256(Sha256::new())),
            "crc32" => Ok(State::Crc32(Crc::new(CrcAlgorithm::Crc32IsoHdlc))),
            "crc32c" => Ok(State::Crc32c(Crc::new(CrcAlgorithm::Crc32Iscsi))),
            "crc64nvme" => Ok(State::Crc64Nvme(Crc::new(CrcAlgorithm::Crc64Nvme))),
            _ => Err(Error::Invalid(format!("there is no digest named {name}"))),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            State::Md5(_) => "md5",
            State::Sha1(_) => "sha1",
            State::Sha256(_) => "sha256",
            State::Crc32(_) => "crc32",
            State::Crc32c(_) => "crc32c",
            State::Crc64Nvme(_) => "crc64nvme",
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            State::Md5(state) => state.update(bytes),
            State::Sha1(state) => state.update(bytes),
            State::Sha256(state) => state.update(bytes),
            State::Crc32(state) | State::Crc32c(state) | State::Crc64Nvme(state) => state.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self {
            State::Md5(state) => state.finalize().to_vec(),
            State::Sha1(state) => state.finalize().to_vec(),
            State::Sha256(state) => state.finalize().to_vec(),
            // Only the low half of the 64 bits is used by 32-bit CRCs.
            State::Crc32(state) | State::Crc32c(state) => state.finalize().to_be_bytes()[4..].to_vec(),
            State::Crc64Nvme(state) => state.finalize().to_be_bytes().to_vec(),
        }
    }
}

/// MD5, SHA-1, SHA-256, CRC32, CRC32C, CRC64NVME by name. A name given twice is computed once.
#[derive(Clone)]
pub struct Hasher {
    states: Vec<State>,
}

impl Hasher {
    /// Raises Invalid for a name that is none of `md5`, `sha1`, `sha256`, `crc32`, `crc32c`, `crc64nvme`.
    pub fn new<N: AsRef<str>>(names: &[N]) -> Result<Self> {
        let mut states: Vec<State> = Vec::with_capacity(names.len());
        for name in names.iter().map(AsRef::as_ref) {
            if states.iter().all(|state| state.name() != name) {
                states.push(State::new(name)?);
            }
        }
        Ok(Self { states })
    }

    pub fn update(&mut self, bytes: &[u8]) {
        if let [only] = self.states.as_mut_slice() {
            return only.update(bytes);
        }
        for piece in bytes.chunks(PIECE_BYTES) {
            self.states.iter_mut().for_each(|state| state.update(piece));
        }
    }

    pub fn finish(self) -> Digests {
        self.states
            .into_iter()
            .map(|state| (state.name().to_owned(), state.finish()))
            .collect()
    }
}

/// Digests of bytes that are all there. Raises Invalid as `Hasher::new` does.
pub fn digests<N: AsRef<str>>(names: &[N], bytes: &[u8]) -> Result<Digests> {
    let mut hasher = Hasher::new(names)?;
    hasher.update(bytes);
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::info::hex;

    const ALL: [&str; 6] = ["md5", "sha1", "sha256", "crc32", "crc32c", "crc64nvme"];

    fn of(name: &str, bytes: &[u8]) -> String {
        hex(&digests(&[name], bytes).unwrap()[name])
    }

    #[test]
    fn md5_matches_rfc_1321() {
        assert_eq!(of("md5", b""), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(of("md5", b"abc"), "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(of("md5", b"message digest"), "f96b697d7cb7938d525a2f31aaf161d0");
        let digits = b"1234567890".repeat(8);
        assert_eq!(of("md5", &digits), "57edf4a22be3c955ac49da2e2107b67a");
    }

    #[test]
    fn sha_matches_fips_180() {
        let long = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(of("sha1", b"abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(of("sha1", long), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
        assert_eq!(of("sha1", &[b'a'; 1_000_000]), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
        assert_eq!(
            of("sha256", b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            of("sha256", long),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        );
        assert_eq!(
            of("sha256", &[b'a'; 1_000_000]),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
        );
    }

    #[test]
    fn crc32_matches_the_catalogue() {
        // "check" of CRC-32/ISO-HDLC in the catalogue of parametrised CRC algorithms.
        assert_eq!(of("crc32", b"123456789"), "cbf43926");
        assert_eq!(of("crc32", b""), "00000000");
    }

    #[test]
    fn crc32c_matches_rfc_3720() {
        assert_eq!(of("crc32c", b"123456789"), "e3069283");
        // Appendix B.4 prints them byte-swapped: 32 bytes of zeros, of ones, and rising.
        assert_eq!(of("crc32c", &[0; 32]), "8a9136aa");
        assert_eq!(of("crc32c", &[0xff; 32]), "62a8ab43");
        assert_eq!(of("crc32c", &(0..32).collect::<Vec<u8>>()), "46dd794e");
    }

    #[test]
    fn crc64nvme_matches_the_nvme_specification() {
        // Check value of CRC-64/NVME, and the NVM command set's test cases of 4 KiB.
        assert_eq!(of("crc64nvme", b"123456789"), "ae8b14860a799888");
        assert_eq!(of("crc64nvme", &[0; 4096]), "6482d367eb22b64e");
        assert_eq!(of("crc64nvme", &[0xff; 4096]), "c0ddba7302eca3ac");
    }

    #[test]
    fn pieces_and_company_change_nothing() {
        let bytes: Vec<u8> = (0..100_003u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let together = digests(&ALL, &bytes).unwrap();
        for name in ALL {
            assert_eq!(hex(&together[name]), of(name, &bytes), "{name}");
        }
        for cut in [1, 63, 64, 4095, PIECE_BYTES, PIECE_BYTES + 1] {
            let mut hasher = Hasher::new(&ALL).unwrap();
            bytes.chunks(cut).for_each(|piece| hasher.update(piece));
            assert_eq!(hasher.finish(), together, "pieces of {cut}");
        }
    }

    #[test]
    fn names_are_checked_and_taken_once() {
        assert!(matches!(Hasher::new(&["md5", "md4"]), Err(Error::Invalid(_))));
        assert_eq!(digests(&["md5", "md5"], b"abc").unwrap().len(), 1);
        assert!(digests::<&str>(&[], b"abc").unwrap().is_empty());
    }
}
