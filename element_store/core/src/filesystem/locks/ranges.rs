//! What one owner holds of one file: ranges that do not overlap, by their start.

use std::collections::BTreeMap;

use super::{Hold, Lock, LockOwner, Range};

#[derive(Clone, Copy)]
struct Held {
    end: u64,
    hold: Hold,
    process: u32,
}

#[derive(Default)]
pub(super) struct Ranges(BTreeMap<u64, Held>);

/// A change that was thought through and not made yet.
pub(super) struct Plan {
    gone: Vec<u64>,
    new: Vec<(u64, Held)>,
}

impl Plan {
    /// How many ranges there are more afterwards; 0 also if there are fewer.
    pub fn growth(&self) -> usize {
        self.new.len().saturating_sub(self.gone.len())
    }
}

impl Ranges {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Ranges that hold any byte from `start` to `end`. As they do not overlap, their ends ascend with their starts.
    fn touching(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, Held)> {
        let before = self.0.range(..=end).rev().map(|(start, held)| (*start, *held));
        before.take_while(move |(_, held)| held.end >= start)
    }

    /// What of this is in the way of another owner's lock.
    pub fn conflict(&self, owner: LockOwner, wanted: &Lock) -> Option<Lock> {
        let Range { start, end } = wanted.range;
        let mut touching = self.touching(start, end);
        let (start, held) = touching.find(|(_, held)| wanted.hold == Hold::Exclusive || held.hold == Hold::Exclusive)?;
        Some(Lock {
            owner,
            hold: held.hold,
            range: Range { start, end: held.end },
            process: held.process,
        })
    }

    /// The range will be held like this, and in one piece with neighbours that already are.
    pub fn plan_set(&self, range: Range, hold: Hold, process: u32) -> Plan {
        let mut whole = range;
        let mut plan = self.plan_unlock(range);
        for (start, held) in self.touching(range.start.saturating_sub(1), range.end.saturating_add(1)) {
            if held.hold == hold {
                whole.start = whole.start.min(start);
                whole.end = whole.end.max(held.end);
                plan.gone.push(start);
            }
        }
        plan.gone.sort_unstable();
        plan.gone.dedup();
        // What the unlock left over of a range that is held alike lies in the whole again.
        plan.new.retain(|(_, held)| held.hold != hold);
        let Range { start, end } = whole;
        plan.new.push((start, Held { end, hold, process }));
        plan
    }

    pub fn plan_unlock(&self, range: Range) -> Plan {
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        for (start, held) in self.touching(range.start, range.end) {
            gone.push(start);
            if start < range.start {
                let end = range.start - 1;
                new.push((start, Held { end, ..held }));
            }
            if held.end > range.end {
                new.push((range.end + 1, held));
            }
        }
        Plan { gone, new }
    }

    pub fn apply(&mut self, plan: Plan) {
        for start in plan.gone {
            self.0.remove(&start);
        }
        self.0.extend(plan.new);
    }
}
