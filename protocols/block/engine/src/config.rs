//! What a target is started with.

use crate::access::Access;
use crate::budget::CONNECTION_BYTES_MAX;
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    pub connections: usize,
    pub connections_per_address: usize,
    pub controllers: usize,
    /// Of one controller, besides its admin queue.
    pub io_queues: u16,
    /// Commands of one queue that were not answered yet; at most 4096.
    pub queue_depth: u16,
    /// For data of all connections together. Each has CONNECTION_BYTES_MAX to itself; what is left they share.
    pub memory_bytes: usize,
    /// Threads that run reads which may take long, comparisons, copies.
    pub workers: usize,
    /// From accepting a connection until it belongs to a queue, authentication included.
    pub handshake: Duration,
    /// From a unit's first byte to its last, and from a request for data until the next piece of it.
    pub unit: Duration,
    /// While a host takes nothing of what is sent.
    pub send: Duration,
    /// Of a discovery connection that has no keep-alive time.
    pub idle: Duration,
    /// How long a volume stays attached to a host that was lost without a goodbye.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            connections_per_address: 128,
            controllers: 128,
            io_queues: 32,
            queue_depth: 256,
            memory_bytes: 256 * CONNECTION_BYTES_MAX + (128 << 20),
            workers: 8,
            handshake: Duration::from_secs(15),
            unit: Duration::from_secs(30),
            send: Duration::from_secs(30),
            idle: Duration::from_secs(120),
            grace: Duration::from_secs(60),
        }
    }
}

#[derive(Clone)]
pub struct Config {
    /// Port 0 takes a free one. The first is what discovery tells where a connection's own address is not asked for.
    pub listen: Vec<SocketAddr>,
    /// What discovery tells hosts to connect to; none: the address at which they reached it.
    pub advertise: Vec<SocketAddr>,
    /// The subsystem's name: the same after every restart, and no other pool's.
    pub nqn: String,
    /// Up to 20 ASCII characters; the same after every restart.
    pub serial: String,
    pub access: Access,
    pub limits: Limits,
}

impl Config {
    /// Nobody may connect yet.
    pub fn new(listen: SocketAddr, nqn: &str, serial: &str) -> Self {
        Self {
            listen: vec![listen],
            advertise: Vec::new(),
            nqn: nqn.into(),
            serial: serial.into(),
            access: Access::default(),
            limits: Limits::default(),
        }
    }
}
