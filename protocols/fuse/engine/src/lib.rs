//! The native FUSE engine: Linux's kernel on one side, the core's `FileSystem` on the other.
//!
//! It speaks the kernel's protocol itself, over `/dev/fuse`, by several threads. The crate `fuser` (0.18) was considered and left out: it
//! hides what this needs — `FATTR_KILL_SUIDGID` and `FUSE_OPEN_KILL_SUIDGID`, the flag that tells `flock` from POSIX locks, `FUSE_INTERRUPT` (a waiter for
//! a lock could not be killed), `FUSE_TMPFILE`, `FUSE_STATX` — and it reads fractions of seconds before 1970 wrongly.
//!
//! Invariants: a mount never hangs its callers (a panic answers EIO, a lost ticket answers EIO, `Mount::end` has limits); nothing is answered before the
//! store has answered; the kernel's page cache outlives a close only for an unchanged version. It never checks permissions itself and never keeps
//! content of its own.

mod device;
mod engine;
mod handshake;
mod holders;
mod invalidations;
mod kernel;
mod known;
mod mount;
mod options;
mod syncs;
mod waits;
mod wire;
mod workers;

pub use invalidations::Invalidations;
pub use mount::{Mount, MountError};
pub use options::{Locks, Options, THREADS_MAX, Timeouts};
