//! Volumes in memory: what the store's own are judged by, and what the block target tests against.
//!
//! One thread, `model-writer`, does all changes one after another and calls their `Done`s, as the store's does; reads run on the caller's thread. Content is
//! kept in pages of BLOCK_BYTES_MAX; each page has what everybody sees and, until a flush or a durable change, what would be left after a power cut. It
//! differs from a store in one thing: what is durable makes all that was before it durable, of its volume.
//!
//! Tests steer it: `script` lets the next operations fail, `hold` keeps changes from being done until `resume`, `cut_power` decides what survives.

use super::*;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

const PAGE_BYTES: usize = BLOCK_BYTES_MAX as usize;

type Page = Box<[u8; PAGE_BYTES]>;

/// What the next operations of a volume come to, in order: one character each, `.` for well.
/// `s` no space, `d` damaged, `r` read-only, `o` out of range, `b` busy, `f` failed.
fn outcome(letter: char) -> Result<()> {
    Err(match letter {
        's' => BlockError::OutOfSpace,
        'd' => BlockError::Damaged("by the script".into()),
        'r' => BlockError::ReadOnly,
        'o' => BlockError::OutOfRange,
        'b' => BlockError::Busy("by the script".into()),
        'f' => BlockError::Failed("by the script".into()),
        _ => return Ok(()),
    })
}

#[derive(Default)]
struct Content {
    pages: BTreeMap<u64, Page>,
    /// Of pages that changed since they were durable: what is left of them without power. None: a hole.
    durable: HashMap<u64, Option<Page>>,
}

struct State {
    volume: Volume,
    content: Content,
    reservation: Option<Vec<u8>>,
    handles: usize,
    script: VecDeque<char>,
}

#[derive(Default)]
struct Shelf {
    volumes: BTreeMap<VolumeId, State>,
    changes: u64,
    next_uuid: u8,
    /// Handles, also of volumes that are gone.
    open: usize,
    held: bool,
}

struct Shared {
    shelf: Mutex<Shelf>,
    changed: Condvar,
    resumed: Condvar,
}

type Job = Box<dyn FnOnce(&Shared) + Send>;

/// The volumes. Dropping it ends its thread.
pub struct Model {
    shared: Arc<Shared>,
    jobs: Option<Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

struct Handle {
    id: VolumeId,
    /// The id may be another volume's by now.
    uuid: [u8; 16],
    shared: Arc<Shared>,
    jobs: Sender<Job>,
}

impl Shared {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            let shelf = self.shelf();
            drop(
                self.resumed
                    .wait_while(shelf, |shelf| shelf.held)
                    .unwrap_or_else(PoisonError::into_inner),
            );
            job(self);
        }
    }
}

impl Shelf {
    fn get(&mut self, id: VolumeId) -> Result<&mut State> {
        self.volumes.get_mut(&id).ok_or(BlockError::OutOfRange)
    }

    /// What a handle was opened on.
    fn get_same(&mut self, id: VolumeId, uuid: [u8; 16]) -> Result<&mut State> {
        self.get(id).and_then(|state| {
            if state.volume.uuid == uuid {
                Ok(state)
            } else {
                Err(BlockError::OutOfRange)
            }
        })
    }

    fn note_change(&mut self) {
        self.changes += 1;
    }
}

impl State {
    /// The script's next step, then the range.
    fn begin(&mut self, offset: u64, length: u64) -> Result<()> {
        if let Some(letter) = self.script.pop_front() {
            outcome(letter)?;
        }
        let fits = offset.checked_add(length).is_some_and(|end| end <= self.volume.size_bytes);
        if fits { Ok(()) } else { Err(BlockError::OutOfRange) }
    }

    fn begin_change(&mut self, offset: u64, length: u64) -> Result<()> {
        self.begin(offset, length)?;
        if self.volume.read_only { Err(BlockError::ReadOnly) } else { Ok(()) }
    }

    fn settle(&mut self, durable: bool) {
        if durable {
            self.content.durable.clear();
        }
        self.volume.used_bytes = (self.content.pages.len() * PAGE_BYTES) as u64;
        self.volume.used_bytes = self.volume.used_bytes.min(self.volume.size_bytes);
    }
}

/// The pieces of a range by page: page, first byte in it, bytes.
fn pieces(offset: u64, length: u64) -> impl Iterator<Item = (u64, usize, usize)> {
    let page_bytes = PAGE_BYTES as u64;
    let mut at = offset;
    std::iter::from_fn(move || {
        let left = offset + length - at;
        let (page, inside) = (at / page_bytes, at % page_bytes);
        let taken = left.min(page_bytes - inside);
        at += taken;
        (taken > 0).then_some((page, inside as usize, taken as usize))
    })
}

impl Content {
    fn read(&self, offset: u64, into: &mut [u8]) {
        let mut done = 0;
        for (page, inside, length) in pieces(offset, into.len() as u64) {
            let piece = &mut into[done..done + length];
            match self.pages.get(&page) {
                Some(page) => piece.copy_from_slice(&page[inside..inside + length]),
                None => piece.fill(0),
            }
            done += length;
        }
    }

