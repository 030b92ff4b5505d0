//! What all transactions of a store share besides rows: ids, and who reads or has open what.

use super::keys;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Hands out ids that never return: a lease of them is written ahead, so a crash skips ids but never repeats one.
#[derive(Debug)]
pub struct Ids {
    next: AtomicU64,
    leased: AtomicU64,
}

/// The counter row of the lease.
pub const IDS: &str = "ids";
/// Ids leased ahead by one counter row.
pub const IDS_LEASED: u64 = 1 << 16;

impl Ids {
    /// `leased`: the counter row's value, or the first free id of a new pool.
    pub fn new(leased: u64) -> Self {
        Self {
            next: AtomicU64::new(leased),
            leased: AtomicU64::new(leased),
        }
    }

    /// Used at once only inside a transaction, which renews the lease in the same record; elsewhere see `take_leased`.
    pub fn take(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// None from it on was given out yet.
    pub fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// `None` while the lease in force is used up: commit a renewal, then ask again.
    pub fn take_leased(&self) -> Option<u64> {
        let leased = self.leased.load(Ordering::Acquire);
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| (next < leased).then_some(next + 1))
            .ok()
    }

    /// The value to write if the lease runs low.
    pub fn renewal(&self) -> Option<u64> {
        let next = self.next.load(Ordering::Relaxed);
        (next + IDS_LEASED / 2 > self.leased.load(Ordering::Relaxed)).then_some(next + IDS_LEASED)
    }

    /// The renewal is durable.
    pub fn renewed(&self, leased: u64) {
        self.leased.fetch_max(leased, Ordering::Release);
    }
}

/// Which elements readers hold, and which ones a commit on its way changes or gives up.
#[derive(Debug, Default)]
pub struct Pins {
    inner: Mutex<PinTable>,
}

#[derive(Debug, Default)]
struct PinTable {
    pinned: HashMap<u64, Vec<Pin>>,
    dying: HashSet<u64>,
}

/// A reader's hold on content: the element that has it now. See `Pins::redirect`.
#[derive(Debug, Clone)]
pub struct Pin(Arc<AtomicU64>);

impl Pin {
    pub fn element(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Pins {
    fn table(&self) -> MutexGuard<'_, PinTable> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None if the element is being changed or given up right now: look its key up again.
    pub fn pin(&self, element: u64) -> Option<Pin> {
        let mut table = self.table();
        if table.dying.contains(&element) {
            return None;
        }
        let pin = Pin(Arc::new(AtomicU64::new(element)));
        table.pinned.entry(element).or_default().push(pin.clone());
        Some(pin)
    }

    /// True if this was the last reader.
    pub fn unpin(&self, pin: &Pin) -> bool {
        let mut table = self.table();
        let element = pin.element();
        let Some(pins) = table.pinned.get_mut(&element) else { return false };
        pins.retain(|other| !Arc::ptr_eq(&other.0, &pin.0));
        pins.is_empty() && table.pinned.remove(&element).is_some()
    }

    /// Does a reader hold anything in the space?
    pub fn is_space_pinned(&self, space: u64) -> bool {
        self.table().pinned.keys().any(|element| keys::space_of(*element) == space)
    }

    pub fn is_pinned(&self, element: u64) -> bool {
        self.table().pinned.contains_key(&element)
    }

    /// Whoever reads `element` reads `copy` from now on, which has the same content in every state from now on.
    pub fn redirect(&self, element: u64, copy: u64) {
        let mut table = self.table();
        let pins = table.pinned.remove(&element).unwrap_or_default();
        pins.iter().for_each(|pin| pin.0.store(copy, Ordering::SeqCst));
        table.pinned.entry(copy).or_default().extend(pins);
    }

    /// Claims an unpinned element for changing it or giving it up; no reader can pin it until `buried`.
    pub(super) fn claim(&self, element: u64) -> bool {
        let mut table = self.table();
        !table.pinned.contains_key(&element) && {
            table.dying.insert(element);
            true
        }
    }

    pub(super) fn buried(&self, elements: &[u64]) {
        let mut table = self.table();
        elements.iter().for_each(|element| {
            table.dying.remove(element);
        });
    }
}

/// Elements that files have open, counted: what loses its last name lives on until it is closed.
#[derive(Debug, Default)]
pub struct Opens {
    inner: Mutex<OpenTable>,
    buried: Condvar,
}

#[derive(Debug, Default)]
struct OpenTable {
    counts: HashMap<u64, OpenCount>,
    /// A change on its way gives them up, as nobody had them open.
    dying: HashSet<u64>,
}

#[derive(Debug, Default)]
struct OpenCount {
    opens: usize,
    /// A change, perhaps on its way still, would have given it up.
    outlives: bool,
}

impl Opens {
    fn table(&self) -> MutexGuard<'_, OpenTable> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a change on its way gives up is gone when this returns; anything else stays until it is closed. Not for the writer's thread.
    pub fn open(&self, element: u64) {
        let mut table = self
            .buried
            .wait_while(self.table(), |table| table.dying.contains(&element))
            .unwrap_or_else(PoisonError::into_inner);
        table.counts.entry(element).or_default().opens += 1;
    }

    /// True if it was the last, of an element that was to be given up meanwhile.
    pub fn close(&self, element: u64) -> bool {
        let mut table = self.table();
        match table.counts.get_mut(&element) {
            Some(count) if count.opens > 1 => {
                count.opens -= 1;
                false
            }
            _ => table.counts.remove(&element).is_some_and(|count| count.outlives),
        }
    }

    /// Has somebody anything in the space open?
    pub fn is_space_open(&self, space: u64) -> bool {
        self.table().counts.keys().any(|element| keys::space_of(*element) == space)
    }

    /// It is to be given up when it is closed.
    pub fn outlive(&self, element: u64) {
        self.table().counts.entry(element).and_modify(|count| count.outlives = true);
    }

    /// Claims what nobody has open for giving it up; nobody can open it until `buried`.
    pub(super) fn claim(&self, element: u64) -> bool {
        let mut table = self.table();
        if let Some(count) = table.counts.get_mut(&element) {
            count.outlives = true;
            return false;
        }
        table.dying.insert(element);
        true
    }

    pub(super) fn buried(&self, elements: &[u64]) {
        let mut table = self.table();
        elements.iter().for_each(|element| {
            table.dying.remove(element);
        });
        self.buried.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    /// An open that came between a removal and its being seen found the element, which then went away under it.
    #[test]
    fn what_is_being_given_up_is_opened_only_when_that_is_seen() {
        let opens = Arc::new(Opens::default());
        assert!(opens.claim(7));
        let (opened, wait) = channel();
        let opener = std::thread::spawn({
            let opens = opens.clone();
            move || {
                opens.open(7);
                opened.send(()).unwrap();
            }
        });
        assert!(wait.recv_timeout(Duration::from_millis(50)).is_err());
        opens.buried(&[7]);
        opener.join().unwrap();
        assert!(!opens.claim(7), "it is open now");
        opens.open(7);
        assert!(!opens.close(7));
        assert!(opens.close(7), "it was to be given up meanwhile");
        opens.open(8);
        assert!(!opens.close(8));
    }
}
