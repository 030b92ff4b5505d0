//! One local drive as a flat range of bytes.
//!
//! Owns: reading, writing, flushing and discarding byte ranges. Never retries a failed flush: after one, the kernel may have
//! dropped the dirty pages, so the device is dead (`Devices::fail`) and the code makes up for it.

pub mod aligned;
pub mod fault;
pub mod file;
pub mod memory;
pub mod random;
pub mod recycled;
pub mod set;

use std::{fmt, io};

/// Shared by any number of threads. Offsets and lengths are bytes and need no alignment.
pub trait Device: Send + Sync + fmt::Debug {
    /// Bytes; fixed while open.
    fn len(&self) -> u64;

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` or fails; a range past the end is `UnexpectedEof`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Visible to later reads at once, durable only after `flush`.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// All writes that returned before are durable (fdatasync and the drive's cache).
    fn flush(&self) -> io::Result<()>;

    /// The range reads as zeros or old bytes from now on; its space may be given back.
    fn discard(&self, offset: u64, length: u64) -> io::Result<()>;

    /// Is the backing still there at its full size (a deleted file stays readable through its descriptor, but not after a restart)?
    fn probe(&self) -> io::Result<()>;

    /// True if nothing here ever waits: such a device is served in the calling thread, which also makes simulations replay in one order.
    fn is_instant(&self) -> bool {
        false
    }

    /// What an operator calls it: its path.
    fn name(&self) -> String;
}
