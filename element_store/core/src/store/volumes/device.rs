//! An open volume: `BlockDevice` over the store.

use super::{RUN_BYTES, STEP_RUNS_MAX, State, block_error, volume};
use crate::block::{self, BlockDevice, COMPARE_BYTES_MAX, TRANSFER_BYTES_MAX, Volume};
use crate::element::content::{self, Run, Source, Spot};
use crate::element::transaction::Transaction;
use crate::element::{Rows, volumes};
use crate::error::{Error, Result};
use crate::filesystem::Errno;
use crate::store::commit::Promise;
use crate::store::landing::Staged;
use crate::store::{Core, Done};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Runs that one change shares at most: more is refused, and the host copies by itself.
const COPY_RUNS_MAX: usize = TRANSFER_BYTES_MAX / 512;
/// Rows of a change of a host's besides those of runs: the element's, once a period.
const ROWS_BYTES: usize = 4096;

pub(super) struct Device {
    core: Arc<Core>,
    state: Arc<State>,
}

/// Runs on the writer's thread, perhaps more than once.
type Work<T> = Box<dyn FnMut(&mut Transaction) -> Result<T> + Send>;

/// A host's change on its way.
struct Change<T> {
    range: (u64, u64),
    payload: usize,
    rows: usize,
    durable: bool,
    /// What its content in segments needs.
    staged: Option<Arc<Staged>>,
    work: Work<T>,
}

impl Core {
    /// Again, after readers were given a copy, as often as readers come in between.
    fn change_volume<T: Send + 'static>(self: &Arc<Self>, state: Arc<State>, mut change: Change<T>, done: Done<T>) {
        if state.target.is_image {
            return done(Err(Error::File(Errno::ROFS)));
        }
        let promise = match change.durable {
            true => Promise::Durable,
            false => Promise::Written(change.staged.as_ref().and_then(|staged| staged.flush(self))),
        };
        let (payload, rows) = (change.payload, change.rows);
        let (core, again) = (self.clone(), state.clone());
        let answer = move |result: Result<(Option<T>, Change<T>)>| match result {
            Ok((Some(value), _)) => done(Ok(value)),
            Ok((None, change)) => core
                .clone()
                .volumes_later
                .run(move || match core.part_with_readers_of(again.target.element) {
                    Ok(()) => core.change_volume(again, change, done),
                    Err(error) => done(Err(error)),
                }),
            Err(error) => done(Err(error)),
        };
        self.committer.submit_with(promise, payload, rows, Box::new(answer), move |tx| {
            let changed = volumes::change(tx, &state.target, change.range, |tx| (change.work)(tx))?;
            state.is_unsettled.store(true, Ordering::SeqCst);
            Ok((changed, change))
        });
    }
}

/// Rows of so many bytes that are written over: each block of them may be a run of its own.
fn cut_bytes(core: &Core, state: &State, offset: u64, length: u64) -> usize {
    const FEW_BLOCKS: u64 = 16;
    let blocks = length / u64::from(state.block_bytes) + 2;
    if blocks <= FEW_BLOCKS {
        return RUN_BYTES * blocks as usize;
    }
    let most = blocks as usize;
    let runs = content::runs(&core.snapshot(), state.target.element, offset, offset + length, most).map_or(most, |runs| runs.len());
    RUN_BYTES * (runs + FEW_BLOCKS as usize).min(most)
}

/// What a comparison found to be so, if the runs are still the same.
enum Compared {
    Written,
    Moved,
}

/// A comparison that goes on until nothing came in between.
struct Comparison {
    offset: u64,
    expected: Vec<u8>,
    bytes: Arc<Vec<u8>>,
    durable: bool,
}

impl Device {
    pub fn new(core: Arc<Core>, state: Arc<State>) -> Self {
        Self { core, state }
    }

