//! Listings and rows against plain models; the store's simulation tests the rest.

use super::info::{Digests, Page, Removal, Terms, Versioning};
use super::listing::{ListQuery, list};
use super::namespace::{self, Description, Origin};
use super::rows::*;
use super::space::Spaces;
use super::transaction::{Ids, Landing, Shared, Transaction};
use super::{content, content::Source, invariants, keys, removed_trees, snapshot_work};
use crate::error::Result;
use crate::meta::model::ModelEngine;
use crate::meta::{Engine, MetaStore, Mutation, RangeIter, Rows, monotonic_clock};
use crate::reduction::Cutting;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

struct World {
    meta: MetaStore,
    shared: Shared,
}

impl World {
    fn new() -> Self {
        Self::over(Arc::new(ModelEngine::default()))
    }

    fn over(engine: Arc<dyn Engine>) -> Self {
        let meta = MetaStore::new(engine, monotonic_clock());
        let shared = Shared::new(Ids::new(2), Spaces::default());
        let world = Self { meta, shared };
        world.change(namespace::create_root);
        world.change(|tx| namespace::create_view(tx, "v", Attributes::default()));
        world
    }

    fn change<T>(&self, work: impl FnOnce(&mut Transaction) -> Result<T>) -> T {
        let landing = Landing {
            filling: Default::default(),
            bytes_max: 1 << 20,
        };
        let mut tx = Transaction::new(self.meta.begin(), &self.shared, &landing, 7);
        let value = work(&mut tx).unwrap();
        let (rows, mut effects) = tx.finish().unwrap();
        let applied = self.meta.apply(rows).unwrap();
        effects.install(&self.shared);
        self.meta.publish(applied.sequence);
        effects.settle(&self.shared);
        value
    }

    fn put(&self, key: &[u8]) {
        let description = Description::whole(Attributes::default(), Digests::from([("md5".into(), vec![0; 16])])).unwrap();
        self.change(|tx| namespace::publish(tx, "v", key, Origin::New(Source::Small(Vec::new())), description, &Terms::default()));
    }
}

/// What S3 says a listing is, key by key.
fn model_list(keys: &BTreeSet<Vec<u8>>, query: &ListQuery) -> (Vec<Vec<u8>>, Vec<Vec<u8>>, Option<Vec<u8>>) {
    let (mut elements, mut prefixes, mut last): (Vec<Vec<u8>>, Vec<Vec<u8>>, Option<Vec<u8>>) = Default::default();
    for key in keys
        .iter()
        .filter(|key| **key > query.start_after && key.starts_with(&query.prefix))
    {
        let rest = &key[query.prefix.len()..];
        let cut = (!query.delimiter.is_empty())
            .then(|| rest.windows(query.delimiter.len()).position(|window| window == query.delimiter))
            .flatten();
        let shown = cut.map_or(key.clone(), |at| key[..query.prefix.len() + at + query.delimiter.len()].to_vec());
        if cut.is_some() && (shown == query.start_after || prefixes.last() == Some(&shown)) {
            continue;
        }
        if elements.len() + prefixes.len() >= query.limit {
            return (elements, prefixes, last);
        }
        if cut.is_some() {
            prefixes.push(shown.clone())
        } else {
            elements.push(shown.clone())
        }
        last = Some(shown);
    }
    (elements, prefixes, None)
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(&b"ab/-\xff"[..]), 0..6)
}

/// Runs of one element, by gap before each and length, and what `content::runs` must find of them.
fn mapped(gaps_and_lengths: &[(u64, u32)]) -> (World, Vec<content::Run>) {
    let (world, mut at, mut laid) = (World::new(), 0, Vec::new());
    for (number, (gap, length)) in gaps_and_lengths.iter().enumerate() {
        let run = content::Run {
            offset: at + gap,
            extent: number as u64,
            skip: 0,
            length: *length,
        };
        let row = MappingRow {
            born: 1,
            extent: run.extent,
            skip: 0,
            length: run.length,
        };
        at = run.offset + u64::from(*length);
        world.change(|tx| tx.put_mapping(ELEMENT, at, row));
        laid.push(run);
    }
    (world, laid)
}

const ELEMENT: u64 = 77;

fn run_length() -> impl Strategy<Value = u32> {
    prop_oneof![1_u32..5, Just(EXTENT_BYTES_MAX as u32), Just(EXTENT_BYTES_MAX as u32 - 1)]
}

fn touches() -> impl Strategy<Value = (prop::sample::Index, i64, u64, usize)> {
    (
        any::<prop::sample::Index>(),
        -3_i64..4,
        prop_oneof![0_u64..12, Just(3 << 20)],
        0_usize..6,
    )
}

