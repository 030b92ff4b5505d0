//! A judge of news: a copy of the whole tree that looks again only at what it was told of, as the kernel's caches do, and must be right all the same.
//!
//! Times of access and bytes allocated are not compared: nobody is told of them. A file's version stands for its content.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Verdict;
use super::listing::list_all;
use crate::filesystem::news::{Listener, News};
use crate::filesystem::*;

const LIST_LIMIT: usize = 100;

/// What a cache would hold.
#[derive(Debug, Default, PartialEq, Eq)]
struct Picture {
    nodes: BTreeMap<Inode, Node>,
    names: BTreeMap<Inode, BTreeMap<Vec<u8>, Inode>>,
}

pub struct Mirror {
    listener: Arc<Listener>,
    picture: Picture,
}

fn shown(mut node: Node) -> Node {
    (node.accessed_ns, node.allocated) = (0, 0);
    node
}

impl Picture {
    fn of(files: &dyn FileSystem) -> Verdict<Self> {
        let mut picture = Self::default();
        let root = files.stat(ROOT).map_err(|errno| format!("{errno:?}"))?;
        picture.add(files, root)?;
        Ok(picture)
    }

    /// What was not known before, with all that is in it.
    fn add(&mut self, files: &dyn FileSystem, node: Node) -> Verdict {
        let mut found = vec![node];
        while let Some(node) = found.pop() {
            let inode = node.inode;
            if self.nodes.contains_key(&inode) {
                continue;
            }
            if node.kind == Type::Directory {
                let entries = list_all(files, inode, LIST_LIMIT)?;
                self.names
                    .insert(inode, entries.iter().map(|(name, node)| (name.clone(), node.inode)).collect());
                found.extend(entries.into_values());
            }
            self.nodes.insert(inode, shown(node));
        }
        Ok(())
    }

    fn reach(&self) -> Self {
        let mut reached = Self::default();
        let mut waiting = vec![ROOT];
        while let Some(inode) = waiting.pop() {
            let Some(node) = self.nodes.get(&inode) else { continue };
            if reached.nodes.insert(inode, node.clone()).is_some() {
                continue;
            }
            if let Some(names) = self.names.get(&inode) {
                waiting.extend(names.values());
                reached.names.insert(inode, names.clone());
            }
        }
        reached
    }

    fn refresh(&mut self, files: &dyn FileSystem, inode: Inode, content: bool) -> Verdict {
        let Some(held) = self.nodes.get_mut(&inode) else { return Ok(()) };
        match files.stat(inode) {
            Ok(node) if !content && node.kind == Type::File && node.version != held.version => {
                Err(format!("only the attributes of {inode} were said to change, but its content did"))
            }
            Ok(node) => {
                *held = shown(node);
                Ok(())
            }
            Err(Errno::STALE) => {
                self.nodes.remove(&inode);
                self.names.remove(&inode);
                Ok(())
            }
            Err(errno) => Err(format!("{inode}: {errno:?}")),
        }
    }

    fn look_up(&mut self, files: &dyn FileSystem, directory: Inode, name: Vec<u8>) -> Verdict {
        let Some(names) = self.names.get_mut(&directory) else {
            return Ok(());
        };
        match files.lookup(directory, &name) {
            Ok(node) => {
                names.insert(name, node.inode);
                self.add(files, node)
            }
            Err(Errno::NOENT | Errno::STALE) => {
                names.remove(&name);
                Ok(())
            }
            Err(errno) => Err(format!("{}: {errno:?}", name.escape_ascii())),
        }
    }
}

impl Mirror {
    /// Raises what keeps it from looking. The filesystem must have news.
    pub fn new(files: &dyn FileSystem) -> Verdict<Self> {
        let listener = files.subscribe().ok_or("no news")?;
        let picture = Picture::of(files)?;
        Ok(Self { listener, picture })
    }

    /// Looks again at what changed. To be called while nobody changes anything.
    pub fn hear(&mut self, files: &dyn FileSystem) -> Verdict {
        let heard = self.listener.hear(Some(Duration::ZERO)).unwrap_or_default();
        if heard.everything {
            self.picture = Picture::of(files)?;
            return Ok(());
        }
        // Content first: with several changes at once, one of the news may name the content and another the attributes.
        let content = heard.news.iter().filter_map(|one| match one {
            News::Content(inode) => Some(*inode),
            _ => None,
        });
        let content = content.collect::<Vec<_>>();
        for one in heard.news {
            match one {
                News::Content(inode) => self.picture.refresh(files, inode, true)?,
                News::Attributes(inode) => self.picture.refresh(files, inode, content.contains(&inode))?,
                News::Entry(directory, name) => self.picture.look_up(files, directory, name)?,
            }
        }
        Ok(())
    }

    /// Hears nothing of what changed until now; for controls.
    pub fn miss(&self) {
        self.listener.hear(Some(Duration::ZERO));
    }

    pub fn compare(&self, files: &dyn FileSystem) -> Verdict {
        let (fresh, held) = (Picture::of(files)?, self.picture.reach());
        if let Some((directory, names)) = fresh.names.iter().find(|(inode, names)| held.names.get(inode) != Some(names)) {
            return Err(format!(
                "directory {directory} has {names:?}, but {:?} was told of",
                held.names.get(directory)
            ));
        }
        if let Some((inode, node)) = fresh.nodes.iter().find(|(inode, node)| held.nodes.get(inode) != Some(node)) {
            return Err(format!("inode {inode} is {node:?}, but {:?} was told of", held.nodes.get(inode)));
        }
        if fresh == held {
            Ok(())
        } else {
            Err("more is held than there is".to_owned())
        }
    }
}
