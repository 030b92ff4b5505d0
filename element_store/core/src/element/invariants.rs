//! Every count in the metadata recomputed from scratch. Reads all rows; memory grows with their number.

use super::history::{TABLES, Versioned, space_of};
use super::rows::{
    ChunkRow, EXTENT_BYTES_MAX, ElementRow, EntryRow, ExtentRow, Kind, LandedRow, MappingRow, PartRow, Placement, VersionRow, born,
    is_tombstone, plain_bytes,
};
use super::space::{Space, Spaces};
use super::{Rows, aside, chunks, content, keys, namespace, path, snapshot_work, snapshots, volumes};
use crate::error::Result;
use crate::meta::decode_counter;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Findings that are listed; more are only counted.
pub const FINDINGS_MAX: usize = 100;

#[derive(Debug, Default)]
pub struct Findings {
    pub sentences: Vec<String>,
    pub count: usize,
}

impl Findings {
    fn add(&mut self, sentence: String) {
        self.count += 1;
        if self.sentences.len() < FINDINGS_MAX {
            self.sentences.push(sentence);
        }
    }
}

type Counts = HashMap<u64, i64>;

fn scan(rows: &dyn Rows, table: u8, mut each: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
    let (from, to) = keys::table(table);
    for row in rows.range(&from, &to, false) {
        let (key, value) = row?;
        each(&key, &value)?;
    }
    Ok(())
}

fn counters(rows: &dyn Rows, table: u8) -> Result<Counts> {
    let mut counts = Counts::new();
    scan(rows, table, |key, value| {
        counts.insert(keys::id_of(key), decode_counter(value)?);
        Ok(())
    })?;
    Ok(counts)
}

/// A state as those see it who use it, with the spaces whose trees can be checked.
struct Seen<'a> {
    rows: Versioned<'a>,
    /// With space 0. A clone of a part only hides what lies around it: of such, rows are counted and names are not.
    whole: Vec<u64>,
}

impl Seen<'_> {
    fn scan(&self, table: u8, mut each: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        for space in &self.whole {
            let (from, to) = keys::space_span(table, *space);
            for row in self.rows.range(&from, &to, false) {
                let (key, value) = row?;
                each(&key, &value)?;
            }
        }
        Ok(())
    }

    fn is_whole(&self, element: u64) -> bool {
        self.whole.contains(&keys::space_of(element))
    }

    /// A clone inside a view: that view's tables know nothing of what it had before.
    fn is_nested(&self, element: u64) -> bool {
        let space = self.rows.spaces.get(keys::space_of(element));
        space.is_some_and(|space| space.row.parent != 0)
    }

    fn is_clone(&self, element: u64) -> bool {
        let space = self.rows.spaces.get(keys::space_of(element));
        space.is_some_and(|space| space.row.origin.is_some())
    }
}

/// All that is wrong with one state; empty when all is well. `raw`: rows as they lie.
pub fn check(raw: &dyn Rows) -> Result<Findings> {
    let mut findings = Findings::default();
    let spaces = Spaces::load(raw)?;
    let whole = spaces.iter().filter(|space| !space.row.is_left && spaces.is_whole(space));
    let seen = Seen {
        whole: std::iter::once(0).chain(whole.map(|space| space.id)).collect(),
        rows: Versioned { raw, spaces: &spaces },
    };
    let elements = check_tree(&seen, &mut findings)?;
    check_contents(&seen, &elements, &mut findings)?;
    let references = check_mappings(&seen, &elements, &mut findings)?;
    check_holes(&seen, &mut findings)?;
    volumes::check(&seen.rows)?.into_iter().for_each(|wrong| findings.add(wrong));
    check_history(raw, &spaces, &mut findings)?;
    let rows = raw;
    let (pieces, mut live) = check_extents(rows, &references, &mut findings)?;
    check_chunks(rows, pieces, &mut live, &mut findings)?;
    let mut segments = HashSet::new();
    scan(rows, keys::SEGMENT, |key, _| {
        segments.insert(keys::id_of(key));
        Ok(())
    })?;
    compare(&live, &counters(rows, keys::SEGMENT_LIVE)?, "live bytes of segment", &mut findings);
    for segment in live.keys().filter(|segment| !segments.contains(segment)) {
        findings.add(format!("segment {segment} is in use and has no row"));
    }
    Ok(findings)
}