proptest! {
    #[test]
    fn runs_are_those_that_touch_a_range(
        gaps_and_lengths in prop::collection::vec((0_u64..3, run_length()), 1..10),
        asked in prop::collection::vec(touches(), 1..20),
    ) {
        let (world, laid) = mapped(&gaps_and_lengths);
        for (near, by, length, limit) in asked {
            let run = laid[near.index(laid.len())];
            // Around either end of a run.
            let edge = run.offset + if by % 2 == 0 { 0 } else { u64::from(run.length) };
            let start = edge.saturating_add_signed(by);
            let touched = laid.iter().filter(|run| run.offset < start + length && run.offset + u64::from(run.length) > start && length > 0);
            let expected: Vec<_> = touched.take(limit).copied().collect();
            prop_assert_eq!(content::runs(&world.meta.snapshot(), ELEMENT, start, start + length, limit).unwrap(), expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn listings_are_what_a_sorted_set_gives(
        keys in prop::collection::btree_set(piece().prop_filter("a key", |key| !key.is_empty()), 0..24),
        gone in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        queries in prop::collection::vec((piece(), piece(), piece(), 0_usize..6), 1..12),
    ) {
        let world = World::new();
        let mut left = keys.clone();
        keys.iter().for_each(|key| world.put(key));
        for index in gone {
            let Some(key) = left.iter().nth(index.index(left.len().max(1))).cloned() else { continue };
            left.remove(&key);
            let removal = Removal { key, ..Removal::default() };
            world.change(|tx| namespace::delete(tx, "v", &removal, Versioning::Off));
        }
        for (prefix, delimiter, start_after, limit) in queries {
            let query = ListQuery { prefix, delimiter, start_after, limit };
            let Page { elements, prefixes, next_after } = list(&world.meta.snapshot(), "v", &query).unwrap();
            let found = (elements.into_iter().map(|element| element.key).collect(), prefixes, next_after);
            prop_assert_eq!(found, model_list(&left, &query), "{:?}", query);
        }
        prop_assert_eq!(invariants::check(&world.meta.snapshot()).unwrap().sentences, Vec::<String>::new());
    }

    #[test]
    fn arbitrary_rows_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), valid in any::<bool>()) {
        let bytes = if valid { [&[1, 1][..], &bytes].concat() } else { bytes };
        let _ = (ElementRow::decode(&bytes), EntryRow::decode(&bytes), MappingRow::decode(&bytes), ExtentRow::decode(&bytes));
        let _ = (VersionRow::decode(&bytes), ChunkRow::decode(&bytes), PartRow::decode(&bytes), PartRow::decode_many(&bytes), UploadRow::decode(&bytes));
    }
}

#[test]
fn rows_read_back_as_written() {
    let attributes = Attributes {
        mode: 0o644,
        uid: 7,
        gid: 8,
        xattrs: BTreeMap::from([("user.a".into(), vec![1, 2])]),
    };
    let part = PartRow {
        element: 5,
        size: 6,
        md5: [3; 16],
        modified_ns: -1,
        digests: Digests::from([("crc32".into(), vec![1; 4])]),
    };
    let element = ElementRow {
        born: 3,
        kind: Kind::File,
        implicit: false,
        aside: true,
        holes: 70_000,
        links: 1,
        size: u64::MAX,
        content_version: 2,
        created_ns: 1,
        modified_ns: i64::MAX,
        changed_ns: i64::MIN,
        accessed_ns: 5,
        parent: 6,
        detail: b"target".to_vec(),
        etag: Etag::Multipart([9; 16], 10_000),
        composite: true,
        digests: part.digests.clone(),
        attributes: attributes.clone(),
        version: 0,
    };
    assert_eq!(ElementRow::decode(&element.encode()).unwrap(), element);
    let versioned = ElementRow { version: 9, ..element };
    assert_eq!(ElementRow::decode(&versioned.encode()).unwrap(), versioned);
    let version = VersionRow {
        born: 1,
        element: 0,
        version: u64::MAX,
        modified_ns: -1,
    };
    assert_eq!(VersionRow::decode(&version.encode()).unwrap(), version);
    let upload = UploadRow {
        created_ns: 1,
        attributes,
        extra: BTreeMap::from([("owner".into(), b"x".to_vec())]),
    };
    assert_eq!(UploadRow::decode(&upload.encode()).unwrap(), upload);
    assert_eq!(
        PartRow::decode_many(&PartRow::encode_many(7, &[(1, part.clone()), (9, part.clone())])).unwrap(),
        [(1, part.clone()), (9, part)]
    );
    let location = crate::segment::Location {
        segment: 1,
        shard: 2,
        offset: 48,
        length: 9,
    };
    let piece = |(chunk, skip, length)| Piece { chunk, skip, length };
    let pieces = [
        (7, 3, 40),
        (8, 0, 50),
        (0, 0, 60),
        (9, 0, 70),
        (2, 0, 80),
        (1 << 62, 0, 90),
        (1 << 62, 90, 100),
    ]
    .map(piece)
    .to_vec();
    for encoding in [Encoding::Raw, Encoding::Zstd, Encoding::Delta] {
        let row = ChunkRow {
            length: 65_536,
            encoding,
            bases: if encoding == Encoding::Delta {
                vec![9, 1 << 40]
            } else {
                Vec::new()
            },
            page: 77,
            slot: 63,
            location,
            checksum: u64::MAX,
        };
        assert_eq!(ChunkRow::decode(&row.encode()).unwrap(), row);
        assert!(ChunkRow::decode(&row.encode()[..row.encode().len() - 1]).is_err());
    }
    let landed = LandedRow {
        element: 1 << 60,
        offset: 1 << 40,
        cutting: Cutting::Aligned,
        extent: 9,
        mode: Some(crate::reduction::Mode::Fast),
    };
    assert_eq!(LandedRow::decode(&landed.encode()).unwrap(), landed);
    for placement in [
        Placement::Journal {
            position: 4096,
            checksum: 5,
        },
        Placement::Raw {
            location,
            checksum: 1,
            blocks: vec![1, 2],
        },
        Placement::Chunks(pieces),
    ] {
        let row = ExtentRow { length: 9, placement };
        assert_eq!(ExtentRow::decode(&row.encode()).unwrap(), row);
        assert!(ExtentRow::decode(&row.encode()[..row.encode().len() - 1]).is_err());
    }
}

/// Remembers where ranges began.
#[derive(Default)]
struct Watched {
    behind: ModelEngine,
    begun: Mutex<Vec<Vec<u8>>>,
}

impl Watched {
    /// Within a table, since the last call.
    fn begun(&self, table: u8) -> Vec<Vec<u8>> {
        let mut begun = std::mem::take(&mut *self.begun.lock().unwrap());
        begun.retain(|key| key[0] == table);
        begun
    }
}

impl Engine for Watched {
    fn apply(&self, sequence: u64, mutations: &[Mutation]) -> Result<()> {
        self.behind.apply(sequence, mutations)
    }

    fn get(&self, key: &[u8], at: u64) -> Result<Option<Vec<u8>>> {
        self.behind.get(key, at)
    }

    fn range(&self, from: &[u8], to: &[u8], reverse: bool, at: u64) -> RangeIter<'_> {
        self.begun.lock().unwrap().push(from.to_vec());
        self.behind.range(from, to, reverse, at)
    }

    fn forget(&self, oldest: u64) {
        self.behind.forget(oldest)
    }

    fn applied(&self) -> u64 {
        self.behind.applied()
    }
}

