//! The names that each directory must hold, and the listings that are under way while they change.

use std::collections::{BTreeMap, BTreeSet};

use super::pairs::Id;
use super::{Both, Judge, Verdict};
use crate::filesystem::*;

pub(super) const LISTINGS_MAX: usize = 4;
const COOKIE_MAX: u64 = 1 << 62;

#[derive(Clone, Default)]
pub(super) struct Names {
    of: BTreeMap<Id, BTreeSet<Vec<u8>>>,
    listings: Vec<Listing>,
}

#[derive(Clone)]
struct Listing {
    directory: Id,
    /// There from the start and untouched so far: must be seen exactly once.
    steady: BTreeSet<Vec<u8>>,
    /// How often a name began to be there: it may be seen that often.
    begun: BTreeMap<Vec<u8>, usize>,
    sides: [Progress; 2],
}

#[derive(Clone, Default)]
struct Progress {
    cookie: u64,
    finished: bool,
    seen: BTreeMap<Vec<u8>, usize>,
}

impl Names {
    pub fn of(&self, directory: Id) -> Option<&BTreeSet<Vec<u8>>> {
        self.of.get(&directory)
    }

    /// Which directory a listing is of.
    pub fn listed(&self, index: usize) -> Option<Id> {
        self.listings.get(index).map(|listing| listing.directory)
    }

    pub fn set(&mut self, directory: Id, names: BTreeSet<Vec<u8>>) {
        self.of.insert(directory, names);
    }

    pub fn added(&mut self, directory: Id, name: &[u8]) {
        self.of.entry(directory).or_default().insert(name.to_vec());
        self.touch(directory, name, 1);
    }

    pub fn removed(&mut self, directory: Id, name: &[u8]) {
        self.of.entry(directory).or_default().remove(name);
        self.touch(directory, name, 0);
    }

    fn touch(&mut self, directory: Id, name: &[u8], begun: usize) {
        for listing in self.listings.iter_mut().filter(|listing| listing.directory == directory) {
            listing.steady.remove(name);
            *listing.begun.entry(name.to_vec()).or_default() += begun;
        }
    }

    fn start(&mut self, directory: Id) {
        if self.listings.len() == LISTINGS_MAX {
            self.listings.remove(0);
        }
        let steady = self.of.get(&directory).cloned().unwrap_or_default();
        let begun = steady.iter().map(|name| (name.clone(), 1)).collect();
        self.listings.push(Listing {
            directory,
            steady,
            begun,
            sides: Default::default(),
        });
    }
}

impl Judge {
    /// Nothing happens yet, but what a directory holds from now on must be seen.
    pub(super) fn start_listing(&mut self, both: Both<'_>, directory: Id) -> Verdict {
        self.pairs.note_access(directory);
        let listed = [0, 1].map(|side| both[side].list(self.pairs.inode(directory, side), 0, 1));
        match listed.map(|answer| answer.map(drop)) {
            [a, b] if a != b => return Err(format!("a answers {a:?}, b {b:?}")),
            [Ok(()), _] => self.names.start(directory),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn go_on_listing(&mut self, both: Both<'_>, index: usize, limit: usize) -> Verdict {
        if index >= self.names.listings.len() {
            return Ok(());
        }
        let mut listing = self.names.listings.swap_remove(index);
        self.pairs.note_access(listing.directory);
        for side in 0..2 {
            let inode = self.pairs.inode(listing.directory, side);
            match listing.sides[side].go_on(both[side], inode, limit) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(reason) => return Err(format!("listing {:?} of side {}: {reason}", listing.directory, ["a", "b"][side])),
            }
        }
        if listing.sides.iter().all(|side| side.finished) {
            return listing.check();
        }
        self.names.listings.push(listing);
        Ok(())
    }
}

impl Progress {
    /// False if the directory is gone.
    fn go_on(&mut self, files: &dyn FileSystem, directory: Inode, limit: usize) -> Verdict<bool> {
        if self.finished {
            return Ok(true);
        }
        let entries = match files.list(directory, self.cookie, limit) {
            Ok(entries) => entries,
            Err(Errno::STALE) if files.stat(directory) == Err(Errno::STALE) => return Ok(false),
            Err(errno) => return Err(errno.to_string()),
        };
        check_entries(files, &entries, limit)?;
        self.finished = entries.is_empty();
        for entry in entries {
            self.cookie = entry.cookie;
            *self.seen.entry(entry.name).or_default() += 1;
        }
        Ok(true)
    }
}

impl Listing {
    fn check(&self) -> Verdict {
        for (side, progress) in ["a", "b"].iter().zip(&self.sides) {
            let place = format!("listing {:?} of side {side}", self.directory);
            let count = |name: &Vec<u8>| progress.seen.get(name).copied().unwrap_or(0);
            if let Some(name) = self.steady.iter().find(|name| count(name) != 1) {
                let (count, name) = (count(name), name.escape_ascii());
                return Err(format!("{place} showed {name} {count} times, though it was there all the while"));
            }
            let allowed = |name: &Vec<u8>| self.begun.get(name).copied().unwrap_or(0);
            if let Some((name, count)) = progress.seen.iter().find(|(name, count)| **count > allowed(name)) {
                let (allowed, name) = (allowed(name), name.escape_ascii());
                return Err(format!(
                    "{place} showed {name} {count} times, though it came to be there {allowed} times"
                ));
            }
        }
        Ok(())
    }
}

fn check_entries(files: &dyn FileSystem, entries: &[Entry], limit: usize) -> Verdict {
    if entries.len() > limit {
        return Err(format!("{} entries instead of at most {limit}", entries.len()));
    }
    for entry in entries {
        if !(1..=COOKIE_MAX).contains(&entry.cookie) {
            return Err(format!("cookie {} is out of range", entry.cookie));
        }
        let mut node = files
            .stat(entry.node.inode)
            .map_err(|errno| format!("{entry:?}: stat answers {errno:?}"))?;
        // An access may be noted meanwhile.
        (node.allocated, node.accessed_ns) = (entry.node.allocated, entry.node.accessed_ns);
        if node != entry.node {
            return Err(format!("{entry:?} is listed, but stat shows {node:?}"));
        }
    }
    Ok(())
}

/// The whole of a directory in small steps.
pub(super) fn list_all(files: &dyn FileSystem, directory: Inode, limit: usize) -> Verdict<BTreeMap<Vec<u8>, Node>> {
    let mut names = BTreeMap::new();
    let mut cookies = BTreeSet::new();
    let mut cookie = 0;
    loop {
        let entries = files
            .list(directory, cookie, limit)
            .map_err(|errno| format!("list answers {errno}"))?;
        check_entries(files, &entries, limit)?;
        let Some(last) = entries.last() else { return Ok(names) };
        cookie = last.cookie;
        for entry in entries {
            let twice = !cookies.insert(entry.cookie) || names.contains_key(&entry.name);
            if twice {
                return Err(format!(
                    "{} or its cookie {} is listed twice",
                    entry.name.escape_ascii(),
                    entry.cookie
                ));
            }
            names.insert(entry.name, entry.node);
        }
    }
}
