//! File handles: what a client keeps of a file, over restarts of both sides.
//!
//! A handle is the file system's id, the export's root, the inode, and a keyed check (BLAKE3) of these. Inodes never change and never return, so it
//! needs no generation. Without the key nobody makes a handle that was not handed out: not for an inode below another export's root, and not for the
//! same inode under another export's rules.

use crate::xdr::Garbage;
use trefoil_core::filesystem::Inode;

/// NFS3_FHSIZE
pub const HANDLE_BYTES_MAX: usize = 64;
const LAYOUT: u32 = 1;
const PLAIN_BYTES: usize = 28;
const CHECK_BYTES: usize = 16;
pub const HANDLE_BYTES: usize = PLAIN_BYTES + CHECK_BYTES;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    pub export_root: Inode,
    pub inode: Inode,
}

/// Makes handles and believes only its own.
pub struct Handles {
    fsid: u64,
    key: [u8; 32],
}

impl Handles {
    pub fn new(fsid: u64, key: [u8; 32]) -> Self {
        Self { fsid, key }
    }

    pub fn fsid(&self) -> u64 {
        self.fsid
    }

    pub fn encode(&self, handle: Handle) -> [u8; HANDLE_BYTES] {
        let mut bytes = [0; HANDLE_BYTES];
        bytes[..4].copy_from_slice(&LAYOUT.to_be_bytes());
        bytes[4..12].copy_from_slice(&self.fsid.to_be_bytes());
        bytes[12..20].copy_from_slice(&handle.export_root.to_be_bytes());
        bytes[20..28].copy_from_slice(&handle.inode.to_be_bytes());
        let check = self.check(&bytes[..PLAIN_BYTES]);
        bytes[PLAIN_BYTES..].copy_from_slice(&check);
        bytes
    }

    pub fn decode(&self, bytes: &[u8]) -> Result<Handle, Garbage> {
        let bytes: &[u8; HANDLE_BYTES] = bytes.try_into().map_err(|_| Garbage)?;
        let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|index| bytes[at + index]));
        let handle = Handle {
            export_root: word(12),
            inode: word(20),
        };
        // The whole is compared, in a time that does not tell how much of it was right.
        let differing = self
            .encode(handle)
            .iter()
            .zip(bytes)
            .fold(0, |differing, (ours, theirs)| differing | (ours ^ theirs));
        if differing == 0 { Ok(handle) } else { Err(Garbage) }
    }

    fn check(&self, plain: &[u8]) -> [u8; CHECK_BYTES] {
        let hash = blake3::keyed_hash(&self.key, plain);
        std::array::from_fn(|index| hash.as_bytes()[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_believed_only_as_it_was_made() {
        let handles = Handles::new(9, [1; 32]);
        let handle = Handle {
            export_root: 3,
            inode: 1 << 40,
        };
        let bytes = handles.encode(handle);
        assert_eq!(handles.decode(&bytes), Ok(handle));
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(handles.decode(&forged), Err(Garbage), "bit {bit}");
        }
        assert_eq!(handles.decode(&bytes[..43]), Err(Garbage));
        assert_eq!(Handles::new(9, [2; 32]).decode(&bytes), Err(Garbage));
        assert_eq!(Handles::new(8, [1; 32]).decode(&bytes), Err(Garbage));
    }
}
