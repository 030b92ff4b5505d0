//! References that outlive their use: content that was deleted and that only deltas still refer to. Once such a chunk takes more than its deltas
//! save, they are encoded anew without it, and it goes with the last of them.
//!
//! Invariants: a chunk keeps its id and its bytes, whatever encodes them; the new bytes are durable before the row that names them, and the row
//! changes only if it is as it was. Memory is bounded: so many references at a time.

use super::Core;
use super::commit::Rank;
use super::landing::Hold;
use crate::codec::checksum;
use crate::element::chunks;
use crate::element::rows::{ChunkRow, Encoding};
use crate::element::{Rows, keys};
use crate::error::Result;
use crate::meta::decode_counter;
use crate::reduction::choose::is_compressible;
use crate::reduction::encode::Encoder;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// References that one walk over the chunks looks at.
const REFERENCES_MAX: usize = 100_000;
/// Plain bytes that are encoded anew in one transaction.
const STEP_BYTES: usize = 4 << 20;

/// The deltas of one reference.
#[derive(Default)]
struct Dependents {
    deltas: Vec<(u64, ChunkRow)>,
}

impl Dependents {
    /// About what the deltas save, if each would take alone what the reference takes for its length.
    fn gain_bytes(&self, base: &ChunkRow) -> u64 {
        let alone = |row: &ChunkRow| u64::from(row.length) * u64::from(base.location.length) / u64::from(base.length.max(1));
        let gain = |row: &ChunkRow| alone(row).saturating_sub(u64::from(row.location.length));
        self.deltas.iter().map(|(_, row)| gain(row)).sum()
    }
}

impl Core {
    /// One walk, for references above chunk `after`. Returns where the next one goes on; None at the end.
    pub(super) fn tend(&self, after: u64) -> Result<Option<u64>> {
        let snapshot = self.snapshot();
        let (mut bases, mut more) = (BTreeMap::<u64, Dependents>::new(), false);
        let (from, to) = keys::table(keys::CHUNK);
        for row in snapshot.range(&from, &to, false) {
            let (key, value) = row?;
            let (id, row) = (keys::id_of(&key), ChunkRow::decode(&value)?);
            for base in row.bases.iter().filter(|base| **base > after) {
                bases.entry(*base).or_default().deltas.push((id, row.clone()));
            }
            while bases.len() > REFERENCES_MAX {
                bases.pop_last();
                more = true;
            }
        }
        let last = bases.last_key_value().map(|(base, _)| *base).filter(|_| more);
        let mut load = BTreeMap::new();
        for (id, dependents) in bases {
            let Some(base) = chunks::chunk(&snapshot, id)? else { continue };
            let shares = snapshot
                .get(&keys::chunk_shares(id))?
                .map_or(Ok(0), |value| decode_counter(&value))?;
            let only_deltas = shares + 1 == dependents.deltas.len() as i64;
            if only_deltas && dependents.gain_bytes(&base) < u64::from(base.location.length) {
                load.extend(dependents.deltas);
            }
        }
        drop(snapshot);
        self.encode_alone(load)?;
        Ok(last)
    }

    fn encode_alone(&self, load: BTreeMap<u64, ChunkRow>) -> Result<()> {
        let (level, mut encoder) = (self.reducer().mode().plain_level(), Encoder::default());
        let (mut step, mut bytes) = (Vec::new(), 0);
        for (id, row) in load {
            if self.wake.is_stopped() {
                return Ok(());
            }
            let mut plain = vec![0; row.length as usize];
            {
                let _inside = self.guard.enter();
                let snapshot = self.snapshot();
                if chunks::chunk(&snapshot, id)?.as_ref() != Some(&row) {
                    continue;
                }
                self.decode_chunk(&snapshot, &row, &mut plain)?;
            }
            bytes += plain.len();
            let alone = encoder.plain(&plain, level)?;
            let (encoding, stored) = if is_compressible(alone.len(), plain.len()) {
                (Encoding::Zstd, alone)
            } else {
                (Encoding::Raw, plain)
            };
            step.push((id, row, encoding, stored));
            if bytes >= STEP_BYTES {
                self.recode(std::mem::take(&mut step))?;
                bytes = 0;
            }
        }
        self.recode(step)
    }

    fn recode(&self, step: Vec<(u64, ChunkRow, Encoding, Vec<u8>)>) -> Result<()> {
        let mut hold = Hold::new(&self.holds);
        let stored: Vec<(u64, &[u8])> = step.iter().map(|(id, _, _, bytes)| (*id, bytes.as_slice())).collect();
        let locations = self.store_chunks(&mut hold, &stored)?;
        let mut changes = Vec::with_capacity(step.len());
        for ((id, old, encoding, bytes), location) in step.iter().zip(locations) {
            let new = ChunkRow {
                encoding: *encoding,
                bases: Vec::new(),
                location,
                checksum: checksum(bytes),
                ..old.clone()
            };
            changes.push((*id, old.clone(), new));
        }
        for batch in changes.chunks(128) {
            let batch = batch.to_vec();
            let count = batch.len();
            self.committer.run_own(Rank::Own, 600 * count, move |tx| {
                batch.iter().try_for_each(|(id, old, new)| chunks::recode(tx, *id, old, new))
            })?;
            self.reduction_counters.recoded.fetch_add(count as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}
