//! One operation on both sides: what must agree, and what the judge learns from it.

use super::operation::{Answer, Name, Operation, perform};
use super::pairs::Id;
use super::{Both, Judge, Verdict, errors};
use crate::filesystem::*;

type Answers = [Result<Answer>; 2];

/// How far around an offset the truth of `seek` is checked at once; the full comparison checks the rest.
const SEEK_BYTES: u64 = 4096;

impl Judge {
    pub(super) fn act(&mut self, both: Both<'_>, operation: &Operation) -> Verdict {
        operation.accesses().into_iter().for_each(|id| self.pairs.note_access(id));
        match operation {
            Operation::StartListing(id) => self.own(operation, |judge| judge.start_listing(both, *id)),
            Operation::GoOn(index, limit) => self.own(operation, |judge| judge.go_on_listing(both, *index, *limit)),
            Operation::Seek(id, offset, what) => self.own(operation, |judge| judge.seek(both, *id, *offset, *what)),
            _ => self.act_alike(both, operation),
        }
    }

    fn own(&mut self, operation: &Operation, action: impl FnOnce(&mut Self) -> Verdict) -> Verdict {
        let verdict = action(self);
        let kind = if verdict.is_ok() { "ok" } else { "wrong" };
        self.record(operation, kind, kind);
        verdict.map_err(|reason| format!("{operation:?}: {reason}"))
    }

    fn act_alike(&mut self, both: Both<'_>, operation: &Operation) -> Verdict {
        let idle = self.is_idle(both, operation);
        let possible = errors::possible(both[0], operation, &self.pairs);
        let before = self.versions(both, operation);
        let answers = [0, 1].map(|side| perform(both[side], operation, &self.pairs, side));
        let kind = answers[0].as_ref().map_or_else(Errno::to_string, |_| "ok".into());
        self.record(operation, &kind, &outcome(&answers));
        if let (Operation::Change(id, Changes { accessed: Some(_), .. }), Ok(_)) = (operation, &answers[0]) {
            self.pairs.set_access(*id);
        }
        match &answers {
            [Ok(a), Ok(b)] => {
                let id = self.agree(a, b)?;
                [a, b].into_iter().try_for_each(|answer| check_times(operation, answer))?;
                if !idle {
                    self.learn(operation, id);
                    self.check_versions(both, operation, &before)?;
                }
                Ok(())
            }
            [Err(a), Err(b)] if a == b || possible.contains(a) && possible.contains(b) => Ok(()),
            _ => Err(format!("{operation:?}: {}", outcome(&answers))),
        }
    }

    fn agree(&mut self, a: &Answer, b: &Answer) -> Verdict<Option<Id>> {
        match (a, b) {
            (Answer::Node(a), Answer::Node(b)) => self.pairs.meet([a, b]).map(Some),
            (Answer::Statistics(a), Answer::Statistics(b)) => {
                let sane = [a, b].iter().all(|statistics| statistics.free_bytes <= statistics.total_bytes);
                if sane {
                    Ok(None)
                } else {
                    Err(format!("more is free than there is: {a:?}, {b:?}"))
                }
            }
            _ if a == b => Ok(None),
            _ => Err(format!("a answers {}, b {}", shown(a), shown(b))),
        }
    }

    /// A rename between two names of one file does nothing.
    fn is_idle(&self, both: Both<'_>, operation: &Operation) -> bool {
        let Operation::Rename(from, to, _) = operation else { return false };
        let inode = |place: &(Id, Name)| both[0].lookup(self.pairs.inode(place.0, 0), &place.1).map(|node| node.inode);
        inode(from).is_ok_and(|source| inode(to) == Ok(source))
    }

    /// Of what the operation would modify, on both sides.
    fn versions(&self, both: Both<'_>, operation: &Operation) -> Vec<[u64; 2]> {
        let version = |id: Id, side: usize| both[side].stat(self.pairs.inode(id, side)).map_or(0, |node| node.version);
        let modifies = operation.modifies().into_iter();
        modifies.map(|id| [0, 1].map(|side| version(id, side))).collect()
    }

    fn check_versions(&mut self, both: Both<'_>, operation: &Operation, before: &[[u64; 2]]) -> Verdict {
        for (id, before) in operation.modifies().into_iter().zip(before) {
            let nodes = [0, 1].map(|side| both[side].stat(self.pairs.inode(id, side)));
            let [Ok(a), Ok(b)] = &nodes else {
                return Err(format!("{id:?} was modified, and then: {nodes:?}"));
            };
            self.pairs.meet([a, b])?;
            if a.version <= before[0] || b.version <= before[1] {
                return Err(format!(
                    "{id:?} was modified: a's version went from {} to {}, b's from {} to {}",
                    before[0], a.version, before[1], b.version
                ));
            }
        }
        Ok(())
    }

