//! Carrying the metadata tree to the pool's devices and back.
//!
//! A tree is a set of immutable table files and two small ones that list them. `export` hands out the tables that the previous checkpoint does not
//! have; `restore` makes a state directory equal to a manifest, whatever was in it before.
//!
//! Invariants: a manifest names every file of the tree, each with length and checksum, and the tables hold exactly the transactions up to `sequence`: replay starts
//! after it. A manifest never outruns the journal: `export` returns it only after the sink confirmed that all of them are durable.
//! The state directory is trusted for nothing: each file is read and compared before the tree is opened.
//!
//! Never touches anything in the state directory outside its own folder (`folder`), and deletes what it does not know inside. Each start gives the folder
//! another name: a tree deletes tables by path when their last reader lets go, and a closed one that somebody still holds must not reach its successor's.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::Xxh3;

use crate::codec::{Reader, Writer, checksum};
use crate::error::{Error, Result};

use super::lsm::{Files, LsmEngine, LsmSettings};

const FOLDER: &str = "metadata-tree-";
/// Of engines, by this process: no other has this state directory meanwhile.
static STARTS: AtomicU64 = AtomicU64::new(0);
const TABLES: &str = "tables";
pub const TABLES_MAX: usize = 1 << 20;
pub const SMALL_FILES_MAX: usize = 16;
pub const SMALL_FILE_BYTES_MAX: usize = 16 << 20;
/// What a table costs the root besides its bytes: a count of locations.
pub const PIECES_BYTES_MAX: usize = 64 << 10;
const NAME_BYTES_MAX: usize = 32;
const COPY_BYTES: usize = 256 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    pub length: u64,
    pub checksum: u64,
    /// Where the sink put it; opaque here.
    pub pieces: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmallFile {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// The default is the empty tree of a new pool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    pub sequence: u64,
    pub tables: Vec<Table>,
    pub small: Vec<SmallFile>,
}

pub trait TableSink {
    /// Return once the journal durably holds every transaction up to `sequence`, the newest applied when the export began. It must not need the end of
    /// this export for that: a writer makes sure of room in the journal before it applies.
    fn wait_durable(&self, sequence: u64) -> Result<()>;

    /// Store a table's bytes, durable before the manifest is used; returns where, as bytes that `TableSource` understands (at most `PIECES_BYTES_MAX`).
    fn write_table(&self, name: &str, length: u64, bytes: &mut dyn Read) -> Result<Vec<u8>>;
}

pub trait TableSource {
    /// Write all of the table's bytes to `out`.
    fn read_table(&self, table: &Table, out: &mut dyn Write) -> Result<()>;
}

/// Flush the tree and bring `previous` (the manifest that the engine was restored from or that the last export returned) up to date. For the maintenance
/// thread: flushing and compaction wait meanwhile, applying and reading do not. Space of tables that are in `previous` and not in the result is free once the result is stored.
pub fn export(engine: &LsmEngine, previous: &Manifest, sink: &dyn TableSink) -> Result<Manifest> {
    let files = engine.files()?;
    sink.wait_durable(files.sequence)?;
    let known: HashMap<&str, &Table> = previous.tables.iter().map(|table| (table.name.as_str(), table)).collect();
    let mut tables = Vec::with_capacity(files.tables.len());
    for name in &files.tables {
        tables.push(export_table(&files, name, known.get(name.as_str()).copied(), sink)?);
    }
    let mut small = Vec::with_capacity(files.small.len());
    for name in &files.small {
        small.push(SmallFile {
            name: name.clone(),
            bytes: fs::read(files.directory.join(name)).map_err(state_error)?,
        });
    }
    Ok(Manifest {
        sequence: files.sequence,
        tables,
        small,
    })
}

fn export_table(files: &Files<'_>, name: &str, known: Option<&Table>, sink: &dyn TableSink) -> Result<Table> {
    let file = File::open(files.directory.join(name)).map_err(state_error)?;
    let length = file.metadata().map_err(state_error)?.len();
    // Names are numbers that only rise, also over a restart from `previous`, so equal names are equal tables.
    if let Some(known) = known.filter(|known| known.length == length) {
        return Ok(known.clone());
    }
    let mut reader = Checksummed::new(BufReader::with_capacity(COPY_BYTES, file));
    let pieces = sink.write_table(name, length, &mut reader)?;
    if pieces.len() > PIECES_BYTES_MAX {
        return Err(Error::Limit(format!(
            "the places of {name} take {} bytes, more than {PIECES_BYTES_MAX}",
            pieces.len()
        )));
    }
    if reader.length != length {
        return Err(Error::Io(io::Error::other(format!(
            "{} of {length} bytes of {name} were stored",
            reader.length
        ))));
    }
    Ok(Table {
        name: name.to_string(),
        length,
        checksum: reader.hash.digest(),
        pieces,
    })
}

