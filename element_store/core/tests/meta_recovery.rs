//! The embedded engine against the model, through flushes, compactions, checkpoints, crashes and a state directory that anything may have happened to.

mod meta;

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use tempfile::TempDir;
use trefoil_core::codec::Reader;
use trefoil_core::error::{Error, Result};
use trefoil_core::meta::checkpoint::{Manifest, SmallFile, Table, export, folder, restore};
use trefoil_core::meta::lsm::LsmEngine;
use trefoil_core::meta::model::ModelEngine;
use trefoil_core::meta::*;

use meta::{Pool, SETTINGS, open, rows, store};

#[derive(Debug, Clone)]
enum Write1 {
    Put(u8, u8),
    Delete(u8),
    Add(u8, i8),
    DeleteRange(u8, u8),
}

#[derive(Debug, Clone)]
enum Damage {
    Flip(u16, u16),
    Cut(u16, u16),
    Remove(u16),
    Garbage(u8),
    MakeDirectory(u16),
    Swap(u16, u16),
    Everything,
}

#[derive(Debug, Clone)]
enum Step {
    Transact(Vec<Write1>),
    Publish(u8),
    Snapshot,
    Drop(u8),
    Compare,
    Flush,
    Maintain,
    Export,
    /// Losing what was not published, perhaps with damage to the state directory.
    Crash(Vec<Damage>),
}

fn write() -> impl Strategy<Value = Write1> {
    prop_oneof![
        6 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Write1::Put(key, value)),
        2 => any::<u8>().prop_map(Write1::Delete),
        2 => (0u8..8, any::<i8>()).prop_map(|(key, delta)| Write1::Add(key, delta)),
        1 => (any::<u8>(), 0u8..40).prop_map(|(from, count)| Write1::DeleteRange(from, from.saturating_add(count))),
    ]
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => any::<(u16, u16)>().prop_map(|(file, at)| Damage::Flip(file, at)),
        2 => any::<(u16, u16)>().prop_map(|(file, at)| Damage::Cut(file, at)),
        2 => any::<u16>().prop_map(Damage::Remove),
        1 => any::<u8>().prop_map(Damage::Garbage),
        1 => any::<u16>().prop_map(Damage::MakeDirectory),
        1 => any::<(u16, u16)>().prop_map(|(a, b)| Damage::Swap(a, b)),
        1 => Just(Damage::Everything),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => prop::collection::vec(write(), 1..30).prop_map(Step::Transact),
        5 => any::<u8>().prop_map(Step::Publish),
        2 => Just(Step::Snapshot),
        2 => any::<u8>().prop_map(Step::Drop),
        3 => Just(Step::Compare),
        3 => Just(Step::Flush),
        6 => Just(Step::Maintain),
        2 => Just(Step::Export),
        2 => prop::collection::vec(damage(), 0..4).prop_map(Step::Crash),
    ]
}

/// In windows of 16.
fn key(number: u8) -> [u8; 3] {
    [b'r', number / 16, number]
}

fn perform(txn: &mut Txn, write: &Write1) -> Result<()> {
    match *write {
        // Several keys of several hundred bytes each, so that few writes fill memtables and tables.
        Write1::Put(number, value) => txn.put(&key(number), &[value, number].repeat(1 + usize::from(value))),
        Write1::Delete(number) => txn.delete(&key(number)),
        Write1::Add(key, delta) => txn.add(&[b'c', key], delta.into()),
        Write1::DeleteRange(from, to) => txn.delete_range(&key(from), &key(to)).map(drop),
    }
}

/// Both engines, the journal and the devices.
struct World {
    directory: TempDir,
    pool: Pool,
    root: Manifest,
    journal: Vec<Applied>,
    engine: Arc<LsmEngine>,
    /// Does a `HotEngine` stand before it?
    is_hot: bool,
    lsm: MetaStore,
    model: MetaStore,
    snapshots: Vec<(Snapshot, Snapshot)>,
}

fn front(engine: &Arc<LsmEngine>, is_hot: bool) -> Arc<dyn Engine> {
    if is_hot { meta::hot::<2>(engine.clone()) } else { engine.clone() }
}

