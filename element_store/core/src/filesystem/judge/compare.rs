//! Both trees in full: names, nodes, attributes, targets, content.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::listing::list_all;
use super::pairs::Id;
use super::{Both, Judge, Verdict};
use crate::filesystem::*;

/// Of one read.
const CHUNK_BYTES: u64 = 256 << 10;
/// How far into a hole of both sides it is read.
const HOLE_BYTES: u64 = 4096;

/// What a walk saw of each thing: the names of files, and the directories in a directory.
type Counts = BTreeMap<Id, u32>;

impl Judge {
    pub(super) fn compare_all(&mut self, both: Both<'_>) -> Verdict {
        let limit = 1 + self.random.below(9) as usize;
        let mut links = Counts::new();
        let mut directories = vec![(Id::ROOT, Id::ROOT)];
        while let Some((parent, directory)) = directories.pop() {
            self.compare_directory(both, directory, parent, limit, &mut links, &mut directories)
                .map_err(|reason| format!("directory {directory:?}: {reason}"))?;
        }
        for (id, links) in &links {
            let node = self.stat_both(both, *id)?;
            if node.links != *links {
                return Err(format!("{id:?} has {links} links, but stat shows {}", node.links));
            }
        }
        for id in self.opens.clone() {
            self.compare_element(both, id)
                .map_err(|reason| format!("{id:?}, which is open: {reason}"))?;
        }
        self.compare_gone(both)
    }

    fn compare_directory(
        &mut self,
        both: Both<'_>,
        directory: Id,
        parent: Id,
        limit: usize,
        links: &mut Counts,
        directories: &mut Vec<(Id, Id)>,
    ) -> Verdict {
        self.pairs.note_access(directory);
        let [a, b] = [0, 1].map(|side| list_all(both[side], self.pairs.inode(directory, side), limit));
        let (a, b) = (
            a.map_err(|reason| format!("a: {reason}"))?,
            b.map_err(|reason| format!("b: {reason}"))?,
        );
        let [names, others] = [&a, &b].map(|entries| entries.keys().cloned().collect::<BTreeSet<_>>());
        let expected = self.names.of(directory).filter(|_| self.steps > 0).unwrap_or(&names);
        if names != others || names != *expected {
            return Err(format!(
                "a lists {}, b lists {}, expected are {}",
                joined(&names),
                joined(&others),
                joined(expected)
            ));
        }
        self.names.set(directory, names);
        *links.entry(directory).or_default() += 2;
        for (name, node) in &a {
            let id = self
                .pairs
                .meet([node, &b[name]])
                .map_err(|reason| format!("{}: {reason}", name.escape_ascii()))?;
            if node.kind == Type::Directory {
                *links.entry(directory).or_default() += 1;
                directories.push((directory, id));
            } else {
                *links.entry(id).or_default() += 1;
                self.compare_element(both, id)
                    .map_err(|reason| format!("{}: {reason}", name.escape_ascii()))?;
            }
        }
        self.compare_xattrs(both, directory)?;
        let above = self.meet_both(both, |files, inode| files.parent(inode), directory)?;
        if above == parent {
            Ok(())
        } else {
            Err(format!("its parent is {above:?} instead of {parent:?}"))
        }
    }

    fn meet_both(&mut self, both: Both<'_>, ask: fn(&dyn FileSystem, Inode) -> Result<Node>, id: Id) -> Verdict<Id> {
        let [a, b] = [0, 1].map(|side| ask(both[side], self.pairs.inode(id, side)));
        match (a, b) {
            (Ok(a), Ok(b)) => self.pairs.meet([&a, &b]),
            other => Err(format!("{id:?}: {other:?}")),
        }
    }

    fn stat_both(&mut self, both: Both<'_>, id: Id) -> Verdict<Node> {
        self.meet_both(both, |files, inode| files.stat(inode), id)?;
        both[0].stat(self.pairs.inode(id, 0)).map_err(|errno| format!("{errno:?}"))
    }

    /// All but a directory's entries.
    fn compare_element(&mut self, both: Both<'_>, id: Id) -> Verdict {
        let node = self.stat_both(both, id)?;
        self.compare_xattrs(both, id)?;
        self.pairs.note_access(id);
        let inodes = [0, 1].map(|side| self.pairs.inode(id, side));
        match node.kind {
            Type::Symlink => {
                let [a, b] = [0, 1].map(|side| both[side].read_link(inodes[side]));
                let alike = a == b && a.as_ref().is_ok_and(|target| target.len() as u64 == node.size);
                if alike { Ok(()) } else { Err(format!("targets {a:?} and {b:?}")) }
            }
            Type::File => compare_content(both, inodes, node.size),
            _ => Ok(()),
        }
    }