/// Make the state directory equal to the manifest and open the engine on it. No engine may be open on it.
pub fn restore(state: &Path, manifest: &Manifest, source: &dyn TableSource, settings: &LsmSettings) -> Result<LsmEngine> {
    let folder = state.join(format!("{FOLDER}{}", STARTS.fetch_add(1, Ordering::Relaxed)));
    if let Some(last) = self::folder(state)? {
        fs::rename(last, &folder).map_err(state_error)?;
    }
    ensure_directory(&folder)?;
    let small: HashMap<&str, &[u8]> = manifest
        .small
        .iter()
        .map(|file| (file.name.as_str(), file.bytes.as_slice()))
        .collect();
    keep_only(&folder, |name, path| {
        if name == TABLES {
            path.is_dir()
        } else {
            small.get(name).is_some_and(|bytes| holds(path, bytes))
        }
    })?;
    ensure_directory(&folder.join(TABLES))?;
    let tables: HashMap<&str, &Table> = manifest
        .tables
        .iter()
        .filter_map(|table| Some((table.name.split_once('/')?.1, table)))
        .collect();
    keep_only(&folder.join(TABLES), |name, path| {
        tables.get(name).is_some_and(|table| is_intact(path, table))
    })?;
    for table in &manifest.tables {
        fetch_table(&folder.join(&table.name), table, source)?;
    }
    for file in &manifest.small {
        fs::write(folder.join(&file.name), &file.bytes).map_err(state_error)?;
    }
    LsmEngine::open(&folder, manifest.sequence, settings)
}

/// The engine's own folder in the state directory; None before the first start.
pub fn folder(state: &Path) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(state).map_err(state_error)? {
        let entry = entry.map_err(state_error)?;
        if entry.file_name().to_string_lossy().starts_with(FOLDER) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// Create the directory; whatever else has its name goes.
fn ensure_directory(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir()) {
        fs::remove_file(path).map_err(state_error)?;
    }
    fs::create_dir_all(path).map_err(state_error)
}

/// Remove every entry that `keep` does not want.
fn keep_only(folder: &Path, keep: impl Fn(&str, &Path) -> bool) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(state_error)? {
        let entry = entry.map_err(state_error)?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(state_error)?);
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| !kind.is_symlink() && keep(name, &path))
        {
            continue;
        }
        if kind.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        }
        .map_err(state_error)?;
    }
    Ok(())
}

fn holds(path: &Path, bytes: &[u8]) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.len() == bytes.len() as u64)
        && fs::read(path).is_ok_and(|found| found == bytes)
}

/// A file that cannot be read counts as damaged: it is fetched again.
fn is_intact(path: &Path, table: &Table) -> bool {
    let matches = |metadata: fs::Metadata| metadata.is_file() && metadata.len() == table.length;
    path.metadata().is_ok_and(matches) && file_checksum(path).is_ok_and(|found| found == (table.length, table.checksum))
}

fn file_checksum(path: &Path) -> io::Result<(u64, u64)> {
    let mut reader = Checksummed::new(File::open(path)?);
    let mut buffer = vec![0; COPY_BYTES];
    while reader.read(&mut buffer)? > 0 {}
    Ok((reader.length, reader.hash.digest()))
}

fn fetch_table(path: &Path, table: &Table, source: &dyn TableSource) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut out = Checksummed::new(BufWriter::with_capacity(COPY_BYTES, File::create(path).map_err(state_error)?));
    source.read_table(table, &mut out)?;
    out.flush().map_err(state_error)?;
    if out.length != table.length || out.hash.digest() != table.checksum {
        return Err(Error::Damaged(format!(
            "metadata table {} read from the devices differs from its checksum",
            table.name
        )));
    }
    Ok(())
}

