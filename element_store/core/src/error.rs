//! One error type. Its kinds are named by their remedy, so that every protocol maps them to wire codes in one table.

use std::io;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request names something that is not there.
    #[error("not found: {0}")]
    NotFound(String),
    /// The request collides with what is there (exists, not empty, wrong kind).
    #[error("conflict: {0}")]
    Conflict(String),
    /// A condition of the request (If-Match, If-None-Match, digest, size) does not hold.
    #[error("precondition failed: {0}")]
    Precondition(String),
    /// Content differs from the digest of this name that the request announced.
    #[error("digest {0} differs")]
    Digest(String),
    /// The request itself is wrong: fix it.
    #[error("invalid: {0}")]
    Invalid(String),
    /// A named bound was passed; the same request in smaller pieces can succeed.
    #[error("limit exceeded: {0}")]
    Limit(String),
    /// Free space, then retry.
    #[error("out of space: {0}")]
    OutOfSpace(String),
    /// Stored bytes fail their checksum and cannot be rebuilt.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Not a usable device or pool: one sentence for the operator.
    #[error("{0}")]
    Refused(String),
    /// The store is closing or has lost too many devices to go on.
    #[error("closed: {0}")]
    Closed(String),
    /// What POSIX says to an operation on files.
    #[error("{0}")]
    File(rustix::io::Errno),
    /// A device failed the operation.
    #[error("device: {0}")]
    Io(#[from] io::Error),
}
