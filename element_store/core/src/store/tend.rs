//! References that outlive their use: content that was deleted and that only deltas still refer to. Once such a chunk takes more than its deltas
//! save, they are encoded anew without it; if the newest of them would do as well in its place, that one becomes a full chunk and the reference of the
//! others. It goes with the last of them.
//!
//! Invariants: a chunk keeps its id and its bytes, whatever encodes them; the new bytes are durable before the rows that name them, and a row
//! changes only if it is as it was; a delta becomes full in the transaction in which others begin to refer to it. Memory is bounded: so many
//! references at a time, so many bytes of plain content.

use super::Core;
use super::commit::Rank;
use super::landing::Hold;
use crate::codec::checksum;
use crate::element::chunks::{self, Recoded};
use crate::element::rows::{ChunkRow, Encoding};
use crate::element::{Rows, keys};
use crate::error::Result;
use crate::meta::{Snapshot, decode_counter};
use crate::reduction::choose::{is_accepted, is_compressible};
use crate::reduction::encode::Encoder;
use crate::store::reducer::draft::joined;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// References that one walk over the chunks looks at.
const REFERENCES_MAX: usize = 100_000;
/// Plain bytes that are encoded anew before they are stored.
pub(super) const STEP_BYTES: usize = 4 << 20;
/// Deltas of a reference for which one of them is tried in its place.
const PROMOTED_MAX: usize = 16;
/// References that are remembered as not worth replacing.
const KEPT_MAX: usize = 100_000;
/// Chunks that one transaction changes, unless a group is larger, and what each writes, its page of the index included.
const CHANGED_MAX: usize = 32;
const CHANGED_BYTES: usize = 8 * 1024;

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

    /// Do they take more than another full chunk would? Then they drifted away from it, and one of them may be the better reference.
    fn may_do_without(&self, base: &ChunkRow) -> bool {
        (2..=PROMOTED_MAX).contains(&self.deltas.len()) && self.stored_bytes() >= base.location.length as usize
    }

    fn stored_bytes(&self) -> usize {
        self.deltas.iter().map(|(_, row)| row.location.length as usize).sum()
    }
}

/// A chunk as it is to be: what `Recoded` will say once its bytes have a place.
pub(super) struct Changed {
    pub id: u64,
    pub old: ChunkRow,
    pub encoding: Encoding,
    pub bases: Vec<u64>,
    pub bytes: Vec<u8>,
}

impl Changed {
    fn alone(id: u64, old: ChunkRow, plain: Vec<u8>, compressed: Vec<u8>) -> Self {
        let is_smaller = is_compressible(compressed.len(), plain.len());
        Self {
            id,
            old,
            encoding: if is_smaller { Encoding::Zstd } else { Encoding::Raw },
            bases: Vec::new(),
            bytes: if is_smaller { compressed } else { plain },
        }
    }
}

/// Groups on their way to be stored; each changes as a whole, led by its first.
#[derive(Default)]
struct Load {
    groups: Vec<Vec<Changed>>,
    bytes: usize,
}

impl Core {
    /// One walk, for references above chunk `after`. Returns where the next one goes on; None at the end.
    pub(super) fn tend(&self, after: u64) -> Result<Option<u64>> {
        let snapshot = self.committer.meta.snapshot();
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
        let (mut alone, mut promoted) = (BTreeMap::new(), Vec::new());
        for (id, dependents) in bases {
            let Some(base) = chunks::chunk(&snapshot, id)? else { continue };
            let shares = snapshot
                .get(&keys::chunk_shares(id))?
                .map_or(Ok(0), |value| decode_counter(&value))?;
            if shares + 1 != dependents.deltas.len() as i64 {
                continue;
            }
            if dependents.gain_bytes(&base) < u64::from(base.location.length) {
                alone.extend(dependents.deltas);
            } else if dependents.may_do_without(&base) && !self.reducer().kept.contains(&id) {
                promoted.push((id, base, dependents));
            }
        }
        drop(snapshot);
        self.encode_alone(alone)?;
        self.promote(promoted)?;
        Ok(last)
    }

    /// The plain bytes of a chunk that is as it was.
    pub(super) fn plain_of(&self, id: u64, row: &ChunkRow) -> Result<Option<Vec<u8>>> {
        let _inside = self.guard.enter();
        let snapshot = self.snapshot();
        if chunks::chunk(&snapshot, id)?.as_ref() != Some(row) {
            return Ok(None);
        }
        let mut plain = vec![0; row.length as usize];
        self.decode_chunk(&snapshot, row, &mut plain)?;
        Ok(Some(plain))
    }

    /// Plain bytes of references, as an encoder takes them.
    pub(super) fn references_of(&self, bases: &[u64]) -> Result<Option<Vec<u8>>> {
        let _inside = self.guard.enter();
        let (snapshot, mut found) = (self.committer.meta.snapshot(), Vec::<Arc<[u8]>>::new());
        for id in bases {
            let Some(row) = chunks::chunk(&snapshot, *id)? else {
                return Ok(None);
            };
            found.push(self.read_base(*id, &row)?);
        }
        Ok(Some(joined(&found.iter().map(AsRef::as_ref).collect::<Vec<_>>())))
    }

    fn encode_alone(&self, load: BTreeMap<u64, ChunkRow>) -> Result<()> {
        let (level, mut encoder, mut step) = (self.mode.plain_level(), Encoder::default(), Load::default());
        for (id, row) in load {
            if self.wake.is_stopped() {
                return Ok(());
            }
            let Some(plain) = self.plain_of(id, &row)? else { continue };
            let bytes = plain.len();
            let compressed = encoder.plain(&plain, level)?;
            self.put_in(&mut step, vec![Changed::alone(id, row, plain, compressed)], bytes)?;
        }
        self.recode(step.groups)
    }

