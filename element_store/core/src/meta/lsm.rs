//! The embedded engine: a log-structured merge tree (crate `lsm-tree`) in a state directory.
//!
//! The directory is a cache: it is rebuilt from a checkpoint (`checkpoint`) and the journal, so nothing in it has to survive a crash. The tree has no log.
//!
//! How transactions map to the tree. The tree stamps rows *and its own versions* (lists of tables) from one number line; a reader at `n` sees rows
//! below `n` through the newest version below `n`, and flushing or compacting may drop whatever only readers below the new version could see. So a version's
//! stamp must lie above every row it was made from and below every row that comes later. Therefore transaction `s` stamps its rows `s << VERSION_BITS`, versions
//! made after it get the numbers that follow, and a reader at `s` reads below `(s + 1) << VERSION_BITS`.
//!
//! Threads: one applies; one maintains and exports (`maintenance` holds others off); any number read. A memtable is never rotated in the middle of a
//! transaction (`writer`), so the tables always hold a prefix of the transactions.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lsm_tree::compaction::Leveled;
use lsm_tree::config::{CompressionPolicy, PartitioningPolicy};
use lsm_tree::{AbstractTree, AnyTree, Cache, CompressionType, Config, Guard, SequenceNumberCounter};

use crate::error::{Error, Result};

use super::checkpoint::state_error;
use super::engine::{Engine, Mutation, RangeIter};

/// Numbers between two transactions, for versions of the tree: far more than flushes and compactions can follow one transaction.
const VERSION_BITS: u32 = 14;
const VERSIONS_MAX: u64 = 1 << VERSION_BITS;
/// Numbers that compactions leave for flushes.
const VERSIONS_RESERVED: u64 = 64;
/// A writer that has so many full memtables' worth of rows in memory, or so many runs unmerged, is to wait for `maintain`.
const MEMTABLES_BEHIND: u64 = 4;
const RUNS_BEHIND: usize = 20;
/// By level, the last one for all below: filters and indexes are in parts.
const WHOLE_IN_FIRST_LEVEL: [bool; 2] = [false, true];
/// The tree keeps the highest bit for itself.
pub const SEQUENCE_MAX: u64 = (1 << (63 - VERSION_BITS)) - 2;

#[derive(Debug, Clone)]
pub struct LsmSettings {
    /// Blocks of tables kept in memory. Indexes and filters of the upper levels come on top.
    pub cache_bytes: u64,
    /// `maintain` writes rows out once so many bytes of them are in memory.
    pub memtable_bytes: u64,
    pub table_bytes: u64,
}

impl Default for LsmSettings {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            memtable_bytes: 24 << 20,
            table_bytes: 16 << 20,
        }
    }
}

pub struct LsmEngine {
    directory: PathBuf,
    tree: AnyTree,
    versions: SequenceNumberCounter,
    strategy: Arc<Leveled>,
    memtable_bytes: u64,
    applied: AtomicU64,
    oldest: AtomicU64,
    writer: Mutex<()>,
    maintenance: Mutex<Flushed>,
}

/// What only the maintenance thread touches. `sequence`: the tables hold every transaction up to here.
struct Flushed {
    sequence: u64,
}

/// The files that make up the tree at one moment; they stay as they are while this lives.
pub(super) struct Files<'a> {
    pub sequence: u64,
    /// Relative to `directory`.
    pub tables: Vec<String>,
    pub small: Vec<String>,
    pub directory: &'a Path,
    _maintenance: MutexGuard<'a, Flushed>,
}

impl LsmEngine {
    /// Open the tree whose files are in `directory` (created if there are none); they hold every transaction up to `sequence`. `checkpoint` is the way in.
    pub(super) fn open(directory: &Path, sequence: u64, settings: &LsmSettings) -> Result<Self> {
        let versions = SequenceNumberCounter::new(number(sequence) + 1);
        let tree = Config::new(directory, versions.clone(), SequenceNumberCounter::default())
            .use_cache(Arc::new(Cache::with_capacity_bytes(settings.cache_bytes)))
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
            // Whole, those of a table of millions of small rows or deletions are megabytes, too long for the cache: every look would read them anew.
            .filter_block_partitioning_policy(PartitioningPolicy::new(WHOLE_IN_FIRST_LEVEL))
            .index_block_partitioning_policy(PartitioningPolicy::new(WHOLE_IN_FIRST_LEVEL))
            .open()
            .map_err(error)?;
        let persisted = tree.get_highest_persisted_seqno().unwrap_or(0) >> VERSION_BITS;
        if persisted > sequence {
            return Err(Error::Damaged(format!(
                "the metadata tables reach transaction {persisted}, their manifest says {sequence}"
            )));
        }
        Ok(Self {
            directory: directory.to_path_buf(),
            tree,
            versions,
            strategy: Arc::new(Leveled::default().with_table_target_size(settings.table_bytes)),
            memtable_bytes: settings.memtable_bytes,
            applied: AtomicU64::new(sequence),
            oldest: AtomicU64::new(sequence),
            writer: Mutex::new(()),
            maintenance: Mutex::new(Flushed { sequence }),
        })
    }