/// The tree would pass by every deletion again: a file of a million runs would never be gone.
#[test]
fn freeing_never_looks_where_it_was() {
    const RUNS: u64 = 20;
    let engine = Arc::new(Watched::default());
    let world = World::over(engine.clone());
    world.change(|tx| {
        (0..RUNS).try_for_each(|run| content::land(tx, content::Spot::at(ELEMENT, run * 10), b"ten bytes!"))?;
        tx.put(keys::detached(ELEMENT), Vec::new())
    });
    engine.begun(keys::MAPPING);
    let (mut after, mut begun) = (0, Vec::new());
    while let Some(next) = world.change(|tx| namespace::bury(tx, after, 3)) {
        begun.extend(engine.begun(keys::MAPPING));
        after = next;
    }
    let expected: Vec<_> = (0..RUNS).step_by(3).map(|run| keys::mapping(ELEMENT, run * 10 + 1)).collect();
    assert_eq!(begun, expected);
    assert_eq!(invariants::check(&world.meta.snapshot()).unwrap().sentences, Vec::<String>::new());
    assert!(world.meta.snapshot().get(&keys::detached(ELEMENT)).unwrap().is_none());
}

#[test]
fn removing_a_tree_never_looks_where_it_was() {
    const FILES: usize = 40;
    let engine = Arc::new(Watched::default());
    let world = World::over(engine.clone());
    (0..FILES).for_each(|file| world.put(format!("tree/{file:02}").as_bytes()));
    world.put(b"tree/20under/1");
    let view = world.meta.snapshot().get(&keys::entry(keys::ROOT, b"v/")).unwrap();
    let view = EntryRow::decode(&view.unwrap()).unwrap().element;
    let tree = world.meta.snapshot().get(&keys::entry(view, b"tree/")).unwrap();
    let tree = EntryRow::decode(&tree.unwrap()).unwrap().element;
    world.change(|tx| super::directory::leave(tx, view, b"tree/"));
    world.change(|tx| removed_trees::add(tx, tree));
    engine.begun(keys::ENTRY);
    let mut begun = Vec::new();
    loop {
        let work = snapshot_work::list(&world.meta.snapshot()).unwrap();
        let Some(work) = work.first() else { break };
        world.change(|tx| snapshot_work::step(tx, work, 7, 1 << 20));
        begun.extend(engine.begun(keys::ENTRY));
    }
    let root = keys::span(keys::ENTRY, tree);
    begun.retain(|from| (&root.0..&root.1).contains(&from));
    let from_the_start = begun.iter().filter(|from| **from == root.0).count();
    assert_eq!(from_the_start, 2, "at the beginning, and once at the end");
    assert!(begun[..begun.len() - 1].is_sorted());
    assert_eq!(invariants::check(&world.meta.snapshot()).unwrap().sentences, Vec::<String>::new());
}