    /// Puts one of its deltas in a reference's place where that takes less.
    fn promote(&self, load: Vec<(u64, ChunkRow, Dependents)>) -> Result<()> {
        let (mut encoder, mut step) = (Encoder::default(), Load::default());
        for (id, base, dependents) in load {
            if self.wake.is_stopped() {
                return Ok(());
            }
            let before = base.location.length as usize + dependents.stored_bytes();
            let bytes = dependents.deltas.iter().map(|(_, row)| row.length as usize).sum();
            let Some(group) = self.without(id, dependents, &mut encoder)? else {
                continue;
            };
            let after: usize = group.iter().map(|changed| changed.bytes.len()).sum();
            // Less than that is not worth what moving costs.
            if after + base.location.length as usize * 3 / 100 < before {
                self.put_in(&mut step, group, bytes)?;
            } else {
                let mut reducer = self.reducer();
                if reducer.kept.len() >= KEPT_MAX {
                    reducer.kept.clear();
                }
                reducer.kept.insert(id);
            }
        }
        self.recode(step.groups)
    }

    /// A reference's deltas as they would be with the newest of them in its place; that one is the first. None: one of them changed meanwhile.
    fn without(&self, base: u64, dependents: Dependents, encoder: &mut Encoder) -> Result<Option<Vec<Changed>>> {
        let mut deltas = dependents.deltas;
        let Some((first, row)) = deltas.pop() else { return Ok(None) };
        let Some(newest) = self.plain_of(first, &row)? else {
            return Ok(None);
        };
        let compressed = encoder.plain(&newest, self.mode.plain_level())?;
        let mut group = vec![Changed::alone(first, row, newest.clone(), compressed)];
        for (id, row) in deltas {
            let Some(plain) = self.plain_of(id, &row)? else { return Ok(None) };
            let others: Vec<u64> = row.bases.iter().copied().filter(|other| *other != base).collect();
            let Some(other) = self.references_of(&others)? else {
                return Ok(None);
            };
            let is_first = row.bases.first() == Some(&base);
            let (bases, references) = match others.is_empty() {
                true => (vec![first], newest.clone()),
                false if is_first => (vec![first, others[0]], joined(&[&newest, &other])),
                false => (vec![others[0], first], joined(&[&other, &newest])),
            };
            let delta = encoder.delta(&plain, &references, self.mode.delta_level())?;
            let compressed = encoder.plain(&plain, self.mode.plain_level())?;
            let mut changed = Changed::alone(id, row, plain, compressed);
            if let Some(delta) = delta.filter(|delta| is_accepted(delta.len(), changed.bytes.len())) {
                (changed.encoding, changed.bases, changed.bytes) = (Encoding::Delta, bases, delta);
            }
            group.push(changed);
        }
        Ok(Some(group))
    }

    fn put_in(&self, load: &mut Load, group: Vec<Changed>, plain_bytes: usize) -> Result<()> {
        load.groups.push(group);
        load.bytes += plain_bytes;
        if load.bytes < STEP_BYTES {
            return Ok(());
        }
        load.bytes = 0;
        self.recode(std::mem::take(&mut load.groups))
    }

    /// Stores the new bytes, then names them.
    pub(super) fn recode(&self, groups: Vec<Vec<Changed>>) -> Result<()> {
        let mut hold = Hold::new(&self.holds);
        let stored: Vec<(u64, &[u8])> = groups
            .iter()
            .flatten()
            .map(|changed| (changed.id, changed.bytes.as_slice()))
            .collect();
        let mut locations = self.store_chunks(&mut hold, &stored)?.into_iter();
        let mut batch: Vec<Vec<Recoded>> = Vec::new();
        for group in groups {
            let recoded = group.into_iter().zip(locations.by_ref()).map(|(changed, location)| Recoded {
                id: changed.id,
                new: ChunkRow {
                    encoding: changed.encoding,
                    bases: changed.bases,
                    location,
                    checksum: checksum(&changed.bytes),
                    ..changed.old.clone()
                },
                old: changed.old,
            });
            batch.push(recoded.collect());
            if batch.iter().map(Vec::len).sum::<usize>() >= CHANGED_MAX {
                self.commit_recoded(std::mem::take(&mut batch))?;
            }
        }
        self.commit_recoded(batch)
    }

    fn commit_recoded(&self, batch: Vec<Vec<Recoded>>) -> Result<()> {
        let count: usize = batch.iter().map(Vec::len).sum();
        if count == 0 {
            return Ok(());
        }
        let batch = Arc::new(batch);
        let groups = batch.clone();
        let changed = self.committer.run_own(Rank::Own, CHANGED_BYTES * count, move |tx| {
            groups.iter().try_fold(0, |all, group| Ok(all + chunks::recode(tx, group)?))
        })?;
        self.reduction_counters.recoded.fetch_add(changed as u64, Ordering::Relaxed);
        let snapshot: Snapshot = self.committer.meta.snapshot();
        let mut reducer = self.reducer();
        for Recoded { id, new, .. } in batch.iter().flatten() {
            if chunks::chunk(&snapshot, *id)?.as_ref() == Some(new) {
                reducer.refer(new, *id, new.bases.first().copied().unwrap_or(*id));
            }
        }
        Ok(())
    }
}
