//! Small overwrites in place: blocks of which a part was written again become one chunk again.
//!
//! A landed extent that covers no aligned block, even with its neighbours, is a *fragment*. The reducer reads what its block holds now, encodes that, and exchanges
//! the runs in one transaction that looks whether they are still the same; the fragments go with them. Invariants: a block that was written within
//! HOT waits, so that what is rewritten all the time is not encoded each time; where the journal is short, fragments are landed in
//! segments, which costs next to nothing, and wait there. Only fragments that nothing else names are merged: what a snapshot, a clone or a copy
//! shares is reduced as it lies.

use super::Core;
use super::commit::Rank;
use super::landing::{Hold, KIND_EXTENT, raw_extent};
use crate::element::blocks;
use crate::element::content::{self, Run};
use crate::element::history::View;
use crate::element::rows::{ExtentRow, LandedRow, Placement};
use crate::element::{keys, modes};
use crate::error::{Error, Result};
use crate::reduction::{ALIGNED_BYTES, Cutting, Mode};
use crate::segment::{Class, Location, Payload};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// A block that was written within this is left alone.
pub(super) const HOT: Duration = Duration::from_secs(10);
/// Runs of a block; what has more is reduced as it lies.
const RUNS_MAX: usize = 256;
/// Fragments that one transaction lands again, and about what each writes.
const LANDED_AGAIN: usize = 128;
const LANDED_AGAIN_BYTES: usize = 300;
/// Appends again after a device died before the flush.
const ATTEMPTS_MAX: usize = 4;

const BLOCK: u64 = ALIGNED_BYTES as u64;

/// A landed extent that a look found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub landed: LandedRow,
    pub row: ExtentRow,
}

impl Found {
    fn end(&self) -> u64 {
        self.landed.offset + u64::from(self.row.length)
    }

    /// Can it be a fragment, whatever lies beside it?
    pub fn is_small(&self) -> bool {
        self.landed.cutting == Cutting::Aligned && self.row.length < ALIGNED_BYTES as u32
    }
}

/// Bytes without holes of one aligned block.
#[derive(Debug)]
pub(super) struct Block {
    pub element: u64,
    pub mode: Mode,
    pub runs: Vec<Run>,
    pub bytes: Vec<u8>,
    /// The chunk that most of it was in.
    pub previous: Option<u64>,
    /// Chunks that nothing needs any more once it is exchanged.
    pub dying: BTreeSet<u64>,
}

/// Where the fragments of a look go.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// Reduced as they lie.
    pub whole: Vec<Found>,
    pub blocks: Vec<Block>,
    /// Fragments that go with the blocks.
    pub merged: usize,
}

/// Those that cover aligned blocks with their neighbours, and those that do not.
pub(super) fn fragments(mut found: Vec<Found>) -> (Vec<Found>, Vec<Found>) {
    found.sort_by_key(|found| found.landed);
    let (mut whole, mut fragments) = (Vec::new(), Vec::new());
    for stream in found.chunk_by(|one, next| {
        one.landed.cutting == next.landed.cutting && (one.landed.element, one.end()) == (next.landed.element, next.landed.offset)
    }) {
        let (start, stop) = (stream[0].landed.offset, stream[stream.len() - 1].end());
        let (first, last) = (start.next_multiple_of(BLOCK), stop / BLOCK * BLOCK);
        for found in stream {
            let is_beside = first >= last || found.end() <= first || found.landed.offset >= last;
            let list = if found.is_small() && is_beside {
                &mut fragments
            } else {
                &mut whole
            };
            list.push(found.clone());
        }
    }
    (whole, fragments)
}

/// Neighbours without holes.
fn contiguous(runs: &[Run]) -> impl Iterator<Item = &[Run]> {
    runs.chunk_by(|one, next| one.end() == next.offset)
}