    fn change<T: Send + 'static>(&self, change: Change<T>, done: Done<T>) {
        self.core.change_volume(self.state.clone(), change, done);
    }

    /// Into segments first.
    fn write_staged(&self, offset: u64, bytes: &[u8], durable: bool, done: Done<()>) {
        let mut staging = crate::store::Staging::new(self.core.clone());
        let staged = staging.write(bytes).and_then(|()| match durable {
            true => staging.finish(),
            false => staging.finish_lazy(),
        });
        let staged = match staged {
            Ok(staged) => Arc::new(staged),
            Err(error) => return done(Err(error)),
        };
        let (element, length) = (self.state.target.element, bytes.len() as u64);
        let content = staged.clone();
        let work = move |tx: &mut Transaction| {
            content::cut(tx, element, offset, offset + length, usize::MAX)?;
            content::place(tx, Spot::in_place(element, offset), content.source.clone())
        };
        let (payload, extents) = match &staged.source {
            Source::Small(bytes) => (bytes.len(), 1),
            Source::Staged(extents) => (0, extents.len()),
        };
        let change = Change {
            range: (offset, length),
            payload,
            rows: ROWS_BYTES + 400 * extents + cut_bytes(&self.core, &self.state, offset, length),
            durable,
            staged: Some(staged),
            work: Box::new(work),
        };
        self.change(change, done);
    }

    fn write_small(&self, offset: u64, bytes: Vec<u8>, durable: bool, done: Done<()>) {
        let (element, length) = (self.state.target.element, bytes.len() as u64);
        let change = Change {
            range: (offset, length),
            payload: bytes.len(),
            rows: ROWS_BYTES + cut_bytes(&self.core, &self.state, offset, length),
            durable,
            staged: None,
            work: Box::new(move |tx| volumes::lay(tx, element, offset, &bytes)),
        };
        self.change(change, done);
    }
}

/// In the block face's words.
fn answer<T: 'static>(done: block::Done<T>) -> Done<T> {
    Box::new(move |result| done(result.map_err(block_error)))
}

/// Bytes of a range as one state shows them, and the runs that they lie in.
fn look(core: &Core, state: &State, offset: u64, into: &mut [u8]) -> Result<Vec<Run>> {
    let _inside = core.guard.enter();
    let snapshot = core.snapshot();
    let (element, length) = (state.target.element, into.len() as u64);
    volumes::reach(&snapshot, &state.target, offset, length)?;
    core.read_with(&snapshot, element, offset, into)?;
    content::clipped_runs(&snapshot, element, offset, offset + length, usize::MAX)
}

/// Reads outside of the change, which then only looks whether the runs are the same: what an extent holds never changes.
fn compare(core: Arc<Core>, state: Arc<State>, wanted: Comparison, done: Done<bool>) {
    let mut held = vec![0; wanted.expected.len()];
    let runs = match look(&core, &state, wanted.offset, &mut held) {
        Ok(_) if held != wanted.expected => return done(Ok(false)),
        Ok(runs) => runs,
        Err(error) => return done(Err(error)),
    };
    let (element, offset, length) = (state.target.element, wanted.offset, wanted.bytes.len() as u64);
    let bytes = wanted.bytes.clone();
    let work = move |tx: &mut Transaction| {
        if content::clipped_runs(tx, element, offset, offset + length, usize::MAX)? != runs {
            return Ok(Compared::Moved);
        }
        volumes::lay(tx, element, offset, &bytes).map(|()| Compared::Written)
    };
    let change = Change {
        range: (offset, length),
        payload: wanted.bytes.len(),
        rows: ROWS_BYTES + cut_bytes(&core, &state, offset, length),
        durable: wanted.durable,
        staged: None,
        work: Box::new(work),
    };
    let (again, of) = (core.clone(), state.clone());
    let answer = move |result| match result {
        Ok(Compared::Written) => done(Ok(true)),
        Ok(Compared::Moved) => again.clone().volumes_later.run(move || compare(again, of, wanted, done)),
        Err(error) => done(Err(error)),
    };
    core.change_volume(state, change, Box::new(answer));
}

/// Makes the range a hole, STEP_RUNS_MAX runs a step.
fn zero(core: Arc<Core>, state: Arc<State>, range: Range<u64>, durable: bool, done: Done<()>) {
    let element = state.target.element;
    let (start, stop) = (range.start, range.end);
    let change = Change {
        range: (start, stop - start),
        payload: 0,
        rows: ROWS_BYTES + RUN_BYTES * STEP_RUNS_MAX,
        durable,
        staged: None,
        work: Box::new(move |tx| content::cut(tx, element, start, stop, STEP_RUNS_MAX)),
    };
    let (again, of) = (core.clone(), state.clone());
    let answer = move |result: Result<u64>| match result {
        Ok(reached) if reached < stop => again
            .clone()
            .volumes_later
            .run(move || zero(again, of, reached..stop, durable, done)),
        Ok(_) => done(Ok(())),
        Err(error) => done(Err(error)),
    };
    core.change_volume(state, change, Box::new(answer));
}

