//! An NVMe/TCP target over the core's `Volumes` and `BlockDevice` traits (NVM Express over Fabrics, TCP transport 1.0; base specification 1.4 with Copy
//! and in-band authentication of 2.0).
//!
//! One subsystem holds all volumes, each a namespace whose number is the volume's. A host sees those that its NQN may see, and nothing tells it of others.
//! What is answered is done: a write when all faces see it, Flush and FUA when it survives power loss. Hosts are told the truth about the volatile cache.
//!
//! It works with threads and not with an async runtime: each connection has one, which owns the socket and all that its commands need. Changes are handed
//! to the store and come back as mail, so a queue of any depth costs one thread and few wake-ups. Layers, from the wire up: `wire`, `pdu`, `command`;
//! `inbox`, `outbox`, `mailbox`, `budget`, `pool`, `connection` move units; `fabrics`, `admin` with `identify`, `logs`, `features`, and `io` answer them;
//! `controller`, `namespace`, `reservation`, `access`, `auth` hold what outlives a command; `target` starts and ends it all.
//!
//! It never trusts a length, never lets a host hold more than its share of memory, and never shows one host what another wrote where it may not look.

#![forbid(unsafe_code)]

mod access;
mod admin;
mod auth;
mod budget;
mod command;
mod config;
mod connection;
mod controller;
mod counters;
mod discovery;
mod events;
mod fabrics;
mod features;
mod identify;
mod inbox;
mod io;
mod logs;
mod mailbox;
mod namespace;
mod outbox;
mod pdu;
mod pool;
mod queue;
mod reservation;
mod shared;
mod status;
mod target;
mod wire;

pub use access::{Access, Host, NQN_BYTES_MAX};
pub use auth::{Group, Hash, Secret};
pub use budget::CONNECTION_BYTES_MAX;
pub use config::{Config, Limits};
pub use fabrics::DISCOVERY_NQN;
pub use target::{Session, Target};
