//! Snapshots, clones and restores judged by a model that copies the whole tree each time.
//!
//! One seed, one world: random changes by files and by keys, snapshots of views, clones, directories and files, clones of them, restores, deletions,
//! background work, power cuts. Every snapshot that is there reads as its copy, everything alive as the model; every count is what a recount gives; and
//! when all is deleted, all space is back.

mod changes;
mod model;
mod spaces;

use super::files_simulation::World;
use super::*;
use crate::device::random::Seeded;
use crate::element::faults::Fault;
use crate::element::restore;
use crate::element::snapshot_paths::Place;
use crate::element::snapshots::{self, Request};
use crate::filesystem::judge::Verdict;
use crate::filesystem::{Allocation, Changes, Errno, FileSystem, Inode, New, Owner, ROOT, Replace};
use model::{Model, Path, Shown, Taken, Thing, Tree, children, is_file, joined, seen, shown};
use std::collections::BTreeMap;

const OWNER: Owner = Owner { uid: 7, gid: 8 };
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const VIEWS: [&str; 3] = ["one", "two", "three"];
const SNAPSHOTS_MAX: usize = 12;
const DEPTH_MAX: usize = 3;
/// Writes and flushes of all drives that still succeed once the cut is on its way.
const CUT_OPERATIONS: u64 = 30;

/// What is done wrong on purpose, so that the judge has something to find.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    /// A snapshot's copy is made one change too late.
    CopiedLate,
    /// The store loses a row of history.
    HistoryLost,
    /// A reference to what a snapshot keeps is given up.
    ReferenceLost,
    /// The store has a fault of its own.
    Store(Fault),
}

struct Trial {
    world: World,
    model: Model,
    random: Seeded,
    taken: Vec<Taken>,
    /// Content that is being read, and what it was.
    read: Vec<(Content, Vec<u8>)>,
    named: u64,
    wrong: Wrong,
    /// The power is about to go: one change at a time.
    is_cutting: bool,
    /// Of each kind of change that went through.
    done: BTreeMap<&'static str, usize>,
}

type Outcome = crate::filesystem::Result<()>;

impl Trial {
    fn new(seed: u64, wrong: Wrong) -> Self {
        let mut trial = Self {
            world: World::new(seed),
            model: Model::default(),
            random: Seeded::new(seed),
            taken: Vec::new(),
            read: Vec::new(),
            named: 0,
            wrong,
            is_cutting: false,
            done: BTreeMap::new(),
        };
        for view in VIEWS {
            trial.fs().create(ROOT, view.as_bytes(), New::Directory, 0o755, OWNER).unwrap();
            let line = trial.model.fresh();
            trial.model.put(&[view.to_owned()], Thing::Root(line, Tree::new()));
        }
        trial
    }

    fn fs(&self) -> &dyn FileSystem {
        self.world.store.as_ref()
    }

