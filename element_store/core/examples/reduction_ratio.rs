//! What reduction makes of directories of files: each directory in a pool of its own on a device below SCRATCH, or all in one pool with `--together`.
//!
//!     cargo run --release --example reduction_ratio -- SCRATCH MODE DIRECTORY... [--together] [--pages N] [--hooks BYTES]
//!
//! The ratio is that of logical bytes that are not zeros to what is stored, chunk rows included; parity is left out.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use trefoil_core::error::Result;
use trefoil_core::store::{Attributes, Mode, OpenOptions, Store, Terms, digest, wait};

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn ingest(store: &Store, root: &Path, digests: &trefoil_core::store::Digests) -> Result<u64> {
    let mut bytes = 0;
    for path in files(root) {
        let content = std::fs::read(&path).unwrap();
        bytes += content.len() as u64;
        let key = path.strip_prefix(root.parent().unwrap()).unwrap().to_string_lossy().into_owned();
        let mut staging = store.stage();
        content.chunks(1 << 20).try_for_each(|piece| staging.write(piece))?;
        let staged = staging.finish()?;
        wait(|done| {
            store.publish(
                "v",
                key.as_bytes(),
                staged,
                Attributes::default(),
                digests.clone(),
                Terms::default(),
                done,
            )
        })?;
    }
    Ok(bytes)
}

fn report(name: &str, bytes: u64, store: &Store, reducing: Duration) -> Result<()> {
    let found = store.accounting()?;
    let plain = (found.logical_bytes - found.zero_bytes) as f64;
    let stored = (found.stored_bytes + found.held_bytes) as f64;
    println!(
        "{name:12} {:8.1} MB  payload {:6.3}  with rows {:6.3}  chunks {} deltas {} raw {}  reduced in {:.1} s",
        bytes as f64 / 1e6,
        plain / stored,
        plain / (stored + found.row_bytes as f64),
        found.chunks,
        found.deltas,
        found.raw_chunks,
        reducing.as_secs_f64()
    );
    for (name, value) in store.metrics().iter().filter(|(name, _)| name.starts_with("reduction_")) {
        println!("    {name} {value}");
    }
    Ok(())
}

fn wait_reduced(store: &Store) -> Result<Duration> {
    let started = Instant::now();
    while store.accounting()?.landed_bytes > 0 {
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(started.elapsed())
}

fn main() -> Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let together = arguments
        .iter()
        .position(|argument| argument == "--together")
        .map(|at| arguments.remove(at));
    let mut number = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.remove(at);
        arguments.remove(at).parse::<usize>().ok()
    };
    let (pages, hooks) = (number("--pages"), number("--hooks"));
    let scratch = PathBuf::from(&arguments[0]);
    let digests = digest::digests(&["md5"], b"")?;
    let mut shared: Option<std::sync::Arc<Store>> = None;
    let mut bytes = 0;
    for (index, directory) in arguments[2..].iter().map(PathBuf::from).enumerate() {
        let place = scratch.join(format!("pool{index}"));
        let store = match &shared {
            Some(store) => store.clone(),
            None => {
                std::fs::create_dir_all(place.join("device")).unwrap();
                let mut options = OpenOptions::default();
                options.reduction.mode = Mode::from_name(&arguments[1]).expect("off, fast, balanced or deep");
                options.reduction.pages_cached = pages.unwrap_or(options.reduction.pages_cached);
                options.reduction.hook_bytes_max = hooks.unwrap_or(options.reduction.hook_bytes_max);
                let store = Store::open(&[place.join("device")], &place.join("state"), options)?;
                wait(|done| store.create_view("v", Attributes::default(), done))?;
                store
            }
        };
        let name = directory.file_name().unwrap().to_string_lossy().into_owned();
        bytes += ingest(&store, &directory, &digests)?;
        let reducing = wait_reduced(&store)?;
        report(&name, bytes, &store, reducing)?;
        if together.is_some() {
            shared = Some(store);
        } else {
            store.close()?;
            drop(store);
            std::fs::remove_dir_all(&place).unwrap();
            bytes = 0;
        }
    }
    Ok(())
}
