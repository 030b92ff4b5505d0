//! What the target counts since its start, under the names of its metrics (without their `trefoil_`).
//!
//! An operation is timed from when its command was whole until its answer is handed to the connection, so what waits for a host's data does not count and
//! what waits for the store does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
    Flush,
    Zero,
    Deallocate,
    Compare,
    CompareAndWrite,
    Verify,
    Copy,
    Reservation,
}

const OPERATIONS: [&str; 10] = [
    "read",
    "write",
    "flush",
    "zero",
    "deallocate",
    "compare",
    "compare_and_write",
    "verify",
    "copy",
    "reservation",
];
/// Upper bounds of the latency histogram.
const BUCKETS_MICROSECONDS: [u64; 10] = [64, 128, 256, 512, 1_000, 2_000, 5_000, 20_000, 100_000, 1_000_000];

#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Timed {
    done: Counter,
    failed: Counter,
    nanoseconds: Counter,
    buckets: [Counter; BUCKETS_MICROSECONDS.len()],
}

/// Of one volume.
#[derive(Default)]
pub struct VolumeCounters {
    operations: [Timed; OPERATIONS.len()],
    pub read_bytes: Counter,
    pub write_bytes: Counter,
}

impl VolumeCounters {
    pub fn done(&self, operation: Operation, bytes: u64, succeeded: bool, took: Duration) {
        let timed = &self.operations[operation as usize];
        timed.done.add(1);
        timed.nanoseconds.add(took.as_nanos() as u64);
        let bucket = BUCKETS_MICROSECONDS.iter().position(|&bound| took.as_micros() as u64 <= bound);
        if let Some(bucket) = bucket {
            timed.buckets[bucket].add(1);
        }
        match operation {
            _ if !succeeded => timed.failed.add(1),
            Operation::Read => self.read_bytes.add(bytes),
            Operation::Write | Operation::CompareAndWrite => self.write_bytes.add(bytes),
            _ => {}
        }
    }

    pub fn samples(&self, path: &str, into: &mut Vec<(String, f64)>) {
        let volume = path.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        for (name, timed) in OPERATIONS.iter().zip(&self.operations) {
            let labels = format!("volume=\"{volume}\",operation=\"{name}\"");
            let mut push = |metric: &str, labels: &str, value: f64| into.push((format!("{metric}{{{labels}}}"), value));
            push("volume_operations_total", &labels, timed.done.value() as f64);
            push("volume_operation_errors_total", &labels, timed.failed.value() as f64);
            if timed.done.value() == 0 {
                continue;
            }
            let mut below = 0;
            for (bound, bucket) in BUCKETS_MICROSECONDS.iter().zip(&timed.buckets) {
                below += bucket.value();
                let labels = format!("{labels},le=\"{}\"", *bound as f64 / 1e6);
                push("volume_operation_seconds_bucket", &labels, below as f64);
            }
            let count = timed.done.value() as f64;
            push("volume_operation_seconds_bucket", &format!("{labels},le=\"+Inf\""), count);
            push("volume_operation_seconds_count", &labels, count);
            push("volume_operation_seconds_sum", &labels, timed.nanoseconds.value() as f64 / 1e9);
        }
        into.push((
            format!("volume_read_bytes_total{{volume=\"{volume}\"}}"),
            self.read_bytes.value() as f64,
        ));
        into.push((
            format!("volume_write_bytes_total{{volume=\"{volume}\"}}"),
            self.write_bytes.value() as f64,
        ));
    }
}

/// Of the whole target.
#[derive(Default)]
pub struct Counters {
    pub connections: Counter,
    pub connections_refused: Counter,
    /// Ended because the peer broke the protocol.
    pub protocol_errors: Counter,
    pub digest_errors: Counter,
    pub authentication_failures: Counter,
    pub hosts_refused: Counter,
    pub keep_alive_timeouts: Counter,
    pub timeouts: Counter,
    /// Commands that had to wait for memory.
    pub memory_waits: Counter,
}

impl Counters {
    pub fn samples(&self) -> Vec<(String, f64)> {
        let single = [
            ("nvme_connections_total", &self.connections),
            ("nvme_connections_refused_total", &self.connections_refused),
            ("nvme_protocol_errors_total", &self.protocol_errors),
            ("nvme_digest_errors_total", &self.digest_errors),
            ("nvme_authentication_failures_total", &self.authentication_failures),
            ("nvme_hosts_refused_total", &self.hosts_refused),
            ("nvme_keep_alive_timeouts_total", &self.keep_alive_timeouts),
            ("nvme_timeouts_total", &self.timeouts),
            ("nvme_memory_waits_total", &self.memory_waits),
        ];
        single.map(|(name, counter)| (name.to_owned(), counter.value() as f64)).to_vec()
    }
}
