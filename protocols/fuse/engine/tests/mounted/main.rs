//! The engine as programs see it: every test mounts a file system in memory really, and works on it by system calls.
//!
//! They need root and `/dev/fuse`, and fail without: a skipped proof is no proof.

mod caches;
mod content;
mod endings;
mod faults;
mod listings;
mod lists;
mod locks;
mod names;
mod rig;
mod xattrs;