fn compare(expected: &Counts, stored: &Counts, what: &str, findings: &mut Findings) {
    let ids: HashSet<&u64> = expected.keys().chain(stored.keys()).collect();
    for id in ids {
        let (expected, stored) = (expected.get(id).copied().unwrap_or(0), stored.get(id).copied().unwrap_or(0));
        if expected != stored {
            findings.add(format!("{what} {id}: {stored} stored, {expected} counted"));
        }
    }
}

/// What entries and versions say of an element.
#[derive(Default)]
struct Named {
    links: u32,
    kinds: HashSet<Kind>,
}

/// Entries, and the cookies that lead back to them.
fn check_entries(seen: &Seen, findings: &mut Findings) -> Result<(HashMap<u64, Named>, HashMap<u64, u32>)> {
    let (mut named, mut directories): (HashMap<u64, Named>, HashMap<u64, u32>) = Default::default();
    let (mut cookies, rows) = (HashSet::new(), &seen.rows);
    seen.scan(keys::ENTRY, |key, value| {
        let (parent, entry) = (keys::id_of(key), EntryRow::decode(value)?);
        let (name, is_directory) = (&key[9..], entry.kind == Kind::Directory);
        *directories.entry(parent).or_default() += u32::from(is_directory);
        let element = named.entry(entry.element).or_default();
        element.links += 1;
        element.kinds.insert(entry.kind);
        if is_directory != name.ends_with(b"/") {
            findings.add(format!("element {} has a name that is not of its kind", entry.element));
        }
        if is_directory {
            let row = path::element(rows, entry.element)?;
            if row.parent != parent || row.detail != name {
                findings.add(format!("directory {} does not know its name", entry.element));
            }
        }
        let cookie = keys::cookie(parent, entry.cookie);
        let led_to = Rows::get(rows, &cookie)?
            .map(|row| plain_bytes(&row).map(<[u8]>::to_vec))
            .transpose()?;
        if led_to.as_deref() != Some(name) || !cookies.insert(cookie) {
            findings.add(format!("the cookie of a name in {parent} leads elsewhere"));
        }
        Ok(())
    })?;
    check_aside(seen, findings)?;
    seen.scan(keys::COOKIE, |key, _| {
        if !cookies.contains(key) {
            findings.add(format!("a cookie of {} leads to no name", keys::id_of(key)));
        }
        Ok(())
    })?;
    Ok((named, directories))
}

/// What has no path among files is listed so, and nothing else.
fn check_aside(seen: &Seen, findings: &mut Findings) -> Result<()> {
    let (mut listed, rows) = (HashMap::new(), &seen.rows);
    seen.scan(keys::ASIDE, |key, value| {
        let (cookie, view) = (keys::ordinal_of(key), keys::id_of(key));
        if cookie != 0 && !seen.is_nested(view) {
            listed.insert((keys::space_of(view), cookie), (view, plain_bytes(value)?.to_vec()));
        }
        Ok(())
    })?;
    seen.scan(keys::ENTRY, |key, value| {
        let (directory, name, entry) = (keys::id_of(key), &key[9..], EntryRow::decode(value)?);
        let above = path::element(rows, directory)?;
        if entry.kind == Kind::Directory {
            let aside = directory != keys::ROOT && (above.aside || aside::is_misfit(&above, name));
            if path::element(rows, entry.element)?.aside != aside {
                findings.add(format!("directory {} does not know whether files reach it", entry.element));
            }
        } else if aside::is_aside(rows, directory, &above, name)? && !seen.is_nested(directory) {
            let expected = (path::key_of(rows, directory, name)?.0, [&directory.to_be_bytes(), name].concat());
            if listed.remove(&(keys::space_of(directory), entry.cookie)) != Some(expected) {
                findings.add(format!("element {} has no path and is not listed so", entry.element));
            }
        }
        Ok(())
    })?;
    let is_there = |value: &[u8]| value.first_chunk::<8>().map_or(0, |id| keys::space_of(u64::from_be_bytes(*id)));
    for (_, (view, _)) in listed
        .into_iter()
        .filter(|(_, (view, value))| is_there(value) == keys::space_of(*view))
    {
        findings.add(format!("view {view} lists an entry without a path that is not there or has one"));
    }
    Ok(())
}

