//! `nfsstat3` (RFC 1813, section 2.6), and what each errno becomes.

use crate::xdr::Garbage;
use trefoil_core::filesystem::Errno;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u32);

pub const OK: u32 = 0;

impl Status {
    pub const IO: Self = Self(5);
    pub const ACCESS: Self = Self(13);
    pub const EXIST: Self = Self(17);
    pub const CROSS_DEVICE: Self = Self(18);
    pub const NOT_DIRECTORY: Self = Self(20);
    pub const IS_DIRECTORY: Self = Self(21);
    pub const INVALID: Self = Self(22);
    pub const READ_ONLY: Self = Self(30);
    pub const NAME_TOO_LONG: Self = Self(63);
    pub const STALE: Self = Self(70);
    pub const BAD_HANDLE: Self = Self(10001);
    pub const NOT_SYNCHRONIZED: Self = Self(10002);
    pub const TOO_SMALL: Self = Self(10005);
    pub const SERVER_FAULT: Self = Self(10006);
    pub const BAD_TYPE: Self = Self(10007);
    pub const LATER: Self = Self(10008);
}

impl From<Errno> for Status {
    fn from(error: Errno) -> Self {
        match error {
            Errno::PERM => Self(1),
            Errno::NOENT => Self(2),
            Errno::NXIO => Self(6),
            Errno::ACCESS => Self::ACCESS,
            Errno::EXIST => Self::EXIST,
            Errno::XDEV => Self::CROSS_DEVICE,
            Errno::NODEV => Self(19),
            Errno::NOTDIR => Self::NOT_DIRECTORY,
            Errno::ISDIR => Self::IS_DIRECTORY,
            Errno::INVAL => Self::INVALID,
            Errno::FBIG => Self(27),
            Errno::NOSPC => Self(28),
            Errno::ROFS => Self::READ_ONLY,
            Errno::MLINK => Self(31),
            Errno::NAMETOOLONG => Self::NAME_TOO_LONG,
            Errno::NOTEMPTY => Self(66),
            Errno::DQUOT => Self(69),
            Errno::STALE => Self::STALE,
            Errno::NOTSUP => Self(10004),
            Errno::AGAIN | Errno::BUSY | Errno::NOMEM => Self::LATER,
            _ => Self::IO,
        }
    }
}

/// Of a handle.
impl From<Garbage> for Status {
    fn from(_: Garbage) -> Self {
        Self::BAD_HANDLE
    }
}