/// Says that it was not one of the pool's devices.
pub(super) fn state_error(error: io::Error) -> Error {
    Error::Io(io::Error::new(error.kind(), format!("metadata state directory: {error}")))
}

/// Hashes and counts what passes.
struct Checksummed<T> {
    inner: T,
    hash: Xxh3,
    length: u64,
}

impl<T> Checksummed<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            hash: Xxh3::new(),
            length: 0,
        }
    }

    fn passed(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.length += bytes.len() as u64;
    }
}

impl<T: Read> Read for Checksummed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.passed(&buffer[..count]);
        Ok(count)
    }
}

impl<T: Write> Write for Checksummed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.passed(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl Manifest {
    /// sequence u64 · tables: count varint × (name blob, length varint, checksum u64, pieces blob) · small files: count varint × (name blob, bytes blob) ·
    /// checksum u64 of everything before it.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u64(self.sequence).varint(self.tables.len() as u64);
        for table in &self.tables {
            writer
                .blob(table.name.as_bytes())
                .varint(table.length)
                .u64(table.checksum)
                .blob(&table.pieces);
        }
        writer.varint(self.small.len() as u64);
        for file in &self.small {
            writer.blob(file.name.as_bytes()).blob(&file.bytes);
        }
        let sum = checksum(&writer.bytes);
        writer.u64(sum);
        writer.bytes
    }

    /// The whole of `bytes`. Names are checked to be the tree's own, so that none leads out of its folder.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (body, sum) = bytes.split_last_chunk::<8>().ok_or_else(|| damaged("ends early"))?;
        if checksum(body) != u64::from_le_bytes(*sum) {
            return Err(damaged("fails its checksum"));
        }
        let mut reader = Reader::new(body);
        let sequence = reader.u64()?;
        let tables = decode_list(&mut reader, TABLES_MAX, decode_table)?;
        let small = decode_list(&mut reader, SMALL_FILES_MAX, decode_small)?;
        reader.finish()?;
        let manifest = Self { sequence, tables, small };
        let names = manifest
            .tables
            .iter()
            .map(|table| &table.name)
            .chain(manifest.small.iter().map(|file| &file.name));
        let count = manifest.tables.len() + manifest.small.len();
        if names.collect::<std::collections::HashSet<_>>().len() != count {
            return Err(damaged("names a file twice"));
        }
        Ok(manifest)
    }
}

fn decode_list<T>(reader: &mut Reader<'_>, max: usize, item: impl Fn(&mut Reader<'_>) -> Result<T>) -> Result<Vec<T>> {
    let count = reader.varint()?;
    if count > max as u64 || count > reader.remaining() as u64 {
        return Err(damaged("lists more files than allowed"));
    }
    (0..count).map(|_| item(reader)).collect()
}

fn decode_table(reader: &mut Reader<'_>) -> Result<Table> {
    let name = decode_name(reader, "tables/")?;
    let (length, checksum, pieces) = (reader.varint()?, reader.u64()?, reader.blob()?);
    if pieces.len() > PIECES_BYTES_MAX {
        return Err(damaged("has too many pieces"));
    }
    Ok(Table {
        name,
        length,
        checksum,
        pieces: pieces.to_vec(),
    })
}

fn decode_small(reader: &mut Reader<'_>) -> Result<SmallFile> {
    let mut ahead = *reader;
    let name = match ahead.blob()? {
        b"current" => {
            *reader = ahead;
            "current".to_string()
        }
        _ => decode_name(reader, "v")?,
    };
    let bytes = reader.blob()?;
    if bytes.len() > SMALL_FILE_BYTES_MAX {
        return Err(damaged("has a small file that is not small"));
    }
    Ok(SmallFile {
        name,
        bytes: bytes.to_vec(),
    })
}

/// `prefix`, then a decimal number.
fn decode_name(reader: &mut Reader<'_>, prefix: &str) -> Result<String> {
    let name = reader.blob()?;
    let digits = name.strip_prefix(prefix.as_bytes()).unwrap_or(&[]);
    if name.len() > NAME_BYTES_MAX || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(damaged("names a file that is not the tree's"));
    }
    String::from_utf8(name.to_vec()).map_err(|_| damaged("has a name that is not text"))
}

fn damaged(what: &str) -> Error {
    Error::Damaged(format!("the metadata manifest {what}"))
}
