//! Tables on devices that fail meanwhile, and the whole way from an engine through a root to an engine.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::device::fault::FaultScript;
use crate::device::memory::MemoryDevice;
use crate::journal::Start;
use crate::meta::checkpoint::{export, restore};
use crate::meta::lsm::{LsmEngine, LsmSettings};
use crate::meta::{Engine, Mutation};
use crate::pool::{Code, Pool};
use crate::segment::{self, SegmentLayout, ZoneGeometry};
use crate::store::drives::PoolDrives;
use crate::store::root::tests::{format, memory, open};
use crate::store::root::{self, Root};

const TWO_AND_ONE: Code = Code { k: 2, m: 1 };

fn segments(pool: &Pool, layouts: Vec<SegmentLayout>) -> Segments {
    let geometry = ZoneGeometry {
        first_zone_offset: pool.geometry.zones_offset(),
        zone_bytes: pool.geometry.zone_bytes,
        zone_count: pool.geometry.zone_count as u32,
    };
    let code = segment::Code::new(pool.code.k, pool.code.m).unwrap();
    let drives = Arc::new(PoolDrives::new(pool.devices.clone()));
    Segments::open(drives, geometry, code, layouts, 1, Arc::new(|_| Ok(()))).unwrap()
}

fn sink(segments: &Segments) -> SegmentSink<'_, impl Fn(u64) -> Result<()>> {
    SegmentSink {
        segments,
        wait_durable: |_| Ok(()),
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut random = crate::device::random::Seeded::new(length as u64);
    (0..length).map(|_| random.next_u64() as u8).collect()
}

fn table(bytes: &[u8], pieces: Vec<u8>) -> Table {
    Table {
        name: "tables/7".into(),
        length: bytes.len() as u64,
        checksum: checksum(bytes),
        pieces,
    }
}

fn write(segments: &Segments, bytes: &[u8]) -> Result<Vec<u8>> {
    sink(segments).write_table("tables/7", bytes.len() as u64, &mut &bytes[..])
}

fn read(segments: &Segments, table: &Table) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    SegmentSource { segments }.read_table(table, &mut out).map(|()| out)
}

#[test]
fn tables_of_every_size_come_back() {
    let pool = format(&memory(3), TWO_AND_ONE);
    let segments = segments(&pool, Vec::new());
    for length in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, BATCH_PIECES * PIECE_BYTES + 5] {
        let bytes = noise(length);
        let pieces = write(&segments, &bytes).unwrap();
        assert_eq!(decode_pieces(&pieces).unwrap().len(), length.div_ceil(PIECE_BYTES));
        assert!(read(&segments, &table(&bytes, pieces)).unwrap() == bytes, "{length} bytes");
    }
}

#[test]
fn full_pieces_fill_zones_without_a_rest() {
    let pool = format(&memory(2), Code { k: 1, m: 1 });
    let segments = segments(&pool, Vec::new());
    let per_zone = pool.geometry.zone_bytes as usize / PAYLOAD_BYTES_MAX;
    let pieces = write(&segments, &noise(4 * per_zone * PIECE_BYTES)).unwrap();
    assert_eq!(segments.layouts().len(), 4);
    let manifest = Manifest {
        tables: vec![table(&[], pieces)],
        ..Manifest::default()
    };
    let live = segments_of(&manifest).unwrap();
    assert!(live.len() == 4 && live.values().all(|bytes| *bytes == pool.geometry.zone_bytes));
}

#[test]
fn a_table_is_durable_when_it_was_written_whatever_fails_meanwhile() {
    for script in ["write 1 fail", "write 2 tear", "flush 1 fail", "flush 2 fail", "flush 1 lose"] {
        for victim in 0..3 {
            let devices = memory(4);
            let pool = format(&devices, TWO_AND_ONE);
            let segments = segments(&pool, Vec::new());
            let bytes = noise(5 * PIECE_BYTES / 2);
            devices[victim].set_script(FaultScript::parse(script).unwrap());
            let pieces = write(&segments, &bytes).unwrap();
            for (seed, device) in devices.iter().enumerate().filter(|(index, _)| pool.devices.is_live(*index as u16)) {
                device.crash(seed as u64 + victim as u64);
            }
            assert!(read(&segments, &table(&bytes, pieces)).unwrap() == bytes, "{script} on {victim}");
        }
    }
}

#[test]
fn devices_that_keep_failing_end_the_attempts() {
    let devices = memory(3);
    let pool = format(&devices, TWO_AND_ONE);
    let segments = segments(&pool, Vec::new());
    devices
        .iter()
        .for_each(|device| device.set_script(FaultScript::parse("flush * fail").unwrap()));
    assert!(matches!(write(&segments, b"table"), Err(Error::Closed(_) | Error::Io(_))));
}

#[test]
fn a_table_that_ends_early_or_is_too_long_is_an_error() {
    let pool = format(&memory(2), Code { k: 1, m: 1 });
    let segments = segments(&pool, Vec::new());
    let short = sink(&segments).write_table("tables/7", 100, &mut &[0; 99][..]);
    assert!(short.unwrap_err().to_string().contains("metadata state directory"));
    let long = sink(&segments).write_table("tables/7", u64::MAX, &mut std::io::repeat(0));
    assert!(matches!(long, Err(Error::Limit(_))));
    let most = encode_pieces(&vec![
        Piece {
            location: Location::default(),
            checksum: 0
        };
        PIECES_MAX
    ]);
    assert!(most.len() <= PIECES_BYTES_MAX && decode_pieces(&most).unwrap().len() == PIECES_MAX);
}

