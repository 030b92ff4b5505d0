//! Keys of the metadata store: one table letter, then big-endian fields, so that byte order is the order every scan needs.
//!
//! A directory's name ends in `/` in its entry: walking a tree in entry order is walking S3 keys in UTF-8 order, and `a` and `a/` coexist.

use crate::codec::Writer;
use crate::meta::prefix_end;

/// The element that holds every view root.
pub const ROOT: u64 = 1;

/// An element's number is in the low bits of its id, the space that it lies in above. Two bits on top mark directories that are made up.
pub const NUMBER_BITS: u32 = 42;
pub const NUMBER_MAX: u64 = (1 << NUMBER_BITS) - 1;
/// Spaces of a pool, with the one of the root.
pub const SPACES_MAX: u64 = 1 << 20;

pub type Key = Vec<u8>;

pub const ELEMENT: u8 = b'E';
pub const ENTRY: u8 = b'D';
/// Names of a directory's entries by their cookies.
pub const COOKIE: u8 = b'I';
/// Elements that nothing names any more but somebody has open.
pub const ORPHAN: u8 = b'O';
/// Entries that have no path among files, of a view by their cookies.
pub const ASIDE: u8 = b'A';
/// What keys of a view named before, and delete markers.
pub const VERSION: u8 = b'V';
pub const MAPPING: u8 = b'M';
pub const EXTENT: u8 = b'X';
/// References to an extent beyond the first; absent means one.
pub const EXTENT_SHARES: u8 = b'F';
pub const CHUNK: u8 = b'C';
/// References to a chunk beyond the first; absent means one.
pub const CHUNK_SHARES: u8 = b'G';
/// Pages of the reducer's index.
pub const PAGE: u8 = b'Y';
/// Chunks that are in a page.
pub const PAGE_CHUNKS: u8 = b'W';
pub const PARTS: u8 = b'Q';
pub const UPLOAD: u8 = b'U';
pub const UPLOAD_PART: u8 = b'P';
/// Elements that nothing names any more and whose extents a job gives back.
pub const DETACHED: u8 = b'Z';
/// Extents in the journal, by position: what holds its tail.
pub const LANDED_JOURNAL: u8 = b'J';
/// Extents landed raw in segments, waiting for the reducer.
pub const LANDED_RAW: u8 = b'K';
pub const SEGMENT: u8 = b'S';
/// Live payload bytes of a segment (atomic add).
pub const SEGMENT_LIVE: u8 = b'L';
/// Rows that a snapshot or a clone still sees, by their keys and the epoch in which they died.
pub const HISTORY: u8 = b'H';
/// The same by space and epoch of death.
pub const DEAD: u8 = b'T';
pub const SPACE: u8 = b'w';
/// Snapshots by lineage and name.
pub const SNAPSHOT: u8 = b'y';
/// What a job has to free.
pub const WORK: u8 = b'b';
pub const RECORD: u8 = b'R';
/// Volumes by their ids, and what is kept of each.
pub const VOLUME: u8 = b'B';
pub const COUNTER: u8 = b'N';

pub fn space_of(id: u64) -> u64 {
    (id >> NUMBER_BITS) & (SPACES_MAX - 1)
}

pub fn number_of(id: u64) -> u64 {
    id & NUMBER_MAX
}

/// The element of that number in another space.
pub fn in_space(id: u64, space: u64) -> u64 {
    number_of(id) | space << NUMBER_BITS
}

fn with_u64(table: u8, id: u64) -> Key {
    let mut key = Vec::with_capacity(9);
    key.push(table);
    key.extend_from_slice(&id.to_be_bytes());
    key
}

pub fn element(id: u64) -> Key {
    with_u64(ELEMENT, id)
}

pub fn extent(id: u64) -> Key {
    with_u64(EXTENT, id)
}

pub fn extent_shares(id: u64) -> Key {
    with_u64(EXTENT_SHARES, id)
}

pub fn chunk(id: u64) -> Key {
    with_u64(CHUNK, id)
}

pub fn chunk_shares(id: u64) -> Key {
    with_u64(CHUNK_SHARES, id)
}

pub fn page(number: u32) -> Key {
    with_u64(PAGE, u64::from(number))
}

