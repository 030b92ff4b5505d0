//! External Data Representation (RFC 4506), as much of it as ONC RPC, MOUNT, NFS and NLM need.
//!
//! `Decoder` lends from the record that it reads and allocates nothing, so a length that lies costs nothing; every length is checked against what is
//! left and against the caller's limit before it is believed. `Encoder` owns one growing buffer.

/// The bytes are not what the procedure takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Garbage;

pub type Decoded<T> = Result<T, Garbage>;

#[derive(Debug, Clone)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, length: usize) -> Decoded<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Garbage)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Garbage)
    }

    pub fn u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Decoded<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub fn boolean(&mut self) -> Decoded<bool> {
        match self.u32()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Garbage),
        }
    }

    /// `opaque<most>` and `string<most>`.
    pub fn opaque(&mut self, most: usize) -> Decoded<&'a [u8]> {
        let length = self.u32()? as usize;
        if length > most {
            return Err(Garbage);
        }
        let bytes = self.take(length)?;
        self.take(padding(length))?;
        Ok(bytes)
    }
}

/// Bytes after an opaque of `length` that fill its last word.
pub fn padding(length: usize) -> usize {
    length.wrapping_neg() & 3
}

#[derive(Debug, Default)]
pub struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
        }
    }

    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub fn boolean(&mut self, value: bool) {
        self.u32(u32::from(value));
    }

    pub fn words(&mut self, values: &[u32]) {
        values.iter().for_each(|&value| self.u32(value));
    }

    /// Without a length, and without padding: `bytes` is whole words.
    pub fn fixed(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len().is_multiple_of(4));
        self.bytes.extend_from_slice(bytes);
    }

    pub fn opaque(&mut self, bytes: &[u8]) {
        self.u32(bytes.len() as u32);
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len() + padding(bytes.len()), 0);
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets what was written from `length` on.
    pub fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
    }

    /// Writes over an earlier word.
    pub fn patch(&mut self, position: usize, value: u32) {
        self.bytes[position..position + 4].copy_from_slice(&value.to_be_bytes());
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opaque_is_padded_to_words_and_read_back() {
        for length in 0..9 {
            let mut encoder = Encoder::default();
            encoder.opaque(&vec![7; length]);
            encoder.u32(5);
            let bytes = encoder.into_bytes();
            assert_eq!(bytes.len() % 4, 0);
            let mut decoder = Decoder::new(&bytes);
            assert_eq!(decoder.opaque(8), Ok(&vec![7; length][..]));
            assert_eq!(decoder.u32(), Ok(5));
            assert_eq!(decoder.u32(), Err(Garbage));
        }
    }

    #[test]
    fn a_length_that_lies_is_garbage() {
        assert_eq!(Decoder::new(&[0, 0, 0, 9, 1, 2, 3, 4]).opaque(100), Err(Garbage));
        assert_eq!(Decoder::new(&[0, 0, 0, 4, 1, 2, 3, 4]).opaque(3), Err(Garbage));
        assert_eq!(Decoder::new(&[0xff; 8]).opaque(usize::MAX), Err(Garbage));
        assert_eq!(Decoder::new(&[0, 0, 0, 3, 1, 2, 3]).opaque(8), Err(Garbage));
    }
}
