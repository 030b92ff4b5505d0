//! What the reducer knows from step to step: the index, how long ago what was written, and where it looks next. `draft` is one step's work.
//!
//! Invariants: a chunk shared or referred to was seen in the draft's snapshot with its whole fingerprint, or is the draft's own; a reference is a
//! full chunk; the index holds hints only, so a draft that is never committed leaves nothing wrong behind. One draft at a time.

pub(super) mod draft;

use super::Core;
use super::ages::Ages;
use super::deepen::Cold;
use super::reduce::Step;
use super::reduction_counters::{ReductionCounters, add};
use crate::element::chunks;
use crate::element::rows::ChunkRow;
use crate::element::{Rows, keys};
use crate::error::{Error, Result};
use crate::reduction::Mode;
use crate::reduction::choose::Neighbour;
use crate::reduction::encode::Encoder;
use crate::reduction::gear::{CHUNK_BYTES_MIN, Gear};
use crate::reduction::hooks::{Hooks, PAGES_MAX};
use crate::reduction::page::{self, PAGE_ENTRIES, PageEntry};
use crate::reduction::page_cache::{PageCache, Slot};
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

/// Pages that one chunk may make the reducer load.
const PAGE_LOADS_MAX: usize = 4;
/// Pages whose hooks one step reads back after a start.
const HOOKED_PAGES_STEP: usize = 4096;
/// Deltas and extents that may depend on one chunk before it is no reference any more: what its damage would take along.
const DEPENDENTS_MAX: i64 = 1000;

/// How content is reduced, and what the index may take.
#[derive(Debug, Clone, Copy)]
pub struct ReductionSettings {
    pub mode: Mode,
    pub hook_bytes_max: usize,
    pub pages_cached: usize,
    /// Content that was written so long ago is encoded deeper while nobody works; None: never.
    pub cold_after: Option<Duration>,
}

/// Of what tells the hot from the rest.
const AGES_SPACING: Duration = Duration::from_secs(1);
/// When content is cold unless the operator says otherwise.
const COLD_AFTER: Duration = Duration::from_secs(30 * 24 * 3600);

impl Default for ReductionSettings {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            hook_bytes_max: crate::reduction::hooks::HOOK_BYTES_MAX,
            pages_cached: crate::reduction::page_cache::PAGES_CACHED,
            cold_after: Some(COLD_AFTER),
        }
    }
}

pub(super) struct Reducer {
    gear: Gear,
    encoder: Encoder,
    hooks: Hooks,
    pages: PageCache,
    /// Up to which page the hooks were read back; None: all of them.
    hooked: Option<u32>,
    /// Number of the next page; known once a step looked.
    page_next: Option<u32>,
    /// The page that takes the next chunks.
    open: Option<(u32, Vec<PageEntry>)>,
    raw_floor: u64,
    /// Extents that could not be read.
    skipped: HashSet<u64>,
    /// For the chunks of a draft: leasing some waits for the writer, which a draft must not.
    ids: VecDeque<u64>,
    pub ages: Ages,
    pub cold: Cold,
    /// References that were not worth replacing when they were looked at last.
    pub kept: HashSet<u64>,
}

impl Reducer {
    pub fn new(secret: &[u8; 32], settings: ReductionSettings) -> Self {
        Self {
            gear: Gear::keyed(secret),
            encoder: Encoder::default(),
            hooks: Hooks::new(settings.hook_bytes_max),
            pages: PageCache::new(settings.pages_cached),
            hooked: Some(0),
            page_next: None,
            open: None,
            raw_floor: 0,
            skipped: HashSet::new(),
            ids: VecDeque::new(),
            ages: Ages::every(AGES_SPACING),
            cold: Cold::new(settings.cold_after),
            kept: HashSet::new(),
        }
    }

    /// Where the search for landed extents begins: past the deleted rows of those that were moved.
    pub fn raw_floor(&mut self) -> &mut u64 {
        &mut self.raw_floor
    }

    pub fn skip(&mut self, extent: u64) {
        self.skipped.insert(extent);
    }

    /// Makes sure of as many ids as a draft of this may take.
    pub fn lease(&mut self, core: &Core, step: &Step) -> Result<()> {
        let extents = step.streams.iter().flat_map(|stream| &stream.extents);
        let chunks: usize = extents.map(|taken| taken.plain.len() / CHUNK_BYTES_MIN + 2).sum();
        // A chunk and an extent each.
        let needed = chunks + 2 * step.blocks.len();
        while self.ids.len() < needed {
            self.ids.push_back(core.staged_id()?);
        }
        Ok(())
    }