impl World {
    fn new(is_hot: bool) -> Self {
        let (directory, pool, root) = (TempDir::new().unwrap(), Pool::default(), Manifest::default());
        let engine = open(&directory, &root, &pool);
        let (lsm, model) = (store(front(&engine, is_hot)), store(Arc::new(ModelEngine::new())));
        Self {
            directory,
            pool,
            root,
            journal: Vec::new(),
            engine,
            is_hot,
            lsm,
            model,
            snapshots: Vec::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Transact(writes) => self.transact(writes),
            Step::Publish(share) => {
                let (visible, applied) = (self.lsm.visible(), self.lsm.applied());
                self.publish(visible + (applied - visible) * u64::from(*share) / 255);
            }
            Step::Snapshot => self.snapshots.push((self.lsm.snapshot(), self.model.snapshot())),
            Step::Drop(index) if !self.snapshots.is_empty() => drop(self.snapshots.swap_remove(usize::from(*index) % self.snapshots.len())),
            Step::Drop(_) => {}
            Step::Compare => self.compare(),
            Step::Flush => self.engine.flush().unwrap(),
            Step::Maintain => drop(self.engine.maintain().unwrap()),
            Step::Export => self.export(),
            Step::Crash(damages) => self.crash(damages),
        }
    }

    fn transact(&mut self, writes: &[Write1]) {
        let (mut one, mut other) = (self.lsm.begin(), self.model.begin());
        for write in writes {
            let results = (perform(&mut one, write), perform(&mut other, write));
            assert_eq!(results.0.is_ok(), results.1.is_ok());
        }
        let middle = key(100);
        for reverse in [false, true] {
            assert_eq!(
                one.get_range(&middle, KEY_END, 20, reverse).unwrap(),
                other.get_range(&middle, KEY_END, 20, reverse).unwrap()
            );
        }
        let applied = self.lsm.apply(one).unwrap();
        assert_eq!(applied, self.model.apply(other).unwrap());
        if !applied.bytes.is_empty() {
            self.journal.push(applied);
        }
    }

    fn publish(&mut self, sequence: u64) {
        self.lsm.publish(sequence);
        self.model.publish(sequence);
    }

    fn compare(&self) {
        let newest = (self.lsm.snapshot(), self.model.snapshot());
        for (one, other) in self.snapshots.iter().chain([&newest]) {
            let expected = rows(other);
            assert_eq!(rows(one), expected);
            assert!(one.range(&[0], KEY_END, true).map(Result::unwrap).eq(expected.into_iter().rev()));
            for number in (0..=255).step_by(17) {
                let (from, to) = (key(number), key(number.saturating_add(40)));
                assert_eq!(one.get(&from).unwrap(), other.get(&from).unwrap());
                assert_eq!(
                    one.get_range(&from, &to, 5, false).unwrap(),
                    other.get_range(&from, &to, 5, false).unwrap()
                );
            }
        }
        assert_eq!(rows(&self.lsm.begin()), rows(&self.model.begin()));
    }

    fn export(&mut self) {
        let root = export(&self.engine, &self.root, &self.pool).unwrap();
        // The pool's `wait_durable` stands for the journal catching up.
        self.publish(root.sequence);
        self.root = Manifest::decode(&root.encode()).unwrap();
        assert_eq!(self.root, root);
    }

    fn folder(&self) -> PathBuf {
        let found = folder(self.directory.path()).unwrap();
        found.unwrap_or_else(|| self.directory.path().join("removed"))
    }

    fn crash(&mut self, damages: &[Damage]) {
        let durable = self.lsm.visible();
        self.journal.truncate(durable as usize);
        self.snapshots.clear();
        let nobody: Arc<dyn Engine> = Arc::new(ModelEngine::new());
        (self.lsm, self.model) = (store(nobody), store(Arc::new(ModelEngine::new())));
        damages.iter().for_each(|damage| inflict(&self.folder(), damage));
        // The old engine goes after the new one has come: what it still deletes then must not be the new one's.
        self.engine = open(&self.directory, &self.root, &self.pool);
        self.lsm = store(front(&self.engine, self.is_hot));
        assert_eq!(self.lsm.applied(), self.root.sequence);
        for entry in &self.journal {
            self.lsm.replay(entry.sequence, &mut Reader::new(&entry.bytes)).unwrap();
            self.model.replay(entry.sequence, &mut Reader::new(&entry.bytes)).unwrap();
        }
        assert_eq!(self.lsm.visible(), durable);
        self.compare();
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect();
    files.sort();
    files
}

fn inflict(folder: &Path, damage: &Damage) {
    let all = if folder.is_dir() { files(folder) } else { Vec::new() };
    let pick = |index: u16| all.get(usize::from(index) % all.len().max(1));
    match damage {
        Damage::Everything => fs::remove_dir_all(folder).unwrap_or(()),
        Damage::Garbage(kind) => {
            fs::create_dir_all(folder.join("tables/9")).unwrap_or(());
            let name = ["tables/x", "tables/77", "version", "v999", "current", "blobs/1", ".tmp1"][usize::from(*kind) % 7];
            fs::create_dir_all(folder.join("blobs")).unwrap_or(());
            // Earlier damage may have made a directory of it.
            fs::write(folder.join(name), b"garbage").unwrap_or(());
        }
        Damage::Flip(file, at) => drop(pick(*file).map(|path| flip(path, *at))),
        Damage::Cut(file, at) => drop(pick(*file).map(|path| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() * u64::from(*at) / 65_536).unwrap();
        })),
        Damage::Remove(file) => drop(pick(*file).map(|path| fs::remove_file(path).unwrap())),
        Damage::MakeDirectory(file) => drop(pick(*file).map(|path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        })),
        Damage::Swap(a, b) => drop(pick(*a).zip(pick(*b)).map(|(a, b)| fs::write(a, fs::read(b).unwrap()).unwrap())),
    }
}