#[test]
fn wrong_places_are_damage() {
    let pool = format(&memory(2), Code { k: 1, m: 1 });
    let segments = segments(&pool, Vec::new());
    let bytes = noise(1000);
    let good = table(&bytes, write(&segments, &bytes).unwrap());
    let wrong = |change: &dyn Fn(&mut Piece)| {
        let mut pieces = decode_pieces(&good.pieces).unwrap();
        change(&mut pieces[0]);
        let wrong = Table {
            pieces: encode_pieces(&pieces),
            ..good.clone()
        };
        assert!(matches!(read(&segments, &wrong), Err(Error::Damaged(_))));
    };
    wrong(&|piece| piece.checksum ^= 1);
    wrong(&|piece| piece.location.segment += 1);
    wrong(&|piece| piece.location.offset += 8);
    wrong(&|piece| piece.location.length -= 1);
    wrong(&|piece| piece.location.length = PAYLOAD_BYTES_MAX as u32 + 1);
}

fn engine(directory: &Path, root: &Manifest, source: &dyn TableSource) -> LsmEngine {
    let settings = LsmSettings {
        table_bytes: 1 << 20,
        ..LsmSettings::default()
    };
    restore(directory, root, source, &settings).unwrap()
}

fn fill(engine: &LsmEngine, sequences: std::ops::RangeInclusive<u64>) {
    for sequence in sequences {
        let put = |number: u64| Mutation::Put {
            key: format!("{number:06}").into_bytes(),
            value: noise(2000 + sequence as usize),
        };
        engine
            .apply(sequence, &(sequence * 50..sequence * 50 + 100).map(put).collect::<Vec<_>>())
            .unwrap();
    }
}

fn rows(engine: &LsmEngine) -> Vec<(Vec<u8>, Vec<u8>)> {
    engine.range(b"", b"\xff", false, u64::MAX).map(|row| row.unwrap()).collect()
}

fn root_of(pool: &Pool, generation: u64, manifest: Manifest, layouts: Vec<SegmentLayout>) -> Root {
    let used = segments_of(&manifest).unwrap();
    Root {
        pool: pool.uuid,
        generation,
        membership_epoch: pool.membership_epoch(),
        start: Start::default(),
        keep_from: 0,
        segment_id_next: layouts.iter().map(|layout| layout.id + 1).max().unwrap_or(1),
        manifest,
        tables: layouts.into_iter().filter(|layout| used.contains_key(&layout.id)).collect(),
    }
}

/// What a start does with an empty state directory.
fn restored(devices: &[Arc<MemoryDevice>]) -> (Root, Vec<(Vec<u8>, Vec<u8>)>) {
    let pool = open(devices).unwrap();
    let root = root::read_newest(&pool).unwrap().unwrap();
    let segments = segments(&pool, root.tables.clone());
    let directory = tempfile::tempdir().unwrap();
    let rows = rows(&engine(directory.path(), &root.manifest, &SegmentSource { segments: &segments }));
    (root, rows)
}

#[test]
fn an_engine_goes_through_a_root_to_an_empty_directory() {
    let devices = memory(3);
    let pool = format(&devices, TWO_AND_ONE);
    let segments = segments(&pool, Vec::new());
    let directory = tempfile::tempdir().unwrap();
    let engine = engine(directory.path(), &Manifest::default(), &SegmentSource { segments: &segments });
    let waited = AtomicU64::new(0);
    let sink = SegmentSink {
        segments: &segments,
        wait_durable: |sequence| {
            waited.store(sequence, Ordering::SeqCst);
            Ok(())
        },
    };
    let mut manifest = Manifest::default();
    for generation in 1..=4 {
        fill(&engine, generation * 10 - 9..=generation * 10);
        if generation == 3 {
            while engine.maintain().unwrap() {}
            devices[0].lose();
        }
        manifest = export(&engine, &manifest, &sink).unwrap();
        assert_eq!(waited.load(Ordering::SeqCst), generation * 10);
        let root = root_of(&pool, generation, manifest.clone(), segments.layouts());
        root::write(&pool, &root).unwrap();
        let used = segments_of(&manifest).unwrap();
        for layout in segments.layouts().iter().filter(|layout| !used.contains_key(&layout.id)) {
            segments.reclaim(segments.release(layout.id).unwrap());
        }
        devices.iter().for_each(|device| device.crash(generation));
        let copies: Vec<_> = devices.iter().map(|device| Arc::new(device.duplicate("copy"))).collect();
        let (found, rows_found) = restored(&copies[if generation < 3 { 0 } else { 1 }..]);
        assert_eq!(found, root);
        assert!(rows_found == rows(&engine), "generation {generation}");
    }
}

proptest! {
    #[test]
    fn arbitrary_pieces_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0u8..6) {
        let _any = decode_pieces(&bytes);
        if let Ok(pieces) = decode_pieces(&[&[count][..], &bytes].concat()) {
            prop_assert_eq!(decode_pieces(&encode_pieces(&pieces)).unwrap(), pieces);
        }
    }
}