    /// One step of background work: write a full memtable out, then one compaction. True if there may be more to do.
    pub fn maintain(&self) -> Result<bool> {
        let mut flushed = self.maintenance();
        if self.memtable_bytes() >= self.memtable_bytes {
            self.flush_all(&mut flushed)?;
        }
        self.compact()
    }

    /// Write everything applied so far out to tables.
    pub fn flush(&self) -> Result<()> {
        self.flush_all(&mut self.maintenance())
    }

    /// Does background work lag so far that the writer must be slowed? Memory is bounded only if the caller heeds it.
    pub fn is_behind(&self) -> bool {
        self.memtable_bytes() >= MEMTABLES_BEHIND * self.memtable_bytes || self.tree.l0_run_count() >= RUNS_BEHIND
    }

    /// Rows in memory that are not in tables yet.
    pub fn memtable_bytes(&self) -> u64 {
        self.tree.active_memtable().size()
    }

    /// All rows in memory, with those that only older readers keep there: every memtable since the oldest snapshot. Hold snapshots for seconds, not minutes.
    pub fn retained_bytes(&self) -> u64 {
        self.tree.version_memtable_size_sum()
    }

    /// Bytes of table files.
    pub fn table_bytes(&self) -> u64 {
        self.tree.disk_space()
    }

    /// Flush, then hold the files still.
    pub(super) fn files(&self) -> Result<Files<'_>> {
        let mut flushed = self.maintenance();
        self.flush_all(&mut flushed)?;
        let version = self.tree.current_version();
        let tables = version.iter_tables().map(|table| format!("tables/{}", table.id())).collect();
        let small = vec![format!("v{}", version.id()), "current".to_string()];
        Ok(Files {
            sequence: flushed.sequence,
            tables,
            small,
            directory: &self.directory,
            _maintenance: flushed,
        })
    }

    fn maintenance(&self) -> MutexGuard<'_, Flushed> {
        self.maintenance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn flush_all(&self, flushed: &mut Flushed) -> Result<()> {
        let sequence = {
            let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            self.tree.rotate_memtable();
            self.applied()
        };
        self.tree.flush(&self.tree.get_flush_lock(), self.watermark()).map_err(error)?;
        flushed.sequence = sequence;
        Ok(())
    }

    fn compact(&self) -> Result<bool> {
        if self.versions.get() % VERSIONS_MAX >= VERSIONS_MAX - VERSIONS_RESERVED {
            return Ok(false);
        }
        let before = self.tree.current_version().id();
        self.tree.compact(self.strategy.clone(), self.watermark()).map_err(error)?;
        Ok(self.tree.current_version().id() != before)
    }

    /// The lowest number that a reader may still use: versions of the tree that only lower ones see are let go.
    fn watermark(&self) -> u64 {
        number(self.oldest.load(Ordering::Acquire) + 1)
    }

    fn read_number(&self, at: u64) -> Result<u64> {
        let oldest = self.oldest.load(Ordering::Acquire);
        if at < oldest {
            return Err(Error::Invalid(format!("sequence {at} was forgotten, the oldest is {oldest}")));
        }
        Ok(number(at.min(SEQUENCE_MAX) + 1))
    }
}

/// The stamp of a transaction's rows.
fn number(sequence: u64) -> u64 {
    sequence << VERSION_BITS
}

fn error(error: lsm_tree::Error) -> Error {
    match error {
        lsm_tree::Error::Io(error) => state_error(error),
        other => Error::Damaged(format!(
            "metadata state directory: {other:?}; restart to restore it from the checkpoint"
        )),
    }
}

impl Engine for LsmEngine {
    fn apply(&self, sequence: u64, mutations: &[Mutation]) -> Result<()> {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if sequence <= self.applied() || sequence > SEQUENCE_MAX {
            return Err(Error::Invalid(format!("sequence {sequence} is not above {}", self.applied())));
        }
        for mutation in mutations {
            match mutation {
                Mutation::Put { key, value } => self.tree.insert(key.as_slice(), value.as_slice(), number(sequence)),
                Mutation::Delete { key } => self.tree.remove(key.as_slice(), number(sequence)),
            };
        }
        self.versions.fetch_max(number(sequence) + 1);
        self.applied.store(sequence, Ordering::Release);
        Ok(())
    }

    fn get(&self, key: &[u8], at: u64) -> Result<Option<Vec<u8>>> {
        let value = self.tree.get(key, self.read_number(at)?).map_err(error)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn range(&self, from: &[u8], to: &[u8], reverse: bool, at: u64) -> RangeIter<'_> {
        if from >= to {
            return Box::new(std::iter::empty());
        }
        let number = match self.read_number(at) {
            Ok(number) => number,
            Err(error) => return Box::new(std::iter::once(Err(error))),
        };
        let row = |item: lsm_tree::IterGuardImpl| {
            let (key, value) = item.into_inner().map_err(error)?;
            Ok((key.to_vec(), value.to_vec()))
        };
        let rows = self.tree.range(from..to, number, None);
        if reverse {
            Box::new(rows.rev().map(row))
        } else {
            Box::new(rows.map(row))
        }
    }

    fn forget(&self, oldest: u64) {
        self.oldest.fetch_max(oldest.min(self.applied()), Ordering::AcqRel);
    }

    fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }
}
