//! What a node looks like on the wire.

use std::time::Duration;

use trefoil_core::filesystem::{Node, Type};

use super::{Call, Engine};
use crate::invalidations::Freshness;
use crate::options::Timeouts;
use crate::wire::Writer;

/// What programs are told to read and write at once.
const BLOCK_BYTES: u32 = 4096;
/// `st_blocks` counts these (POSIX leaves it open, Linux does not).
const SECTOR_BYTES: u64 = 512;
/// Set-user-id and set-group-id.
pub const SET_ID: u32 = 0o6000;
const NANOSECONDS: i64 = 1_000_000_000;
/// STATX_BASIC_STATS and STATX_BTIME.
const STATX_MASK: u32 = 0xfff;

/// Seconds, and nanoseconds that are never negative.
fn time(nanoseconds: i64) -> (u64, u32) {
    (
        nanoseconds.div_euclid(NANOSECONDS) as u64,
        nanoseconds.rem_euclid(NANOSECONDS) as u32,
    )
}

/// The nearest time that can be kept: years 1678 to 2262.
pub fn nanoseconds(seconds: u64, nanoseconds: u32) -> i64 {
    (seconds as i64).saturating_mul(NANOSECONDS).saturating_add(i64::from(nanoseconds))
}

/// `S_IFMT`, and the device's number.
pub fn kind(kind: Type) -> (u32, u64) {
    match kind {
        Type::Fifo => (0o010_000, 0),
        Type::CharacterDevice(number) => (0o020_000, number),
        Type::Directory => (0o040_000, 0),
        Type::BlockDevice(number) => (0o060_000, number),
        Type::File => (0o100_000, 0),
        Type::Symlink => (0o120_000, 0),
        Type::Socket => (0o140_000, 0),
    }
}

fn valid(out: &mut Writer, times: [Duration; 2]) {
    out.u64(times[0].as_secs())
        .u64(times[1].as_secs())
        .u32(times[0].subsec_nanos())
        .u32(times[1].subsec_nanos());
}

impl Engine {
    /// `struct fuse_attr`
    fn attributes(&self, out: &mut Writer, node: &Node) {
        let (format, device) = kind(node.kind);
        let [(accessed, accessed_ns), (modified, modified_ns), (changed, changed_ns)] =
            [node.accessed_ns, node.modified_ns, node.changed_ns].map(time);
        out.u64(self.outward(node.inode))
            .u64(node.size)
            .u64(node.allocated.div_ceil(SECTOR_BYTES));
        out.u64(accessed)
            .u64(modified)
            .u64(changed)
            .u32(accessed_ns)
            .u32(modified_ns)
            .u32(changed_ns);
        out.u32(format | node.mode).u32(node.links).u32(node.uid).u32(node.gid);
        let block_bytes = if node.block_bytes == 0 { BLOCK_BYTES } else { node.block_bytes };
        // A kernel's dev_t has 32 bits.
        out.u32(device as u32).u32(block_bytes).u32(0);
        self.told_set_id(node);
        self.heard(node);
    }

    fn told_set_id(&self, node: &Node) {
        if node.mode & SET_ID != 0 {
            self.known.told_set_id(node.inode);
        }
    }

    /// `struct fuse_attr_out`
    pub(super) fn attributes_out(&self, call: &mut Call, node: &Node) {
        let timeout = self.timeouts(call.since).attributes;
        call.out.u64(timeout.as_secs()).u32(timeout.subsec_nanos()).u32(0);
        self.attributes(call.out, node);
    }

    /// An answer made before the latest news may be old already.
    fn timeouts(&self, since: Freshness) -> Timeouts {
        if self.invalidations.is_fresh(since) {
            self.timeouts
        } else {
            Timeouts::NONE
        }
    }

    /// `struct fuse_entry_out`. An inode number never returns, so its generation is always the same.
    pub fn entry_out(&self, out: &mut Writer, node: &Node, since: Freshness) {
        self.known.named(node.inode);
        out.u64(self.outward(node.inode)).u64(0);
        // Only now: news of what was not known a moment ago were not told.
        let timeouts = self.timeouts(since);
        valid(out, [timeouts.names, timeouts.attributes]);
        self.attributes(out, node);
    }

    /// The same of what the kernel is to ask for each time.
    pub fn brief_entry_out(&self, out: &mut Writer, node: &Node) {
        self.known.named(node.inode);
        out.u64(self.outward(node.inode)).u64(0);
        valid(out, [Duration::ZERO, Duration::ZERO]);
        self.attributes(out, node);
    }

    /// `struct fuse_entry_out` of nothing.
    pub fn no_entry_out(&self, out: &mut Writer, since: Freshness) {
        out.zeros(16);
        valid(out, [self.timeouts(since).absent_names, Duration::ZERO]);
        out.zeros(88);
    }

    /// `struct fuse_statx_out`
    pub(super) fn statx_out(&self, call: &mut Call, node: &Node) {
        let (format, device) = kind(node.kind);
        let timeout = self.timeouts(call.since).attributes;
        let out = &mut *call.out;
        out.u64(timeout.as_secs()).u32(timeout.subsec_nanos()).u32(0).zeros(16);
        out.u32(STATX_MASK)
            .u32(BLOCK_BYTES)
            .u64(0)
            .u32(node.links)
            .u32(node.uid)
            .u32(node.gid);
        out.u16((format | node.mode) as u16).u16(0);
        out.u64(self.outward(node.inode))
            .u64(node.size)
            .u64(node.allocated.div_ceil(SECTOR_BYTES))
            .u64(0);
        for (seconds, fraction) in [node.accessed_ns, node.created_ns, node.changed_ns, node.modified_ns].map(time) {
            out.u64(seconds).u32(fraction).u32(0);
        }
        out.u32(rustix::fs::major(device)).u32(rustix::fs::minor(device)).zeros(8 + 14 * 8);
        self.told_set_id(node);
        self.heard(node);
    }

    /// The kernel learns attributes by itself, but not that the pages it has are of content that another face has replaced.
    fn heard(&self, node: &Node) {
        if node.kind == Type::File && self.known.stale(node.inode, node.version) {
            self.invalidations.content(node.inode);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_out_of_range_survive() {
        for ns in [0, 1, -1, -1_500_000_000, NANOSECONDS, i64::MAX, i64::MIN] {
            let (seconds, fraction) = time(ns);
            assert!(fraction < 1_000_000_000);
            if ns != i64::MIN {
                assert_eq!(nanoseconds(seconds, fraction), ns);
            }
        }
        assert_eq!(nanoseconds(u64::MAX, 500_000_000), -500_000_000);
        assert_eq!(nanoseconds(i64::MAX as u64, 0), i64::MAX);
        assert_eq!(nanoseconds(i64::MIN as u64, 0), i64::MIN);
    }
}