/// Files by id with their size; what has no name yet or any more has none.
fn check_tree(seen: &Seen, findings: &mut Findings) -> Result<BTreeMap<u64, Option<u64>>> {
    let rows = &seen.rows;
    let (mut named, mut directories) = check_entries(seen, findings)?;
    // An image is not named by entries, nor by those seen here what lies in a clone of a part.
    let is_hidden = |space: &&Space| space.row.is_image || !seen.whole.contains(&space.row.parent);
    let whole = seen.rows.spaces.iter().filter(|space| seen.whole.contains(&space.id));
    for space in whole.filter(is_hidden) {
        let root = named.entry(space.row.root).or_default();
        if root.links == 0 {
            root.kinds.insert(path::element(rows, space.row.root)?.kind);
            root.links = 1;
        }
    }
    named.entry(keys::ROOT).or_default().kinds.insert(Kind::Directory);
    let versions = check_versions(seen, findings)?;
    for element in versions.keys() {
        let named = named.entry(*element).or_default();
        named.links += 1;
        named.kinds.insert(Kind::File);
    }
    let mut orphans = HashSet::new();
    scan(rows, keys::ORPHAN, |key, _| {
        orphans.insert(keys::id_of(key));
        Ok(())
    })?;
    let work = snapshot_work::list(rows)?.into_iter();
    let trees: HashSet<u64> = work
        .filter(|work| work.kind == snapshot_work::TREE)
        .map(|work| work.epoch)
        .collect();
    let mut files = BTreeMap::new();
    seen.scan(keys::ELEMENT, |key, value| {
        let (id, row) = (keys::id_of(key), ElementRow::decode(value)?);
        let names = named.remove(&id).unwrap_or_default();
        let is_orphan = orphans.remove(&id) || trees.contains(&id) || row.links == 0 && seen.is_clone(id);
        if names.links == 0 && id != keys::ROOT && !is_orphan || names.kinds.iter().any(|kind| *kind != row.kind) {
            findings.add(format!("element {id} has no name of its kind"));
        }
        let below = directories.remove(&id).unwrap_or(0);
        let links = match row.kind {
            Kind::Directory if is_orphan => 0,
            Kind::Directory => 2 + below,
            _ => names.links,
        };
        if row.links != links {
            findings.add(format!("element {id} counts {} links and has {links}", row.links));
        }
        match row.kind {
            Kind::Directory if row.implicit && !is_orphan && path_is_empty(rows, id) => {
                findings.add(format!("implied directory {id} is empty"));
            }
            Kind::File => {
                if versions.get(&id).is_some_and(|version| *version != row.version) {
                    findings.add(format!("element {id} is kept as another version than it is"));
                }
                files.insert(id, Some(row.size));
            }
            _ => {}
        }
        Ok(())
    })?;
    named
        .keys()
        .filter(|id| **id != keys::ROOT && seen.is_whole(**id))
        .for_each(|id| findings.add(format!("element {id} is named and has no row")));
    directories
        .keys()
        .for_each(|id| findings.add(format!("entries lie in {id}, which is no directory")));
    orphans
        .iter()
        .filter(|id| seen.is_whole(**id))
        .for_each(|id| findings.add(format!("orphan {id} has no row or a name")));
    scan(rows, keys::DETACHED, |key, _| {
        files.entry(keys::id_of(key)).or_insert(None);
        Ok(())
    })?;
    scan(rows, keys::UPLOAD_PART, |_, value| {
        let part = PartRow::decode(value)?;
        if files.insert(part.element, Some(part.size)).is_some() {
            findings.add(format!("part {} has another use", part.element));
        }
        Ok(())
    })?;
    Ok(files)
}

