//! How fast content lands: time in `Staging::write` and in `finish` (the flush), per 64 MiB, on directories given as arguments.
//!
//!     cargo run --release --example landing_speed -- STATE DIRECTORY...

use std::path::PathBuf;
use std::time::{Duration, Instant};
use trefoil_core::store::{Attributes, OpenOptions, Store, Terms, digest, wait};

const OBJECT_BYTES: usize = 64 << 20;
const OBJECTS: usize = 16;

fn main() -> trefoil_core::error::Result<()> {
    let mut paths = std::env::args().skip(1).map(PathBuf::from);
    let state = paths.next().expect("usage: landing_speed STATE DIRECTORY...");
    let devices: Vec<PathBuf> = paths.collect();
    let store = Store::open(&devices, &state, OpenOptions::default())?;
    let _exists = wait(|done| store.create_view("v", Attributes::default(), done));
    let noise: Vec<u8> = (0..OBJECT_BYTES as u64 / 8)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29).to_le_bytes())
        .collect();
    let digests = digest::digests(&["md5"], &noise[..1])?;
    let (mut writing, mut finishing, mut total) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..OBJECTS {
        let start = Instant::now();
        let mut staging = store.stage();
        for piece in noise.chunks(1 << 20) {
            staging.write(piece)?;
        }
        let written = start.elapsed();
        let staged = staging.finish()?;
        finishing.push(start.elapsed() - written);
        writing.push(written);
        let key = format!("{}", index % 4).into_bytes();
        wait(|done| store.publish("v", &key, staged, Attributes::default(), digests.clone(), Terms::default(), done))?;
        total.push(start.elapsed());
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    println!(
        "write {:?}, flush {:?}, total {:?}",
        median(&mut writing),
        median(&mut finishing),
        median(&mut total)
    );
    store.close()
}
