//! Prints GB/s of payload through the erasure code and through segments over devices in memory, on the calling thread.
//!
//! `cargo run --release --example erasure_speed`

use std::collections::HashSet;
use std::hint::black_box;
use std::io;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};
use trefoil_core::codec::checksum;
use trefoil_core::segment::{Class, Code, Drives, Location, Payload, Segments, WriteJob, ZoneGeometry};

const MIB: usize = 1 << 20;
const MEASURE: Duration = Duration::from_millis(700);
const GEOMETRY: ZoneGeometry = ZoneGeometry {
    first_zone_offset: 0,
    zone_bytes: 40 * MIB as u64,
    zone_count: 4,
};

struct Memory {
    devices: Vec<RwLock<Vec<u8>>>,
    dead: Mutex<HashSet<u16>>,
}

impl Drives for Memory {
    fn live(&self) -> Vec<u16> {
        let dead = self.dead.lock().unwrap();
        (0..self.devices.len() as u16).filter(|device| !dead.contains(device)).collect()
    }

    fn read(&self, device: u16, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.dead.lock().unwrap().contains(&device) {
            return Err(io::Error::other("dead"));
        }
        buffer.copy_from_slice(&self.devices[usize::from(device)].read().unwrap()[offset as usize..][..buffer.len()]);
        Ok(())
    }

    fn write_all(&self, jobs: Vec<WriteJob>, _flush: bool) -> Vec<(u16, io::Result<()>)> {
        let write = |job: WriteJob| {
            self.devices[usize::from(job.device)].write().unwrap()[job.offset as usize..][..job.bytes.len()].copy_from_slice(&job.bytes);
            (job.device, Ok(()))
        };
        jobs.into_iter().map(write).collect()
    }

    fn flush_all(&self, devices: &[u16]) -> Vec<(u16, io::Result<()>)> {
        devices.iter().map(|device| (*device, Ok(()))).collect()
    }

    fn discard(&self, _: u16, _: u64, _: u64) {}
}

/// Best of many runs, so that neighbours on the machine count little.
fn report(what: &str, code: Code, bytes: usize, mut run: impl FnMut()) {
    let (start, mut best) = (Instant::now(), f64::MAX);
    while start.elapsed() < MEASURE {
        let begun = Instant::now();
        run();
        best = best.min(begun.elapsed().as_secs_f64());
    }
    println!("{}+{} {what}: {:.2} GB/s", code.k(), code.m(), bytes as f64 / best / 1e9);
}

fn encode(code: Code) {
    let shards: Vec<Vec<u8>> = (0..code.shards())
        .map(|i| (0..MIB).map(|p| (((i + 3) * p) >> 3) as u8).collect())
        .collect();
    let data: Vec<&[u8]> = shards[..code.k()].iter().map(Vec::as_slice).collect();
    let mut parity = vec![vec![0; MIB]; code.m()];
    report("encode, 1 MiB shards", code, code.k() * MIB, || {
        let mut outputs: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        code.encode(&data, &mut outputs);
    });
    let present: Vec<(usize, &[u8])> = (1..code.shards()).take(code.k()).map(|i| (i, shards[i].as_slice())).collect();
    let mut lost = vec![0; MIB];
    report("rebuild of one 1 MiB shard", code, MIB, || code.rebuild(&present, 0, &mut lost));
}

fn segments(code: Code) {
    let device = |_| RwLock::new(vec![1; GEOMETRY.offset(GEOMETRY.zone_count, 0) as usize]);
    let memory = Arc::new(Memory {
        devices: (0..code.shards()).map(device).collect(),
        dead: Mutex::default(),
    });
    let store = Segments::open(memory.clone(), GEOMETRY, code, Vec::new(), 1, Arc::new(|_| Ok(()))).unwrap();
    let payload = vec![0x5a; MIB];
    let row = vec![
        Payload {
            kind: 0,
            owner: 1,
            bytes: &payload
        };
        code.k()
    ];
    let first: Vec<Location> = store.append(Class::Landing, &row).unwrap();
    report("append, rows of 1 MiB payloads", code, code.k() * MIB, || {
        let locations = store.append(Class::Reduced, &row).unwrap();
        if u64::from(locations[0].offset) + 2 * MIB as u64 > GEOMETRY.zone_bytes {
            let token = store.release(locations[0].segment).unwrap();
            store.reclaim(token);
        }
    });
    let sum = checksum(&payload);
    report("healthy read of 1 MiB", code, MIB, || {
        black_box(store.read(&first[0], 0..MIB as u32, sum).unwrap());
    });
    let home = store.layouts()[0].zones[0].0;
    memory.dead.lock().unwrap().insert(home);
    report("degraded read of 1 MiB", code, MIB, || {
        black_box(store.read(&first[0], 0..MIB as u32, sum).unwrap());
    });
}

fn main() {
    for (k, m) in [(4, 2), (8, 2)] {
        let code = Code::new(k, m).expect("a legal code");
        encode(code);
        segments(code);
    }
}