    fn take_id(&mut self) -> Result<u64> {
        self.ids.pop_front().ok_or_else(|| Error::Limit("ids of a draft".into()))
    }

    /// Similar chunks are to refer to another one from now on than what a page in memory says.
    pub fn refer(&mut self, row: &ChunkRow, chunk: u64, reference: u64) {
        if let Some((number, entries)) = &mut self.open
            && *number == row.page
            && let Some(entry) = entries.get_mut(usize::from(row.slot)).filter(|entry| entry.chunk == chunk)
        {
            entry.reference = reference;
        }
        self.pages.refer(row.page, row.slot, chunk, reference);
    }

    pub fn is_skipped(&self, extent: u64) -> bool {
        self.skipped.contains(&extent)
    }

    /// A part of what a start has to read back; the rest with the next steps. Older pages come first, so that newer ones stand before them.
    fn read_hooks(&mut self, rows: &dyn Rows) -> Result<()> {
        let Some(after) = self.hooked else { return Ok(()) };
        let (_, to) = keys::table(keys::PAGE);
        let (mut count, mut last) = (0, after);
        for row in rows.range(&keys::page(after + 1), &to, false).take(HOOKED_PAGES_STEP) {
            let (key, value) = row?;
            last = keys::id_of(&key) as u32;
            count += 1;
            for entry in chunks::decode_page(&value)? {
                page::hooks(&entry, false).for_each(|hash| self.hooks.insert(hash, last));
            }
        }
        self.hooked = (count == HOOKED_PAGES_STEP).then_some(last);
        Ok(())
    }

    fn next_page(&mut self, rows: &dyn Rows) -> Result<u32> {
        let next = match self.page_next {
            Some(next) => next,
            None => {
                let (from, to) = keys::table(keys::PAGE);
                let last = rows.range(&from, &to, true).next().transpose()?;
                last.map_or(1, |(key, _)| keys::id_of(&key) as u32 + 1)
            }
        };
        self.page_next = Some(next + 1);
        Ok(next)
    }

    /// Adds a chunk to the open page and to the index; None once no page can be numbered.
    fn enlist(&mut self, rows: &dyn Rows, entry: PageEntry, first: bool) -> Result<Option<Slot>> {
        if self.open.as_ref().is_none_or(|(_, entries)| entries.len() == PAGE_ENTRIES) {
            let number = self.next_page(rows)?;
            if number >= PAGES_MAX {
                return Ok(None);
            }
            self.pages.insert(number, Vec::new());
            self.open = Some((number, Vec::with_capacity(PAGE_ENTRIES)));
        }
        let Some((number, entries)) = &mut self.open else { return Ok(None) };
        let slot = Slot {
            page: *number,
            index: entries.len() as u8,
        };
        page::hooks(&entry, first).for_each(|hash| self.hooks.insert(hash, slot.page));
        entries.push(entry.clone());
        if self.pages.contains(slot.page) {
            self.pages.append(slot.page, entry);
        } else {
            self.pages.insert(slot.page, entries.clone());
        }
        Ok(Some(slot))
    }

    /// Where the chunk stands that came after that one.
    fn after(&self, chunk: u64) -> Option<Slot> {
        Some(self.following(self.pages.slot_of(chunk)?))
    }

    fn following(&self, slot: Slot) -> Slot {
        let next = Slot {
            index: slot.index.saturating_add(1),
            ..slot
        };
        let over = Slot {
            page: slot.page.saturating_add(1),
            index: 0,
        };
        if self.pages.entry(next).is_some() { next } else { over }
    }

    fn neighbour(&self, slot: Slot) -> Option<Neighbour> {
        let entry = self.pages.entry(slot)?;
        Some(Neighbour {
            id: entry.reference,
            features: entry.features?,
        })
    }

    fn load(&mut self, rows: &dyn Rows, number: u32, counters: &ReductionCounters) -> Result<()> {
        if self.pages.contains(number) {
            self.pages.touch(number);
        } else if let Some(entries) = chunks::page(rows, number)? {
            add(&counters.page_loads, 1);
            self.pages.insert(number, entries);
        }
        Ok(())
    }
}
