//! The table behind the lock: who holds what of which file, who waits, and whom that lets in.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::ranges::{Plan, Ranges};
use super::{Answer, Family, Lock, LockOwner, Range};
use crate::filesystem::{Errno, Inode, Result};

type Place = (Inode, Family);

struct Waiting {
    place: Place,
    wanted: Lock,
    answer: Answer,
}

pub(super) struct Table {
    held: HashMap<Place, BTreeMap<LockOwner, Ranges>>,
    locks: usize,
    locks_max: usize,
    /// First come, first served: numbers rise.
    waiting: BTreeMap<u64, Waiting>,
    by_place: BTreeSet<(Place, u64)>,
    by_owner: BTreeSet<(LockOwner, u64)>,
    last_waiter: u64,
    waiters_max: usize,
    /// To be given once the table's lock is given back.
    answers: Vec<(Answer, Result<()>)>,
}

impl Table {
    pub fn new(locks_max: usize, waiters_max: usize) -> Self {
        Self {
            held: HashMap::new(),
            locks: 0,
            locks_max,
            waiting: BTreeMap::new(),
            by_place: BTreeSet::new(),
            by_owner: BTreeSet::new(),
            last_waiter: 0,
            waiters_max,
            answers: Vec::new(),
        }
    }

    pub fn count(&self) -> (usize, usize) {
        (self.locks, self.waiting.len())
    }

    pub fn take_answers(&mut self) -> Vec<(Answer, Result<()>)> {
        std::mem::take(&mut self.answers)
    }

    fn conflicts(&self, place: Place, wanted: &Lock) -> impl Iterator<Item = Lock> {
        let owners = self.held.get(&place).into_iter().flatten();
        let others = owners.filter(|(owner, _)| **owner != wanted.owner);
        others.filter_map(|(owner, ranges)| ranges.conflict(*owner, wanted))
    }

    pub fn conflict(&self, inode: Inode, family: Family, wanted: &Lock) -> Option<Lock> {
        self.conflicts((inode, family), wanted).next()
    }

    pub fn set(&mut self, inode: Inode, family: Family, wanted: &Lock) -> Result<()> {
        let place = (inode, family);
        self.give_up_flock(place, wanted);
        let result = self.try_set(place, wanted);
        self.settle(place);
        result
    }

    pub fn wait(&mut self, inode: Inode, family: Family, wanted: &Lock, answer: Answer) -> Option<u64> {
        let place = (inode, family);
        self.give_up_flock(place, wanted);
        let waiter = match self.try_set(place, wanted) {
            Err(Errno::AGAIN) => self.enqueue(place, wanted, answer),
            result => {
                self.answers.push((answer, result));
                None
            }
        };
        self.settle(place);
        waiter
    }

    fn enqueue(&mut self, place: Place, wanted: &Lock, answer: Answer) -> Option<u64> {
        let refusal = match (self.waiting.len() < self.waiters_max, self.would_deadlock(place, wanted)) {
            (_, true) => Errno::DEADLK,
            (false, _) => Errno::NOLCK,
            _ => {
                self.last_waiter += 1;
                let wanted = *wanted;
                self.by_place.insert((place, self.last_waiter));
                self.by_owner.insert((wanted.owner, self.last_waiter));
                self.waiting.insert(self.last_waiter, Waiting { place, wanted, answer });
                return Some(self.last_waiter);
            }
        };
        self.answers.push((answer, Err(refusal)));
        None
    }