    fn compare_xattrs(&self, both: Both<'_>, id: Id) -> Verdict {
        let [a, b] = [0, 1].map(|side| xattrs(both[side], self.pairs.inode(id, side)));
        if a == b && a.is_ok() {
            Ok(())
        } else {
            Err(format!("attributes of {id:?} differ: a {a:?}, b {b:?}"))
        }
    }

    /// What is gone on one side is gone on the other.
    fn compare_gone(&mut self, both: Both<'_>) -> Verdict {
        for id in (0..self.pairs.count()).map(Id) {
            let there = [0, 1].map(|side| both[side].stat(self.pairs.inode(id, side)).map(|_| ()));
            if there[0] != there[1] {
                return Err(format!("stat {id:?}: a answers {:?}, b {:?}", there[0], there[1]));
            }
        }
        Ok(())
    }
}

fn xattrs(files: &dyn FileSystem, inode: Inode) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let names = files.xattrs(inode)?.into_iter();
    names.map(|name| files.xattr(inode, &name).map(|value| (name, value))).collect()
}

fn joined(names: &BTreeSet<Vec<u8>>) -> String {
    let names: Vec<String> = names.iter().map(|name| name.escape_ascii().to_string()).collect();
    format!("[{}]", names.join(" "))
}

fn compare_content(both: Both<'_>, inodes: [Inode; 2], size: u64) -> Verdict {
    let a = data_ranges(both[0], inodes[0], size).map_err(|reason| format!("a: {reason}"))?;
    let b = data_ranges(both[1], inodes[1], size).map_err(|reason| format!("b: {reason}"))?;
    let union = with_edges(merged(a.iter().chain(&b).cloned().collect()), size);
    for range in union {
        let mut start = range.start;
        while start < range.end {
            let length = (range.end - start).min(CHUNK_BYTES);
            let chunk = start..start + length;
            let read = |side: usize| both[side].read(inodes[side], start, length as usize);
            let (left, right) = (read(0), read(1));
            check_chunk(&left, &right, &chunk, [&a, &b])?;
            start += length;
        }
    }
    Ok(())
}

fn check_chunk(left: &Result<Vec<u8>>, right: &Result<Vec<u8>>, chunk: &Range<u64>, data: [&[Range<u64>]; 2]) -> Verdict {
    let (Ok(left), Ok(right)) = (left, right) else {
        return Err(format!(
            "reading {chunk:?}: a {:?}, b {:?}",
            left.as_ref().err(),
            right.as_ref().err()
        ));
    };
    let length = (chunk.end - chunk.start) as usize;
    if left.len() != length || right.len() != length {
        return Err(format!("reading {chunk:?}: a gives {} bytes, b {}", left.len(), right.len()));
    }
    if let Some(at) = left.iter().zip(right).position(|(left, right)| left != right) {
        let offset = chunk.start + at as u64;
        return Err(format!(
            "content differs at {offset}: a has {:#04x}, b {:#04x}",
            left[at], right[at]
        ));
    }
    for (side, data) in ["a", "b"].iter().zip(data) {
        for hole in holes(data, chunk) {
            let inside = (hole.start - chunk.start) as usize..(hole.end - chunk.start) as usize;
            if left[inside].iter().any(|byte| *byte != 0) {
                return Err(format!("{side} calls {hole:?} a hole, but it holds other bytes than zeros"));
            }
        }
    }
    Ok(())
}

/// By SEEK_DATA and SEEK_HOLE, in turns.
fn data_ranges(files: &dyn FileSystem, inode: Inode, size: u64) -> Verdict<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let mut offset = 0;
    while offset < size {
        let start = match files.seek(inode, offset, Seek::Data) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(format!("seeking data from {offset} answers {errno:?}")),
        };
        let end = files.seek(inode, start, Seek::Hole);
        match end {
            Ok(end) if offset <= start && start < end && end <= size => {
                ranges.push(start..end);
                offset = end;
            }
            _ => return Err(format!("from {offset} of {size}: data at {start}, then a hole at {end:?}")),
        }
    }
    Ok(ranges)
}

fn merged(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// A little of each hole around the data, and of the file's ends.
fn with_edges(ranges: Vec<Range<u64>>, size: u64) -> Vec<Range<u64>> {
    let around = |range: Range<u64>| range.start.saturating_sub(HOLE_BYTES)..range.end.saturating_add(HOLE_BYTES).min(size);
    let ends = [0..HOLE_BYTES.min(size), size.saturating_sub(HOLE_BYTES)..size];
    merged(ranges.into_iter().map(around).chain(ends).collect())
}

/// The parts of a chunk that no range of data covers.
fn holes(data: &[Range<u64>], chunk: &Range<u64>) -> Vec<Range<u64>> {
    let mut holes = Vec::new();
    let mut start = chunk.start;
    for range in data.iter().filter(|range| range.start < chunk.end && range.end > chunk.start) {
        if range.start > start {
            holes.push(start..range.start);
        }
        start = range.end;
    }
    if start < chunk.end {
        holes.push(start..chunk.end);
    }
    holes
}
