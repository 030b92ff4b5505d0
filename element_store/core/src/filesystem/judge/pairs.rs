//! Which inode of one side stands for which of the other, and what both showed last.
//!
//! Invariant: a pair is for ever; an inode of one side has one partner.

use std::collections::{HashMap, HashSet};

use super::Verdict;
use crate::filesystem::*;

/// A pair of inodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id(pub usize);

impl Id {
    pub const ROOT: Self = Self(0);
}

impl std::fmt::Debug for Id {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "#{}", self.0)
    }
}

#[derive(Clone)]
pub(super) struct Pairs {
    pub same_clock: bool,
    inodes: Vec<[Inode; 2]>,
    ids: [HashMap<Inode, Id>; 2],
    last: HashMap<Id, [Node; 2]>,
    /// Their time of access may differ: they were read since it was set.
    accessed: HashSet<Id>,
    /// Those that may still be there, in no order.
    living: Vec<Id>,
}

impl Pairs {
    pub fn new() -> Self {
        Self {
            same_clock: false,
            inodes: vec![[ROOT; 2]],
            ids: [HashMap::from([(ROOT, Id::ROOT)]), HashMap::from([(ROOT, Id::ROOT)])],
            last: HashMap::new(),
            accessed: HashSet::new(),
            living: vec![Id::ROOT],
        }
    }

    pub fn inode(&self, id: Id, side: usize) -> Inode {
        self.inodes[id.0][side]
    }

    pub fn count(&self) -> usize {
        self.inodes.len()
    }

    pub fn living(&self) -> &[Id] {
        &self.living
    }

    pub fn bury(&mut self, index: usize) {
        self.living.swap_remove(index);
    }

    pub fn kind(&self, id: Id) -> Option<Type> {
        self.last.get(&id).map(|nodes| nodes[0].kind)
    }

    pub fn note_access(&mut self, id: Id) {
        self.accessed.insert(id);
    }

    pub fn note_all_accesses(&mut self) {
        self.accessed.extend((0..self.inodes.len()).map(Id));
    }

    pub fn set_access(&mut self, id: Id) {
        self.accessed.remove(&id);
    }

    /// Both sides show this for one and the same thing.
    pub fn meet(&mut self, nodes: [&Node; 2]) -> Verdict<Id> {
        let id = self.identify([nodes[0].inode, nodes[1].inode])?;
        self.check(id, nodes).map_err(|reason| {
            format!(
                "{id:?}: {reason}\n  a: {:?}\n  b: {:?}\n  before: {:?}",
                nodes[0],
                nodes[1],
                self.last.get(&id)
            )
        })?;
        self.last.insert(id, nodes.map(Node::clone));
        Ok(id)
    }

    fn identify(&mut self, inodes: [Inode; 2]) -> Verdict<Id> {
        let [a, b] = [0, 1].map(|side| self.ids[side].get(&inodes[side]).copied());
        match (a, b) {
            (Some(a), Some(b)) if a == b => Ok(a),
            (None, None) => {
                let id = Id(self.inodes.len());
                self.inodes.push(inodes);
                self.living.push(id);
                self.ids[0].insert(inodes[0], id);
                self.ids[1].insert(inodes[1], id);
                Ok(id)
            }
            _ => Err(format!("inode {} is {a:?}, but inode {} is {b:?}", inodes[0], inodes[1])),
        }
    }

    fn check(&self, id: Id, [a, b]: [&Node; 2]) -> Verdict {
        let is_directory = a.kind == Type::Directory;
        let agree = [
            ("kind", a.kind == b.kind),
            ("mode", a.mode == b.mode),
            ("links", a.links == b.links),
            ("uid", a.uid == b.uid),
            ("gid", a.gid == b.gid),
            ("size", a.size == b.size || is_directory),
            (
                "time of access",
                !self.same_clock || a.accessed_ns == b.accessed_ns || is_directory || self.accessed.contains(&id),
            ),
            ("time of modification", !self.same_clock || a.modified_ns == b.modified_ns),
            ("time of change", !self.same_clock || a.changed_ns == b.changed_ns),
            ("time of creation", !self.same_clock || a.created_ns == b.created_ns),
        ];
        match agree.iter().find(|(_, agrees)| !agrees) {
            Some((what, _)) => Err(format!("both sides differ in {what}")),
            None => self.last.get(&id).map_or(Ok(()), |before| check_movement(before, [a, b])),
        }
    }
}

/// What must hold between two looks at one thing, on each side and between the sides.
fn check_movement(before: &[Node; 2], after: [&Node; 2]) -> Verdict {
    let moved = |time: fn(&Node) -> i64| [0, 1].map(|side| time(&before[side]) != time(after[side]));
    let both = |holds: fn(&Node, &Node) -> bool| (0..2).all(|side| holds(&before[side], after[side]));
    let [changed, modified] = [moved(|node| node.changed_ns), moved(|node| node.modified_ns)];
    let rules = [
        ("only one side changed its time of change", changed[0] == changed[1]),
        ("only one side changed its time of modification", modified[0] == modified[1]),
        (
            "the time of creation changed",
            both(|before, after| before.created_ns == after.created_ns),
        ),
        ("the kind changed", both(|before, after| before.kind == after.kind)),
        (
            "the time of change went back",
            both(|before, after| before.changed_ns <= after.changed_ns),
        ),
        ("the version went back", both(|before, after| before.version <= after.version)),
    ];
    let broken = rules.iter().find(|(_, holds)| !holds);
    broken.map_or(Ok(()), |(what, _)| Err((*what).to_string()))
}