    fn remember(&mut self, page: u64) {
        let now = self.pages.get(&page);
        self.durable.entry(page).or_insert_with(|| now.cloned());
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        for (page, inside, length) in pieces(offset, bytes.len() as u64) {
            self.remember(page);
            let page = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE_BYTES]));
            page[inside..inside + length].copy_from_slice(&bytes[done..done + length]);
            done += length;
        }
    }

    fn zero(&mut self, offset: u64, length: u64) {
        let page_bytes = PAGE_BYTES as u64;
        let (first, last) = (offset / page_bytes, (offset + length).div_ceil(page_bytes));
        let touched: Vec<u64> = self.pages.range(first..last).map(|(&page, _)| page).collect();
        for page in touched {
            self.remember(page);
            let start = offset.saturating_sub(page * page_bytes) as usize;
            let end = (offset + length - page * page_bytes).min(page_bytes) as usize;
            if (start, end) == (0, PAGE_BYTES) {
                self.pages.remove(&page);
            } else if let Some(page) = self.pages.get_mut(&page) {
                page[start..end].fill(0);
            }
        }
    }
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

impl Model {
    pub fn new() -> Self {
        let shared = Arc::new(Shared {
            shelf: Mutex::default(),
            changed: Condvar::new(),
            resumed: Condvar::new(),
        });
        let (jobs, queue) = channel();
        let writer = thread::Builder::new().name("model-writer".into());
        let writer = writer.spawn({
            let shared = shared.clone();
            move || shared.run(&queue)
        });
        Self {
            shared,
            jobs: Some(jobs),
            writer: Some(writer.expect("a thread can be started")),
        }
    }

    /// A new volume of zeros, under the lowest free id.
    pub fn add(&self, path: &str, size_bytes: u64, block_bytes: u32) -> VolumeId {
        let mut shelf = self.shared.shelf();
        let id = (1..=VOLUMES_MAX).find(|id| !shelf.volumes.contains_key(id)).expect("a free id");
        shelf.next_uuid += 1;
        let mut uuid = *b"trefoil model \0\0";
        uuid[15] = shelf.next_uuid;
        let volume = Volume {
            id,
            path: path.into(),
            uuid,
            size_bytes,
            used_bytes: 0,
            block_bytes,
            read_only: false,
        };
        let state = State {
            volume,
            content: Content::default(),
            reservation: None,
            handles: 0,
            script: VecDeque::new(),
        };
        shelf.volumes.insert(id, state);
        shelf.note_change();
        self.shared.changed.notify_all();
        id
    }

    fn change(&self, id: VolumeId, act: impl FnOnce(&mut State)) {
        let mut shelf = self.shared.shelf();
        act(shelf.get(id).expect("the volume exists"));
        shelf.note_change();
        self.shared.changed.notify_all();
    }

    /// What is cut off is gone, and zeros if it grows again.
    pub fn resize(&self, id: VolumeId, size_bytes: u64) {
        self.change(id, |state| {
            let old = std::mem::replace(&mut state.volume.size_bytes, size_bytes);
            state.content.zero(size_bytes, old.saturating_sub(size_bytes));
            state.settle(true);
        });
    }

    pub fn set_read_only(&self, id: VolumeId, read_only: bool) {
        self.change(id, |state| state.volume.read_only = read_only);
    }

    /// Even if it is open: its handles find it gone.
    pub fn remove(&self, id: VolumeId) {
        let mut shelf = self.shared.shelf();
        shelf.volumes.remove(&id).expect("the volume exists");
        shelf.note_change();
        self.shared.changed.notify_all();
    }

    /// See `outcome`; replaces what is left of an earlier script.
    pub fn script(&self, id: VolumeId, script: &str) {
        self.shared.shelf().get(id).expect("the volume exists").script = script.chars().collect();
    }

    /// Changes wait from now on; reads do not.
    pub fn hold(&self) {
        self.shared.shelf().held = true;
    }

    pub fn resume(&self) {
        self.shared.shelf().held = false;
        self.shared.resumed.notify_all();
    }

    /// Whatever is not durable is there or not, page by page, as the seed says.
    pub fn cut_power(&self, seed: u64) {
        let mut random = seed | 1;
        for state in self.shared.shelf().volumes.values_mut() {
            let mut changed: Vec<_> = state.content.durable.drain().collect();
            changed.sort_by_key(|(page, _)| *page);
            for (page, durable) in changed {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                match durable {
                    _ if random >> 63 == 0 => {}
                    Some(old) => _ = state.content.pages.insert(page, old),
                    None => _ = state.content.pages.remove(&page),
                }
            }
            state.settle(true);
        }
    }

    /// How many handles are open, of all volumes and of those that are gone.
    pub fn open_handles(&self) -> usize {
        self.shared.shelf().open
    }

    /// How many handles are open of one.
    pub fn handles(&self, id: VolumeId) -> usize {
        self.shared.shelf().get(id).map_or(0, |state| state.handles)
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.resume();
        drop(self.jobs.take());
        // Handles that outlive the model keep its thread; it ends with the last of them.
        drop(self.writer.take());
    }
}