    fn inode(&self, path: &[String]) -> crate::filesystem::Result<Inode> {
        let mut at = ROOT;
        for name in path {
            at = self.fs().lookup(at, name.as_bytes())?.inode;
        }
        Ok(at)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.random.below(from.len() as u64) as usize].clone())
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = match self.random.below(10) {
            0 => 0,
            1..8 => self.random.below(9000),
            8 => self.random.below(90_000),
            _ => 150_000 + self.random.below(200_000),
        };
        let salt = self.random.next_u64() as u32;
        (0..length as u32).map(|at| ((at / 16).wrapping_mul(salt | 1) >> 9) as u8).collect()
    }

    /// A path in a directory that is there, whatever it leads to.
    fn place(&mut self) -> Option<Path> {
        let directories: Vec<Path> = self.model.paths(|thing| children(thing).is_some());
        let mut path = self.pick(&directories).filter(|path| path.len() <= DEPTH_MAX)?;
        path.push(self.pick(&NAMES)?.to_owned());
        Some(path)
    }

    fn file(&mut self) -> Option<Path> {
        let files = self.model.paths(is_file);
        self.pick(&files)
    }

    fn step(&mut self) -> Outcome {
        match self.random.below(40) {
            0..5 => self.put_key(),
            5..8 => self.write(),
            8 => self.truncate(),
            9 => self.punch(),
            10..14 => self.create(),
            14..16 => self.remove(),
            16..18 => self.rename(),
            18 => self.link(),
            19 => self.copy(),
            20 => self.delete_key(),
            21 => self.copy_key(),
            22..25 => self.take(),
            25 => self.delete_snapshot(),
            26..28 => self.clone_snapshot(),
            28 => self.clone_live(),
            29 => self.restore(),
            30 if !self.is_cutting => self.remove_clone(),
            31 => self.open(),
            32..34 => self.restore_part(),
            34 => self.split(),
            35..38 => self.work(),
            _ => self.finish_reading(),
        }
    }

    /// Nothing but a power cut makes a change fail here; then it may have come through or not, and the model goes on as if it had.
    fn settled<T>(&self, result: Result<T>) -> Option<T> {
        result.inspect_err(|error| assert!(self.world.power.is_cut(), "{error}")).ok()
    }

    fn did(&mut self, what: &'static str) -> Outcome {
        *self.done.entry(what).or_default() += 1;
        Ok(())
    }

    fn open(&mut self) -> Outcome {
        let Some(path) = self.file() else { return Ok(()) };
        let bytes = self.model.content(self.model.at(&path).unwrap()).unwrap();
        let content = self.world.store.open_content(&path[0], &joined(&path[1..]), None).unwrap();
        self.read.push((content, bytes));
        Ok(())
    }

    fn finish_reading(&mut self) -> Outcome {
        while self.read.len() > 3 {
            let (content, bytes) = self.read.remove(0);
            assert_eq!(
                content.read(0, content.element.row.size).unwrap(),
                bytes,
                "content changed under its reader"
            );
        }
        Ok(())
    }

    fn compare(&self, taken: &Taken) -> Verdict {
        let (mut expected, mut found) = (Shown::new(), Shown::new());
        shown(&taken.thing, &taken.files, "", &mut expected);
        seen(self.fs(), taken.root, "", &mut found).map_err(|errno| format!("{}: {errno}", taken.name))?;
        differ(&taken.name, &expected, &found)
    }

    fn compare_all(&self) -> Verdict {
        let (mut expected, mut found) = (Shown::new(), Shown::new());
        for (name, thing) in &self.model.tree {
            shown(thing, &self.model.files, &format!("/{name}"), &mut expected);
        }
        expected.insert(String::new(), ('d', Vec::new()));
        seen(self.fs(), ROOT, "", &mut found).map_err(|errno| format!("live: {errno}"))?;
        differ("live", &expected, &found)?;
        let listed = self.world.store.snapshots(None).map_err(|error| error.to_string())?;
        let mut listed: Vec<&str> = listed.iter().map(|entry| entry.info.name.as_str()).collect();
        let mut known: Vec<&str> = self.taken.iter().map(|taken| taken.name.as_str()).collect();
        listed.sort_unstable();
        known.sort_unstable();
        if listed != known {
            return Err(format!("the snapshots are {listed:?}, not {known:?}"));
        }
        self.taken.iter().try_for_each(|taken| self.compare(taken))?;
        self.world.check()
    }

    /// Something happens to the rows behind the store's back.
    fn sabotage(&mut self) {
        let core = self.world.store.core.clone();
        let (from, to) = keys::table(keys::HISTORY);
        let all = core.committer.meta.snapshot().get_range(&from, &to, usize::MAX, false).unwrap();
        match self.wrong {
            Wrong::HistoryLost => {
                let Some((key, _)) = self.pick(&all) else { return };
                wait(|done| core.committer.submit(0, 4096, done, move |tx| tx.erase(&key))).unwrap();
            }
            Wrong::ReferenceLost => {
                let mappings: Vec<_> = all.into_iter().filter(|(key, _)| key[1] == keys::MAPPING).collect();
                let Some((_, value)) = self.pick(&mappings) else { return };
                if crate::element::rows::is_tombstone(&value) {
                    return;
                }
                wait(|done| {
                    core.committer
                        .submit(0, 4096, done, move |tx| crate::element::content::forget_mapping(tx, &value))
                })
                .unwrap();
            }
            _ => {}
        }
    }

    fn lose_power(&mut self) -> Verdict {
        self.read.clear();
        self.world.store.core.committer.sync().map_err(|error| error.to_string())?;
        let before = (self.model.clone(), self.taken.clone());
        let mut states = vec![before];
        self.world.power.cut_after(self.random.below(CUT_OPERATIONS));
        for _ in 0..self.random.below(12) {
            if self.world.make_room().is_err() {
                break;
            }
            self.is_cutting = true;
            let step = self.step();
            self.is_cutting = false;
            states.push((self.model.clone(), self.taken.clone()));
            if step.is_err() || self.world.power.is_cut() {
                break;
            }
        }
        self.read.clear();
        let seed = self.random.next_u64() >> 1;
        self.world.crash(seed);
        self.world.check()?;
        let known = self.world.store.snapshots(None).map_err(|error| error.to_string())?;
        let mut last = String::new();
        for (model, taken) in states.into_iter().rev() {
            (self.model, self.taken) = (model, taken);
            for taken in self.taken.iter_mut().filter(|taken| taken.root == 0) {
                if let Some(found) = known.iter().find(|known| known.info.name == taken.name) {
                    (taken.lineage, taken.root) = (found.info.lineage, found.info.row.root);
                }
            }
            match self.compare_all() {
                Ok(()) => return self.did("power cut").map_err(|errno| errno.to_string()),
                Err(wrong) if last.is_empty() => last = wrong,
                Err(_) => {}
            }
        }
        Err(format!("none of the last states survived: {last}"))
    }

    fn live(&mut self, steps: usize) -> Verdict {
        for step in 0..steps {
            self.world.make_room().unwrap();
            if let Wrong::Store(fault) = self.wrong {
                // Again: a power cut makes another store of it.
                self.world.store.core.committer.shared.faults.set(Some(fault));
            }
            self.step().map_err(|errno| format!("step {step}: {errno}"))?;
            match self.random.below(60) {
                lot @ 0..6 => self.world.background(lot).unwrap(),
                6 => self.lose_power()?,
                7..10 => self.compare_all()?,
                10 if self.wrong != Wrong::Nothing => self.sabotage(),
                _ => {}
            }
        }
        self.compare_all()
    }

    /// All is deleted: no row of history and no byte of content is left.
    fn end(&mut self) -> Verdict {
        self.read.clear();
        while !self.taken.is_empty() {
            self.delete_snapshot().map_err(|errno| errno.to_string())?;
        }
        let mut all = self.model.paths(|_| true);
        all.sort_by_key(|path| std::cmp::Reverse(path.len()));
        for path in all {
            self.world.make_room().map_err(|error| error.to_string())?;
            self.remove_at(&path).map_err(|errno| format!("{path:?}: {errno}"))?;
        }
        for _ in 0..50 {
            self.world.background(5).map_err(|error| error.to_string())?;
        }
        self.world.check()?;
        let rows = self.world.store.core.committer.meta.snapshot();
        for table in [
            keys::EXTENT,
            keys::CHUNK,
            keys::HISTORY,
            keys::DEAD,
            keys::SPACE,
            keys::SNAPSHOT,
            keys::WORK,
            keys::MAPPING,
            keys::ENTRY,
        ] {
            let (from, to) = keys::table(table);
            let left = rows.get_range(&from, &to, usize::MAX, false).map_err(|error| error.to_string())?;
            if !left.is_empty() {
                return Err(format!(
                    "{} rows of {} are left, the first {:?}",
                    left.len(),
                    char::from(table),
                    left[0]
                ));
            }
        }
        Ok(())
    }
}