fn path_is_empty(rows: &dyn Rows, directory: u64) -> bool {
    let (from, to) = keys::span(keys::ENTRY, directory);
    rows.range(&from, &to, false).next().is_none()
}

/// The elements that are kept as versions, and as which.
fn check_versions(seen: &Seen, findings: &mut Findings) -> Result<HashMap<u64, u64>> {
    let rows = &seen.rows;
    let (mut kept, mut last) = (HashMap::new(), Vec::new());
    let mut has_null = false;
    seen.scan(keys::VERSION, |row_key, value| {
        let (view, row) = (keys::id_of(row_key), VersionRow::decode(value)?);
        let Some((key, sequence)) = keys::version_of(row_key) else {
            findings.add("a version's key is short".into());
            return Ok(());
        };
        let of_key = keys::versions(view, key);
        let shown = String::from_utf8_lossy(key);
        if of_key != last {
            has_null = false;
            if seen.is_nested(view) {
                last = of_key;
                if row.element != 0 {
                    kept.insert(row.element, row.version);
                }
                return Ok(());
            }
            check_newest(rows, view, key, sequence, &row, findings)?;
        }
        if row.version != 0 && row.version != sequence || row.version == 0 && has_null {
            findings.add(format!("version {sequence} of {shown} in {view} is out of place"));
        }
        has_null |= row.version == 0;
        if row.element != 0 {
            kept.insert(row.element, row.version);
        }
        last = of_key;
        Ok(())
    })?;
    Ok(kept)
}

/// A key names its newest version unless that is a delete marker.
fn check_newest(rows: &dyn Rows, view: u64, key: &[u8], sequence: u64, row: &VersionRow, findings: &mut Findings) -> Result<()> {
    let current = namespace::current(rows, &path::walk(rows, view, key)?)?;
    let is_right = match &current {
        Some((_, current)) => current.version == 0 || current.version > sequence,
        None => row.element == 0,
    };
    if !is_right {
        findings.add(format!(
            "{} in {view} does not name its newest version",
            String::from_utf8_lossy(key)
        ));
    }
    Ok(())
}

fn check_holes(seen: &Seen, findings: &mut Findings) -> Result<()> {
    let rows = &seen.rows;
    seen.scan(keys::ELEMENT, |key, value| {
        let (id, row) = (keys::id_of(key), ElementRow::decode(value)?);
        if row.kind != Kind::File {
            return Ok(());
        }
        let holes = row.holes.saturating_add_signed(-volumes::mapped_since(rows, id, &row)?);
        let runs = content::runs(rows, id, 0, u64::MAX, usize::MAX)?;
        let mapped: u64 = runs.iter().map(|run| u64::from(run.length)).sum();
        if mapped + holes != row.size {
            findings.add(format!("{mapped} of {} bytes of {id} are mapped, and {holes} are holes", row.size));
        }
        Ok(())
    })
}

/// Mappings of what has a size.
fn check_contents(seen: &Seen, files: &BTreeMap<u64, Option<u64>>, findings: &mut Findings) -> Result<()> {
    let mut last = (0, 0);
    seen.scan(keys::MAPPING, |key, value| {
        let (element, run) = (keys::id_of(key), content::run_of(key, value)?);
        let (offset, end) = (run.offset, keys::ordinal_of(key));
        match files.get(&element) {
            // What its origin was giving back, a clone is not.
            None if seen.is_clone(element) => {}
            None => findings.add(format!("mappings of {element}, which is nothing")),
            Some(Some(size)) if end > *size => findings.add(format!("a mapping of {element} ends at {end}, past its size {size}")),
            _ => {}
        }
        // Of what is being given back, the origin's rows show again one by one.
        let is_read = matches!(files.get(&element), Some(Some(_)));
        if is_read && last.0 == element && last.1 > offset {
            findings.add(format!("mappings of {element} overlap at {offset}"));
        }
        if run.length as usize > EXTENT_BYTES_MAX {
            findings.add(format!("a mapping of {element} at {offset} is longer than an extent"));
        }
        last = (element, end);
        Ok(())
    })
}