pub fn page_chunks(number: u32) -> Key {
    with_u64(PAGE_CHUNKS, u64::from(number))
}

pub fn cookie(directory: u64, cookie: u64) -> Key {
    let mut key = with_u64(COOKIE, directory);
    key.extend_from_slice(&cookie.to_be_bytes());
    key
}

/// `cookie` 0: how often the table of the view changed, and when it did last.
pub fn aside(view: u64, cookie: u64) -> Key {
    let mut key = with_u64(ASIDE, view);
    key.extend_from_slice(&cookie.to_be_bytes());
    key
}

pub fn orphan(id: u64) -> Key {
    with_u64(ORPHAN, id)
}

pub fn detached(id: u64) -> Key {
    with_u64(DETACHED, id)
}

pub fn landed_journal(position: u64) -> Key {
    with_u64(LANDED_JOURNAL, position)
}

pub fn landed_raw(extent: u64) -> Key {
    with_u64(LANDED_RAW, extent)
}

pub fn segment(id: u64) -> Key {
    with_u64(SEGMENT, id)
}

pub fn segment_live(id: u64) -> Key {
    with_u64(SEGMENT_LIVE, id)
}

/// `name`: a directory's ends in `/`.
pub fn entry(parent: u64, name: &[u8]) -> Key {
    let mut key = with_u64(ENTRY, parent);
    key.extend_from_slice(name);
    key
}

/// By where the run ends: what covers a byte is the first row past it, so no lookup goes backwards.
pub fn mapping(element: u64, end: u64) -> Key {
    let mut key = with_u64(MAPPING, element);
    key.extend_from_slice(&end.to_be_bytes());
    key
}

/// Rows that are looked through from a place on while they come and go (`meta::hot`): what the keys share of the mappings that end within the same 16 MiB of an
/// element, and of each table that jobs walk from its beginning.
pub fn window(key: &[u8]) -> Option<&[u8]> {
    const MAPPING_BYTES: usize = 1 + 8 + 5;
    match *key.first()? {
        MAPPING => key.get(..MAPPING_BYTES),
        DETACHED | ORPHAN | LANDED_JOURNAL | LANDED_RAW | WORK => key.get(..1),
        _ => None,
    }
}

pub fn parts(element: u64, first: u32) -> Key {
    let mut key = with_u64(PARTS, element);
    key.extend_from_slice(&first.to_be_bytes());
    key
}

/// Uploads of a view sort by key, then by age. Keys hold no NUL.
pub fn upload(view: u64, key_bytes: &[u8], upload: u64) -> Key {
    let mut key = with_u64(UPLOAD, view);
    key.extend_from_slice(key_bytes);
    key.push(0);
    key.extend_from_slice(&upload.to_be_bytes());
    key
}

/// Versions of a view sort by key, then newest first. Keys hold no NUL.
pub fn version(view: u64, key_bytes: &[u8], sequence: u64) -> Key {
    let mut key = versions(view, key_bytes);
    key.extend_from_slice(&(u64::MAX - sequence).to_be_bytes());
    key
}

/// What the keys of all versions of one key begin with.
pub fn versions(view: u64, key_bytes: &[u8]) -> Key {
    let mut key = with_u64(VERSION, view);
    key.extend_from_slice(key_bytes);
    key.push(0);
    key
}

/// The object key and the sequence number in the key of a version's row.
pub fn version_of(key: &[u8]) -> Option<(&[u8], u64)> {
    let (key, sequence) = key.get(9..)?.split_last_chunk::<8>()?;
    let key = key.strip_suffix(&[0])?;
    Some((key, u64::MAX - u64::from_be_bytes(*sequence)))
}

