//! The bytes that the kernel and a FUSE server exchange: numbers of operations and flags, and the two bounded ways over a message.
//!
//! The layout is that of `include/uapi/linux/fuse.h`, protocol 7.41, in the machine's byte order. A request that is shorter than its operation says
//! ends in EPROTO and reads nothing outside itself. Nothing here knows what an operation does.

use trefoil_core::filesystem::{Errno, NAME_BYTES_MAX, Result};

pub const MAJOR: u32 = 7;
/// Of the layouts below; an older kernel is answered with its own.
pub const MINOR: u32 = 41;
/// The oldest that has all layouts below (Linux 5.13, which brought FUSE_SETXATTR_EXT).
pub const MINOR_MIN: u32 = 33;
/// The first that knows NEXT_EPOCH (Linux 6.16).
pub const MINOR_EPOCHS: u32 = 44;

pub const HEADER_IN_BYTES: usize = 40;
pub const HEADER_OUT_BYTES: usize = 16;
pub const WRITE_IN_BYTES: usize = 40;
pub const ENTRY_OUT_BYTES: usize = 128;
pub const DIRENT_BYTES: usize = 24;

macro_rules! numbers {
    ($($(#[$note:meta])* $kind:ident { $($name:ident = $value:expr),* $(,)? })*) => {
        $($(#[$note])* pub mod $kind { $(pub const $name: u32 = $value;)* })*
    };
}

numbers! {
    operation {
        LOOKUP = 1, FORGET = 2, GETATTR = 3, SETATTR = 4, READLINK = 5, SYMLINK = 6, MKNOD = 8, MKDIR = 9, UNLINK = 10, RMDIR = 11, RENAME = 12,
        LINK = 13, OPEN = 14, READ = 15, WRITE = 16, STATFS = 17, RELEASE = 18, FSYNC = 20, SETXATTR = 21, GETXATTR = 22, LISTXATTR = 23,
        REMOVEXATTR = 24, FLUSH = 25, INIT = 26, OPENDIR = 27, READDIR = 28, RELEASEDIR = 29, FSYNCDIR = 30, GETLK = 31, SETLK = 32, SETLKW = 33,
        CREATE = 35, INTERRUPT = 36, DESTROY = 38, IOCTL = 39, BATCH_FORGET = 42, FALLOCATE = 43, READDIRPLUS = 44, RENAME2 = 45, LSEEK = 46,
        COPY_FILE_RANGE = 47, SYNCFS = 50, TMPFILE = 51, STATX = 52, COPY_FILE_RANGE_64 = 53,
    }
    /// Codes, and a flag of INVALIDATE_ENTRY (older kernels drop the name, whatever it is).
    notification { INVALIDATE_INODE = 2, INVALIDATE_ENTRY = 3, NEXT_EPOCH = 8, EXPIRE_ONLY = 1 }
    setattr {
        MODE = 1, UID = 2, GID = 4, SIZE = 8, ACCESSED = 16, MODIFIED = 32, ACCESSED_NOW = 128, MODIFIED_NOW = 256, KILL_SUIDGID = 2048,
    }
    /// What `open` and `create` answer.
    opened { KEEP_CACHE = 2, NOFLUSH = 32 }
    /// Bits of `open_flags`, `write_flags`, `release_flags`, `lk_flags` and `setxattr_flags`.
    hint { ACL_KILL_SGID = 1, OPEN_KILL_SUIDGID = 1, WRITE_KILL_SUIDGID = 4, RELEASE_FLOCK_UNLOCK = 2, LOCK_FLOCK = 1 }
}

/// What INIT offers and asks for; the second word holds the bits from 32.
pub mod init {
    pub const ASYNC_READ: u64 = 1;
    pub const POSIX_LOCKS: u64 = 1 << 1;
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub const EXPORT_SUPPORT: u64 = 1 << 4;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const DONT_MASK: u64 = 1 << 6;
    pub const FLOCK_LOCKS: u64 = 1 << 10;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const CACHE_SYMLINKS: u64 = 1 << 23;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const SETXATTR_EXT: u64 = 1 << 29;
    pub const INIT_EXT: u64 = 1 << 30;
}

/// A request's head.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    pub operation: u32,
    pub unique: u64,
    pub node: u64,
    pub uid: u32,
    pub gid: u32,
}

/// Reads a request front to back.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Of a whole message: its head and what follows it.
    pub fn message(bytes: &'a [u8]) -> Result<(Header, Reader<'a>)> {
        let mut head = Reader(bytes);
        if head.u32()? as usize != bytes.len() {
            return Err(Errno::PROTO);
        }
        let header = Header {
            operation: head.u32()?,
            unique: head.u64()?,
            node: head.u64()?,
            uid: head.u32()?,
            gid: head.u32()?,
        };
        // The process, and extensions that nobody asked for.
        head.skip(8)?;
        Ok((header, head))
    }

    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Errno::PROTO)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn skip(&mut self, count: usize) -> Result<()> {
        self.bytes(count).map(|_| ())
    }

    pub fn u32(&mut self) -> Result<u32> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Errno::PROTO)?;
        self.0 = rest;
        Ok(u32::from_ne_bytes(*taken))
    }

    pub fn u64(&mut self) -> Result<u64> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Errno::PROTO)?;
        self.0 = rest;
        Ok(u64::from_ne_bytes(*taken))
    }

    /// Bytes up to a NUL, which is taken too.
    pub fn text(&mut self) -> Result<&'a [u8]> {
        let end = self.0.iter().position(|&byte| byte == 0).ok_or(Errno::PROTO)?;
        let (text, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Ok(text)
    }

    /// The name of an entry: this kernel passes longer ones on.
    pub fn name(&mut self) -> Result<&'a [u8]> {
        let name = self.text()?;
        if name.len() > NAME_BYTES_MAX {
            Err(Errno::NAMETOOLONG)
        } else {
            Ok(name)
        }
    }
}

