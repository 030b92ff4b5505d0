//! What the metadata tests share: a pool's place for tables, in memory, and engines on scratch directories.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use trefoil_core::error::{Error, Result};
use trefoil_core::meta::checkpoint::{Manifest, Table, TableSink, TableSource, restore};
use trefoil_core::meta::hot::{HotEngine, HotLimits};
use trefoil_core::meta::lsm::{LsmEngine, LsmSettings};
use trefoil_core::meta::{Clock, Engine, KEY_END, MetaStore, Row, Rows};

/// Small enough that a few hundred rows make several levels.
pub const SETTINGS: LsmSettings = LsmSettings {
    cache_bytes: 64 << 10,
    memtable_bytes: 4 << 10,
    table_bytes: 2 << 10,
};

/// Stands for the pool's devices and the journal.
#[derive(Default)]
pub struct Pool {
    tables: Mutex<HashMap<u64, Vec<u8>>>,
    pub written: AtomicU64,
    pub fetched: AtomicU64,
    pub durable: AtomicU64,
}

impl TableSink for Pool {
    fn wait_durable(&self, sequence: u64) -> Result<()> {
        self.durable.fetch_max(sequence, Ordering::Relaxed);
        Ok(())
    }

    fn write_table(&self, _: &str, _: u64, bytes: &mut dyn Read) -> Result<Vec<u8>> {
        let mut table = Vec::new();
        bytes.read_to_end(&mut table)?;
        let id = self.written.fetch_add(1, Ordering::Relaxed);
        self.tables.lock().unwrap().insert(id, table);
        Ok(id.to_le_bytes().to_vec())
    }
}

impl TableSource for Pool {
    fn read_table(&self, table: &Table, out: &mut dyn Write) -> Result<()> {
        self.fetched.fetch_add(1, Ordering::Relaxed);
        let id = u64::from_le_bytes(table.pieces.as_slice().try_into().unwrap());
        let tables = self.tables.lock().unwrap();
        out.write_all(tables.get(&id).ok_or_else(|| Error::NotFound(table.name.clone()))?)?;
        Ok(())
    }
}

impl Pool {
    /// Flip a bit of every stored table.
    #[allow(dead_code)]
    pub fn rot(&self) {
        for table in self.tables.lock().unwrap().values_mut() {
            let middle = table.len() / 2;
            table[middle] ^= 1;
        }
    }
}

pub fn open(directory: &TempDir, manifest: &Manifest, pool: &Pool) -> Arc<LsmEngine> {
    Arc::new(restore(directory.path(), manifest, pool, &SETTINGS).unwrap())
}

/// Before another engine: windows of keys that share `PREFIX` bytes, which come and go all the time.
pub fn hot<const PREFIX: usize>(behind: Arc<dyn Engine>) -> Arc<dyn Engine> {
    const LIMITS: HotLimits = HotLimits {
        changes: 2,
        window_rows: 24,
        rows: 40,
    };
    Arc::new(HotEngine::new(behind, |key| key.get(..PREFIX), LIMITS))
}

pub fn still_clock() -> Clock {
    Arc::new(|| Duration::ZERO)
}

#[allow(dead_code)]
pub fn store(engine: Arc<dyn Engine>) -> MetaStore {
    MetaStore::new(engine, still_clock())
}

pub fn rows(reader: &dyn Rows) -> Vec<Row> {
    reader.get_range(&[0], KEY_END, usize::MAX, false).unwrap()
}
