//! What the server counts since its start, under the names of its metrics (without their `trefoil_`).
//!
//! Calls are counted and timed by procedure when their reply is handed to the connection, so what waits for a `sync` includes it. A repetition that was
//! answered from the duplicate-request cache counts as such and not as a call.

use crate::dispatch::Reply;
use crate::nfs;
use crate::rpc::{Call, MARK_BYTES};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// By number (RFC 1813, section 3.3); then the programs beside NFS.
const PROCEDURES: [&str; 23] = [
    "null",
    "getattr",
    "setattr",
    "lookup",
    "access",
    "readlink",
    "read",
    "write",
    "create",
    "mkdir",
    "symlink",
    "mknod",
    "remove",
    "rmdir",
    "rename",
    "link",
    "readdir",
    "readdirplus",
    "fsstat",
    "fsinfo",
    "pathconf",
    "commit",
    "other",
];
const OTHER: usize = PROCEDURES.len() - 1;
/// Results that a server in trouble, or a client with stale handles, shows by. All others are ordinary answers to programs and count together.
const FAILURES: [(u32, &str); 7] = [
    (5, "io"),
    (28, "nospc"),
    (69, "dquot"),
    (70, "stale"),
    (10001, "badhandle"),
    (10006, "serverfault"),
    (10008, "jukebox"),
];
/// Of an accepted reply: where `accept_stat` is, and the procedure's own status behind it.
const ACCEPTED_AT: usize = MARK_BYTES + 5 * 4;
const STATUS_AT: usize = ACCEPTED_AT + 4;

#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn value(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64
    }
}

#[derive(Default)]
struct Timed {
    calls: Counter,
    nanoseconds: Counter,
}

#[derive(Default)]
pub struct Counters {
    procedures: [Timed; PROCEDURES.len()],
    failures: [Counter; FAILURES.len()],
    errors: Counter,
    pub read_bytes: Counter,
    pub write_bytes: Counter,
    pub repetitions: Counter,
    pub syncs: Counter,
    pub connections_refused: Counter,
}

/// One call, from when it began to run.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    procedure: usize,
    began: Instant,
}

impl Span {
    pub fn new(call: &Call<'_>) -> Self {
        let known = call.program == nfs::PROGRAM && (call.procedure as usize) < OTHER;
        Self {
            procedure: if known { call.procedure as usize } else { OTHER },
            began: Instant::now(),
        }
    }
}

impl Counters {
    pub fn done(&self, span: Span, reply: &Reply) {
        let timed = &self.procedures[span.procedure];
        timed.calls.add(1);
        timed.nanoseconds.add(span.began.elapsed().as_nanos() as u64);
        let word = |at: usize| {
            reply
                .head
                .get(at..at + 4)
                .map_or(0, |word| word.iter().fold(0, |word, &byte| word << 8 | u32::from(byte)))
        };
        let status = if span.procedure == OTHER { 0 } else { word(STATUS_AT) };
        if word(ACCEPTED_AT) == 0 && status == 0 {
            return;
        }
        match FAILURES.iter().position(|&(failure, _)| failure == status) {
            Some(index) => self.failures[index].add(1),
            None => self.errors.add(1),
        }
    }

    pub fn samples(&self) -> Vec<(String, f64)> {
        let mut samples = Vec::new();
        for (name, timed) in PROCEDURES.iter().zip(&self.procedures) {
            samples.push((format!("nfs_calls_total{{procedure=\"{name}\"}}"), timed.calls.value()));
            samples.push((
                format!("nfs_call_seconds_total{{procedure=\"{name}\"}}"),
                timed.nanoseconds.value() / 1e9,
            ));
        }
        let failures = FAILURES.iter().zip(&self.failures).map(|((_, name), counter)| (*name, counter));
        for (name, counter) in failures.chain([("other", &self.errors)]) {
            samples.push((format!("nfs_errors_total{{status=\"{name}\"}}"), counter.value()));
        }
        let single = [
            ("nfs_read_bytes_total", &self.read_bytes),
            ("nfs_write_bytes_total", &self.write_bytes),
            ("nfs_repetitions_total", &self.repetitions),
            ("nfs_syncs_total", &self.syncs),
            ("nfs_connections_refused_total", &self.connections_refused),
        ];
        samples.extend(single.map(|(name, counter)| (name.to_owned(), counter.value())));
        samples
    }
}