pub fn upload_part(upload: u64, number: u32) -> Key {
    let mut key = with_u64(UPLOAD_PART, upload);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

pub fn space(id: u64) -> Key {
    with_u64(SPACE, id)
}

pub fn snapshot(lineage: u64, name: &str) -> Key {
    let mut key = with_u64(SNAPSHOT, lineage);
    key.extend_from_slice(name.as_bytes());
    key
}

/// Names hold no NUL and all other keys of a table are of one length, so history sorts as the living do, each key's by death.
pub fn history(key_bytes: &[u8], died: u64) -> Key {
    let mut key = Vec::with_capacity(key_bytes.len() + 10);
    key.push(HISTORY);
    key.extend_from_slice(key_bytes);
    key.push(0);
    key.extend_from_slice(&died.to_be_bytes());
    key
}

/// History of one table.
pub fn history_table(table: u8) -> (Key, Key) {
    (vec![HISTORY, table], vec![HISTORY, table + 1])
}

/// The live key and the epoch of death in the key of a row of history.
pub fn history_of(key: &[u8]) -> Option<(&[u8], u64)> {
    let (key, died) = key.get(1..)?.split_last_chunk::<8>()?;
    Some((key.strip_suffix(&[0])?, u64::from_be_bytes(*died)))
}

pub fn dead(space: u64, died: u64, key_bytes: &[u8]) -> Key {
    let mut key = with_u64(DEAD, space);
    key.extend_from_slice(&died.to_be_bytes());
    key.extend_from_slice(key_bytes);
    key
}

/// The live key in the key of a dead list.
pub fn dead_of(key: &[u8]) -> &[u8] {
    key.get(17..).unwrap_or_default()
}

/// What of a table lies in a space.
pub fn space_span(table: u8, space: u64) -> (Key, Key) {
    (with_u64(table, space << NUMBER_BITS), with_u64(table, (space + 1) << NUMBER_BITS))
}

/// `kind` as in `snapshots::Work`.
pub fn work(kind: u8, space: u64, epoch: u64) -> Key {
    let mut key = vec![WORK, kind];
    key.extend_from_slice(&space.to_be_bytes());
    key.extend_from_slice(&epoch.to_be_bytes());
    key
}

pub fn record(kind: &str, name: &str) -> Key {
    let mut key = Writer::new();
    key.u8(RECORD).raw(kind.as_bytes()).u8(0).raw(name.as_bytes());
    key.bytes
}

/// `what`: see `volumes`.
pub fn volume(id: u32, what: u8) -> Key {
    let mut key = vec![VOLUME];
    key.extend_from_slice(&id.to_be_bytes());
    key.push(what);
    key
}

pub fn counter(name: &str) -> Key {
    let mut key = vec![COUNTER];
    key.extend_from_slice(name.as_bytes());
    key
}

/// All keys that begin with `table` and `id`.
pub fn span(table: u8, id: u64) -> (Key, Key) {
    let from = with_u64(table, id);
    let to = prefix_end(&from);
    (from, to)
}

/// The whole of a table.
pub fn table(table: u8) -> (Key, Key) {
    (vec![table], vec![table + 1])
}

/// The id in bytes 1..9 of a key made by this module.
pub fn id_of(key: &[u8]) -> u64 {
    key.get(1..9).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// The number in bytes 9..17: where the run of a mapping's key ends, the cookie of a cookie's.
pub fn ordinal_of(key: &[u8]) -> u64 {
    key.get(9..17).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_like_object_keys_and_newest_first() {
        let keys = [
            version(7, b"a", 9),
            version(7, b"a", 3),
            version(7, b"a\x01", 5),
            version(7, b"a/", 4),
            version(8, b"", 1),
        ];
        assert!(keys.is_sorted());
        assert_eq!(version_of(&keys[0]), Some((&b"a"[..], 9)));
    }

    #[test]
    fn history_sorts_as_the_living_do_and_tells_its_keys() {
        let live = [
            entry(7, b"a"),
            entry(7, b"a\x01"),
            entry(7, b"a\x01\x01\x01\x01\x01\x01\x01\x01\x01"),
            entry(7, b"b"),
            mapping(7, 0),
            mapping(7, 256),
        ];
        let history: Vec<Key> = live.iter().flat_map(|key| [history(key, 3), history(key, 0x101)]).collect();
        assert!(history.is_sorted());
        assert!(
            history
                .iter()
                .zip(live.iter().flat_map(|key| [key, key]))
                .all(|(key, live)| history_of(key).is_some_and(|(key, _)| key == live))
        );
    }

    #[test]
    fn entries_sort_like_object_keys() {
        let names: [&[u8]; 5] = [b"a", b"a-b", b"a.b", b"a/", b"a0"];
        let keys: Vec<Key> = names.iter().map(|name| entry(7, name)).collect();
        assert!(keys.is_sorted());
    }
}