    /// `id`: of the node that was the answer.
    fn learn(&mut self, operation: &Operation, id: Option<Id>) {
        let names = &mut self.names;
        match operation {
            Operation::Create(directory, name, ..) | Operation::Link(_, directory, name) => names.added(*directory, name),
            Operation::Unlink(directory, name) | Operation::RemoveDirectory(directory, name) => names.removed(*directory, name),
            Operation::Rename(from, to, replace) => {
                names.removed(from.0, &from.1);
                names.added(to.0, &to.1);
                if *replace == Replace::Exchange {
                    names.added(from.0, &from.1);
                }
            }
            Operation::Open(_) | Operation::CreateUnnamed(..) => self.opens.extend(id),
            Operation::Close(id) => {
                let index = self.opens.iter().position(|open| open == id);
                if let Some(index) = index {
                    self.opens.swap_remove(index);
                }
            }
            _ => {}
        }
    }

    fn seek(&mut self, both: Both<'_>, id: Id, offset: u64, what: Seek) -> Verdict {
        let found = [0, 1].map(|side| both[side].seek(self.pairs.inode(id, side), offset, what));
        let refused = |found: &Result<u64>| found.is_err_and(|errno| errno != Errno::NXIO);
        if found.iter().any(refused) {
            let alike = found[0] == found[1];
            return if alike {
                Ok(())
            } else {
                Err(format!("a answers {:?}, b {:?}", found[0], found[1]))
            };
        }
        for side in 0..2 {
            let inode = self.pairs.inode(id, side);
            check_seek(both[side], inode, offset, what, found[side]).map_err(|reason| format!("side {}: {reason}", ["a", "b"][side]))?;
        }
        Ok(())
    }
}

/// Times that were given are kept to the nanosecond.
fn check_times(operation: &Operation, answer: &Answer) -> Verdict {
    let (Operation::Change(_, changes), Answer::Node(node)) = (operation, answer) else {
        return Ok(());
    };
    let kept = |asked: Option<Time>, shown: i64| !matches!(asked, Some(Time::At(at)) if at != shown);
    if kept(changes.accessed, node.accessed_ns) && kept(changes.modified, node.modified_ns) {
        Ok(())
    } else {
        Err(format!("{changes:?} led to {node:?}"))
    }
}

/// A hole reads as zeros; a place is never before where the search began, nor beyond the end.
fn check_seek(files: &dyn FileSystem, inode: Inode, offset: u64, what: Seek, found: Result<u64>) -> Verdict {
    let size = files.stat(inode).map_err(|errno| format!("stat answers {errno}"))?.size;
    let (from, to) = match (what, found) {
        (_, Err(_)) if offset >= size => return Ok(()),
        (_, Ok(place)) if place < offset || place > size || offset >= size => return Err(format!("{place}, of {size} bytes")),
        (Seek::Data, Ok(place)) if place == size => return Err("data at the end".into()),
        (Seek::Hole, Err(_)) => return Err("no hole, not even at the end".into()),
        (Seek::Data, Ok(place)) => (offset, place),
        (Seek::Data, Err(_)) => (offset, size),
        (Seek::Hole, Ok(place)) => (place, size.min(place + 1)),
    };
    let length = (to - from).min(SEEK_BYTES);
    for start in [from, to - length] {
        let bytes = files
            .read(inode, start, length as usize)
            .map_err(|errno| format!("read answers {errno}"))?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Err(format!(
                "found {found:?}, but what is no data from {start} holds other bytes than zeros"
            ));
        }
    }
    Ok(())
}

fn outcome(answers: &Answers) -> String {
    let show = |answer: &Result<Answer>| match answer {
        Ok(answer) => shown(answer),
        Err(errno) => errno.to_string(),
    };
    let [a, b] = [show(&answers[0]), show(&answers[1])];
    if a == b { a } else { format!("a answers {a}, b {b}") }
}

fn shown(answer: &Answer) -> String {
    match answer {
        Answer::Nothing => "ok".into(),
        Answer::Node(node) => format!("inode {} links {} size {}", node.inode, node.links, node.size),
        Answer::Bytes(bytes) => format!("{} bytes of hash {:016x}", bytes.len(), xxhash_rust::xxh3::xxh3_64(bytes)),
        other => format!("{other:?}"),
    }
}
