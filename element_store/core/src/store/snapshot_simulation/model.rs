//! The whole tree in memory, copied at every snapshot; and what a `FileSystem` shows, to compare with it.

use crate::filesystem::{FileSystem, Inode, Type};
use std::collections::BTreeMap;

pub type Path = Vec<String>;

#[derive(Debug, Clone, PartialEq)]
pub enum Thing {
    Directory(Tree),
    File(u32),
    Symlink(String),
    /// The root of a view or a clone, with its line.
    Root(u32, Tree),
    /// A file that is a clone's root, with its line and content.
    FileRoot(u32, Vec<u8>),
}

pub type Tree = BTreeMap<String, Thing>;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    pub tree: Tree,
    /// By space: files of a tree and its clones are different ones.
    pub files: BTreeMap<u32, Vec<u8>>,
    pub next: u32,
}

/// A snapshot, its line, and a copy of what it saw.
#[derive(Clone)]
pub struct Taken {
    pub name: String,
    pub lineage: u64,
    pub root: Inode,
    pub line: u32,
    /// It was taken of the root of its line.
    pub is_whole: bool,
    pub thing: Thing,
    pub files: BTreeMap<u32, Vec<u8>>,
}

impl Model {
    pub fn at(&self, path: &[String]) -> Option<&Thing> {
        let (last, above) = path.split_last()?;
        let mut tree = &self.tree;
        for name in above {
            tree = children(tree.get(name)?)?;
        }
        tree.get(last)
    }

    pub fn tree_at(&mut self, path: &[String]) -> Option<&mut Tree> {
        let mut tree = &mut self.tree;
        for name in path {
            tree = match tree.get_mut(name)? {
                Thing::Directory(tree) | Thing::Root(_, tree) => tree,
                _ => return None,
            };
        }
        Some(tree)
    }

    pub fn put(&mut self, path: &[String], thing: Thing) {
        let (last, above) = path.split_last().unwrap();
        self.tree_at(above).unwrap().insert(last.clone(), thing);
    }

    pub fn take(&mut self, path: &[String]) -> Thing {
        let (last, above) = path.split_last().unwrap();
        self.tree_at(above).unwrap().remove(last).unwrap()
    }

    pub fn content(&self, thing: &Thing) -> Option<Vec<u8>> {
        match thing {
            Thing::File(id) => Some(self.files[id].clone()),
            Thing::FileRoot(_, content) => Some(content.clone()),
            _ => None,
        }
    }

    pub fn set_content(&mut self, path: &[String], content: Vec<u8>) {
        match self.at(path).unwrap().clone() {
            Thing::File(id) => drop(self.files.insert(id, content)),
            Thing::FileRoot(line, _) => self.put(path, Thing::FileRoot(line, content)),
            _ => unreachable!(),
        }
    }

    pub fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// The line of the innermost root at or above a path, and its depth.
    pub fn line(&self, path: &[String]) -> (u32, usize) {
        let depths = (1..=path.len()).rev();
        let line = |depth: &usize| match self.at(&path[..*depth]) {
            Some(Thing::Root(line, _) | Thing::FileRoot(line, _)) => Some((*line, *depth)),
            _ => None,
        };
        depths.into_iter().find_map(|depth| line(&depth)).unwrap()
    }

    /// Everything below, as other files; roots with other lines if they are to be clones.
    pub fn copied(&mut self, thing: &Thing, files: &BTreeMap<u32, Vec<u8>>, are_clones: bool, known: &mut BTreeMap<u32, u32>) -> Thing {
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

    pub fn paths(&self, wanted: impl Fn(&Thing) -> bool) -> Vec<Path> {
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

pub fn children(thing: &Thing) -> Option<&Tree> {
    match thing {
        Thing::Directory(tree) | Thing::Root(_, tree) => Some(tree),
        _ => None,
    }
}

pub fn is_file(thing: &Thing) -> bool {
    matches!(thing, Thing::File(_) | Thing::FileRoot(..))
}

pub fn joined(path: &[String]) -> Vec<u8> {
    path.join("/").into_bytes()
}

/// What a path shows: its kind, and its content or target.
pub type Shown = BTreeMap<String, (char, Vec<u8>)>;

pub fn shown(thing: &Thing, files: &BTreeMap<u32, Vec<u8>>, at: &str, into: &mut Shown) {
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

pub fn read_all(fs: &dyn FileSystem, inode: Inode, size: u64) -> crate::filesystem::Result<Vec<u8>> {
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

pub fn seen(fs: &dyn FileSystem, inode: Inode, at: &str, into: &mut Shown) -> crate::filesystem::Result<()> {
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