fn flip(path: &Path, at: u16) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.len() * usize::from(at) / 65_536;
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << (at % 8);
        let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.seek(SeekFrom::Start(at as u64)).unwrap();
        file.write_all(&[bytes[at]]).unwrap();
    }
}

/// Few cases in the everyday run, since each syncs files; PROPTEST_CASES asks for more.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() {
        default.cases
    } else {
        96
    };
    ProptestConfig {
        cases,
        max_shrink_iters: 2_000,
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_tree_is_the_model(is_hot: bool, steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new(is_hot);
        steps.iter().for_each(|step| world.step(step));
        world.export();
        world.crash(&[]);
    }

    #[test]
    fn manifests_are_read_with_bounds(bytes in prop::collection::vec(any::<u8>(), 0..200), resealed: bool) {
        let mut bytes = bytes;
        if resealed {
            let sum = trefoil_core::codec::checksum(&bytes);
            bytes.extend(sum.to_le_bytes());
        }
        let _ = Manifest::decode(&bytes);
    }

    #[test]
    fn transactions_are_read_with_bounds(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(mutations) = decode_transaction(&mut Reader::new(&bytes)) {
            let encoded = encode_transaction(&mutations);
            prop_assert_eq!(decode_transaction(&mut Reader::new(&encoded)).unwrap(), mutations);
        }
    }
}

fn filled() -> World {
    let mut world = World::new(false);
    for round in 0..60u8 {
        let writes: Vec<_> = (0..20)
            .map(|i| Write1::Put(round.wrapping_mul(37).wrapping_add(i * 11), i))
            .collect();
        world.transact(&writes);
        world.publish(world.lsm.applied());
        world.step(&Step::Maintain);
    }
    world.export();
    world
}

#[test]
fn an_export_writes_only_what_changed() {
    let mut world = filled();
    let (written, tables) = (world.pool.written.load(Ordering::Relaxed), world.root.tables.len() as u64);
    assert!(tables > 2 && written >= tables);
    world.export();
    assert_eq!(
        world.pool.written.load(Ordering::Relaxed),
        written,
        "nothing changed, nothing is written"
    );
    world.transact(&[Write1::Put(1, 1)]);
    world.export();
    assert_eq!(world.pool.written.load(Ordering::Relaxed), written + 1);
}

#[test]
fn a_restore_fetches_only_what_is_missing() {
    let mut world = filled();
    world.crash(&[]);
    assert_eq!(world.pool.fetched.load(Ordering::Relaxed), 0);
    let table = world.folder().join(&world.root.tables[0].name);
    flip(&table, 20_000);
    world.crash(&[]);
    assert_eq!(world.pool.fetched.load(Ordering::Relaxed), 1);
    world.crash(&[Damage::Everything]);
    assert_eq!(world.pool.fetched.load(Ordering::Relaxed), 1 + world.root.tables.len() as u64);
}

#[test]
fn a_restore_leaves_the_neighbours_alone() {
    let mut world = filled();
    let neighbour = world.directory.path().join("notes.txt");
    fs::write(&neighbour, b"mine").unwrap();
    world.crash(&[Damage::Garbage(0)]);
    assert_eq!(fs::read(&neighbour).unwrap(), b"mine");
}

#[test]
fn rot_on_the_devices_is_refused() {
    let world = filled();
    world.pool.rot();
    let elsewhere = TempDir::new().unwrap();
    assert!(matches!(
        restore(elsewhere.path(), &world.root, &world.pool, &SETTINGS),
        Err(Error::Damaged(_))
    ));
}