/// Builds an answer's payload; a thread reuses one.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn zeros(&mut self, count: usize) -> &mut Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &[u8]) -> Vec<u8> {
        let mut out = Writer::default();
        out.u32((HEADER_IN_BYTES + body.len()) as u32)
            .u32(operation::LOOKUP)
            .u64(7)
            .u64(1)
            .u32(1000)
            .u32(100)
            .u32(42)
            .u32(0)
            .bytes(body);
        out.as_slice().to_vec()
    }

    #[test]
    fn a_message_is_its_head_and_the_rest() {
        let bytes = message(b"name\0");
        let (header, mut body) = Reader::message(&bytes).unwrap();
        assert_eq!((header.operation, header.unique, header.node), (operation::LOOKUP, 7, 1));
        assert_eq!((header.uid, header.gid), (1000, 100));
        assert_eq!(body.name().unwrap(), b"name");
        assert_eq!(body.u32(), Err(Errno::PROTO));
    }

    #[test]
    fn every_cut_message_is_refused() {
        let whole = message(b"name\0");
        for length in 0..whole.len() {
            assert!(Reader::message(&whole[..length]).is_err(), "{length}");
        }
        assert_eq!(Reader(b"name").name(), Err(Errno::PROTO));
        assert_eq!(Reader(b"abc").bytes(4), Err(Errno::PROTO));
        assert_eq!(Reader(&[1, 2, 3, 4, 5, 6, 7]).u64(), Err(Errno::PROTO));
    }

    #[test]
    fn a_name_has_at_most_255_bytes() {
        let long = [vec![b'n'; 256], vec![0]].concat();
        assert_eq!(Reader(&long[1..]).name().map(<[u8]>::len), Ok(255));
        assert_eq!(Reader(&long).name(), Err(Errno::NAMETOOLONG));
    }
}
