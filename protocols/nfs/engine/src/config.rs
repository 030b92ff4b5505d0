//! What a server is started with.

use crate::export::Export;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use trefoil_core::filesystem::locks::LockTable;

/// Where a port mapper is found.
const PORTMAPPER_PORT: u16 = 111;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub connections: usize,
    pub connections_per_client: usize,
    /// Calls of one connection that were not answered yet.
    pub calls_per_connection: usize,
    /// Threads that run calls.
    pub workers: usize,
    /// For calls and answers; a call that is still arriving counts only against `connections`.
    pub memory_bytes: usize,
    pub memory_bytes_per_client: usize,
    /// Without a call; a client that has one later connects again by itself.
    pub idle: Duration,
    /// From a call's first byte to its last.
    pub record: Duration,
    /// While a client takes nothing of its replies.
    pub send: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            connections_per_client: 64,
            calls_per_connection: 128,
            workers: 16,
            memory_bytes: 256 << 20,
            memory_bytes_per_client: 64 << 20,
            idle: Duration::from_secs(3600),
            record: Duration::from_secs(30),
            send: Duration::from_secs(60),
        }
    }
}

#[derive(Clone)]
pub struct Config {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    pub exports: Vec<Export>,
    /// What clients tell this file system from others by; the same after every restart.
    pub fsid: u64,
    /// Makes handles that nobody guesses; secret, and the same after every restart.
    pub key: [u8; 32],
    /// Locks are served if there is a table.
    pub locks: Option<Arc<LockTable>>,
    /// Remembers the hosts that hold locks, to tell them of a restart; none: they are not told.
    pub lock_hosts: Option<PathBuf>,
    /// Where the port mapper is served besides, by TCP and UDP. Clients look for locks at port 111 and nowhere else.
    pub portmapper: Option<SocketAddr>,
    /// Where clients' own port mappers listen.
    pub client_portmapper_port: u16,
    pub limits: Limits,
}

impl Config {
    /// Without locks and without a second address.
    pub fn new(listen: SocketAddr, exports: Vec<Export>, fsid: u64, key: [u8; 32]) -> Self {
        let (locks, lock_hosts, portmapper) = (None, None, None);
        Self {
            listen,
            exports,
            fsid,
            key,
            locks,
            lock_hosts,
            portmapper,
            client_portmapper_port: PORTMAPPER_PORT,
            limits: Limits::default(),
        }
    }
}
