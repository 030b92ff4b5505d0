//! Snapshots, clones and restores judged by a model that copies the whole tree each time.
//!
//! One seed, one world: random changes by files and by keys, snapshots of views, clones, directories and files, clones of them, restores, deletions,
//! background work, power cuts. Every snapshot that is there reads as its copy, everything alive as the model; every count is what a recount gives; and
//! when all is deleted, all space is back.

use super::files_simulation::World;
use super::*;
use crate::device::random::Seeded;
use crate::element::snapshots::{self, Place, Request};
use crate::filesystem::judge::Verdict;
use crate::filesystem::{Allocation, Changes, Errno, FileSystem, Inode, New, Owner, ROOT, Replace, Type};
use std::collections::BTreeMap;

const OWNER: Owner = Owner { uid: 7, gid: 8 };
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const VIEWS: [&str; 3] = ["one", "two", "three"];
const SNAPSHOTS_MAX: usize = 12;
const DEPTH_MAX: usize = 3;
/// Writes and flushes of all drives that still succeed once the cut is on its way.
const CUT_OPERATIONS: u64 = 30;

type Path = Vec<String>;

#[derive(Debug, Clone, PartialEq)]
enum Thing {
    Directory(Tree),
    File(u32),
    Symlink(String),
    /// The root of a view or a clone, with its line.
    Root(u32, Tree),
    /// A file that is a clone's root, with its line and content.
    FileRoot(u32, Vec<u8>),
}

type Tree = BTreeMap<String, Thing>;

#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    tree: Tree,
    /// By space: files of a tree and its clones are different ones.
    files: BTreeMap<u32, Vec<u8>>,
    next: u32,
}

/// A snapshot, its line, and a copy of what it saw.
#[derive(Clone)]
struct Taken {
    name: String,
    lineage: u64,
    root: Inode,
    line: u32,
    /// It was taken of the root of its line.
    is_whole: bool,
    thing: Thing,
    files: BTreeMap<u32, Vec<u8>>,
}

impl Model {
    fn at(&self, path: &[String]) -> Option<&Thing> {
        let (last, above) = path.split_last()?;
        let mut tree = &self.tree;
        for name in above {
            tree = children(tree.get(name)?)?;
        }
        tree.get(last)
    }

    fn tree_at(&mut self, path: &[String]) -> Option<&mut Tree> {
        let mut tree = &mut self.tree;
        for name in path {
            tree = match tree.get_mut(name)? {
                Thing::Directory(tree) | Thing::Root(_, tree) => tree,
                _ => return None,
            };
        }
        Some(tree)
    }

    fn put(&mut self, path: &[String], thing: Thing) {
        let (last, above) = path.split_last().unwrap();
        self.tree_at(above).unwrap().insert(last.clone(), thing);
    }

    fn take(&mut self, path: &[String]) -> Thing {
        let (last, above) = path.split_last().unwrap();
        self.tree_at(above).unwrap().remove(last).unwrap()
    }

    fn content(&self, thing: &Thing) -> Option<Vec<u8>> {
        match thing {
            Thing::File(id) => Some(self.files[id].clone()),
            Thing::FileRoot(_, content) => Some(content.clone()),
            _ => None,
        }
    }

    fn set_content(&mut self, path: &[String], content: Vec<u8>) {
        match self.at(path).unwrap().clone() {
            Thing::File(id) => drop(self.files.insert(id, content)),
            Thing::FileRoot(line, _) => self.put(path, Thing::FileRoot(line, content)),
            _ => unreachable!(),
        }
    }

    fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// The line of the innermost root at or above a path, and its depth.
    fn line(&self, path: &[String]) -> (u32, usize) {
        let depths = (1..=path.len()).rev();
        let line = |depth: &usize| match self.at(&path[..*depth]) {
            Some(Thing::Root(line, _) | Thing::FileRoot(line, _)) => Some((*line, *depth)),
            _ => None,
        };
        depths.into_iter().find_map(|depth| line(&depth)).unwrap()
    }