#[test]
fn manifests_name_only_files_of_the_tree() {
    let table = |name: &str| Table {
        name: name.into(),
        length: 1,
        checksum: 2,
        pieces: vec![3],
    };
    let small = |name: &str| SmallFile {
        name: name.into(),
        bytes: vec![1],
    };
    let decode = |tables: Vec<Table>, small| {
        Manifest::decode(
            &Manifest {
                sequence: 1,
                tables,
                small,
            }
            .encode(),
        )
    };
    assert!(decode(vec![table("tables/1"), table("tables/2")], vec![small("current"), small("v1")]).is_ok());
    for name in [
        "tables/../../etc/passwd",
        "tables/",
        "/1",
        "1",
        "tables/1a",
        "tables/00000000000000000000000001",
    ] {
        assert!(matches!(decode(vec![table(name)], vec![]), Err(Error::Damaged(_))), "{name}");
    }
    for name in ["v", "vx", "../v1", "currents", "tables/1"] {
        assert!(matches!(decode(vec![], vec![small(name)]), Err(Error::Damaged(_))), "{name}");
    }
    assert!(matches!(
        decode(vec![table("tables/1"), table("tables/1")], vec![]),
        Err(Error::Damaged(_))
    ));
}

#[test]
fn a_failed_export_can_be_repeated() {
    struct Full;
    impl trefoil_core::meta::checkpoint::TableSink for Full {
        fn wait_durable(&self, _: u64) -> Result<()> {
            Ok(())
        }
        fn write_table(&self, _: &str, _: u64, _: &mut dyn std::io::Read) -> Result<Vec<u8>> {
            Err(Error::OutOfSpace("pool".into()))
        }
    }
    let mut world = filled();
    world.transact(&[Write1::Put(1, 1)]);
    assert!(matches!(export(&world.engine, &world.root, &Full), Err(Error::OutOfSpace(_))));
    world.compare();
    world.export();
    world.crash(&[Damage::Everything]);
}

/// Reading, writing, flushing, compacting and exporting at once; then a crash. Every transaction writes the same number under all keys.
#[test]
fn everything_at_once() {
    const KEYS: u8 = 40;
    const TRANSACTIONS: u64 = 2_000;
    let (directory, pool) = (TempDir::new().unwrap(), Pool::default());
    let engine = open(&directory, &Manifest::default(), &pool);
    let lsm = store(engine.clone());
    let done = AtomicBool::new(false);
    let running = || !done.load(Ordering::Relaxed);
    let value = |sequence: u64| sequence.to_le_bytes().repeat(20);
    let write = || {
        for sequence in 1..=TRANSACTIONS {
            lsm.run(|txn| (0..KEYS).try_for_each(|key| txn.put(&[key + 1], &value(sequence))))
                .unwrap();
        }
        done.store(true, Ordering::Relaxed);
    };
    let read = || {
        while running() {
            let snapshot = lsm.snapshot();
            let expected = value(snapshot.sequence());
            let seen = rows(&snapshot);
            assert!(seen.iter().all(|(_, value)| *value == expected), "a snapshot shows one transaction");
            assert_eq!(seen.len(), if snapshot.sequence() == 0 { 0 } else { KEYS.into() });
        }
    };
    let maintain = || {
        let mut root = Manifest::default();
        while running() {
            while engine.maintain().unwrap() {}
            root = export(&engine, &root, &pool).unwrap();
        }
        root
    };
    let root = std::thread::scope(|scope| {
        let maintenance = scope.spawn(maintain);
        scope.spawn(read);
        scope.spawn(write);
        maintenance.join().unwrap()
    });
    drop((lsm, engine));
    let restored = store(open(&directory, &root, &pool));
    assert_eq!(restored.applied(), root.sequence);
    let expected = value(root.sequence);
    assert!(root.sequence > 0 && rows(&restored.snapshot()).iter().all(|(_, value)| *value == expected));
}

#[test]
fn a_slow_maintenance_is_noticed() {
    let world = World::new(false);
    assert!(!world.engine.is_behind());
    world
        .lsm
        .run(|txn| (0..20u32).try_for_each(|i| txn.put(&i.to_be_bytes(), &[0; 1024])))
        .unwrap();
    assert!(world.engine.is_behind());
    world.engine.maintain().unwrap();
    assert!(!world.engine.is_behind());
}
