//! What 4 KiB of a chunk cost to read, by how the chunk is stored: processor time of the reading thread, median of many reads at random places.
//!
//!     cargo run --release --example reduction_reads -- SCRATCH DIRECTORY [READS]
//!
//! The files in DIRECTORY are put into a pool of one device below SCRATCH and reduced. Each class of chunks (full, delta of one reference, of two) is read
//! as often; the caches are the store's, so a reference is found in memory as often as it would be.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use trefoil_core::error::Result;
use trefoil_core::store::{Attributes, OpenOptions, Part, Store, Terms, digest, wait};

const READ_BYTES: u64 = 4096;

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn ingest(store: &Store, root: &Path) -> Result<Vec<String>> {
    let digests = digest::digests(&["md5"], b"")?;
    let mut keys = Vec::new();
    for path in files(root) {
        let key = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let mut staging = store.stage();
        std::fs::read(&path)
            .unwrap()
            .chunks(1 << 20)
            .try_for_each(|piece| staging.write(piece))?;
        let staged = staging.finish()?;
        let (attributes, digests) = (Attributes::default(), digests.clone());
        wait(|done| store.publish("v", key.as_bytes(), staged, attributes, digests, Terms::default(), done))?;
        keys.push(key);
    }
    while store.accounting()?.landed_bytes > 0 {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(keys)
}

/// Processor time of this thread.
fn thread_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn class(part: &Part) -> Option<&'static str> {
    match (part.kind, part.bases.len()) {
        ("zstd", _) => Some("full"),
        ("delta", 1) => Some("delta of one"),
        ("delta", 2) => Some("delta of two"),
        _ => None,
    }
}

fn median(mut values: Vec<u64>) -> (f64, f64) {
    values.sort_unstable();
    let at = |share: usize| values.get(values.len() * share / 100).copied().unwrap_or(0) as f64 / 1000.0;
    (at(50), at(99))
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (scratch, root) = (PathBuf::from(&arguments[0]), PathBuf::from(&arguments[1]));
    let reads = arguments.get(2).and_then(|reads| reads.parse().ok()).unwrap_or(3000);
    std::fs::create_dir_all(scratch.join("device")).unwrap();
    let store = Store::open(&[scratch.join("device")], &scratch.join("state"), OpenOptions::default())?;
    wait(|done| store.create_view("v", Attributes::default(), done))?;
    let keys = ingest(&store, &root)?;
    let mut places: HashMap<&str, Vec<(usize, u64)>> = HashMap::new();
    for (index, key) in keys.iter().enumerate() {
        for part in store.why("v", key.as_bytes())? {
            if let Some(class) = class(&part).filter(|_| u64::from(part.length) >= READ_BYTES) {
                places.entry(class).or_default().push((index, part.offset));
            }
        }
    }
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut below = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % bound as u64) as usize
    };
    let mut classes: Vec<_> = places.iter().collect();
    classes.sort();
    let hits = |name: &str| {
        let metrics = store.metrics();
        metrics.iter().find(|(found, _)| found == name).map_or(0.0, |(_, value)| *value)
    };
    for (class, places) in classes {
        let (before, base_before) = (hits("chunk_cache_hits_total"), hits("base_cache_hits_total"));
        let mut spent = Vec::with_capacity(reads);
        for _ in 0..reads {
            let (key, offset) = places[below(places.len())];
            let content = store.open_content("v", keys[key].as_bytes(), None)?;
            let begun = thread_ns();
            content.read(offset, (offset + READ_BYTES).min(content.element.row.size))?;
            spent.push(thread_ns() - begun);
        }
        let (half, most) = median(spent);
        println!(
            "{class:14} {:7} chunks  median {half:6.1} us  p99 {most:6.1} us  chunk cache hits {:.0} %  reference cache hits {:.0}",
            places.len(),
            (hits("chunk_cache_hits_total") - before) * 100.0 / reads as f64,
            hits("base_cache_hits_total") - base_before,
        );
    }
    store.close()?;
    std::fs::remove_dir_all(&scratch).unwrap();
    Ok(())
}