impl BlockDevice for Device {
    fn volume(&self) -> Volume {
        let found = volumes::find(&self.core.snapshot(), self.state.target.id);
        match found {
            Ok(found) if found.mark.uuid == self.state.target.uuid => volume(&found),
            // It was taken away by force.
            _ => Volume {
                id: self.state.target.id,
                path: String::new(),
                uuid: self.state.target.uuid,
                size_bytes: 0,
                used_bytes: 0,
                block_bytes: self.state.block_bytes,
                read_only: self.state.target.is_image,
            },
        }
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> block::Result<()> {
        into.fill(0);
        self.core.note_read();
        let _inside = self.core.guard.enter();
        let snapshot = self.core.snapshot();
        volumes::reach(&snapshot, &self.state.target, offset, into.len() as u64)
            .and_then(|_| self.core.read_with(&snapshot, self.state.target.element, offset, into))
            .map_err(block_error)
    }

    fn write(&self, offset: u64, bytes: Vec<u8>, durable: bool, done: block::Done<()>) {
        let done = answer(done);
        match bytes.len() {
            0 => done(Ok(())),
            length if length > TRANSFER_BYTES_MAX => done(Err(Error::Limit("one write".into()))),
            length if length > self.core.small_bytes_max => self.write_staged(offset, &bytes, durable, done),
            _ => self.write_small(offset, bytes, durable, done),
        }
    }

    fn flush(&self, done: block::Done<()>) {
        self.core.committer.when_durable(answer(done));
    }

    fn zero(&self, offset: u64, length: u64, durable: bool, done: block::Done<()>) {
        let done = answer(done);
        match offset.checked_add(length) {
            None => done(Err(Error::Invalid(volumes::PAST_END.into()))),
            Some(stop) => zero(self.core.clone(), self.state.clone(), offset..stop, durable, done),
        }
    }

    fn compare_and_write(&self, offset: u64, expected: Vec<u8>, bytes: Vec<u8>, durable: bool, done: block::Done<bool>) {
        let done = answer(done);
        if expected.len() != bytes.len() || bytes.len() > COMPARE_BYTES_MAX {
            return done(Err(Error::Limit("one comparison".into())));
        }
        if bytes.is_empty() {
            return done(Ok(true));
        }
        let wanted = Comparison {
            offset,
            expected,
            bytes: Arc::new(bytes),
            durable,
        };
        compare(self.core.clone(), self.state.clone(), wanted, done);
    }

    fn copy(&self, from: u64, to: u64, length: u64, durable: bool, done: block::Done<()>) {
        let done = answer(done);
        if length > TRANSFER_BYTES_MAX as u64 {
            return done(Err(Error::Limit("one copy".into())));
        }
        let (target, snapshot) = (self.state.target, self.core.snapshot());
        let runs = volumes::reach(&snapshot, &target, from, length)
            .and_then(|_| content::runs(&snapshot, target.element, from, from + length, COPY_RUNS_MAX));
        let runs = match runs {
            Ok(runs) => runs.len(),
            Err(error) => return done(Err(error)),
        };
        let work = move |tx: &mut Transaction| {
            volumes::reach(tx, &target, from, length)?;
            content::copy_within(tx, target.element, from, to, length)
        };
        let change = Change {
            range: (to, length),
            payload: 0,
            rows: ROWS_BYTES + RUN_BYTES * (runs + 16) + cut_bytes(&self.core, &self.state, to, length),
            durable,
            staged: None,
            work: Box::new(work),
        };
        self.change(change, done);
    }

    fn allocated(&self, range: Range<u64>) -> block::Result<Vec<Range<u64>>> {
        let snapshot = self.core.snapshot();
        let found = volumes::reach(&snapshot, &self.state.target, range.start, range.end.saturating_sub(range.start))
            .and_then(|_| allocated(&snapshot, self.state.target.element, range));
        found.map_err(block_error)
    }
}

/// Runs that touch are one.
fn allocated(rows: &dyn Rows, element: u64, range: Range<u64>) -> Result<Vec<Range<u64>>> {
    let mut found: Vec<Range<u64>> = Vec::new();
    for run in content::each_run(rows, element, range.start, range.end) {
        let run = run?;
        let part = run.offset.max(range.start)..(run.offset + u64::from(run.length)).min(range.end);
        match found.last_mut() {
            Some(last) if last.end == part.start => last.end = part.end,
            _ => found.push(part),
        }
    }
    Ok(found)
}

impl Drop for Device {
    fn drop(&mut self) {
        self.core.let_go(self.state.target.element);
    }
}
