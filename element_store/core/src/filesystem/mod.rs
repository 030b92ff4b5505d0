//! The namespace as files: what FUSE and NFS are told, and the one trait that they ask.
//!
//! The trait speaks of inodes, not of paths, and checks no permissions: the kernel does for FUSE, the NFS server does for its clients. Inodes are
//! element ids: they never change and never return, so a file handle is an inode number and stays valid over restarts. Errors are `errno`s
//! (POSIX.1-2017, Linux's manual pages where POSIX is silent).
//!
//! Every change is atomic and seen at once by all faces. It is durable after the next `sync`, or within a second; after a crash the state is one
//! that was, and all that happened before any surviving change has survived too (`docs/DURABILITY.md`).

pub mod acl;
pub mod judge;
pub mod locks;
pub mod model;
pub mod news;
mod strict;

pub use rustix::io::Errno;
pub use strict::Strict;

pub type Inode = u64;
pub type Result<T> = std::result::Result<T, Errno>;

/// The directory that holds every view root.
pub const ROOT: Inode = crate::element::keys::ROOT;
/// Bytes of one name (`NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;
/// Bytes of a symlink's target (`PATH_MAX` less its NUL).
pub const TARGET_BYTES_MAX: usize = 4095;
/// Bytes of one `read` or `write`.
pub const TRANSFER_BYTES_MAX: usize = 1 << 20;
/// Of a file.
pub const FILE_BYTES_MAX: u64 = 1 << 60;
/// Links to one file.
pub const LINKS_MAX: u32 = 65_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Directory,
    File,
    Symlink,
    Fifo,
    Socket,
    /// With its number as Linux encodes a `dev_t`.
    CharacterDevice(u64),
    BlockDevice(u64),
}

/// What `stat` shows. Times are nanoseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub inode: Inode,
    pub kind: Type,
    /// The 12 bits of permissions, set-id and sticky.
    pub mode: u32,
    /// Of a directory: 2 and one for each directory in it.
    pub links: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes; of a symlink, of its target.
    pub size: u64,
    /// Bytes that are not holes.
    pub allocated: u64,
    /// `st_blksize` of a volume, whose hosts count so; 0 leaves it to the face.
    pub block_bytes: u32,
    pub accessed_ns: i64,
    pub modified_ns: i64,
    pub changed_ns: i64,
    pub created_ns: i64,
    /// Rises with every change of content; of a directory, with every change of its entries.
    pub version: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum New<'a> {
    Directory,
    File,
    Symlink(&'a [u8]),
    Fifo,
    Socket,
    CharacterDevice(u64),
    BlockDevice(u64),
}

/// Of something new. In a directory with the set-gid bit it gets that directory's group instead, and a directory the bit too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Time {
    Now,
    At(i64),
}

