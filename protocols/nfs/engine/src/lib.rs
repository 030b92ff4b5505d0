//! An NFS version 3 server (RFC 1813) with MOUNT version 3 and a port mapper on one TCP port, over the core's `FileSystem` trait.
//!
//! What it promises: handles stay good over restarts; a call that is not idempotent and comes twice is done once; all that changes names or attributes
//! is durable when it is answered, and so are writes that were not called UNSTABLE; the write verifier changes at each start. It checks permissions
//! itself, as the user whom AUTH_SYS names, under the export's rules: AUTH_SYS is the client's word, so an export names the networks to believe.
//!
//! It works with threads and not with an async runtime: the file system's calls block, so a runtime would hand each of them to a blocking thread and
//! wake up again for the reply, which costs more than most calls. Here the thread that reads a call runs it (`server`). NFS clients keep one
//! connection, or a few, so threads stay few. Layers, from the wire up: `xdr`, `rpc`; `record`, `connection`, `flusher`, `pool`, `committer`, `server`
//! move records; `dispatch`, `portmap`, `mount`, `nfs` answer them and know no sockets.
//!
//! It never follows a symlink, and never leaves an export but by what others move out of it.

#![forbid(unsafe_code)]

mod budget;
mod committer;
mod config;
mod connection;
mod counters;
mod datagram;
mod dispatch;
mod duplicates;
mod export;
mod flusher;
#[cfg(test)]
mod fuzz;
mod handle;
mod mount;
mod nfs;
mod nlm;
mod nsm;
mod permission;
mod pool;
mod portmap;
mod record;
mod rpc;
mod server;
mod wait;
mod xdr;

pub use config::{Config, Limits};
pub use export::{ANONYMOUS, Export, Network, Squash};
pub use server::Server;