    /// Everything below, as other files; roots with other lines if they are to be clones.
    fn copied(&mut self, thing: &Thing, files: &BTreeMap<u32, Vec<u8>>, are_clones: bool, known: &mut BTreeMap<u32, u32>) -> Thing {
        let mut tree_of = |model: &mut Self, tree: &Tree| {
            tree.iter()
                .map(|(name, thing)| (name.clone(), model.copied(thing, files, are_clones, known)))
                .collect()
        };
        match thing {
            Thing::Directory(tree) => Thing::Directory(tree_of(self, tree)),
            Thing::Root(line, tree) => {
                let tree = tree_of(self, tree);
                Thing::Root(if are_clones { self.fresh() } else { *line }, tree)
            }
            Thing::File(id) => {
                let copy = match known.get(id) {
                    Some(copy) => *copy,
                    None => self.fresh(),
                };
                known.insert(*id, copy);
                self.files.insert(copy, files[id].clone());
                Thing::File(copy)
            }
            Thing::FileRoot(line, content) => Thing::FileRoot(if are_clones { self.fresh() } else { *line }, content.clone()),
            Thing::Symlink(target) => Thing::Symlink(target.clone()),
        }
    }

    fn paths(&self, wanted: impl Fn(&Thing) -> bool) -> Vec<Path> {
        fn walk(tree: &Tree, at: &Path, wanted: &dyn Fn(&Thing) -> bool, found: &mut Vec<Path>) {
            for (name, thing) in tree {
                let path = [at.as_slice(), std::slice::from_ref(name)].concat();
                if wanted(thing) {
                    found.push(path.clone());
                }
                if let Some(tree) = children(thing) {
                    walk(tree, &path, wanted, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.tree, &Path::new(), &wanted, &mut found);
        found
    }
}

fn children(thing: &Thing) -> Option<&Tree> {
    match thing {
        Thing::Directory(tree) | Thing::Root(_, tree) => Some(tree),
        _ => None,
    }
}

fn is_file(thing: &Thing) -> bool {
    matches!(thing, Thing::File(_) | Thing::FileRoot(..))
}

fn joined(path: &[String]) -> Vec<u8> {
    path.join("/").into_bytes()
}

/// What a path shows: its kind, and its content or target.
type Shown = BTreeMap<String, (char, Vec<u8>)>;

fn shown(thing: &Thing, files: &BTreeMap<u32, Vec<u8>>, at: &str, into: &mut Shown) {
    let what = match thing {
        Thing::Directory(_) | Thing::Root(..) => ('d', Vec::new()),
        Thing::File(id) => ('f', files[id].clone()),
        Thing::FileRoot(_, content) => ('f', content.clone()),
        Thing::Symlink(target) => ('l', target.clone().into_bytes()),
    };
    into.insert(at.to_owned(), what);
    for (name, thing) in children(thing).into_iter().flatten() {
        shown(thing, files, &format!("{at}/{name}"), into);
    }
}

fn read_all(fs: &dyn FileSystem, inode: Inode, size: u64) -> crate::filesystem::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < size {
        let piece = fs.read(inode, bytes.len() as u64, 1 << 20)?;
        if piece.is_empty() {
            break;
        }
        bytes.extend(piece);
    }
    Ok(bytes)
}

fn seen(fs: &dyn FileSystem, inode: Inode, at: &str, into: &mut Shown) -> crate::filesystem::Result<()> {
    let node = fs.stat(inode)?;
    let what = match node.kind {
        Type::Directory => ('d', Vec::new()),
        Type::File => ('f', read_all(fs, inode, node.size)?),
        _ => ('l', fs.read_link(inode)?),
    };
    into.insert(at.to_owned(), what);
    if node.kind == Type::Directory {
        let mut cookie = 0;
        loop {
            let entries = fs.list(inode, cookie, 3)?;
            let Some(last) = entries.last() else { break };
            cookie = last.cookie;
            for entry in &entries {
                let name = String::from_utf8_lossy(&entry.name).into_owned();
                assert_eq!(fs.lookup(inode, &entry.name)?, entry.node);
                seen(fs, entry.node.inode, &format!("{at}/{name}"), into)?;
            }
        }
    }
    Ok(())
}

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
        match self.random.below(34) {
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

    fn put_key(&mut self) -> Outcome {
        let (Some(path), bytes) = (self.place(), self.bytes()) else {
            return Ok(());
        };
        if path.len() < 2 || self.model.at(&path).is_some_and(|thing| !is_file(thing)) {
            return Ok(());
        }
        let put = put(&self.world.store, &path[0], &joined(&path[1..]), &bytes);
        self.settled(put);
        let id = self.model.fresh();
        self.model.files.insert(id, bytes);
        self.model.put(&path, Thing::File(id));
        self.did("put")
    }

    fn delete_key(&mut self) -> Outcome {
        let Some(path) = self.file() else { return Ok(()) };
        let (store, removal) = (
            self.world.store.clone(),
            Removal {
                key: joined(&path[1..]),
                ..Removal::default()
            },
        );
        let deleted = wait(|done| store.delete(&path[0], removal, Versioning::Off, done));
        assert!(self.settled(deleted).is_none_or(|deletion| deletion.existed));
        self.model.take(&path);
        self.did("delete")
    }

    /// From a view, a snapshot's bucket or a clone to a key.
    fn copy_key(&mut self) -> Outcome {
        let views: Vec<Taken> = self.taken.iter().filter(|taken| self.bucket_of(taken).is_some()).cloned().collect();
        let (Some(taken), Some(target)) = (self.pick(&views), self.place()) else {
            return Ok(());
        };
        let Some(bucket) = self.bucket_of(&taken) else { return Ok(()) };
        if target.len() < 2 || self.model.at(&target).is_some_and(|thing| !is_file(thing)) {
            return Ok(());
        }
        let alias = format!("{bucket}{}{}", snapshots::ALIAS, taken.name);
        let mut all = Shown::new();
        shown(&taken.thing, &taken.files, "", &mut all);
        let files: Vec<(String, Vec<u8>)> = all
            .into_iter()
            .filter(|(_, (kind, _))| *kind == 'f')
            .map(|(path, (_, bytes))| (path, bytes))
            .collect();
        let Some((path, bytes)) = self.pick(&files) else { return Ok(()) };
        let store = self.world.store.clone();
        let source = store.open_content(&alias, &path.as_bytes()[1..], None).unwrap();
        assert_eq!(source.read(0, source.element.row.size).unwrap(), bytes, "{alias}{path}");
        let digests = digest::digests(&["md5".to_owned()], &bytes).unwrap();
        let copied = store.copy(
            &source,
            &target[0],
            &joined(&target[1..]),
            Attributes::default(),
            digests,
            Terms::default(),
        );
        self.settled(copied);
        let id = self.model.fresh();
        self.model.files.insert(id, bytes);
        self.model.put(&target, Thing::File(id));
        self.did("copy out of a snapshot")
    }

    /// The bucket by which S3 names a snapshot of a whole view.
    fn bucket_of(&self, taken: &Taken) -> Option<String> {
        let views = self.model.tree.iter();
        let mut of_line = views.filter(|(_, thing)| matches!(thing, Thing::Root(line, _) if *line == taken.line && taken.is_whole));
        of_line.next().map(|(name, _)| name.clone())
    }

    fn create(&mut self) -> Outcome {
        let Some(path) = self.place().filter(|path| self.model.at(path).is_none()) else {
            return Ok(());
        };
        let (name, above) = path.split_last().unwrap();
        let directory = self.inode(above)?;
        let (new, thing) = match self.random.below(5) {
            0 => (New::File, None),
            1 => (New::Symlink(b"there"), Some(Thing::Symlink("there".into()))),
            _ => (New::Directory, Some(Thing::Directory(Tree::new()))),
        };
        self.fs().create(directory, name.as_bytes(), new, 0o755, OWNER)?;
        let thing = thing.unwrap_or_else(|| {
            let id = self.model.fresh();
            self.model.files.insert(id, Vec::new());
            Thing::File(id)
        });
        self.model.put(&path, thing);
        self.did("create")
    }

    fn write(&mut self) -> Outcome {
        let (Some(path), bytes) = (self.file(), self.bytes()) else {
            return Ok(());
        };
        let mut content = self.model.content(self.model.at(&path).unwrap()).unwrap();
        let offset = self.random.below(content.len() as u64 + 5000);
        self.fs().write(self.inode(&path)?, offset, &bytes, false)?;
        if !bytes.is_empty() {
            let (offset, end) = (offset as usize, offset as usize + bytes.len());
            content.resize(content.len().max(end), 0);
            content[offset..end].copy_from_slice(&bytes);
        }
        self.model.set_content(&path, content);
        self.did("write")
    }

    fn truncate(&mut self) -> Outcome {
        let Some(path) = self.file() else { return Ok(()) };
        let mut content = self.model.content(self.model.at(&path).unwrap()).unwrap();
        let size = self.random.below(content.len() as u64 * 2 + 10);
        let changes = Changes {
            size: Some(size),
            ..Changes::default()
        };
        self.fs().change(self.inode(&path)?, &changes)?;
        content.resize(size as usize, 0);
        self.model.set_content(&path, content);
        self.did("truncate")
    }

    fn punch(&mut self) -> Outcome {
        let Some(path) = self.file() else { return Ok(()) };
        let mut content = self.model.content(self.model.at(&path).unwrap()).unwrap();
        let offset = self.random.below(content.len() as u64 + 1);
        let length = 1 + self.random.below(20_000);
        self.fs().allocate(self.inode(&path)?, Allocation::Punch, offset, length)?;
        let end = content.len().min((offset + length) as usize);
        content[offset as usize..end].fill(0);
        self.model.set_content(&path, content);
        self.did("punch")
    }

    fn remove(&mut self) -> Outcome {
        let paths = self.model.paths(|thing| children(thing).is_none_or(Tree::is_empty));
        let Some(path) = self.pick(&paths).filter(|path| path.len() > 1) else {
            return Ok(());
        };
        self.remove_at(&path)?;
        self.did("remove")
    }

    fn remove_at(&mut self, path: &[String]) -> Outcome {
        let (name, above) = path.split_last().unwrap();
        let directory = self.inode(above)?;
        match children(self.model.at(path).unwrap()) {
            Some(_) => self.fs().remove_directory(directory, name.as_bytes())?,
            None => self.fs().unlink(directory, name.as_bytes())?,
        }
        self.model.take(path);
        Ok(())
    }

    fn rename(&mut self) -> Outcome {
        let paths = self.model.paths(|_| true);
        let (Some(from), Some(to)) = (self.pick(&paths), self.place()) else {
            return Ok(());
        };
        if from.len() < 2 || to.len() < 2 || self.model.at(&to).is_some() || to.starts_with(&from) {
            return Ok(());
        }
        let (name, above) = from.split_last().unwrap();
        let (new_name, new_above) = to.split_last().unwrap();
        let (source, target) = (self.inode(above)?, self.inode(new_above)?);
        let renamed = self
            .fs()
            .rename((source, name.as_bytes()), (target, new_name.as_bytes()), Replace::No);
        if self.model.line(above) != self.model.line(new_above)
            || above[..self.model.line(above).1] != new_above[..self.model.line(new_above).1]
        {
            assert_eq!(renamed, Err(Errno::XDEV));
            return Ok(());
        }
        renamed?;
        let thing = self.model.take(&from);
        self.model.put(&to, thing);
        self.did("rename")
    }

    fn link(&mut self) -> Outcome {
        let (Some(from), Some(to)) = (self.file(), self.place()) else {
            return Ok(());
        };
        if self.model.at(&to).is_some() || to.len() < 2 {
            return Ok(());
        }
        let (name, above) = to.split_last().unwrap();
        let (inode, directory) = (self.inode(&from)?, self.inode(above)?);
        let linked = self.fs().link(inode, directory, name.as_bytes());
        let (from_root, to_root) = (self.model.line(&from), self.model.line(above));
        if from[..from_root.1] != above[..to_root.1] {
            assert_eq!(linked, Err(Errno::XDEV));
            return Ok(());
        }
        linked?;
        let thing = self.model.at(&from).unwrap().clone();
        self.model.put(&to, thing);
        self.did("link")
    }

    fn copy(&mut self) -> Outcome {
        let (Some(from), Some(to)) = (self.file(), self.file()) else {
            return Ok(());
        };
        let content = |path: &Path| self.model.content(self.model.at(path).unwrap()).unwrap();
        let (source, mut target) = (content(&from), content(&to));
        let (inode, other) = (self.inode(&from)?, self.inode(&to)?);
        if inode == other || source.is_empty() {
            return Ok(());
        }
        let start = self.random.below(source.len() as u64);
        let offset = self.random.below(target.len() as u64 + 1) as usize;
        let length = self.fs().copy((inode, start), (other, offset as u64), source.len() as u64)? as usize;
        let piece = &source[start as usize..];
        assert_eq!(length, piece.len());
        target.resize(target.len().max(offset + length), 0);
        target[offset..offset + length].copy_from_slice(piece);
        self.model.set_content(&to, target);
        self.did("copy")
    }

    fn fresh_name(&mut self, what: &str) -> String {
        self.named += 1;
        format!("{what}-{:04}", self.named)
    }

    fn note_taken(&mut self, name: String, info: Option<&snapshots::SnapshotInfo>, path: &[String]) {
        let (line, depth) = self.model.line(path);
        self.taken.push(Taken {
            name,
            lineage: info.map_or(0, |info| info.lineage),
            root: info.map_or(0, |info| info.row.root),
            line,
            is_whole: depth == path.len(),
            thing: self.model.at(path).unwrap().clone(),
            files: self.model.files.clone(),
        });
    }

    fn take(&mut self) -> Outcome {
        if self.taken.len() >= SNAPSHOTS_MAX {
            return self.delete_snapshot();
        }
        let any = self.random.chance(4);
        let paths = self.model.paths(|thing| any || matches!(thing, Thing::Root(..)));
        let Some(path) = self.pick(&paths) else { return Ok(()) };
        let name = self.fresh_name("s");
        let info = self.world.store.create_snapshot(&joined(&path), &name, 0);
        let info = self.settled(info);
        if self.wrong == Wrong::CopiedLate {
            let _whatever = self.put_key();
            if self.model.at(&path).is_none() {
                return Ok(());
            }
        }
        self.note_taken(name, info.as_ref(), &path);
        self.did("snapshot")
    }

    fn delete_snapshot(&mut self) -> Outcome {
        if self.taken.is_empty() {
            return Ok(());
        }
        let at = self.random.below(self.taken.len() as u64) as usize;
        let (lineage, name) = (self.taken[at].lineage, self.taken[at].name.clone());
        let core = self.world.store.core.clone();
        let deleted = wait(|done| {
            core.committer
                .submit(0, 64 << 10, done, move |tx| snapshots::delete(tx, lineage, &name))
        });
        self.settled(deleted);
        self.taken.remove(at);
        self.did("delete a snapshot")
    }

    fn clone_snapshot(&mut self) -> Outcome {
        let (taken, target) = (self.pick(&self.taken.clone()), self.place_for_clone());
        let (Some(taken), Some(target)) = (taken, target) else {
            return Ok(());
        };
        let mut below = Shown::new();
        shown(&taken.thing, &taken.files, "", &mut below);
        let below: Vec<(String, char)> = below
            .into_iter()
            .filter(|(_, (kind, _))| *kind != 'l')
            .map(|(path, (kind, _))| (path, kind))
            .collect();
        let Some((path, kind)) = self.pick(&below) else { return Ok(()) };
        if kind == 'f' && target.len() < 2 {
            return Ok(());
        }
        let mut source = taken.root;
        let mut thing = taken.thing.clone();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            source = self.fs().lookup(source, name.as_bytes())?.inode;
            thing = children(&thing).unwrap()[name].clone();
        }
        self.clone_to(source, &thing, &taken.files, &target)?;
        self.did("clone a snapshot")
    }

    fn place_for_clone(&mut self) -> Option<Path> {
        if self.random.chance(3) {
            let name = self.fresh_name("view");
            return Some(vec![name]);
        }
        self.place().filter(|path| self.model.at(path).is_none())
    }

    fn clone_live(&mut self) -> Outcome {
        let paths = self.model.paths(|thing| !matches!(thing, Thing::Symlink(_)));
        let (Some(path), Some(target)) = (self.pick(&paths), self.place_for_clone()) else {
            return Ok(());
        };
        let thing = self.model.at(&path).unwrap().clone();
        if is_file(&thing) && target.len() < 2 || target.starts_with(&path) {
            return Ok(());
        }
        let (source, files) = (self.inode(&path)?, self.model.files.clone());
        self.clone_to(source, &thing, &files, &target)?;
        self.did("clone")
    }

    fn clone_to(&mut self, source: Inode, thing: &Thing, files: &BTreeMap<u32, Vec<u8>>, target: &[String]) -> Outcome {
        let (name, above) = target.split_last().unwrap();
        let (directory, name) = (self.inode(above)?, name.clone().into_bytes());
        let core = self.world.store.core.clone();
        let cloned = wait(|done| {
            core.committer
                .submit(0, 64 << 10, done, move |tx| snapshots::clone(tx, source, directory, &name))
        });
        self.settled(cloned);
        let copy = self.model.copied(thing, files, true, &mut BTreeMap::new());
        let line = self.model.fresh();
        let root = match copy {
            Thing::Directory(tree) | Thing::Root(_, tree) => Thing::Root(line, tree),
            other => Thing::FileRoot(line, self.model.content(&other).unwrap()),
        };
        self.model.put(target, root);
        Ok(())
    }

    fn restore(&mut self) -> Outcome {
        let roots = self.model.paths(|thing| matches!(thing, Thing::Root(..) | Thing::FileRoot(..)));
        let Some(path) = self.pick(&roots) else { return Ok(()) };
        let line = self.model.line(&path).0;
        let of_line: Vec<Taken> = self
            .taken
            .iter()
            .filter(|taken| taken.line == line && taken.is_whole)
            .cloned()
            .collect();
        let Some(taken) = self.pick(&of_line) else { return Ok(()) };
        let undo = self.fresh_name("undo");
        let (above, element) = (self.inode(&path[..path.len() - 1])?, self.inode(&path)?);
        let spelled = if is_file(self.model.at(&path).unwrap()) {
            String::new()
        } else {
            "/".into()
        };
        let place = Place {
            directory: above,
            spelled: format!("{}{spelled}", path.last().unwrap()).into_bytes(),
            element,
        };
        let request = Request {
            name: undo.clone(),
            ..Request::default()
        };
        let (core, name) = (self.world.store.core.clone(), taken.name.clone());
        let restored = wait(|done| {
            core.committer
                .submit(0, 64 << 10, done, move |tx| snapshots::restore(tx, &place, &name, &request))
        });
        let kept = self.settled(restored).map(|(kept, _)| kept);
        self.note_taken(undo, kept.as_ref(), &path);
        let thing = self.model.copied(&taken.thing, &taken.files, false, &mut BTreeMap::new());
        self.model.put(&path, thing);
        self.did("restore")
    }

    /// Everything below a clone's root, then the root, as a user would.
    fn remove_clone(&mut self) -> Outcome {
        let roots = self.model.paths(|thing| matches!(thing, Thing::Root(..)));
        let roots: Vec<Path> = roots
            .into_iter()
            .filter(|path| !VIEWS.contains(&path[0].as_str()) || path.len() > 1)
            .collect();
        let Some(root) = self.pick(&roots) else { return Ok(()) };
        let mut below: Vec<Path> = self
            .model
            .paths(|_| true)
            .into_iter()
            .filter(|path| path.starts_with(&root))
            .collect();
        below.sort_by_key(|path| std::cmp::Reverse(path.len()));
        for path in below {
            self.world.make_room().map_err(|_| Errno::IO)?;
            self.remove_at(&path)?;
        }
        self.did("remove a clone")
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
        judged(seed, 500)
            .into_iter()
            .for_each(|(what, count)| *done.entry(what).or_default() += count);
    }
    for what in [
        "snapshot",
        "clone a snapshot",
        "clone",
        "restore",
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

#[test]
#[ignore = "slow: a minute and more"]
fn every_snapshot_reads_as_its_copy_at_length() {
    for seed in 100..106 {
        judged(seed, 1500);
    }
}