impl Core {
    pub(super) fn mode_of(&self, view: &View, landed: &LandedRow, known: &mut HashMap<u64, Mode>) -> Result<Mode> {
        if let Some(mode) = landed.mode.or_else(|| known.get(&landed.element).copied()) {
            return Ok(mode);
        }
        let mode = modes::of(view, landed.element)?.unwrap_or(self.mode);
        known.insert(landed.element, mode);
        Ok(mode)
    }

    /// `hot_from`: extents from this id on were written just now. The caller is inside the guard.
    pub(super) fn sort_out(&self, view: &View, found: Vec<Found>, hot_from: u64, modes: &mut HashMap<u64, Mode>) -> Result<Sorted> {
        let (whole, fragments) = fragments(found);
        let mut sorted = Sorted {
            whole,
            ..Sorted::default()
        };
        let mut blocks: BTreeMap<(u64, u64), Vec<Found>> = BTreeMap::new();
        for found in fragments {
            let touched = self.blocks_of(view, &found, modes)?;
            if touched.is_empty() {
                sorted.whole.push(found);
                continue;
            }
            for block in touched {
                blocks.entry((found.landed.element, block)).or_default().push(found.clone());
            }
        }
        let (mut kept, mut merged) = (BTreeMap::new(), BTreeSet::new());
        for ((element, block), fragments) in blocks {
            match self.read_block(view, element, block, &fragments, hot_from) {
                Ok(Some(read)) => {
                    let mode = self.mode_of(view, &fragments[0].landed, modes)?;
                    sorted.blocks.extend(read.into_iter().map(|block| Block { mode, ..block }));
                    merged.extend(fragments.iter().map(|found| found.landed.extent));
                }
                Ok(None) => {}
                // Too many runs, or what cannot be read: that is for those who read it to hear.
                Err(Error::Limit(_) | Error::Damaged(_)) => {
                    kept.extend(fragments.into_iter().map(|found| (found.landed.extent, found)));
                }
                Err(error) => return Err(error),
            }
        }
        sorted.merged = merged.len();
        sorted.whole.extend(kept.into_values());
        Ok(sorted)
    }

    /// The blocks that a fragment is to be merged into; none if it is better reduced as it lies.
    fn blocks_of(&self, view: &View, found: &Found, modes: &mut HashMap<u64, Mode>) -> Result<BTreeSet<u64>> {
        let LandedRow {
            element, offset, extent, ..
        } = found.landed;
        let space = view.spaces().get(keys::space_of(element));
        let is_fixed = space.is_some_and(|space| space.row.is_image || space.row.is_left);
        let is_gone = space.is_none() && keys::space_of(element) != 0;
        if is_fixed || is_gone || self.mode_of(view, &found.landed, modes)? == Mode::Off {
            return Ok(BTreeSet::new());
        }
        let run = Run {
            offset,
            extent,
            skip: 0,
            length: found.row.length,
        };
        let runs = blocks::alone(view, &view.raw, view.spaces(), element, &run, found.row.length)?;
        let touched = |run: Run| run.offset / BLOCK..=(run.end() - 1) / BLOCK;
        Ok(runs.unwrap_or_default().into_iter().flat_map(touched).collect())
    }

    /// What of a block has fragments in it; None if it is hot. Raises Limit, Damaged.
    fn read_block(&self, view: &View, element: u64, block: u64, fragments: &[Found], hot_from: u64) -> Result<Option<Vec<Block>>> {
        let (start, stop) = (block * BLOCK, (block + 1) * BLOCK);
        let runs = content::clipped_runs(view, element, start, stop, RUNS_MAX + 1)?;
        if runs.len() > RUNS_MAX {
            return Err(Error::Limit("runs of a block".into()));
        }
        let mut rows = HashMap::new();
        for run in &runs {
            let row = content::extent(view, run.extent)?.ok_or_else(|| Error::Damaged(format!("extent {} has no row", run.extent)))?;
            if run.extent >= hot_from && !matches!(row.placement, Placement::Chunks(_)) {
                return Ok(None);
            }
            rows.insert(run.extent, row);
        }
        let is_fragment = |run: &Run| fragments.iter().any(|found| found.landed.extent == run.extent);
        let mut read = Vec::new();
        for part in contiguous(&runs).filter(|part| part.iter().any(is_fragment)) {
            read.push(self.read_part(view, element, part, &rows)?);
        }
        Ok(Some(read))
    }