impl Volumes for Model {
    fn list(&self) -> Result<Vec<Volume>> {
        Ok(self.shared.shelf().volumes.values().map(|state| state.volume.clone()).collect())
    }

    fn open(&self, id: VolumeId) -> Result<Arc<dyn BlockDevice>> {
        let jobs = self.jobs.clone().ok_or_else(|| BlockError::Failed("closed".into()))?;
        let uuid = {
            let mut shelf = self.shared.shelf();
            let state = shelf.get(id)?;
            state.handles += 1;
            let uuid = state.volume.uuid;
            shelf.open += 1;
            uuid
        };
        let shared = self.shared.clone();
        Ok(Arc::new(Handle { id, uuid, shared, jobs }))
    }

    fn reservation(&self, id: VolumeId) -> Result<Option<Vec<u8>>> {
        Ok(self.shared.shelf().get(id)?.reservation.clone())
    }

    fn keep_reservation(&self, id: VolumeId, record: Option<Vec<u8>>) -> Result<()> {
        if record.as_ref().is_some_and(|record| record.len() > RESERVATION_BYTES_MAX) {
            return Err(BlockError::OutOfRange);
        }
        self.shared.shelf().get(id)?.reservation = record;
        Ok(())
    }

    fn wait_changed(&self, seen: u64, patience: Duration) -> u64 {
        let deadline = Instant::now() + patience;
        let mut shelf = self.shared.shelf();
        while shelf.changes == seen {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            shelf = self
                .shared
                .changed
                .wait_timeout(shelf, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        shelf.changes
    }
}

impl Handle {
    /// On the writer thread, and `done` after it without the lock.
    fn submit<T: 'static>(&self, done: Done<T>, act: impl FnOnce(&mut State) -> Result<T> + Send + 'static) {
        let (id, uuid) = (self.id, self.uuid);
        let job: Job = Box::new(move |shared| {
            let result = shared.shelf().get_same(id, uuid).and_then(act);
            done(result);
        });
        self.jobs.send(job).expect("the writer lives as long as a handle");
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut shelf = self.shared.shelf();
        shelf.open -= 1;
        if let Ok(state) = shelf.get_same(self.id, self.uuid) {
            state.handles -= 1;
        }
    }
}

impl BlockDevice for Handle {
    fn volume(&self) -> Volume {
        let gone = Volume {
            id: self.id,
            path: String::new(),
            uuid: [0; 16],
            size_bytes: 0,
            used_bytes: 0,
            block_bytes: 512,
            read_only: true,
        };
        self.shared
            .shelf()
            .get_same(self.id, self.uuid)
            .map_or(gone, |state| state.volume.clone())
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let mut shelf = self.shared.shelf();
        let state = shelf.get_same(self.id, self.uuid)?;
        state.begin(offset, into.len() as u64)?;
        state.content.read(offset, into);
        Ok(())
    }

    fn write(&self, offset: u64, bytes: Vec<u8>, durable: bool, done: Done<()>) {
        self.submit(done, move |state| {
            state.begin_change(offset, bytes.len() as u64)?;
            state.content.write(offset, &bytes);
            state.settle(durable);
            Ok(())
        });
    }

    fn flush(&self, done: Done<()>) {
        self.submit(done, |state| {
            state.begin(0, 0)?;
            state.settle(true);
            Ok(())
        });
    }

    fn zero(&self, offset: u64, length: u64, durable: bool, done: Done<()>) {
        self.submit(done, move |state| {
            state.begin_change(offset, length)?;
            state.content.zero(offset, length);
            state.settle(durable);
            Ok(())
        });
    }

    fn compare_and_write(&self, offset: u64, expected: Vec<u8>, bytes: Vec<u8>, durable: bool, done: Done<bool>) {
        self.submit(done, move |state| {
            state.begin_change(offset, bytes.len() as u64)?;
            let mut there = vec![0; expected.len()];
            state.content.read(offset, &mut there);
            let equal = there == expected;
            if equal {
                state.content.write(offset, &bytes);
                state.settle(durable);
            }
            Ok(equal)
        });
    }

    fn copy(&self, from: u64, to: u64, length: u64, durable: bool, done: Done<()>) {
        self.submit(done, move |state| {
            state.begin_change(to, length)?;
            if from.checked_add(length).is_none_or(|end| end > state.volume.size_bytes) {
                return Err(BlockError::OutOfRange);
            }
            let mut bytes = vec![0; length as usize];
            state.content.read(from, &mut bytes);
            state.content.write(to, &bytes);
            state.settle(durable);
            Ok(())
        });
    }

    fn allocated(&self, range: Range<u64>) -> Result<Vec<Range<u64>>> {
        let mut shelf = self.shared.shelf();
        let state = shelf.get_same(self.id, self.uuid)?;
        state.begin(range.start, range.end.saturating_sub(range.start))?;
        let page_bytes = PAGE_BYTES as u64;
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let pages = state.content.pages.range(range.start / page_bytes..range.end.div_ceil(page_bytes));
        for (&page, _) in pages {
            let (start, end) = ((page * page_bytes).max(range.start), ((page + 1) * page_bytes).min(range.end));
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests;
