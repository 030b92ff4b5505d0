//! What the reducer did since the store was opened, and how long each stage of it took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Bytes are plain ones unless they say otherwise.
#[derive(Debug, Default)]
pub struct ReductionCounters {
    pub extents: AtomicU64,
    /// Blocks that small overwrites were merged into.
    pub merged: AtomicU64,
    /// Extents and blocks that had to be taken again.
    pub missed: AtomicU64,
    pub bytes: AtomicU64,
    pub zero_bytes: AtomicU64,
    pub duplicate_bytes: AtomicU64,
    pub delta_bytes: AtomicU64,
    pub compressed_bytes: AtomicU64,
    pub raw_bytes: AtomicU64,
    pub stored_delta_bytes: AtomicU64,
    pub stored_compressed_bytes: AtomicU64,
    pub chunks: AtomicU64,
    pub deltas: AtomicU64,
    /// Deltas with two references.
    pub doubles: AtomicU64,
    /// Deltas that were encoded, accepted or not.
    pub attempts: AtomicU64,
    pub page_loads: AtomicU64,
    pub cut_ns: AtomicU64,
    pub fingerprint_ns: AtomicU64,
    pub sketch_ns: AtomicU64,
    pub find_ns: AtomicU64,
    pub delta_ns: AtomicU64,
    pub compress_ns: AtomicU64,
    pub store_ns: AtomicU64,
    pub swap_ns: AtomicU64,
    pub hook_bytes: AtomicU64,
    /// Deltas that were encoded anew without their references.
    pub recoded: AtomicU64,
    /// Chunks that grew cold and were looked at, and what encoding them deeper saved, stored bytes.
    pub deepened: AtomicU64,
    pub deepened_gain: AtomicU64,
}

impl ReductionCounters {
    /// By their names in metrics.
    pub fn named(&self) -> [(&'static str, u64); 20] {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("extents_total", load(&self.extents)),
            ("blocks_merged_total", load(&self.merged)),
            ("extents_missed_total", load(&self.missed)),
            ("bytes_total", load(&self.bytes)),
            ("zero_bytes_total", load(&self.zero_bytes)),
            ("duplicate_bytes_total", load(&self.duplicate_bytes)),
            ("delta_bytes_total", load(&self.delta_bytes)),
            ("compressed_bytes_total", load(&self.compressed_bytes)),
            ("raw_bytes_total", load(&self.raw_bytes)),
            ("stored_delta_bytes_total", load(&self.stored_delta_bytes)),
            ("stored_compressed_bytes_total", load(&self.stored_compressed_bytes)),
            ("chunks_total", load(&self.chunks)),
            ("deltas_total", load(&self.deltas)),
            ("deltas_of_two_total", load(&self.doubles)),
            ("delta_attempts_total", load(&self.attempts)),
            ("page_loads_total", load(&self.page_loads)),
            ("hook_bytes", load(&self.hook_bytes)),
            ("chunks_deepened_total", load(&self.deepened)),
            ("deepened_gain_bytes_total", load(&self.deepened_gain)),
            ("chunks_recoded_total", load(&self.recoded)),
        ]
    }

    /// Nanoseconds of the reducer's thread by stage.
    pub fn stages(&self) -> [(&'static str, u64); 8] {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("cut", load(&self.cut_ns)),
            ("fingerprint", load(&self.fingerprint_ns)),
            ("sketch", load(&self.sketch_ns)),
            ("find", load(&self.find_ns)),
            ("delta", load(&self.delta_ns)),
            ("compress", load(&self.compress_ns)),
            ("store", load(&self.store_ns)),
            ("swap", load(&self.swap_ns)),
        ]
    }
}

pub(super) fn add(counter: &AtomicU64, value: usize) {
    counter.fetch_add(value as u64, Ordering::Relaxed);
}

/// Runs `work` and adds the time it took.
pub(super) fn timed<T>(counter: &AtomicU64, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    counter.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
    result
}