    fn read_part(&self, view: &View, element: u64, runs: &[Run], rows: &HashMap<u64, ExtentRow>) -> Result<Block> {
        let (start, stop) = (runs[0].offset, runs[runs.len() - 1].end());
        let mut bytes = vec![0; (stop - start) as usize];
        self.read_with(view, element, start, &mut bytes)?;
        let (mut longest, mut dying) = ((0, None), BTreeSet::new());
        for run in runs {
            let Some(ExtentRow {
                placement: Placement::Chunks(pieces),
                length,
            }) = rows.get(&run.extent)
            else {
                continue;
            };
            for piece in blocks::clipped(pieces, run.skip, run.length)
                .iter()
                .filter(|piece| piece.chunk != 0)
            {
                if piece.length > longest.0 {
                    longest = (piece.length, Some(piece.chunk));
                }
            }
            if let Some(all) = blocks::alone(view, &view.raw, view.spaces(), element, run, *length)? {
                let left: Vec<Run> = all
                    .iter()
                    .flat_map(|run| [run.clip(0, start), run.clip(stop, u64::MAX)])
                    .flatten()
                    .collect();
                dying.extend(blocks::dead(pieces, &left));
            }
        }
        Ok(Block {
            element,
            mode: Mode::default(),
            runs: runs.to_vec(),
            bytes,
            previous: longest.1,
            dying,
        })
    }

    /// Out of the journal, into landing segments, as they are.
    pub(super) fn land_again(&self, found: Vec<Found>) -> Result<()> {
        if found.is_empty() {
            return Ok(());
        }
        let mut hold = Hold::new(&self.holds);
        let bytes: Vec<Vec<u8>> = {
            let _inside = self.guard.enter();
            let view = self.snapshot();
            let mut still = |found: &Found| -> Result<Vec<u8>> {
                match content::extent(&view, found.landed.extent)? {
                    Some(row) if row == found.row => self.read_extent_with(&view, &row, 0, row.length),
                    _ => Ok(Vec::new()),
                }
            };
            found.iter().map(&mut still).collect::<Result<_>>()?
        };
        // What went meanwhile has no bytes.
        let there: Vec<(&Found, &Vec<u8>)> = found.iter().zip(&bytes).filter(|(_, bytes)| !bytes.is_empty()).collect();
        let payloads: Vec<Payload> = there
            .iter()
            .map(|(found, bytes)| Payload {
                kind: KIND_EXTENT,
                owner: found.landed.extent,
                bytes,
            })
            .collect();
        let locations = self.append_landed(&mut hold, &payloads)?;
        let moved: Vec<(LandedRow, ExtentRow, ExtentRow)> = there
            .iter()
            .zip(locations)
            .map(|((found, bytes), location)| (found.landed, found.row.clone(), raw_extent(bytes, location)))
            .collect();
        for batch in moved.chunks(LANDED_AGAIN) {
            let batch = batch.to_vec();
            self.committer.run_own(Rank::Own, LANDED_AGAIN_BYTES * batch.len(), move |tx| {
                batch
                    .iter()
                    .try_for_each(|(landed, old, new)| blocks::land_again(tx, landed, old, new))
            })?;
        }
        Ok(())
    }

    fn append_landed(&self, hold: &mut Hold, payloads: &[Payload]) -> Result<Vec<Location>> {
        if payloads.is_empty() {
            return Ok(Vec::new());
        }
        for _ in 0..ATTEMPTS_MAX {
            let locations = hold.append(|| self.append(Class::Landing, payloads))?;
            match self.segments.sync(&locations) {
                Err(Error::Io(_)) => {}
                result => return result.map(|()| locations),
            }
        }
        Err(Error::Closed("devices keep failing under landed content".into()))
    }
}