/// References to each extent, of the living and of history.
fn check_mappings(seen: &Seen, files: &BTreeMap<u64, Option<u64>>, findings: &mut Findings) -> Result<Counts> {
    let mut references = Counts::new();
    let mut count = |value: &[u8]| {
        if !is_tombstone(value) {
            *references.entry(MappingRow::decode(value)?.extent).or_default() += 1;
        }
        Ok(())
    };
    scan(seen.rows.raw, keys::MAPPING, |key, value| {
        let element = keys::id_of(key);
        if seen.is_clone(element) && seen.is_whole(element) && !is_tombstone(value) && !files.contains_key(&element) {
            findings.add(format!("a clone's mappings of {element}, which is nothing"));
        }
        count(value)
    })?;
    scan(seen.rows.raw, keys::HISTORY, |key, value| match key.get(1) {
        Some(&keys::MAPPING) => count(value),
        _ => Ok(()),
    })?;
    Ok(references)
}

/// History is seen by somebody, or about to be freed; it is in a dead list, and nothing else is. Snapshots have their images.
fn check_history(raw: &dyn Rows, spaces: &Spaces, findings: &mut Findings) -> Result<()> {
    let work: HashSet<u64> = snapshot_work::list(raw)?.into_iter().map(|work| work.space).collect();
    let mut dead = HashSet::new();
    scan(raw, keys::DEAD, |key, _| {
        dead.insert(keys::history(keys::dead_of(key), keys::ordinal_of(key)));
        Ok(())
    })?;
    scan(raw, keys::HISTORY, |key, value| {
        let (live, died) = keys::history_of(key).unwrap_or_default();
        let space = space_of(live).and_then(|space| spaces.get(space));
        if !dead.remove(key) {
            findings.add(format!("history of {live:?} is in no dead list"));
        }
        let born = born(value)?;
        if !space.is_some_and(|space| space.is_held(born, died) || work.contains(&space.id)) {
            findings.add(format!("nobody sees the history of {live:?}"));
        }
        Ok(())
    })?;
    dead.iter()
        .for_each(|key| findings.add(format!("a dead list names {key:?}, which is not there")));
    let mut images: HashSet<u64> = spaces.iter().filter(|space| space.row.is_image).map(|space| space.id).collect();
    scan(raw, keys::SNAPSHOT, |key, value| {
        let row = snapshots::SnapshotRow::decode(value)?;
        let image = keys::space_of(row.root);
        if !images.remove(&image) || spaces.get(image).is_none_or(|image| image.row.lineage != keys::id_of(key)) {
            findings.add(format!("a snapshot of lineage {} has no image", keys::id_of(key)));
        }
        Ok(())
    })?;
    images
        .iter()
        .for_each(|image| findings.add(format!("image {image} has no snapshot")));
    for space in spaces.iter() {
        if space.row.is_left && !work.contains(&space.id) {
            findings.add(format!("nothing leads to space {}, and nobody drops it", space.id));
        }
        if space.row.origin.is_some_and(|origin| spaces.get(origin.space).is_none()) {
            findings.add(format!("the origin of space {} is gone", space.id));
        }
    }
    for table in TABLES {
        scan(raw, table, |key, _| {
            if space_of(key).is_some_and(|space| spaces.get(space).is_none()) {
                findings.add(format!("a row of element {} lies in no space", keys::id_of(key)));
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// By chunk: the pieces that name it, and how far into it they reach.
type Pieces = HashMap<u64, (i64, u64)>;

/// Pieces, and live bytes of each segment so far.
fn check_extents(rows: &dyn Rows, references: &Counts, findings: &mut Findings) -> Result<(Pieces, Counts)> {
    let shares = counters(rows, keys::EXTENT_SHARES)?;
    let (mut counted, mut pieces, mut live) = (Counts::new(), Pieces::new(), Counts::new());
    let mut landed: HashSet<Vec<u8>> = HashSet::new();
    scan(rows, keys::EXTENT, |key, value| {
        let (id, row) = (keys::id_of(key), ExtentRow::decode(value)?);
        counted.insert(id, 1 + shares.get(&id).copied().unwrap_or(0));
        match &row.placement {
            Placement::Journal { position, .. } => {
                landed.insert(keys::landed_journal(*position));
            }
            Placement::Raw { location, .. } => *live.entry(location.segment).or_default() += location.footprint() as i64,
            Placement::Chunks(list) => {
                for piece in list.iter().filter(|piece| piece.chunk != 0) {
                    let (count, end) = pieces.entry(piece.chunk).or_default();
                    *count += 1;
                    *end = (*end).max(u64::from(piece.skip) + u64::from(piece.length));
                }
                if list.iter().map(|piece| u64::from(piece.length)).sum::<u64>() != u64::from(row.length) {
                    findings.add(format!("the chunks of extent {id} are not its length"));
                }
            }
        }
        Ok(())
    })?;
    compare(references, &counted, "references to extent", findings);
    scan(rows, keys::LANDED_JOURNAL, |key, value| {
        if !landed.remove(key) || !counted.contains_key(&LandedRow::decode(value)?.extent) {
            findings.add(format!("nothing is landed at {}", keys::id_of(key)));
        }
        Ok(())
    })?;
    landed
        .iter()
        .for_each(|key| findings.add(format!("what is landed at {} is not listed", keys::id_of(key))));
    scan(rows, keys::LANDED_RAW, |key, value| {
        let id = LandedRow::decode(value)?.extent;
        if id != keys::id_of(key) || !counted.contains_key(&id) {
            findings.add(format!("landed extent {} does not exist", keys::id_of(key)));
        }
        Ok(())
    })?;
    Ok((pieces, live))
}

/// Chunks against the pieces and deltas that name them, and against the pages that they are in.
fn check_chunks(rows: &dyn Rows, pieces: Pieces, live: &mut Counts, findings: &mut Findings) -> Result<()> {
    let shares = counters(rows, keys::CHUNK_SHARES)?;
    let (mut counted, mut references, mut in_pages) = (Counts::new(), Counts::new(), Counts::new());
    let mut deltas = HashSet::new();
    scan(rows, keys::CHUNK, |key, value| {
        let (id, row) = (keys::id_of(key), ChunkRow::decode(value)?);
        counted.insert(id, 1 + shares.get(&id).copied().unwrap_or(0));
        *live.entry(row.location.segment).or_default() += row.footprint();
        if pieces.get(&id).is_some_and(|(_, end)| *end > u64::from(row.length)) {
            findings.add(format!("a piece ends past chunk {id}"));
        }
        row.bases.iter().for_each(|base| *references.entry(*base).or_default() += 1);
        if !row.bases.is_empty() {
            deltas.insert(id);
        }
        if row.page != 0 {
            *in_pages.entry(u64::from(row.page)).or_default() += 1;
            let page = chunks::page(rows, row.page)?.unwrap_or_default();
            if page.get(usize::from(row.slot)).is_none_or(|entry| entry.chunk != id) {
                findings.add(format!("chunk {id} is not in its page"));
            }
        }
        Ok(())
    })?;
    for base in references.keys().filter(|base| deltas.contains(base)) {
        findings.add(format!("chunk {base} is a delta and a reference"));
    }
    for (id, (count, _)) in pieces {
        *references.entry(id).or_default() += count;
    }
    compare(&references, &counted, "references to chunk", findings);
    compare(&in_pages, &counters(rows, keys::PAGE_CHUNKS)?, "chunks in page", findings);
    scan(rows, keys::PAGE, |key, _| {
        if !in_pages.contains_key(&keys::id_of(key)) {
            findings.add(format!("page {} of the index has no chunk left", keys::id_of(key)));
        }
        Ok(())
    })
}
