//! Moves what still lives out of a segment, so that the segment becomes empty and is freed: out of sparse ones while space is short, and out of
//! those that lost a device, which is how a pool gets its protection back.
//!
//! Invariants: as for the reducer, the new place is durable before the transaction that names it, and that transaction leaves alone what was
//! moved or given up meanwhile. A segment is read by its payloads' headers, and only what metadata still names is moved.

use super::Core;
use super::commit::Rank;
use super::landing::{Hold, KIND_EXTENT};
use super::merge::{self, Found};
use super::packs::{self, KIND_PACK};
use crate::element::rows::{ChunkRow, ExtentRow, LandedRow, Placement};
use crate::element::{Rows, chunks, content, keys};
use crate::error::{Error, Result};
use crate::meta::decode_counter;
use crate::segment::{Class, ScannedPayload, SegmentLayout};

/// Bytes moved in one step.
const STEP_BYTES: usize = 8 << 20;
const CHUNKS_PER_TRANSACTION: usize = 1024;
/// Of the space for users, below which sparse segments are compacted, percent.
const SPACE_SHORT_PERCENT: u64 = 20;
/// Of a segment's data space; a fuller one gives too little for what it costs.
const LIVE_PERCENT_MAX: u64 = 80;

/// What one step takes along.
#[derive(Default)]
struct Load {
    extents: Vec<Found>,
    chunks: Vec<(u64, ChunkRow, Vec<u8>)>,
    bytes: usize,
}

impl Core {
    /// Empties one segment if there is reason to; true if it did.
    pub(super) fn compact(&self) -> Result<bool> {
        match self.worst_segment()? {
            Some(id) => self.evacuate(id).map(|()| true),
            None => Ok(false),
        }
    }

    /// One that lost protection, else the sparsest while space is short.
    fn worst_segment(&self) -> Result<Option<u64>> {
        let (degraded, space, snapshot) = (self.segments.degraded(), self.segments.status(), self.snapshot());
        let live = |layout: &SegmentLayout| -> Result<u64> {
            let row = snapshot.get(&keys::segment_live(layout.id))?;
            Ok(row.map_or(Ok(0), |value| decode_counter(&value))?.max(0) as u64)
        };
        let short = space.free_bytes * 100 < space.usable_bytes * SPACE_SHORT_PERCENT;
        let mut sparsest: Option<(u64, u64)> = None;
        for layout in self.segments.layouts().iter().filter(|layout| layout.class != Class::Table) {
            let live = live(layout)?;
            if live == 0 {
                continue;
            }
            if degraded.contains(&layout.id) {
                return Ok(Some(layout.id));
            }
            let percent = live * 100 / (u64::from(layout.k) * self.pool.geometry.zone_bytes);
            if short
                && percent <= LIVE_PERCENT_MAX
                && !self.segments.is_open(layout.id)
                && sparsest.is_none_or(|(least, _)| percent < least)
            {
                sparsest = Some((percent, layout.id));
            }
        }
        Ok(sparsest.map(|(_, id)| id))
    }

    fn evacuate(&self, id: u64) -> Result<()> {
        self.segments.seal(id)?;
        let mut load = Load::default();
        for payload in self.segments.scan(id)? {
            self.take_along(&payload, &mut load)?;
            if load.bytes >= STEP_BYTES {
                self.put_down(std::mem::take(&mut load))?;
            }
            if self.wake.is_stopped() {
                return Ok(());
            }
        }
        self.put_down(load)
    }

    /// Reads the payload if metadata names it.
    fn take_along(&self, payload: &ScannedPayload, load: &mut Load) -> Result<()> {
        let (owner, _inside, snapshot) = (payload.header.owner, self.guard.enter(), self.snapshot());
        match payload.header.kind {
            KIND_EXTENT => {
                let row = content::extent(&snapshot, owner)?;
                let named = |row: &ExtentRow| matches!(row.placement, Placement::Raw { location, .. } if location == payload.location);
                if let Some(row) = row.filter(named) {
                    load.bytes += row.length as usize;
                    let landed = landed(&snapshot, owner)?;
                    load.extents.push(Found { landed, row });
                }
            }
            KIND_PACK => {
                let pack = match self.read_pack(&payload.location, &payload.header) {
                    Err(Error::Damaged(_)) => return self.take_along_damaged(&snapshot, payload, load),
                    pack => pack?,
                };
                for (id, range) in packs::directory(&pack)? {
                    let named = |row: &ChunkRow| row.location == packs::place(&payload.location, &range);
                    if let Some(row) = chunks::chunk(&snapshot, id)?.filter(named) {
                        load.bytes += range.len();
                        load.chunks.push((id, row, pack[range].to_vec()));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Of a pack that a crash tore no chunk is named; of one that is damaged, each chunk has a checksum of its own.
    fn take_along_damaged(&self, rows: &dyn Rows, payload: &ScannedPayload, load: &mut Load) -> Result<()> {
        for (id, row) in chunks::within(rows, &payload.location)? {
            let bytes = self.segments.read(&row.location, 0..row.location.length, row.checksum)?;
            load.bytes += bytes.len();
            load.chunks.push((id, row, bytes));
        }
        Ok(())
    }

    fn put_down(&self, load: Load) -> Result<()> {
        // Fragments wait for what their blocks become, unless landing may find no room.
        let (whole, fragments) = match self.is_space_short() {
            true => (load.extents, Vec::new()),
            false => merge::fragments(load.extents),
        };
        self.land_again(fragments)?;
        self.reduce_whole(whole)?;
        if load.chunks.is_empty() {
            return Ok(());
        }
        let mut hold = Hold::new(&self.holds);
        let stored: Vec<(u64, &[u8])> = load.chunks.iter().map(|(id, _, bytes)| (*id, bytes.as_slice())).collect();
        let locations = self.store_chunks(&mut hold, &stored)?;
        let moved: Vec<_> = load
            .chunks
            .into_iter()
            .zip(locations)
            .map(|((id, row, _), location)| (id, row, location))
            .collect();
        for batch in moved.chunks(CHUNKS_PER_TRANSACTION) {
            let batch = batch.to_vec();
            self.committer.run_own(Rank::Own, 200 * batch.len(), move |tx| {
                batch
                    .iter()
                    .try_for_each(|(id, row, location)| chunks::move_chunk(tx, *id, row, *location))
            })?;
        }
        Ok(())
    }
}

/// Whose it was when it landed; an extent that does not wait any more is a stream of its own.
fn landed(rows: &dyn Rows, extent: u64) -> Result<LandedRow> {
    let alone = LandedRow {
        element: extent,
        offset: 0,
        cutting: Default::default(),
        extent,
        mode: None,
    };
    rows.get(&keys::landed_raw(extent))?
        .map_or(Ok(alone), |value| LandedRow::decode(&value))
}
