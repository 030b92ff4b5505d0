//! What becomes of small overwrites in place: blocks of one chunk, whatever else names what was there, and only if nobody came between.

use super::*;
use crate::element::content;
use crate::element::rows::LandedRow;
use crate::filesystem::{Allocation, FileSystem, New, Owner, Seek};
use crate::reduction::ALIGNED_BYTES;
use crate::store::merge::Found;
use crate::store::reduce::Fragments;

/// A file, and what it holds.
struct File {
    world: World,
    inode: u64,
    model: Vec<u8>,
    random: Seeded,
}

impl File {
    fn new(model: Vec<u8>) -> Self {
        let world = World::balanced();
        world.put("file", &model);
        world.reduce();
        let inode = world.store.lookup("v", b"file", None).unwrap().id;
        Self {
            world,
            inode,
            model,
            random: Seeded::new(11),
        }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.world.store.write(self.inode, offset as u64, bytes, false).unwrap();
        self.model[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn write_page(&mut self) {
        let offset = self.random.below(self.model.len() as u64 / 4096) as usize * 4096;
        let bytes = noise(self.random.next_u64(), 4096);
        self.write(offset, &bytes);
    }

    fn check(&self) {
        assert!(self.world.read("file").unwrap() == self.model);
    }

    fn runs(&self) -> Vec<content::Run> {
        content::runs(&self.world.store.core.snapshot(), self.inode, 0, u64::MAX, usize::MAX).unwrap()
    }

    /// What waits in the journal and in segments.
    fn landed(&self) -> [Vec<Found>; 2] {
        let core = &self.world.store.core;
        let view = core.snapshot();
        [keys::LANDED_JOURNAL, keys::LANDED_RAW].map(|table| {
            let (from, to) = keys::table(table);
            let rows = view.range(&from, &to, false);
            rows.map(|row| core.find(&view, LandedRow::decode(&row.unwrap().1).unwrap()).unwrap())
                .collect()
        })
    }

    fn merged(&self) -> u64 {
        self.world.store.core.reduction_counters.merged.load(Ordering::Relaxed)
    }
}

#[test]
fn small_overwrites_become_blocks_and_leave_nothing_dead_behind() {
    let mut file = File::new(noise(1, 3 << 20));
    for _ in 0..3 {
        (0..40).for_each(|_| file.write_page());
        let found = file.world.reduce();
        file.check();
        assert_eq!(found.logical_bytes, 3 << 20);
        // Content-defined chunks reach into blocks that were written anew, at their edges.
        assert!(found.stored_bytes < (3 << 20) + 90 * (48 << 10), "{found:?}");
        let written = file.runs().iter().filter(|run| run.length == ALIGNED_BYTES as u32).count();
        assert!(written > 20);
    }
    assert!(file.merged() > 90);
    // All of it written once more by pages: nothing of what was cut by content is left.
    for page in (0..3 << 20).step_by(4096) {
        file.write(page, &noise(page as u64 + 7, 4096));
        if page % (20 * 4096) == 0 {
            file.world.reduce();
        }
    }
    let found = file.world.reduce();
    file.check();
    assert_eq!((found.stored_bytes, found.dedupe_gain_bytes), (3 << 20, 0), "{found:?}");
    file.world.delete("file");
    assert_eq!(file.world.reduce().chunks, 0);
}

#[test]
fn what_is_hot_waits_and_a_short_journal_is_emptied_all_the_same() {
    let mut file = File::new(noise(2, 1 << 20));
    (0..20).for_each(|_| file.write_page());
    let (core, before) = (file.world.store.core.clone(), file.landed()[0].len());
    assert!(before > 10);
    let first = file.landed()[0].iter().map(|found| found.landed.extent).min().unwrap();
    let waits = Fragments::Merge { hot_from: first };
    assert_eq!(
        (core.reduce_journal(u64::MAX, waits).unwrap(), core.reduce_raw(first).unwrap()),
        (0, 0)
    );
    assert_eq!(core.reduce_journal(u64::MAX, Fragments::Land).unwrap(), before);
    assert_eq!(file.landed().map(|found| found.len()), [0, before]);
    file.check();
    assert_eq!(core.reduce_raw(first).unwrap(), 0, "they wait there too");
    // A block that was written again waits as a whole.
    let old = file.landed()[1][0].landed;
    let beside = (old.offset as usize ^ 4096) & !4095;
    file.write(beside, &[3; 4096]);
    let from = file.landed()[0][0].landed.extent;
    assert!(core.reduce_raw(from).unwrap() < before);
    assert!(
        file.landed()[1]
            .iter()
            .any(|found| found.landed.extent == old.extent || found.landed.offset == beside as u64)
    );
    file.check();
    assert_eq!(file.world.store.check().unwrap().count, 0);
    assert_eq!(file.world.reduce().landed_bytes, 0);
    file.check();
}

#[test]
fn a_block_that_was_written_between_reading_and_exchanging_is_left_alone() {
    let mut file = File::new(noise(3, 1 << 20));
    for _ in 0..20 {
        (0..6).for_each(|_| file.write_page());
        let found = file.landed()[0].clone();
        let step = file.world.store.core.gather(found.clone(), MERGE).unwrap();
        assert!(!step.blocks.is_empty());
        let at = found[0].landed.offset as usize;
        file.write(at + 100, &[9; 1000]);
        let missed = || file.world.store.core.reduction_counters.missed.load(Ordering::Relaxed);
        let before = missed();
        file.world.store.core.rewrite(step).unwrap();
        assert!(missed() > before);
        file.check();
        assert_eq!(file.world.store.check().unwrap().count, 0);
    }
    file.world.reduce();
    file.check();
}

#[test]
fn what_snapshots_and_copies_share_stays_theirs() {
    let mut file = File::new(noise(4, 1 << 20));
    let before = file.model.clone();
    (0..5).for_each(|_| file.write_page());
    let shared = file.model.clone();
    // The fragments of these writes are the snapshot's too.
    file.world.store.create_snapshot(b"/v", "kept", 0).unwrap();
    (0..20).for_each(|_| file.write_page());
    file.world.reduce();
    file.check();
    let view = file.world.store.lookup("v", b"file", None).unwrap().row.parent;
    let owner = Owner { uid: 0, gid: 0 };
    let copy = file.world.store.create(view, b"copy", New::File, 0o644, owner).unwrap();
    let length = file.model.len() as u64;
    FileSystem::copy(file.world.store.as_ref(), (file.inode, 0), (copy.inode, 0), length).unwrap();
    let copied = file.model.clone();
    (0..20).for_each(|_| file.write_page());
    let found = file.world.reduce();
    file.check();
    assert!(file.world.read("copy").unwrap() == copied);
    let kept = file.world.store.open_content("v--at--kept", b"file", None).unwrap();
    assert!(kept.read(0, length).unwrap() == shared);
    assert!(before != shared);
    // Each block that was written again is a delta of what the snapshot and the copy keep of it.
    assert!(found.stored_bytes < (1 << 20) + 46 * 9000, "{found:?}");
}

#[test]
fn holes_stay_holes() {
    let mut file = File::new(noise(5, 256 << 10));
    let store = file.world.store.clone();
    store.allocate(file.inode, Allocation::Punch, 40_960, 8192).unwrap();
    file.model[40_960..49_152].fill(0);
    file.write(36_864, &noise(6, 4096));
    file.write(53_248, &noise(7, 4096));
    // An island in a hole is reduced as it lies.
    store.allocate(file.inode, Allocation::Punch, 131_072, 65_536).unwrap();
    file.model[131_072..196_608].fill(0);
    file.write(139_264, &[5; 4096]);
    let size = file.model.len() as u64;
    let before: Vec<_> = (0..size)
        .step_by(4096)
        .map(|at| store.seek(file.inode, at, Seek::Hole).ok())
        .collect();
    let holes = store.stat(file.inode).unwrap().allocated;
    file.world.reduce();
    file.check();
    let after: Vec<_> = (0..size)
        .step_by(4096)
        .map(|at| store.seek(file.inode, at, Seek::Hole).ok())
        .collect();
    assert_eq!((before, holes), (after, store.stat(file.inode).unwrap().allocated));
    assert!(file.merged() >= 2);
}
