//! Measures a metadata engine through `MetaStore`: `metadata_speed lsm|model [ROWS]`. Rows have keys of 24 bytes in random order and values of 64 random bytes.
//!
//! Maintenance runs between transactions on the same thread, so that write rates include it. Bytes written are the kernel's count for this process.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use trefoil_core::error::{Error, Result};
use trefoil_core::meta::checkpoint::{Manifest, Table, TableSink, TableSource, export, restore};
use trefoil_core::meta::lsm::{LsmEngine, LsmSettings};
use trefoil_core::meta::model::ModelEngine;
use trefoil_core::meta::{Engine, KEY_END, MetaStore, Rows, monotonic_clock};

const GETS: u64 = 300_000;

/// Counts what a checkpoint would carry to the devices.
struct Nowhere;

impl TableSink for Nowhere {
    fn wait_durable(&self, _: u64) -> Result<()> {
        Ok(())
    }

    fn write_table(&self, _: &str, _: u64, bytes: &mut dyn Read) -> Result<Vec<u8>> {
        io::copy(bytes, &mut io::sink())?;
        Ok(Vec::new())
    }
}

impl TableSource for Nowhere {
    fn read_table(&self, table: &Table, _: &mut dyn io::Write) -> Result<()> {
        Err(Error::NotFound(table.name.clone()))
    }
}

/// splitmix64's finalizer: a bijection, so keys do not collide.
fn mix(index: u64) -> u64 {
    let x = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn key(index: u64) -> [u8; 24] {
    let mut key = [7; 24];
    key[..8].copy_from_slice(&mix(index).to_be_bytes());
    key
}

fn value(index: u64) -> Vec<u8> {
    (0..8).flat_map(|word| mix(index * 8 + word + 1).to_le_bytes()).collect()
}

fn kernel_count(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0)
}

struct Bench {
    store: MetaStore,
    lsm: Option<Arc<LsmEngine>>,
    next: u64,
}

impl Bench {
    fn write(&mut self, rows: u64, batch: u64) -> Result<()> {
        let (bytes, start, end) = (kernel_count("/proc/self/io", "write_bytes:"), Instant::now(), self.next + rows);
        while self.next < end {
            let batch = self.next..end.min(self.next + batch);
            self.next = batch.end;
            self.store
                .run(|txn| batch.into_iter().try_for_each(|index| txn.put(&key(index), &value(index))))?;
            if let Some(lsm) = self
                .lsm
                .as_ref()
                .filter(|lsm| lsm.memtable_bytes() >= LsmSettings::default().memtable_bytes)
            {
                while lsm.maintain()? {}
            }
        }
        let rate = rows as f64 / start.elapsed().as_secs_f64();
        let bytes = (kernel_count("/proc/self/io", "write_bytes:") - bytes) / rows;
        println!("put, {batch:>3} rows each    {rate:>10.0} rows/s  {bytes:>5} bytes written per row");
        Ok(())
    }

    fn read(&self) -> Result<()> {
        let (snapshot, start) = (self.store.snapshot(), Instant::now());
        for index in 0..GETS {
            assert!(snapshot.get(&key(mix(index) % self.next))?.is_some());
        }
        println!("get, one thread       {:>10.0} rows/s", GETS as f64 / start.elapsed().as_secs_f64());
        for reverse in [false, true] {
            let start = Instant::now();
            let count = snapshot
                .range(&[0], KEY_END, reverse)
                .try_fold(0u64, |count, row| row.map(|_| count + 1))?;
            let rate = count as f64 / start.elapsed().as_secs_f64();
            println!(
                "scan{}          {rate:>10.0} rows/s",
                if reverse { ", reverse" } else { "         " }
            );
        }
        Ok(())
    }
}

fn checkpoint(lsm: &LsmEngine) -> Result<Manifest> {
    let start = Instant::now();
    let manifest = export(lsm, &Manifest::default(), &Nowhere)?;
    let bytes: u64 = manifest.tables.iter().map(|table| table.length).sum();
    println!(
        "first checkpoint      {:>10.2} s, {} tables, {} MiB",
        start.elapsed().as_secs_f64(),
        manifest.tables.len(),
        bytes >> 20
    );
    Ok(manifest)
}

fn reopen(directory: &Path, manifest: &Manifest) -> Result<()> {
    let start = Instant::now();
    restore(directory, manifest, &Nowhere, &LsmSettings::default())?;
    println!("reopen, all verified  {:>10.2} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "lsm".into());
    let rows: u64 = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(2_000_000);
    let directory = tempfile::tempdir()?;
    let lsm = match name.as_str() {
        "lsm" => Some(Arc::new(restore(
            directory.path(),
            &Manifest::default(),
            &Nowhere,
            &LsmSettings::default(),
        )?)),
        "model" => None,
        _ => return Err(Error::Invalid("usage: metadata_speed lsm|model [ROWS]".into())),
    };
    let engine: Arc<dyn Engine> = match &lsm {
        Some(lsm) => lsm.clone(),
        None => Arc::new(ModelEngine::new()),
    };
    let mut bench = Bench {
        store: MetaStore::new(engine, monotonic_clock()),
        lsm,
        next: 0,
    };
    let before = kernel_count("/proc/self/status", "VmRSS:");
    println!("{name}, {rows} rows");
    bench.write(rows, 256)?;
    bench.read()?;
    bench.write(rows / 5, 16)?;
    bench.write(rows / 10, 1)?;
    println!(
        "memory                {:>10} MiB",
        (kernel_count("/proc/self/status", "VmRSS:") - before) >> 10
    );
    let manifest = bench.lsm.as_deref().map(checkpoint).transpose()?;
    drop(bench);
    manifest.map_or(Ok(()), |manifest| reopen(directory.path(), &manifest))
}