    fn dequeue(&mut self, waiter: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&waiter)?;
        self.by_place.remove(&(waiting.place, waiter));
        self.by_owner.remove(&(waiting.wanted.owner, waiter));
        Some(waiting)
    }

    pub fn cancel(&mut self, waiter: u64) -> bool {
        self.dequeue(waiter).is_some()
    }

    pub fn unlock(&mut self, inode: Inode, family: Family, owner: LockOwner, range: Range) -> Result<()> {
        let place = (inode, family);
        let Some(ranges) = self.held.get(&place).and_then(|owners| owners.get(&owner)) else {
            return Ok(());
        };
        let plan = ranges.plan_unlock(range);
        self.apply(place, owner, plan)?;
        self.settle(place);
        Ok(())
    }

    pub fn release(&mut self, inode: Inode, family: Family, owner: LockOwner) {
        let place = (inode, family);
        self.drop_owner(place, owner);
        self.settle(place);
    }

    pub fn release_client(&mut self, client: u64) {
        let of_client = |owner: &LockOwner| owner.client == client;
        let waiters: Vec<u64> = self
            .by_owner
            .iter()
            .filter(|(owner, _)| of_client(owner))
            .map(|(_, waiter)| *waiter)
            .collect();
        for waiter in waiters {
            let answer = self.dequeue(waiter).map(|waiting| (waiting.answer, Err(Errno::INTR)));
            self.answers.extend(answer);
        }
        let owners = |(place, owners): (&Place, &BTreeMap<LockOwner, Ranges>)| {
            let found = owners.keys().filter(|owner| of_client(owner)).map(|owner| (*place, *owner));
            found.collect::<Vec<_>>()
        };
        let held: Vec<(Place, LockOwner)> = self.held.iter().flat_map(owners).collect();
        held.iter().for_each(|(place, owner)| self.drop_owner(*place, *owner));
        let places: BTreeSet<Place> = held.into_iter().map(|(place, _)| place).collect();
        places.into_iter().for_each(|place| self.settle(place));
    }

    /// A `flock` that is asked for again is given up first: two that share and both want it alone would wait for each other for ever.
    /// Whoever waited already comes first.
    fn give_up_flock(&mut self, place: Place, wanted: &Lock) {
        if place.1 == Family::Flock {
            self.drop_owner(place, wanted.owner);
            self.settle(place);
        }
    }

    fn drop_owner(&mut self, place: Place, owner: LockOwner) {
        if let Some(owners) = self.held.get_mut(&place) {
            self.locks -= owners.remove(&owner).map_or(0, |ranges| ranges.len());
            if owners.is_empty() {
                self.held.remove(&place);
            }
        }
    }

    fn try_set(&mut self, place: Place, wanted: &Lock) -> Result<()> {
        if self.conflicts(place, wanted).next().is_some() {
            return Err(Errno::AGAIN);
        }
        let nothing = Ranges::default();
        let ranges = self
            .held
            .get(&place)
            .and_then(|owners| owners.get(&wanted.owner))
            .unwrap_or(&nothing);
        let plan = ranges.plan_set(wanted.range, wanted.hold, wanted.process);
        self.apply(place, wanted.owner, plan)
    }

    fn apply(&mut self, place: Place, owner: LockOwner, plan: Plan) -> Result<()> {
        if plan.growth() > self.locks_max.saturating_sub(self.locks) {
            return Err(Errno::NOLCK);
        }
        let ranges = self.held.entry(place).or_default().entry(owner).or_default();
        let before = ranges.len();
        ranges.apply(plan);
        self.locks = self.locks + ranges.len() - before;
        if ranges.is_empty() {
            self.drop_owner(place, owner);
        }
        Ok(())
    }

    /// Lets in whoever waited for what is free now, in the order in which they came; who was let in may close a circle for those who were
    /// not. One that is let in may hold less than before, which lets in others: until nobody is.
    fn settle(&mut self, place: Place) {
        loop {
            let waiters: Vec<u64> = self
                .by_place
                .range((place, 0)..=(place, u64::MAX))
                .map(|(_, waiter)| *waiter)
                .collect();
            let answered = waiters.into_iter().filter(|waiter| self.retry(*waiter)).count();
            if answered == 0 {
                return;
            }
        }
    }

    /// Whether it got its answer.
    fn retry(&mut self, waiter: u64) -> bool {
        let Waiting { place, wanted, .. } = self.waiting[&waiter];
        let result = match self.try_set(place, &wanted) {
            Err(Errno::AGAIN) if self.would_deadlock(place, &wanted) => Err(Errno::DEADLK),
            Err(Errno::AGAIN) => return false,
            result => result,
        };
        let answer = self.dequeue(waiter).map(|waiting| (waiting.answer, result));
        self.answers.extend(answer);
        true
    }

    /// Whether someone in the way waits, over however many others, for this very owner.
    fn would_deadlock(&self, place: Place, wanted: &Lock) -> bool {
        if place.1 == Family::Flock {
            return false;
        }
        let mut seen = BTreeSet::new();
        let mut next: Vec<LockOwner> = self.conflicts(place, wanted).map(|lock| lock.owner).collect();
        while let Some(owner) = next.pop() {
            if owner == wanted.owner {
                return true;
            }
            if seen.insert(owner) {
                next.extend(self.blockers(owner));
            }
        }
        false
    }

    /// Whom an owner waits for.
    fn blockers(&self, owner: LockOwner) -> Vec<LockOwner> {
        let waits = self.by_owner.range((owner, 0)..=(owner, u64::MAX));
        let waits = waits.map(|(_, waiter)| &self.waiting[waiter]);
        let posix = waits.filter(|waiting| waiting.place.1 == Family::Posix);
        posix
            .flat_map(|waiting| self.conflicts(waiting.place, &waiting.wanted))
            .map(|lock| lock.owner)
            .collect()
    }
}