/// What `None` names stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub accessed: Option<Time>,
    pub modified: Option<Time>,
    /// Takes the set-id bits of anything but a directory away, as a change of size or owner by an unprivileged caller must.
    pub strip_privileges: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replace {
    /// An existing target is replaced.
    Yes,
    /// RENAME_NOREPLACE
    No,
    /// RENAME_EXCHANGE
    Exchange,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocation {
    /// What has no room now is refused with ENOSPC; whether room is kept until it is written is each filesystem's own. The bytes read as zeros.
    Reserve { keep_size: bool },
    /// FALLOC_FL_PUNCH_HOLE, which keeps the size.
    Punch,
    /// FALLOC_FL_ZERO_RANGE
    Zero { keep_size: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    Data,
    Hole,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrMode {
    Any,
    /// EEXIST if it is there.
    Create,
    /// ENODATA if it is not.
    Replace,
}

/// One entry of a directory; `.` and `..` are the faces' own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: Vec<u8>,
    /// Where a listing goes on after this entry, for as long as the directory lives: at least 1, at most 2^62.
    pub cookie: u64,
    pub node: Node,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statistics {
    /// Bytes for content, parity left out.
    pub total_bytes: u64,
    pub free_bytes: u64,
    pub elements: u64,
}

/// What a change of content or owner takes away, as it takes set-id bits: capabilities that were given to other content.
pub const CAPABILITY: &str = "security.capability";

/// Any number of threads call it. An inode that is not there (any more) is ESTALE; a name that is not there is ENOENT; a name of more than
/// NAME_BYTES_MAX bytes is ENAMETOOLONG, an empty one, `.`, `..` and one with `/` or NUL are EINVAL; what should be a directory and is none is
/// ENOTDIR; the pool has no room: ENOSPC; the store is closed: EIO.
pub trait FileSystem: Send + Sync {
    fn lookup(&self, directory: Inode, name: &[u8]) -> Result<Node>;

    /// What `..` names; of ROOT itself.
    fn parent(&self, directory: Inode) -> Result<Node>;

    fn stat(&self, inode: Inode) -> Result<Node>;

    /// All or nothing. A new size: EISDIR for a directory, EINVAL for what has no content, EFBIG.
    fn change(&self, inode: Inode, changes: &Changes) -> Result<Node>;

    /// EEXIST. In ROOT only directories may be made: EPERM.
    fn create(&self, directory: Inode, name: &[u8], new: New<'_>, mode: u32, owner: Owner) -> Result<Node>;

    /// As `create`, or without a name as `create_unnamed`, for a caller with a umask: it counts where the directory has no default ACL.
    fn create_masked(&self, directory: Inode, name: Option<&[u8]>, new: New<'_>, mode: u32, umask: u32, owner: Owner) -> Result<Node> {
        let mode = mode & !(umask & 0o777);
        match name {
            Some(name) => self.create(directory, name, new, mode, owner),
            None => self.create_unnamed(directory, mode, owner),
        }
    }

    /// A file that no directory names, opened once (O_TMPFILE); it is gone with its last `close` unless it was linked.
    fn create_unnamed(&self, directory: Inode, mode: u32, owner: Owner) -> Result<Node>;

    /// EPERM for a directory, EEXIST, EMLINK, EXDEV for another view root.
    fn link(&self, inode: Inode, directory: Inode, name: &[u8]) -> Result<Node>;

    /// EISDIR. The content of what is open lives until its last `close`.
    fn unlink(&self, directory: Inode, name: &[u8]) -> Result<()>;

    /// ENOTEMPTY
    fn remove_directory(&self, directory: Inode, name: &[u8]) -> Result<()>;

    /// As rename(2) and renameat2(2): EEXIST, ENOTEMPTY, EISDIR, ENOTDIR, EINVAL for a directory into itself, EXDEV for another view root, EPERM
    /// for a view root. Two names of one file: nothing happens.
    fn rename(&self, from: (Inode, &[u8]), to: (Inode, &[u8]), replace: Replace) -> Result<()>;

    /// EINVAL for anything but a symlink.
    fn read_link(&self, inode: Inode) -> Result<Vec<u8>>;

    /// Keeps content until `close`, whatever happens to its names. Counts.
    fn open(&self, inode: Inode) -> Result<Node>;

    fn close(&self, inode: Inode);

    /// At most TRANSFER_BYTES_MAX, fewer only at the end of the file; holes are zeros. EISDIR, EINVAL, EIO for content that is damaged for good.
    fn read(&self, inode: Inode, offset: u64, length: usize) -> Result<Vec<u8>>;

    /// Somebody read content, entries or a target, which do not note it themselves. As `relatime`: nothing happens if an access since the last change,
    /// and within a day, is noted. Nobody waits for it.
    fn note_access(&self, _inode: Inode) {}

    /// All of the bytes, at most TRANSFER_BYTES_MAX. `strip_privileges` as in `Changes`. EISDIR, EINVAL, EFBIG, EROFS. Returns the node afterwards.
    fn write(&self, inode: Inode, offset: u64, bytes: &[u8], strip_privileges: bool) -> Result<Node>;

    /// Atomically at the end; returns the node afterwards.
    fn append(&self, inode: Inode, bytes: &[u8], strip_privileges: bool) -> Result<Node>;

    /// Everything that was acknowledged before is durable.
    fn sync(&self) -> Result<()>;

    fn allocate(&self, inode: Inode, how: Allocation, offset: u64, length: u64) -> Result<Node>;

    /// The first offset >= `offset` of data, or of a hole (the end of the file is one). ENXIO at or beyond the end, or for data if only holes follow.
    fn seek(&self, inode: Inode, offset: u64, what: Seek) -> Result<u64>;

    /// Shares content instead of copying it. Bytes copied: fewer than `length` only at the source's end. EINVAL if the ranges overlap in one file.
    fn copy(&self, from: (Inode, u64), to: (Inode, u64), length: u64) -> Result<u64>;

    /// Entries after `cookie` (0: from the start), at most `limit`; an empty answer is the end. What is there all the while is seen exactly once,
    /// whatever happens to other entries.
    fn list(&self, directory: Inode, cookie: u64, limit: usize) -> Result<Vec<Entry>>;

    /// What comes into the directory from now on has a higher cookie, a name that is renamed within it too: a listing that goes no further ends.
    fn newest_cookie(&self, directory: Inode) -> Result<u64>;

    /// ENODATA
    fn xattr(&self, inode: Inode, name: &[u8]) -> Result<Vec<u8>>;

    /// ENOSPC if the element's attributes would not fit (32 KiB together), EINVAL for a name that is not UTF-8. `system.posix_acl_access` and
    /// `system.posix_acl_default` are ACLs (`acl`): EINVAL for what is none, EACCES for a default one of what is no directory; the access one and the
    /// mode agree, whichever is set, and it is not kept where the mode says as much.
    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()>;

    fn xattrs(&self, inode: Inode) -> Result<Vec<Vec<u8>>>;

    /// ENODATA
    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<()>;

    fn statistics(&self) -> Result<Statistics>;

    /// News of what others change from now on (`news`). `None` if it has none: then whoever keeps copies must ask again after a while.
    fn subscribe(&self) -> Option<std::sync::Arc<news::Listener>> {
        None
    }
}
