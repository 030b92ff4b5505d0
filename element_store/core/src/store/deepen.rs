//! Content that grew cold is encoded deeper, once, while nobody works.
//!
//! Chunks are visited in the order of their ids, which is that of their age: a row keeps how far that came, and another which id was the newest when. What would not
//! gain is left where it lies. Invariants: those of `tend`; between two chunks the caller says whether to go on, so foreground work waits for
//! at most one of them.

use super::Core;
use super::ages::Ages;
use super::commit::Rank;
use super::tend::{Changed, STEP_BYTES};
use crate::element::rows::{ChunkRow, Encoding};
use crate::element::{Rows, keys};
use crate::error::Result;
use crate::reduction::Mode;
use crate::reduction::choose::is_compressible;
use crate::reduction::encode::Encoder;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Counter rows: samples of ids, and the chunk that was visited last.
const AGES: &str = "ages";
const DEEPENED: &str = "deepened";
/// Samples of the time after which content is cold.
const SAMPLES: u32 = 32;

/// What is known of the cold.
pub(super) struct Cold {
    after: Option<Duration>,
    ages: Ages,
    /// None until the rows were read.
    reached: Option<u64>,
}

impl Cold {
    pub fn new(after: Option<Duration>) -> Self {
        Self {
            after,
            ages: Ages::every(after.unwrap_or_default() / SAMPLES),
            reached: None,
        }
    }
}

impl Core {
    /// Encodes cold chunks deeper until there are none, or until `goes_on` says no. Returns how many were looked at.
    pub(super) fn deepen(&self, mut goes_on: impl FnMut() -> bool) -> Result<usize> {
        let Some((reached, cold)) = self.cold_chunks()? else { return Ok(0) };
        let (mut encoder, mut changed, mut bytes) = (Encoder::default(), Vec::new(), 0);
        let (mut looked, mut last) = (0, reached);
        let snapshot = self.committer.meta.snapshot();
        for row in snapshot.range(&keys::chunk(reached + 1), &keys::chunk(cold), false) {
            if !goes_on() || bytes >= STEP_BYTES {
                break;
            }
            let (key, value) = row?;
            (last, looked) = (keys::id_of(&key), looked + 1);
            let row = ChunkRow::decode(&value)?;
            bytes += row.length as usize;
            changed.extend(self.deeper(last, row, &mut encoder)?.map(|changed| vec![changed]));
        }
        drop(snapshot);
        if looked == 0 {
            return Ok(0);
        }
        let saved = |changed: &Changed| changed.old.location.length as u64 - changed.bytes.len() as u64;
        let gained: u64 = changed.iter().flatten().map(saved).sum();
        self.recode(changed)?;
        self.reduction_counters.deepened.fetch_add(looked as u64, Ordering::Relaxed);
        self.reduction_counters.deepened_gain.fetch_add(gained, Ordering::Relaxed);
        self.committer.run_own(Rank::Own, 64, move |tx| {
            tx.put(keys::counter(DEEPENED), last.to_le_bytes().to_vec())
        })?;
        self.reducer().cold.reached = Some(last);
        Ok(looked)
    }

    /// Notes how old ids are. Returns the chunk visited last and the first that is not cold; None if there is nothing between them.
    fn cold_chunks(&self) -> Result<Option<(u64, u64)>> {
        let (now, next) = (self.committer.now_ns(), self.committer.shared.ids.next());
        let mut reducer = self.reducer();
        let Some(after) = reducer.cold.after else { return Ok(None) };
        if reducer.cold.reached.is_none() {
            let snapshot = self.committer.meta.snapshot();
            let reached = snapshot.get(&keys::counter(DEEPENED))?;
            let reached = reached.and_then(|value| value.try_into().ok()).map_or(0, u64::from_le_bytes);
            if let Some(ages) = snapshot.get(&keys::counter(AGES))? {
                reducer.cold.ages.read(&ages)?;
            }
            reducer.cold.reached = Some(reached);
        }
        let is_new = reducer.cold.ages.note(now, next);
        let ages = is_new.then(|| reducer.cold.ages.encode());
        let (reached, cold) = (reducer.cold.reached.unwrap_or(0), reducer.cold.ages.older_than(after, now));
        drop(reducer);
        if let Some(ages) = ages {
            self.committer
                .run_own(Rank::Own, 64 + ages.len(), move |tx| tx.put(keys::counter(AGES), ages))?;
        }
        Ok((reached + 1 < cold).then_some((reached, cold)))
    }

    /// None: it would take as much, or is kept as it is.
    fn deeper(&self, id: u64, row: ChunkRow, encoder: &mut Encoder) -> Result<Option<Changed>> {
        if row.encoding == Encoding::Raw {
            return Ok(None);
        }
        let Some(plain) = self.plain_of(id, &row)? else { return Ok(None) };
        let bytes = match row.encoding {
            Encoding::Delta => match self.references_of(&row.bases)? {
                Some(references) => encoder.delta(&plain, &references, Mode::Deep.delta_level())?,
                None => None,
            },
            _ => Some(encoder.plain(&plain, Mode::Deep.plain_level())?),
        };
        let gains = |bytes: &Vec<u8>| is_compressible(bytes.len(), row.location.length as usize);
        Ok(bytes.filter(gains).map(|bytes| Changed {
            id,
            encoding: row.encoding,
            bases: row.bases.clone(),
            old: row.clone(),
            bytes,
        }))
    }
}
