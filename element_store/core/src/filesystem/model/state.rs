//! The elements of the model, the space that they take, and how they come and go.
//!
//! Invariants: every element has a name or is open; `used` is the sum of `weight` over all elements; a directory's links are 2 and one for
//! each directory in it; an element's number is never given again.

use std::collections::BTreeMap;

use super::content::Content;
use crate::filesystem::acl::{self, Birth};
use crate::filesystem::news::News;
use crate::filesystem::*;

/// What one element, and one entry besides its name, count against the bound.
const ELEMENT_BYTES: u64 = 512;
const ENTRY_BYTES: u64 = 64;
/// An access is noted if the last one noted is older than this, or no later than the last change (Linux's `relatime`).
const ACCESS_NS_MAX: i64 = 24 * 3600 * 1_000_000_000;

#[derive(Clone)]
pub(super) struct State {
    elements: BTreeMap<Inode, Element>,
    last: Inode,
    used: u64,
    bytes_max: u64,
    /// What the call under way could change, as it was before.
    touched: BTreeMap<Inode, Node>,
    renamed: Vec<(Inode, Vec<u8>)>,
}

/// What is asked for. The umask counts where the directory has no default ACL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode {
    pub bits: u32,
    pub umask: u32,
}

#[derive(Clone)]
pub(super) struct Element {
    pub node: Node,
    /// The view root that it is in; ROOT's is ROOT.
    pub view: Inode,
    pub opens: u64,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub body: Body,
}

#[derive(Clone)]
pub(super) enum Body {
    Directory(Directory),
    File(Content),
    Symlink(Vec<u8>),
    Special,
}

#[derive(Clone)]
pub(super) struct Directory {
    pub parent: Inode,
    names: BTreeMap<Vec<u8>, (u64, Inode)>,
    /// Cookies only rise: what comes later is listed later.
    cookies: BTreeMap<u64, Vec<u8>>,
    last_cookie: u64,
}

impl Directory {
    fn new(parent: Inode) -> Self {
        Self {
            parent,
            names: BTreeMap::new(),
            cookies: BTreeMap::new(),
            last_cookie: 0,
        }
    }

    pub fn get(&self, name: &[u8]) -> Option<Inode> {
        self.names.get(name).map(|(_, inode)| *inode)
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub fn after(&self, cookie: u64) -> impl Iterator<Item = (u64, &[u8], Inode)> {
        let rest = self.cookies.range(cookie.saturating_add(1)..);
        rest.map(|(cookie, name)| (*cookie, name.as_slice(), self.names[name].1))
    }

    fn exchange(&mut self, name: &[u8], inode: Inode) {
        if let Some(entry) = self.names.get_mut(name) {
            entry.1 = inode;
        }
    }

    fn weight(&self) -> u64 {
        self.names.keys().map(|name| entry_weight(name)).sum()
    }
}

fn entry_weight(name: &[u8]) -> u64 {
    ENTRY_BYTES + name.len() as u64
}

impl Element {
    pub fn is_directory(&self) -> bool {
        matches!(self.body, Body::Directory(_))
    }

    pub fn content(&mut self) -> Result<&mut Content> {
        match &mut self.body {
            Body::File(content) => Ok(content),
            Body::Directory(_) => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }

    /// Content or entries changed.
    pub fn modified(&mut self, now: i64) {
        self.node.modified_ns = now;
        self.node.changed_ns = now;
        self.node.version += 1;
        if let Body::File(content) = &self.body {
            self.node.size = content.size();
            self.node.allocated = content.allocated();
        }
    }

    pub fn accessed(&mut self, now: i64) {
        let node = &mut self.node;
        let noted = node.accessed_ns;
        if noted <= node.modified_ns || noted <= node.changed_ns || now.saturating_sub(noted) >= ACCESS_NS_MAX {
            node.accessed_ns = now;
        }
    }

    /// Takes the set-id bits of a file away; set-gid without group execution means something else and stays.
    pub fn strip_privileges(&mut self) {
        if self.node.kind != Type::Directory {
            let group = if self.node.mode & 0o010 != 0 { 0o2000 } else { 0 };
            self.node.mode &= !(0o4000 | group);
        }
    }

    pub fn xattr_bytes(&self) -> u64 {
        self.xattrs.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum()
    }

    fn weight(&self) -> u64 {
        let body = match &self.body {
            Body::Directory(directory) => directory.weight(),
            Body::File(content) => content.allocated(),
            Body::Symlink(target) => target.len() as u64,
            Body::Special => 0,
        };
        ELEMENT_BYTES + self.xattr_bytes() + body
    }
}

impl State {
    pub fn new(bytes_max: u64, now: i64) -> Self {
        let mut state = Self {
            elements: BTreeMap::new(),
            last: ROOT - 1,
            used: 0,
            bytes_max,
            touched: BTreeMap::new(),
            renamed: Vec::new(),
        };
        state.insert(
            Type::Directory,
            Body::Directory(Directory::new(ROOT)),
            ROOT,
            0o755,
            Owner { uid: 0, gid: 0 },
            now,
        );
        state
    }