fn differ(what: &str, expected: &Shown, found: &Shown) -> Verdict {
    for path in expected.keys().chain(found.keys()) {
        let (expected, found) = (expected.get(path), found.get(path));
        if expected != found {
            let words = |shown: Option<&(char, Vec<u8>)>| shown.map(|(kind, bytes)| format!("{kind} of {} bytes", bytes.len()));
            return Err(format!("{what}: {path} is {:?}, not {:?}", words(found), words(expected)));
        }
    }
    Ok(())
}

/// A key gets content, of any size.
fn put(store: &Store, view: &str, key: &[u8], bytes: &[u8]) -> Result<ElementInfo> {
    let digests = digest::digests(&["md5".to_owned()], bytes)?;
    let (attributes, terms) = (Attributes::default(), Terms::default());
    if bytes.len() <= SMALL_BYTES_MAX {
        return wait(|done| store.put(view, key, bytes.to_vec(), attributes, digests, terms, done));
    }
    let mut staging = store.stage();
    staging.write(bytes)?;
    let staged = staging.finish()?;
    wait(|done| store.publish(view, key, staged, attributes, digests, terms, done))
}

fn judged(seed: u64, steps: usize) -> BTreeMap<&'static str, usize> {
    let mut trial = Trial::new(seed, Wrong::Nothing);
    trial
        .live(steps)
        .and_then(|()| trial.end())
        .unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    trial.done
}

