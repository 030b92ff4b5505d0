//! Every count in the metadata recomputed from scratch. Reads all rows; memory grows with their number.

use super::content;
use super::rows::{ChunkRow, EXTENT_BYTES_MAX, ElementRow, EntryRow, ExtentRow, Kind, MappingRow, PartRow, Placement, VersionRow};
use super::{Rows, aside, keys, namespace, path};
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

/// All that is wrong with one state; empty when all is well.
pub fn check(rows: &dyn Rows) -> Result<Findings> {
    let mut findings = Findings::default();
    let elements = check_tree(rows, &mut findings)?;
    let references = check_mappings(rows, &elements, &mut findings)?;
    check_holes(rows, &mut findings)?;
    let (chunks, mut live) = check_extents(rows, &references, &mut findings)?;
    check_chunks(rows, &chunks, &mut live, &mut findings)?;
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
fn check_entries(rows: &dyn Rows, findings: &mut Findings) -> Result<(HashMap<u64, Named>, HashMap<u64, u32>)> {
    let (mut named, mut directories): (HashMap<u64, Named>, HashMap<u64, u32>) = Default::default();
    let mut cookies = HashSet::new();
    scan(rows, keys::ENTRY, |key, value| {
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
        if rows.get(&cookie)?.as_deref() != Some(name) || !cookies.insert(cookie) {
            findings.add(format!("the cookie of a name in {parent} leads elsewhere"));
        }
        Ok(())
    })?;
    check_aside(rows, findings)?;
    scan(rows, keys::COOKIE, |key, _| {
        if !cookies.contains(key) {
            findings.add(format!("a cookie of {} leads to no name", keys::id_of(key)));
        }
        Ok(())
    })?;
    Ok((named, directories))
}

/// What has no path among files is listed so, and nothing else.
fn check_aside(rows: &dyn Rows, findings: &mut Findings) -> Result<()> {
    let mut listed = HashMap::new();
    scan(rows, keys::ASIDE, |key, value| {
        let cookie = keys::offset_of(key);
        if cookie != 0 {
            listed.insert(cookie, (keys::id_of(key), value.to_vec()));
        }
        Ok(())
    })?;
    scan(rows, keys::ENTRY, |key, value| {
        let (directory, name, entry) = (keys::id_of(key), &key[9..], EntryRow::decode(value)?);
        let above = path::element(rows, directory)?;
        if entry.kind == Kind::Directory {
            let aside = directory != keys::ROOT && (above.aside || aside::is_misfit(&above, name));
            if path::element(rows, entry.element)?.aside != aside {
                findings.add(format!("directory {} does not know whether files reach it", entry.element));
            }
        } else if aside::is_aside(rows, directory, &above, name)? {
            let expected = (path::key_of(rows, directory, name)?.0, [&directory.to_be_bytes(), name].concat());
            if listed.remove(&entry.cookie) != Some(expected) {
                findings.add(format!("element {} has no path and is not listed so", entry.element));
            }
        }
        Ok(())
    })?;
    for (_, (view, _)) in listed {
        findings.add(format!("view {view} lists an entry without a path that is not there or has one"));
    }
    Ok(())
}

/// Files by id with their size; what has no name yet or any more has none.
fn check_tree(rows: &dyn Rows, findings: &mut Findings) -> Result<BTreeMap<u64, Option<u64>>> {
    let (mut named, mut directories) = check_entries(rows, findings)?;
    named.entry(keys::ROOT).or_default().kinds.insert(Kind::Directory);
    let versions = check_versions(rows, findings)?;
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
    let mut files = BTreeMap::new();
    scan(rows, keys::ELEMENT, |key, value| {
        let (id, row) = (keys::id_of(key), ElementRow::decode(value)?);
        let names = named.remove(&id).unwrap_or_default();
        let is_orphan = orphans.remove(&id);
        if names.links == 0 && id != keys::ROOT && !is_orphan || names.kinds.iter().any(|kind| *kind != row.kind) {
            findings.add(format!("element {id} has no name of its kind"));
        }
        let links = match row.kind {
            Kind::Directory if is_orphan => 0,
            Kind::Directory => 2 + directories.remove(&id).unwrap_or(0),
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
        .filter(|id| **id != keys::ROOT)
        .for_each(|id| findings.add(format!("element {id} is named and has no row")));
    directories
        .keys()
        .for_each(|id| findings.add(format!("entries lie in {id}, which is no directory")));
    orphans
        .iter()
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
fn check_versions(rows: &dyn Rows, findings: &mut Findings) -> Result<HashMap<u64, u64>> {
    let (mut kept, mut last) = (HashMap::new(), Vec::new());
    let mut has_null = false;
    scan(rows, keys::VERSION, |row_key, value| {
        let (view, row) = (keys::id_of(row_key), VersionRow::decode(value)?);
        let Some((key, sequence)) = keys::version_of(row_key) else {
            findings.add("a version's key is short".into());
            return Ok(());
        };
        let of_key = keys::versions(view, key);
        let shown = String::from_utf8_lossy(key);
        if of_key != last {
            has_null = false;
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

/// Whoever copied content that was assembled piece by piece does not know of its holes, and counts none.
fn check_holes(rows: &dyn Rows, findings: &mut Findings) -> Result<()> {
    scan(rows, keys::ELEMENT, |key, value| {
        let (id, row) = (keys::id_of(key), ElementRow::decode(value)?);
        if row.holes > 0 {
            let runs = content::runs(rows, id, 0, u64::MAX, usize::MAX)?;
            let mapped: u64 = runs.iter().map(|run| u64::from(run.length)).sum();
            if mapped + row.holes != row.size {
                findings.add(format!(
                    "{mapped} of {} bytes of {id} are mapped, and {} are holes",
                    row.size, row.holes
                ));
            }
        }
        Ok(())
    })
}

/// References to each extent.
fn check_mappings(rows: &dyn Rows, files: &BTreeMap<u64, Option<u64>>, findings: &mut Findings) -> Result<Counts> {
    let (mut references, mut last) = (Counts::new(), (0, 0));
    scan(rows, keys::MAPPING, |key, value| {
        let (element, offset, row) = (keys::id_of(key), keys::offset_of(key), MappingRow::decode(value)?);
        let end = offset + u64::from(row.length);
        match files.get(&element) {
            None => findings.add(format!("mappings of {element}, which is nothing")),
            Some(Some(size)) if end > *size => findings.add(format!("a mapping of {element} ends at {end}, past its size {size}")),
            _ => {}
        }
        if last.0 == element && last.1 > offset {
            findings.add(format!("mappings of {element} overlap at {offset}"));
        }
        if row.length as usize > EXTENT_BYTES_MAX {
            findings.add(format!("a mapping of {element} at {offset} is longer than an extent"));
        }
        last = (element, end);
        *references.entry(row.extent).or_default() += 1;
        Ok(())
    })?;
    Ok(references)
}

/// References to each chunk, and live bytes of each segment so far.
fn check_extents(rows: &dyn Rows, references: &Counts, findings: &mut Findings) -> Result<(Counts, Counts)> {
    let shares = counters(rows, keys::EXTENT_SHARES)?;
    let (mut counted, mut chunks, mut live) = (Counts::new(), Counts::new(), Counts::new());
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
                list.iter().for_each(|(chunk, _)| *chunks.entry(*chunk).or_default() += 1);
                if list.iter().map(|(_, length)| u64::from(*length)).sum::<u64>() != u64::from(row.length) {
                    findings.add(format!("the chunks of extent {id} are not its length"));
                }
            }
        }
        Ok(())
    })?;
    compare(references, &counted, "references to extent", findings);
    scan(rows, keys::LANDED_JOURNAL, |key, _| {
        if !landed.remove(key) {
            findings.add(format!("nothing is landed at {}", keys::id_of(key)));
        }
        Ok(())
    })?;
    landed
        .iter()
        .for_each(|key| findings.add(format!("what is landed at {} is not listed", keys::id_of(key))));
    scan(rows, keys::LANDED_RAW, |key, _| {
        if !counted.contains_key(&keys::id_of(key)) {
            findings.add(format!("landed extent {} does not exist", keys::id_of(key)));
        }
        Ok(())
    })?;
    Ok((chunks, live))
}

fn check_chunks(rows: &dyn Rows, references: &Counts, live: &mut Counts, findings: &mut Findings) -> Result<()> {
    let shares = counters(rows, keys::CHUNK_SHARES)?;
    let mut counted = Counts::new();
    scan(rows, keys::CHUNK, |key, value| {
        let (id, row) = (keys::id_of(key), ChunkRow::decode(value)?);
        counted.insert(id, 1 + shares.get(&id).copied().unwrap_or(0));
        *live.entry(row.location.segment).or_default() += row.location.footprint() as i64;
        Ok(())
    })?;
    compare(references, &counted, "references to chunk", findings);
    Ok(())
}