    pub fn get(&self, inode: Inode) -> Result<&Element> {
        self.elements.get(&inode).ok_or(Errno::STALE)
    }

    pub fn get_mut(&mut self, inode: Inode) -> Result<&mut Element> {
        let element = self.elements.get_mut(&inode).ok_or(Errno::STALE)?;
        self.touched.entry(inode).or_insert_with(|| element.node.clone());
        Ok(element)
    }

    /// Of an inode that an entry or a parent names.
    pub fn at(&mut self, inode: Inode) -> &mut Element {
        self.get_mut(inode).expect("what is named is there")
    }

    pub fn node(&self, inode: Inode) -> Result<Node> {
        Ok(self.get(inode)?.node.clone())
    }

    pub fn directory(&self, inode: Inode) -> Result<&Directory> {
        match &self.get(inode)?.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Of an inode that is known to be a directory.
    pub fn entries(&mut self, inode: Inode) -> &mut Directory {
        match &mut self.at(inode).body {
            Body::Directory(directory) => directory,
            _ => unreachable!("{inode} was seen to be a directory"),
        }
    }

    /// A directory that may get entries: one that was removed, and is still open, may not.
    pub fn growing(&self, inode: Inode) -> Result<&Directory> {
        let directory = self.directory(inode)?;
        if self.get(inode)?.node.links == 0 {
            Err(Errno::NOENT)
        } else {
            Ok(directory)
        }
    }

    /// Raises NOSPC. Call it before anything is changed.
    pub fn reserve(&self, bytes: u64) -> Result<()> {
        let fits = self.used.checked_add(bytes).is_some_and(|used| used <= self.bytes_max);
        if fits { Ok(()) } else { Err(Errno::NOSPC) }
    }

    /// An element grew or shrank from `before` bytes to `after`.
    pub fn resized(&mut self, before: u64, after: u64) {
        self.used = self.used + after - before;
    }

    /// Raises NOSPC for a new element under that name.
    pub fn reserve_element(&self, name: &[u8], target: usize) -> Result<()> {
        self.reserve(ELEMENT_BYTES + entry_weight(name) + target as u64)
    }

    pub fn reserve_entry(&self, name: &[u8]) -> Result<()> {
        self.reserve(entry_weight(name))
    }

    pub fn insert_new(&mut self, kind: Type, target: &[u8], parent: Inode, mode: Mode, owner: Owner, now: i64) -> Inode {
        let body = match kind {
            Type::Directory => Body::Directory(Directory::new(parent)),
            Type::File => Body::File(Content::default()),
            Type::Symlink => Body::Symlink(target.to_vec()),
            _ => Body::Special,
        };
        let above = self.at(parent);
        let default = above.xattrs.get(acl::DEFAULT.as_bytes()).filter(|_| kind != Type::Symlink);
        let birth = Birth::new(default.map(Vec::as_slice), mode.bits & 0o7777, mode.umask, kind == Type::Directory);
        let (mut mode, mut owner) = (birth.mode, owner);
        if above.node.mode & 0o2000 != 0 {
            owner.gid = above.node.gid;
            mode |= if kind == Type::Directory { 0o2000 } else { 0 };
        }
        let view = if parent == ROOT { self.last + 1 } else { above.view };
        let inode = self.insert(kind, body, view, mode, owner, now);
        let element = self.at(inode);
        element.xattrs = birth
            .lists
            .into_iter()
            .map(|(name, list)| (name.as_bytes().to_vec(), list))
            .collect();
        let bytes = element.xattr_bytes();
        self.resized(0, bytes);
        inode
    }

    fn insert(&mut self, kind: Type, body: Body, view: Inode, mode: u32, owner: Owner, now: i64) -> Inode {
        self.last += 1;
        let size = if let Body::Symlink(target) = &body {
            target.len() as u64
        } else {
            0
        };
        let node = Node {
            inode: self.last,
            kind,
            mode,
            links: if kind == Type::Directory { 2 } else { 0 },
            uid: owner.uid,
            gid: owner.gid,
            size,
            allocated: 0,
            block_bytes: 0,
            accessed_ns: now,
            modified_ns: now,
            changed_ns: now,
            created_ns: now,
            version: 1,
        };
        let element = Element {
            node,
            view,
            opens: 0,
            xattrs: BTreeMap::new(),
            body,
        };
        self.used += element.weight();
        self.touched.insert(self.last, element.node.clone());
        self.elements.insert(self.last, element);
        self.last
    }

    pub fn add_entry(&mut self, directory: Inode, name: &[u8], inode: Inode, now: i64) {
        self.renamed.push((directory, name.to_vec()));
        let entries = self.entries(directory);
        entries.last_cookie += 1;
        let cookie = entries.last_cookie;
        entries.names.insert(name.to_vec(), (cookie, inode));
        entries.cookies.insert(cookie, name.to_vec());
        self.resized(0, entry_weight(name));
        let is_directory = self.at(inode).is_directory();
        let above = self.at(directory);
        above.node.links += u32::from(is_directory);
        above.modified(now);
    }

    pub fn remove_entry(&mut self, directory: Inode, name: &[u8], now: i64) {
        self.renamed.push((directory, name.to_vec()));
        let entries = self.entries(directory);
        let (cookie, inode) = entries.names.remove(name).expect("the name was seen");
        entries.cookies.remove(&cookie);
        self.resized(entry_weight(name), 0);
        let is_directory = self.at(inode).is_directory();
        let above = self.at(directory);
        above.node.links -= u32::from(is_directory);
        above.modified(now);
    }

    /// After one of its names is gone, a directory's only one.
    pub fn unlinked(&mut self, inode: Inode, now: i64) {
        let element = self.at(inode);
        element.node.links = if element.is_directory() { 0 } else { element.node.links - 1 };
        element.node.changed_ns = now;
        self.forget_if_unused(inode);
    }

    pub fn forget_if_unused(&mut self, inode: Inode) {
        let element = self.at(inode);
        if element.node.links == 0 && element.opens == 0 {
            let weight = element.weight();
            self.elements.remove(&inode);
            self.resized(weight, 0);
        }
    }

    /// Another element under a name that stays.
    pub fn exchange_entry(&mut self, directory: Inode, name: &[u8], inode: Inode) {
        self.renamed.push((directory, name.to_vec()));
        self.entries(directory).exchange(name, inode);
    }

    /// What the call that is over changed.
    pub fn take_news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        for (inode, before) in std::mem::take(&mut self.touched) {
            match self.elements.get(&inode).map(|element| &element.node) {
                Some(node) if node.kind == Type::File && node.version != before.version => news.push(News::Content(inode)),
                Some(node) if *node == before => {}
                _ => news.push(News::Attributes(inode)),
            }
        }
        let renamed = std::mem::take(&mut self.renamed);
        news.extend(renamed.into_iter().map(|(directory, name)| News::Entry(directory, name)));
        news
    }