#[test]
fn every_snapshot_reads_as_its_copy() {
    let mut done: BTreeMap<&'static str, usize> = BTreeMap::new();
    for seed in 0..4 {
        judged(seed, 600)
            .into_iter()
            .for_each(|(what, count)| *done.entry(what).or_default() += count);
    }
    for what in [
        "snapshot",
        "clone a snapshot",
        "clone",
        "restore",
        "restore a part",
        "split",
        "remove a clone",
        "copy out of a snapshot",
        "power cut",
        "link",
    ] {
        assert!(done.get(what).is_some_and(|count| *count > 3), "{what}: {done:?}");
    }
}

#[test]
fn what_is_wrong_is_found() {
    for wrong in [Wrong::CopiedLate, Wrong::HistoryLost, Wrong::ReferenceLost] {
        let found =
            (0..4).filter(|seed| std::panic::catch_unwind(|| Trial::new(*seed, wrong).live(300)).map_or(true, |verdict| verdict.is_err()));
        assert!(found.count() > 0);
    }
}

/// What the judge, or the recount at the end, says of it.
fn finding(seed: u64, wrong: Wrong, steps: usize) -> Verdict {
    std::panic::catch_unwind(|| {
        let mut trial = Trial::new(seed, wrong);
        trial.live(steps).and_then(|()| trial.end())
    })
    .unwrap_or_else(|_| Err("a panic, see above".into()))
}

/// By seeds with which a store without faults passes, see above.
#[test]
fn faults_of_splits_and_of_restores_in_place_are_found() {
    for fault in [
        Fault::SplitForgetsReferences,
        Fault::SplitForgetsHistory,
        Fault::SplitForgetsContent,
        Fault::RestoreLeavesDirectory,
        Fault::RestoreLeavesFile,
        Fault::RestoreKeepsDirectoryLate,
        Fault::RestoreKeepsFileLate,
    ] {
        let found = (0..4).find_map(|seed| finding(seed, Wrong::Store(fault), 600).err());
        println!("{fault:?}: {found:?}");
        assert!(found.is_some(), "{fault:?}");
    }
}

#[test]
#[ignore = "slow: a minute and more"]
fn every_snapshot_reads_as_its_copy_at_length() {
    for seed in 100..104 {
        judged(seed, 1500);
    }
}
