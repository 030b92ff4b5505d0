//! A pool: its devices, its code and geometry, and who is a member.
//!
//! Owns the superblocks: `format`, `open`, and the membership epoch afterwards. Invariants: nothing is acknowledged in an epoch before every device that
//! is live in it says so in its superblock; superblocks of one epoch and lineage differ in nothing but device and generation; a device that was declared
//! dead, or that missed an epoch which declared it dead, never counts again. Never touches zones, roots or journal records.

pub mod code;
mod format;
pub mod geometry;
mod membership;
mod open;
pub mod superblock;
#[cfg(test)]
mod tests;

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

pub use code::Code;
pub use format::FormatOptions;
pub use geometry::Geometry;
pub use open::OpenOptions;
pub use superblock::{Identity, Uuid, identify};

use crate::device::random::RandomSource;
use crate::device::set::Devices;
use membership::Membership;

pub struct Pool {
    pub uuid: Uuid,
    /// Keys chunk fingerprints and the headers of journal records.
    pub secret: [u8; 32],
    pub code: Code,
    pub geometry: Geometry,
    pub devices: Devices,
    /// What open noticed and the operator should know, a sentence each.
    pub notes: Vec<String>,
    epoch: AtomicU64,
    membership: Mutex<Membership>,
    random: Mutex<RandomSource>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "Pool({} code {} epoch {})",
            self.uuid,
            self.code,
            self.membership_epoch()
        )
    }
}