    pub fn statistics(&self) -> Statistics {
        Statistics {
            total_bytes: self.bytes_max,
            free_bytes: self.bytes_max.saturating_sub(self.used),
            elements: self.elements.len() as u64,
        }
    }

    /// The invariants above; for tests.
    #[cfg(test)]
    pub fn check(&self) {
        assert_eq!(self.used, self.elements.values().map(Element::weight).sum::<u64>());
        let mut names: BTreeMap<Inode, u32> = BTreeMap::from([(ROOT, 1)]);
        for (inode, element) in &self.elements {
            assert_eq!(*inode, element.node.inode);
            let Body::Directory(directory) = &element.body else { continue };
            assert_eq!(directory.names.len(), directory.cookies.len());
            let mut links = 2;
            for (name, (cookie, child)) in &directory.names {
                assert_eq!(directory.cookies.get(cookie), Some(name));
                let below = &self.elements[child];
                assert!(*inode == ROOT || below.view == element.view);
                if let Body::Directory(below) = &below.body {
                    links += 1;
                    assert_eq!(below.parent, *inode);
                }
                *names.entry(*child).or_default() += 1;
            }
            assert!(element.node.links == links || element.node.links == 0 && element.opens > 0);
        }
        for (inode, element) in &self.elements {
            let count = names.get(inode).copied().unwrap_or(0);
            assert!(count > 0 || element.opens > 0);
            assert!(element.is_directory() || element.node.links == count);
        }
    }
}
