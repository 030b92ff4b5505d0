//! Volumes as blocks: what a block target asks, and nothing else of the store.
//!
//! A volume is a file that a host may attach as a namespace. Offsets and lengths are bytes and multiples of the volume's block size; the target checks that
//! before it asks. Writes are seen by all faces when they are done and durable after the next `flush` that began later; a write is never torn within
//! BLOCK_BYTES_MAX aligned bytes, whatever happens to power. While anybody holds an open volume, its name and content are read-only to all other faces.

pub mod model;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of the largest block: what one write that is aligned to it keeps whole.
pub const BLOCK_BYTES_MAX: u32 = 4096;
/// Bytes of one read, write, comparison or copy.
pub const TRANSFER_BYTES_MAX: usize = 1 << 20;
/// Bytes that one `compare_and_write` compares, and so changes atomically.
pub const COMPARE_BYTES_MAX: usize = 128 << 10;
/// Of a reservation's record.
pub const RESERVATION_BYTES_MAX: usize = 16 << 10;

/// A namespace id: 1 to VOLUMES_MAX, never two volumes' at one time.
pub type VolumeId = u32;
pub const VOLUMES_MAX: VolumeId = 1024;

/// Named by what a host does about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Retry later, or free something: NVMe's Capacity Exceeded.
    #[error("the pool has no room")]
    OutOfSpace,
    /// The bytes are lost for good: Unrecovered Read Error.
    #[error("damaged: {0}")]
    Damaged(String),
    /// It is read-only: Namespace is Write Protected.
    #[error("read-only")]
    ReadOnly,
    /// Not there any more, or past its end.
    #[error("out of range")]
    OutOfRange,
    /// Somebody else holds it in a way that excludes this, said in a sentence.
    #[error("{0}")]
    Busy(String),
    /// The store is closed or our bug: Internal Error.
    #[error("{0}")]
    Failed(String),
}

pub type Result<T> = std::result::Result<T, BlockError>;

/// Called once, perhaps on the store's only writer thread: be quick, and call nothing of the store.
pub type Done<T> = Box<dyn FnOnce(Result<T>) + Send>;

/// What a host is told of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub id: VolumeId,
    /// Its path, as all faces name it.
    pub path: String,
    /// Stable as long as the volume lives, and never another's; NGUID and UUID alike.
    pub uuid: [u8; 16],
    pub size_bytes: u64,
    /// Of it, what is no holes: a host's "utilization". May lag behind a little, and never exceeds the size.
    pub used_bytes: u64,
    /// 512 or 4096.
    pub block_bytes: u32,
    pub read_only: bool,
}

/// An open volume. Any number of threads. What concerns bytes past the end is OutOfRange and changes nothing.
pub trait BlockDevice: Send + Sync {
    /// As it is now: size may have changed.
    fn volume(&self) -> Volume;

    /// Fills `into`; what was never written, or deallocated, is zeros.
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()>;

    /// At most TRANSFER_BYTES_MAX. Done when every face sees it; with `durable` when it also survives power loss. Writes under way at the same time that
    /// overlap take effect one after another, in any order.
    fn write(&self, offset: u64, bytes: Vec<u8>, durable: bool, done: Done<()>);

    /// Done when all that was done before this call survives power loss.
    fn flush(&self, done: Done<()>);

    /// The range reads as zeros from now on, and gives its space back. Any length.
    fn zero(&self, offset: u64, length: u64, durable: bool, done: Done<()>);

    /// Writes `bytes` if the volume holds `expected` there now, as one step that nothing comes between. False: it does not, and nothing changed.
    /// Both are of one length, at most COMPARE_BYTES_MAX.
    fn compare_and_write(&self, offset: u64, expected: Vec<u8>, bytes: Vec<u8>, durable: bool, done: Done<bool>);

    /// The bytes at `from` are at `to` too, without being copied. Ranges that overlap: as if they were read first. At most TRANSFER_BYTES_MAX.
    fn copy(&self, from: u64, to: u64, length: u64, durable: bool, done: Done<()>);

    /// Which parts of the range are no holes, in order: what a host's "deallocated" means.
    fn allocated(&self, range: Range<u64>) -> Result<Vec<Range<u64>>>;
}

/// All volumes, and what hosts persist about them.
pub trait Volumes: Send + Sync {
    /// By id.
    fn list(&self) -> Result<Vec<Volume>>;

    /// Attached until the last handle is dropped. OutOfRange: there is none of this id.
    fn open(&self, id: VolumeId) -> Result<Arc<dyn BlockDevice>>;

    /// What `keep_reservation` kept last; survives restarts and goes with the volume. Blocks.
    fn reservation(&self, id: VolumeId) -> Result<Option<Vec<u8>>>;

    /// Durable when it returns. None forgets. Blocks.
    fn keep_reservation(&self, id: VolumeId, record: Option<Vec<u8>>) -> Result<()>;

    /// Waits until volumes came, went or changed their size or protection after `seen`, or for so long. Returns what to pass next.
    fn wait_changed(&self, seen: u64, patience: Duration) -> u64;
}
